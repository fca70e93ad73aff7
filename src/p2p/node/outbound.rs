//! Requests of ours: what is known of each until it is answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::request_response::OutboundRequestId;
use tokio::sync::oneshot;

use super::queue::Queue;
use crate::p2p::config::P2pConfig;
use crate::p2p::error::P2pError;
use crate::protocol::codec::{Request, Response};

/// Where the answer to a request goes.
pub(super) struct Reply {
    to: oneshot::Sender<Result<Response, P2pError>>,
    sent: Arc<AtomicBool>,
}

/// The other end of a [`Reply`].
pub(super) struct Awaited {
    answer: oneshot::Receiver<Result<Response, P2pError>>,
    sent: Arc<AtomicBool>,
}

impl Reply {
    pub fn new() -> (Self, Awaited) {
        let (to, answer) = oneshot::channel();
        let sent = Arc::new(AtomicBool::new(false));
        (Self { to, sent: Arc::clone(&sent) }, Awaited { answer, sent })
    }

    /// Whether nobody waits any more.
    pub fn is_closed(&self) -> bool {
        self.to.is_closed()
    }

    /// The request is sent from now on.
    pub fn note_sent(&self) {
        self.sent.store(true, Ordering::Release);
    }

    pub fn send(self, outcome: Result<Response, P2pError>) {
        let _ = self.to.send(outcome);
    }
}

impl Awaited {
    /// The answer, until the deadline: after it [`P2pError::Timeout`], or [`P2pError::Busy`] where the request was not
    /// sent.
    pub async fn until(self, deadline: Instant) -> Result<Response, P2pError> {
        match tokio::time::timeout_at(deadline.into(), self.answer).await {
            Ok(answer) => answer.unwrap_or(Err(P2pError::Stopped)),
            Err(_) if self.sent.load(Ordering::Acquire) => Err(P2pError::Timeout),
            Err(_) => Err(P2pError::Busy),
        }
    }
}

/// A request that was not sent yet.
pub(super) struct Waiting {
    pub request: Request,
    /// When its asker gives up.
    pub deadline: Instant,
    pub reply: Reply,
}

impl Waiting {
    /// Whether somebody still waits for the answer.
    pub fn is_wanted(&self, now: Instant) -> bool {
        self.deadline > now && !self.reply.is_closed()
    }
}

/// A request of ours that has no answer yet.
pub(super) struct Pending {
    pub peer: PeerId,
    pub sent: Instant,
    /// When its asker gives up.
    pub deadline: Instant,
    /// Its asker has given it up.
    pub given_up: bool,
    pub reply: Reply,
}

/// What is asked of one peer.
#[derive(Default)]
pub(super) struct Line {
    pub in_flight: usize,
    pub queue: Queue<Waiting>,
}

/// All requests of ours.
pub(super) struct Outbound {
    /// At most so many per peer as its line allows; the codec's deadline, or the behaviour's timeout, ends each.
    pub pending: HashMap<OutboundRequestId, Pending>,
    /// Of the peers with something in flight or in the queue.
    pub lines: HashMap<PeerId, Line>,
    pub waiting: usize,
    pub given_up: usize,
    pub per_peer: usize,
    pub per_node: usize,
    pub hold: Duration,
    /// When the next deadline may have passed.
    pub alarm_at: Option<Instant>,
}

impl Outbound {
    pub fn new(config: &P2pConfig) -> Self {
        Self {
            pending: HashMap::new(),
            lines: HashMap::new(),
            waiting: 0,
            given_up: 0,
            per_peer: config.max_outbound_per_peer,
            per_node: config.node_requests.clamp(1, config.max_outbound_per_peer.max(1)),
            hold: config.hold_given_up,
            alarm_at: None,
        }
    }

    /// Requests in flight, those included that were given up.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Those to one peer.
    pub fn in_flight_to(&self, peer: &PeerId) -> usize {
        self.lines.get(peer).map_or(0, |line| line.in_flight)
    }

    /// Takes everything out of a peer's queue.
    pub fn take_queue(&mut self, peer: &PeerId) -> Vec<Waiting> {
        let Some(line) = self.lines.get_mut(peer) else { return Vec::new() };
        let taken = line.queue.take_unless(|_| false);
        self.waiting -= taken.len();
        if line.in_flight == 0 {
            self.lines.remove(peer);
        }
        taken
    }
}

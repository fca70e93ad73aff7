//! Outbound requests: state of each until it is answered.

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
use crate::protocol::codec::{WireRequest, WireResponse};

/// Sender of the result of a request.
pub(super) struct ReplySender {
    result: oneshot::Sender<Result<WireResponse, P2pError>>,
    sent: Arc<AtomicBool>,
}

/// Receiver of the result of a request.
pub(super) struct ReplyReceiver {
    result: oneshot::Receiver<Result<WireResponse, P2pError>>,
    sent: Arc<AtomicBool>,
}

impl ReplySender {
    pub fn new() -> (Self, ReplyReceiver) {
        let (result, receiver) = oneshot::channel();
        let sent = Arc::new(AtomicBool::new(false));
        (Self { result, sent: Arc::clone(&sent) }, ReplyReceiver { result: receiver, sent })
    }

    /// Whether the caller has dropped the receiver.
    pub fn is_closed(&self) -> bool {
        self.result.is_closed()
    }

    /// Records that the request was sent.
    pub fn note_sent(&self) {
        self.sent.store(true, Ordering::Release);
    }

    pub fn send(self, result: Result<WireResponse, P2pError>) {
        let _ = self.result.send(result);
    }
}

impl ReplyReceiver {
    /// Waits for the result until the deadline.
    ///
    /// # Errors
    /// The request's own; after the deadline [`P2pError::Timeout`], or [`P2pError::Busy`] where it was not sent.
    pub async fn until(self, deadline: Instant) -> Result<WireResponse, P2pError> {
        match tokio::time::timeout_at(deadline.into(), self.result).await {
            Ok(answer) => answer.unwrap_or(Err(P2pError::Stopped)),
            Err(_) if self.sent.load(Ordering::Acquire) => Err(P2pError::Timeout),
            Err(_) => Err(P2pError::Busy),
        }
    }
}

/// A request in the queue.
pub(super) struct QueuedRequest {
    pub request: WireRequest,
    /// Time at which its caller gives up.
    pub deadline: Instant,
    pub reply: ReplySender,
}

impl QueuedRequest {
    /// Whether its caller still waits.
    pub fn is_wanted(&self, now: Instant) -> bool {
        self.deadline > now && !self.reply.is_closed()
    }
}

/// A request in flight.
pub(super) struct PendingRequest {
    pub peer: PeerId,
    pub sent: Instant,
    /// Time at which its caller gives up.
    pub deadline: Instant,
    /// Whether its caller has given up.
    pub abandoned: bool,
    pub reply: ReplySender,
}

/// Requests to one peer.
#[derive(Default)]
pub(super) struct PeerRequests {
    pub in_flight: usize,
    pub queue: Queue<QueuedRequest>,
}

/// All outbound requests.
pub(super) struct OutboundRequests {
    /// Requests in flight, limited per peer. The codec's deadline or the behaviour's timeout ends each.
    pub pending: HashMap<OutboundRequestId, PendingRequest>,
    /// Counts and queues of peers with requests in flight or queued.
    pub by_peer: HashMap<PeerId, PeerRequests>,
    /// Queued requests.
    pub queued: usize,
    /// Abandoned requests in flight.
    pub abandoned: usize,
    /// Limit on requests in flight to a peer that speaks this program's own dialect.
    pub per_peer: usize,
    /// Limit on requests in flight to any other peer.
    pub per_node: usize,
    /// Time for which a request to such a peer stays in flight.
    pub hold: Duration,
    /// Time that the worker's deadline timer is set to.
    pub timer_at: Option<Instant>,
}

impl OutboundRequests {
    pub fn new(config: &P2pConfig) -> Self {
        Self {
            pending: HashMap::new(),
            by_peer: HashMap::new(),
            queued: 0,
            abandoned: 0,
            per_peer: config.max_outbound_per_peer,
            per_node: config.node_requests.clamp(1, config.max_outbound_per_peer.max(1)),
            hold: config.hold_given_up,
            timer_at: None,
        }
    }

    /// Number of requests in flight, abandoned ones included.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Number of requests in flight to one peer.
    pub fn in_flight_to(&self, peer: &PeerId) -> usize {
        self.by_peer.get(peer).map_or(0, |requests| requests.in_flight)
    }

    /// Empties the queue of a peer.
    pub fn take_queue(&mut self, peer: &PeerId) -> Vec<QueuedRequest> {
        let Some(requests) = self.by_peer.get_mut(peer) else { return Vec::new() };
        let taken = requests.queue.take_unless(|_| false);
        self.queued -= taken.len();
        if requests.in_flight == 0 {
            self.by_peer.remove(peer);
        }
        taken
    }
}

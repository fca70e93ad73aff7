//! Outbound requests: queued, in flight, or abandoned.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::request_response::OutboundRequestId;
use tokio::sync::oneshot;

use super::queue::Queue;
use crate::p2p::config::P2pConfig;
use crate::p2p::error::P2pError;
use crate::protocol::codec::{WireRequest, WireResponse};

/// Sender of the result of a request to its caller.
pub(super) type Reply = oneshot::Sender<Result<WireResponse, P2pError>>;

/// A request in the queue.
pub(super) struct QueuedRequest {
    pub request: WireRequest,
    /// Time at which it fails with [`P2pError::Busy`].
    pub deadline: Instant,
    pub reply: Reply,
}

impl QueuedRequest {
    /// Whether its caller still waits.
    pub fn is_wanted(&self, now: Instant) -> bool {
        self.deadline > now && !self.reply.is_closed()
    }

    pub fn fail(self, error: P2pError) {
        // An error here means that the caller has gone.
        let _ = self.reply.send(Err(error));
    }
}

/// A request in flight.
pub(super) struct PendingRequest {
    pub peer: PeerId,
    pub sent: Instant,
    /// Time at which it is abandoned.
    pub deadline: Instant,
    /// `None` once it is abandoned.
    pub reply: Option<Reply>,
}

impl PendingRequest {
    /// Whether its caller has received the timeout.
    pub fn is_abandoned(&self) -> bool {
        self.reply.is_none()
    }
}

/// All outbound requests.
pub(super) struct OutboundRequests {
    /// Requests in flight, limited per peer. The codec's deadline or the behaviour's timeout ends each.
    pub pending: HashMap<OutboundRequestId, PendingRequest>,
    /// Queued requests by peer.
    pub queues: HashMap<PeerId, Queue<QueuedRequest>>,
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
            queues: HashMap::new(),
            per_peer: config.max_outbound_per_peer,
            per_node: config.node_requests.clamp(1, config.max_outbound_per_peer.max(1)),
            hold: config.hold_given_up,
            timer_at: None,
        }
    }

    /// Number of requests in flight to one peer, abandoned ones included.
    pub fn in_flight_to(&self, peer: &PeerId) -> usize {
        self.pending.values().filter(|pending| pending.peer == *peer).count()
    }

    /// Fails all queued requests to a peer.
    pub fn fail_queued(&mut self, peer: &PeerId, error: &P2pError) {
        if let Some(mut queue) = self.queues.remove(peer) {
            queue.take_unless(|_| false).into_iter().for_each(|queued| queued.fail(error.clone()));
        }
    }
}

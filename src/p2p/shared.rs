//! State shared between the worker and its clients: peer book, listen addresses and statistics.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use libp2p::{Multiaddr, PeerId};
use tokio::sync::{Notify, mpsc, watch};

use super::behaviour::gossip::Gossip;
use super::error::Refusal;
use super::peers::PeerBook;
use crate::telemetry::Durations;

/// Counters of inbound requests since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InboundStats {
    /// Requests read.
    pub requests: u64,
    /// Answers handed to the connection.
    pub answered: u64,
    /// Requests answered `busy`: over a limit on number or memory.
    pub dropped: u64,
    /// Requests answered `rate_limited`.
    pub rate_limited: u64,
    /// Requests whose answer was not sent: timeout, lost connection, too large, or a panic in the responder.
    pub failed: u64,
}

/// State of the libp2p endpoint: connections, requests in flight and queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointStats {
    /// Established incoming connections.
    pub connections_in: u64,
    /// Established outgoing connections.
    pub connections_out: u64,
    /// Incoming connections that were established since the start.
    pub established_in: u64,
    /// Outgoing connections that were established since the start.
    pub established_out: u64,
    /// Pending incoming connections.
    pub pending_in: u64,
    /// Pending outgoing connections.
    pub dials: u64,
    /// Connections and dials refused since the start, by reason; `memory` counts disconnected untrusted peers as well.
    pub refused: Vec<(&'static str, u64)>,
    /// Inbound requests in flight.
    pub inbound: u64,
    /// Inbound requests that wait for a limit.
    pub inbound_waiting: u64,
    /// Inbound requests that had to wait, since the start.
    pub delayed: u64,
    /// Memory of the inbound requests in flight and their answers, in bytes.
    pub answer_bytes: u64,
    /// Outbound requests in flight, abandoned ones included.
    pub outbound: u64,
    /// Abandoned outbound requests in flight: no caller waits for the answer.
    pub outbound_given_up: u64,
    /// Queued outbound requests.
    pub outbound_waiting: u64,
    /// Gossip messages in the receiver's queue.
    pub gossip_queue: u64,
    /// Most gossip messages in that queue.
    pub gossip_limit: u64,
    /// Commands in the worker's queue.
    pub command_queue: u64,
    /// Most commands in that queue.
    pub command_limit: u64,
}

/// Counters of gossip since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GossipStats {
    /// Distinct messages received.
    pub received: u64,
    /// Received messages dropped: the queue was full, or their sender is shunned or over its rate limit.
    pub dropped: u64,
    /// Messages published by this node.
    pub published: u64,
}

/// Statistics that the worker keeps.
pub(super) struct Stats {
    pub inbound: InboundStats,
    pub endpoint: EndpointStats,
    pub gossip: GossipStats,
}

impl Stats {
    pub fn new() -> Self {
        let refused = Refusal::ALL.map(|reason| (reason.as_str(), 0)).into();
        let endpoint = EndpointStats { refused, ..EndpointStats::default() };
        Self { inbound: InboundStats::default(), endpoint, gossip: GossipStats::default() }
    }

    pub fn count_connection(&mut self, outgoing: bool) {
        let EndpointStats { established_in, established_out, .. } = &mut self.endpoint;
        *(if outgoing { established_out } else { established_in }) += 1;
    }

    pub fn count_refusal(&mut self, refusal: Refusal) {
        let counts = &mut self.endpoint.refused;
        if let Some((_, count)) = counts.iter_mut().find(|(reason, _)| *reason == refusal.as_str()) {
            *count += 1;
        }
    }
}

/// State that the worker writes and clients read, without a round trip through the worker.
pub(super) struct Shared {
    /// Id of this node.
    pub local: PeerId,
    pub book: RwLock<PeerBook>,
    pub listen: watch::Sender<Vec<Multiaddr>>,
    pub stats: Mutex<Stats>,
    /// Durations of requests to peers.
    pub request_durations: Durations,
    /// Receiver of gossip, until a client takes it.
    pub gossip: Mutex<Option<mpsc::Receiver<Gossip>>>,
    /// Notified when a gossip message is dropped.
    pub gossip_missed: Notify,
    /// Notified when a peer connects, disconnects or identifies itself.
    pub changes: watch::Sender<()>,
}

impl Shared {
    // A poisoned lock is used on: no call leaves the book or the statistics half changed.
    pub fn book(&self) -> RwLockReadGuard<'_, PeerBook> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn book_mut(&self) -> RwLockWriteGuard<'_, PeerBook> {
        self.book.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

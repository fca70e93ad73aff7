//! State shared between the worker and its clients: peer book, listen addresses and counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use libp2p::{Multiaddr, PeerId};
use serde::Serialize;
use tokio::sync::{Notify, mpsc, watch};

use super::behaviour::gossip::Gossip;
use super::error::Refusal;
use super::peers::PeerBook;
use crate::telemetry::Durations;

/// Counters of inbound requests since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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
    /// Commands in the worker's queue.
    pub command_queue: u64,
}

/// Counters of gossip since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct GossipStats {
    /// Distinct messages received.
    pub received: u64,
    /// Received messages dropped: the queue was full, or their sender is shunned or over its rate limit.
    pub dropped: u64,
    /// Messages published by this node.
    pub published: u64,
}

/// Counter or gauge, changed from any thread.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters and gauges of the node.
#[derive(Default)]
pub(super) struct Counters {
    pub requests: Counter,
    pub answered: Counter,
    pub dropped: Counter,
    pub rate_limited: Counter,
    pub failed: Counter,
    pub gossip_received: Counter,
    pub gossip_dropped: Counter,
    pub gossip_published: Counter,
    /// In the order of [`Refusal::ALL`].
    pub refused: [Counter; Refusal::ALL.len()],
    pub connections_in: Counter,
    pub connections_out: Counter,
    pub pending_in: Counter,
    pub dials: Counter,
    pub inbound: Counter,
    pub answer_bytes: Counter,
    pub outbound: Counter,
    pub outbound_given_up: Counter,
    pub inbound_waiting: Counter,
    pub delayed: Counter,
    pub outbound_waiting: Counter,
}

impl Counters {
    pub fn count_refusal(&self, refusal: Refusal) {
        if let Some(index) = Refusal::ALL.iter().position(|reason| *reason == refusal) {
            self.refused[index].increment();
        }
    }

    /// Returns the endpoint's state without the queues.
    pub fn endpoint(&self) -> EndpointStats {
        EndpointStats {
            connections_in: self.connections_in.get(),
            connections_out: self.connections_out.get(),
            pending_in: self.pending_in.get(),
            dials: self.dials.get(),
            refused: Refusal::ALL
                .iter()
                .zip(&self.refused)
                .map(|(reason, count)| (reason.as_str(), count.get()))
                .collect(),
            inbound: self.inbound.get(),
            answer_bytes: self.answer_bytes.get(),
            inbound_waiting: self.inbound_waiting.get(),
            delayed: self.delayed.get(),
            outbound: self.outbound.get(),
            outbound_given_up: self.outbound_given_up.get(),
            outbound_waiting: self.outbound_waiting.get(),
            ..EndpointStats::default()
        }
    }

    pub fn inbound(&self) -> InboundStats {
        InboundStats {
            requests: self.requests.get(),
            answered: self.answered.get(),
            dropped: self.dropped.get(),
            rate_limited: self.rate_limited.get(),
            failed: self.failed.get(),
        }
    }

    pub fn gossip(&self) -> GossipStats {
        GossipStats {
            received: self.gossip_received.get(),
            dropped: self.gossip_dropped.get(),
            published: self.gossip_published.get(),
        }
    }
}

/// State that the worker writes and clients read, without a round trip through the worker.
pub(super) struct Shared {
    /// Id of this node.
    pub local: PeerId,
    pub book: RwLock<PeerBook>,
    pub listen: RwLock<Vec<Multiaddr>>,
    pub counters: Counters,
    /// Durations of requests to peers.
    pub request_durations: Durations,
    /// Receiver of gossip, until a client takes it.
    pub gossip: Mutex<Option<mpsc::Receiver<Gossip>>>,
    /// Sender to the receiver, for the length of the queue; `None` where gossip is off.
    pub gossip_sender: Option<mpsc::WeakSender<Gossip>>,
    /// Notified when a gossip message is dropped.
    pub gossip_missed: Notify,
    /// Counts connections made and lost, and identifications.
    pub changes: watch::Sender<u64>,
}

impl Shared {
    // A poisoned lock is used on: no call leaves the book half changed.
    pub fn book(&self) -> RwLockReadGuard<'_, PeerBook> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn book_mut(&self) -> RwLockWriteGuard<'_, PeerBook> {
        self.book.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of gossip messages in the receiver's queue.
    pub fn gossip_queue(&self) -> usize {
        let sender = self.gossip_sender.as_ref().and_then(mpsc::WeakSender::upgrade);
        sender.map_or(0, |sender| sender.max_capacity() - sender.capacity())
    }
}

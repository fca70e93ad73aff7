//! State that the worker writes and clients read without a round trip through the worker: the peer book, and counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use libp2p::{Multiaddr, PeerId};
use serde::Serialize;
use tokio::sync::{Notify, mpsc, watch};

use super::behaviour::gossip::Gossip;
use super::error::Refused;
use super::peers::PeerBook;

/// What happened to the requests of others since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct InboundStats {
    /// Requests read.
    pub requests: u64,
    /// Answers handed to the connection.
    pub answered: u64,
    /// Requests answered `busy` for want of a place or memory.
    pub dropped: u64,
    /// Requests answered `rate_limited`.
    pub rate_limited: u64,
    /// Requests whose answer did not get out: timeout, lost connection, too large, or a panic in the responder.
    pub failed: u64,
}

/// What passes the door to other nodes, and what does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoorStats {
    /// Connections that others made.
    pub connections_in: u64,
    /// Connections that we made.
    pub connections_out: u64,
    /// Handshakes of others under way.
    pub pending_in: u64,
    /// Dials under way.
    pub dials: u64,
    /// Connections and dials refused since the start, by reason; under `memory` also strangers that had to go.
    pub refused: Vec<(&'static str, u64)>,
    /// Requests of others held now.
    pub inbound: u64,
    /// Requests of others that wait for room, or for their asker's rate.
    pub inbound_waiting: u64,
    /// Requests of others that had to wait, since the start.
    pub delayed: u64,
    /// Bytes that the requests held and their answers take, or may take.
    pub answer_bytes: u64,
    /// Requests of ours in flight, those included that were given up.
    pub outbound: u64,
    /// Those of them that nobody waits for any more.
    pub outbound_given_up: u64,
    /// Requests of ours that wait for a place with their peer.
    pub outbound_waiting: u64,
    /// Messages of gossip that nobody has taken yet.
    pub gossip_queue: u64,
    /// Commands that the swarm's task has not taken yet.
    pub command_queue: u64,
}

/// What happened to gossip since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct GossipStats {
    /// Messages of others that arrived for the first time.
    pub received: u64,
    /// Those of them dropped: nobody took them out of the full queue in time, or whoever passed them on is shunned, or a
    /// stranger that tells too much.
    pub dropped: u64,
    /// Messages of ours.
    pub published: u64,
}

/// Counts events from any thread.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Of a number that goes up and down.
    pub fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

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
    /// In the order of [`Refused::ALL`].
    pub refused: [Counter; Refused::ALL.len()],
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
    pub fn refuse(&self, why: Refused) {
        if let Some(index) = Refused::ALL.iter().position(|reason| *reason == why) {
            self.refused[index].add();
        }
    }

    /// All but the queues.
    pub fn door(&self) -> DoorStats {
        DoorStats {
            connections_in: self.connections_in.get(),
            connections_out: self.connections_out.get(),
            pending_in: self.pending_in.get(),
            dials: self.dials.get(),
            refused: Refused::ALL.iter().zip(&self.refused).map(|(why, count)| (why.as_str(), count.get())).collect(),
            inbound: self.inbound.get(),
            answer_bytes: self.answer_bytes.get(),
            inbound_waiting: self.inbound_waiting.get(),
            delayed: self.delayed.get(),
            outbound: self.outbound.get(),
            outbound_given_up: self.outbound_given_up.get(),
            outbound_waiting: self.outbound_waiting.get(),
            ..DoorStats::default()
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

/// What the worker writes and clients read, without a round trip through the worker.
pub(super) struct Shared {
    pub local: PeerId,
    pub book: RwLock<PeerBook>,
    pub listen: RwLock<Vec<Multiaddr>>,
    pub counters: Counters,
    /// Until somebody takes it.
    pub gossip: Mutex<Option<mpsc::Receiver<Gossip>>>,
    /// Its other end, to see how full it is; `None` where gossip is off.
    pub heard: Option<mpsc::WeakSender<Gossip>>,
    /// A message was dropped.
    pub missed: Notify,
    /// Counts connections made and lost, and identifications.
    pub changes: watch::Sender<u64>,
}

impl Shared {
    // The book stays consistent whatever panics: no call leaves it half changed.
    pub fn book(&self) -> RwLockReadGuard<'_, PeerBook> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn book_mut(&self) -> RwLockWriteGuard<'_, PeerBook> {
        self.book.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages of gossip that wait to be taken.
    pub fn gossip_queue(&self) -> usize {
        let heard = self.heard.as_ref().and_then(|heard| heard.upgrade());
        heard.map_or(0, |heard| heard.max_capacity() - heard.capacity())
    }
}

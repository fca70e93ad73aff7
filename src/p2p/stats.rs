//! Counters of what others send us.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// What happened to the requests of others since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct InboundStats {
    /// Requests read.
    pub requests: u64,
    /// Answers handed to the connection.
    pub answered: u64,
    /// Requests dropped because `max_inbound` were being answered.
    pub dropped: u64,
    /// Requests whose answer did not get out: timeout, lost connection, too large, or a panic in the responder.
    pub failed: u64,
}

/// What happened to gossip since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct GossipStats {
    /// Messages of others that arrived for the first time.
    pub received: u64,
    /// Those of them dropped: nobody took them out of the full queue in time, or a shunned peer forwarded them.
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

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub(super) struct Counters {
    pub requests: Counter,
    pub answered: Counter,
    pub dropped: Counter,
    pub failed: Counter,
    pub gossip_received: Counter,
    pub gossip_dropped: Counter,
    pub gossip_published: Counter,
}

impl Counters {
    pub fn inbound(&self) -> InboundStats {
        InboundStats {
            requests: self.requests.get(),
            answered: self.answered.get(),
            dropped: self.dropped.get(),
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

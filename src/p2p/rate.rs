//! Rate limit of peers.

use std::time::Instant;

use libp2p::PeerId;

use super::address::scope::Subnet;
use crate::limits::{Rate, RateLimit};

/// Peer that sends requests or gossip, as limits see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requester {
    pub peer: PeerId,
    /// `None` for this machine.
    pub subnet: Option<Subnet>,
    /// Whether the operator trusts the peer: no rate limit, and reserved memory.
    pub trusted: bool,
}

impl Requester {
    /// Subnet whose limits hold for the peer; `None` for trusted peers.
    pub fn limited_subnet(&self) -> Option<Subnet> {
        self.subnet.filter(|_| !self.trusted)
    }
}

/// Rate limit per untrusted peer, and per subnet for all of its untrusted peers. A debt is at most a burst.
pub(super) struct PeerRateLimit(Option<RateLimit<PeerId, Subnet>>);

impl PeerRateLimit {
    pub fn new(rate: Rate) -> Self {
        Self(RateLimit::new(rate, rate.burst))
    }

    /// Takes one token. Returns false, and takes none, where the peer or its subnet has none.
    pub fn take(&mut self, requester: &Requester, now: Instant) -> bool {
        self.limit(requester).is_none_or(|limit| limit.take(requester.peer, requester.subnet, 1, now).is_ok())
    }

    /// Charges a cost to the peer and its subnet.
    pub fn charge(&mut self, requester: &Requester, cost: u64, now: Instant) {
        if let Some(limit) = self.limit(requester) {
            limit.charge(requester.peer, requester.subnet, cost, now);
        }
    }

    fn limit(&mut self, requester: &Requester) -> Option<&mut RateLimit<PeerId, Subnet>> {
        self.0.as_mut().filter(|_| !requester.trusted)
    }
}

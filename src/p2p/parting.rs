//! Connections that this node closes: none while an answer is on its way to it.
//!
//! A node of the network may go deaf for good when the connection of a request in its queue closes. Who is to be
//! disconnected is sent nothing new, and goes when nothing is in flight to it, or when its time is over.

use std::time::Instant;

use libp2p::PeerId;

use super::worker::Worker;

/// Why a peer is disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The operator removed it.
    Removed,
    /// It is banned, on the deny-list, or a stranger where those are not admitted.
    NotAdmitted,
    /// There is too little memory for strangers.
    Memory,
}

/// A peer that is to be disconnected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parting {
    why: Why,
    /// When it goes at the latest.
    until: Instant,
}

impl Worker {
    /// Disconnects a peer as soon as nothing is in flight to it. False if it is not connected, or about to go already.
    pub fn part(&mut self, peer: PeerId, why: Why) -> bool {
        if !self.swarm.is_connected(&peer) || self.parting.contains_key(&peer) {
            return false;
        }
        self.drop_waiting(&peer);
        if self.outbound.in_flight_to(&peer) == 0 {
            // It may be gone by itself.
            return self.swarm.disconnect_peer_id(peer).is_ok();
        }
        let until = Instant::now() + self.closing_timeout;
        tracing::debug!(%peer, ?why, "it is disconnected once it has answered");
        self.parting.insert(peer, Parting { why, until });
        self.wake_at(until);
        true
    }

    /// Whether the peer is about to be disconnected, so that nothing is sent to it.
    pub fn is_parting(&mut self, peer: &PeerId) -> bool {
        let Some(Parting { why, .. }) = self.parting.get(peer) else { return false };
        let stands = self.is_cause(peer, *why);
        if !stands {
            self.parting.remove(peer);
        }
        stands
    }

    /// Whether the cause still holds: the operator may have changed his mind.
    fn is_cause(&self, peer: &PeerId, why: Why) -> bool {
        let book = self.shared.book();
        match why {
            Why::Removed => !book.is_configured(peer),
            Why::NotAdmitted => book.admits(peer, Instant::now()).is_err(),
            Why::Memory => !book.is_trusted(peer),
        }
    }

    /// Disconnects the peer if it is about to go and nothing is in flight to it.
    pub fn part_if_done(&mut self, peer: &PeerId) {
        if self.parting.contains_key(peer) && self.outbound.in_flight_to(peer) == 0 && self.is_parting(peer) {
            self.parting.remove(peer);
            let _ = self.swarm.disconnect_peer_id(*peer);
        }
    }

    /// Disconnects those whose time is over.
    pub fn part_overdue(&mut self, now: Instant) {
        let overdue: Vec<_> =
            self.parting.iter().filter(|(_, parting)| parting.until <= now).map(|(peer, _)| *peer).collect();
        for peer in overdue {
            if self.is_parting(&peer) {
                self.parting.remove(&peer);
                tracing::debug!(%peer, "it is disconnected with requests in flight");
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
        if let Some(next) = self.parting.values().map(|parting| parting.until).min() {
            self.wake_at(next);
        }
    }
}

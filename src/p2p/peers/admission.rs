//! Admission of peers by trust and reputation: connections, gossip and requests.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Instant;

use libp2p::PeerId;

use super::{FAILURE_HALF_LIFE, Peer, PeerBook};
use crate::p2p::address::scope::ip;
use crate::p2p::config::{Trust, TrustList};
use crate::p2p::error::Refusal;

impl PeerBook {
    /// Puts a peer on the allow-list or the deny-list, and takes it off the other one.
    pub fn set_trust(&mut self, id: PeerId, allow: bool) {
        let TrustList { allow: allowed, deny: denied, .. } = &mut self.trust;
        let (to, from) = if allow { (allowed, denied) } else { (denied, allowed) };
        from.remove(&id);
        to.insert(id);
        self.entry(id);
    }

    /// Whether the operator trusts the peer: configured, on the allow-list, or dialled by a command.
    pub fn is_trusted(&self, id: &PeerId) -> bool {
        let named = |peer: &Peer| peer.configured || !peer.addresses.is_empty();
        !self.is_denied(id) && (self.trust.allow.contains(id) || self.peers.get(id).is_some_and(named))
    }

    pub(super) fn is_denied(&self, id: &PeerId) -> bool {
        self.trust.deny.contains(id)
    }

    /// Checks whether the peer may be connected.
    ///
    /// # Errors
    /// The reason why not.
    pub fn admits(&self, id: &PeerId, now: Instant) -> Result<(), Refusal> {
        if self.is_denied(id) {
            Err(Refusal::Denied)
        } else if self.is_trusted(id) {
            Ok(())
        } else if self.peers.get(id).is_some_and(|peer| peer.offences.banned(now)) {
            Err(Refusal::Banned)
        } else if self.trust.mode == Trust::Closed {
            Err(Refusal::Untrusted)
        } else {
            Ok(())
        }
    }

    /// Whether requests may be sent to the peer, and its gossip accepted, by the trust policy.
    pub fn may_be_asked(&self, id: &PeerId) -> bool {
        !self.is_denied(id) && (self.trust.mode == Trust::Open || self.is_trusted(id))
    }

    /// Whether the peer is eligible as a source of gossip and for requests that don't name a peer: allowed by the trust
    /// policy, and not shunned.
    pub fn is_eligible(&self, id: &PeerId, now: Instant) -> bool {
        self.may_be_asked(id) && !self.is_shunned(id, now)
    }

    /// Whether a configured address has this ip.
    pub fn is_at_configured_address(&self, address: IpAddr) -> bool {
        self.configured.iter().any(|peer| ip(&peer.address) == Some(address))
    }

    /// Connected peers that are not admitted.
    pub fn not_admitted(&self, now: Instant) -> Vec<PeerId> {
        let connected = self.peers.iter().filter(|(_, peer)| peer.connections > 0);
        connected.filter(|(id, _)| self.admits(id, now).is_err()).map(|(id, _)| *id).collect()
    }

    /// Connected peers that are not trusted.
    pub fn untrusted(&self) -> Vec<PeerId> {
        let connected = self.peers.iter().filter(|(_, peer)| peer.connections > 0);
        connected.filter(|(id, _)| !self.is_trusted(id)).map(|(id, _)| *id).collect()
    }

    /// See [`P2pClient::candidates`](crate::p2p::P2pClient::candidates).
    pub fn candidates(&self, now: Instant) -> Vec<PeerId> {
        // A disconnected configured peer (the network's nodes close idle connections) is dialled by the request.
        let usable =
            |peer: &Peer| peer.speaks && (peer.connections > 0 || peer.configured && peer.dial_error.is_none());
        let listed = |wanted: &dyn Fn(&PeerId) -> bool| {
            let mut best: Vec<_> = self
                .peers
                .iter()
                .filter(|(id, peer)| usable(peer) && wanted(id))
                .map(|(id, peer)| {
                    let failures = peer.recent_failures.at(now, FAILURE_HALF_LIFE).round() as u64;
                    let micros = peer.latency_ms.or(peer.ping_ms).map_or(u64::MAX, |ms| (ms * 1e3) as u64);
                    ((Reverse(peer.connections.min(1)), failures, micros), *id)
                })
                .collect();
            best.sort_unstable();
            best.into_iter().map(|(_, id)| id).collect::<Vec<_>>()
        };
        let best = listed(&|id| self.is_eligible(id, now));
        // A trusted peer with a bad score is better than none.
        if best.is_empty() { listed(&|id| self.is_trusted(id)) } else { best }
    }
}

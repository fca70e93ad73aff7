//! Whom we have to do with, and how far: who is let in, heard and asked.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Instant;

use libp2p::PeerId;

use super::{FAILURE_HALF_LIFE, Peer, PeerBook};
use crate::p2p::address::scope::ip;
use crate::p2p::config::{Trust, TrustList};
use crate::p2p::error::Refused;

impl PeerBook {
    /// Puts a peer on the allow-list or the deny-list, and takes it off the other one.
    pub fn set_trust(&mut self, id: PeerId, allow: bool) {
        let TrustList { allow: allowed, deny: denied, .. } = &mut self.trust;
        let (to, from) = if allow { (allowed, denied) } else { (denied, allowed) };
        from.remove(&id);
        to.insert(id);
        self.entry(id);
    }

    /// Whether the operator named it, in the settings, on the allow-list, or by dialling it.
    pub fn is_trusted(&self, id: &PeerId) -> bool {
        let named = |peer: &Peer| peer.configured || !peer.addresses.is_empty();
        !self.is_denied(id) && (self.trust.allow.contains(id) || self.peers.get(id).is_some_and(named))
    }

    pub(super) fn is_denied(&self, id: &PeerId) -> bool {
        self.trust.deny.contains(id)
    }

    /// Whether we have to do with it at all.
    pub fn admits(&self, id: &PeerId, now: Instant) -> Result<(), Refused> {
        if self.is_denied(id) {
            Err(Refused::Denied)
        } else if self.is_trusted(id) {
            Ok(())
        } else if self.peers.get(id).is_some_and(|peer| peer.offences.banned(now)) {
            Err(Refused::Banned)
        } else if self.trust.mode == Trust::Closed {
            Err(Refused::Stranger)
        } else {
            Ok(())
        }
    }

    /// Whether it may be asked, and its gossip heard: not a stranger's where those are not trusted.
    pub fn may_be_asked(&self, id: &PeerId) -> bool {
        !self.is_denied(id) && (self.trust.mode == Trust::Open || self.is_trusted(id))
    }

    /// Whether it may be listened to, and asked without being named: of those that may be asked, who is not shunned.
    pub fn is_heard(&self, id: &PeerId, now: Instant) -> bool {
        self.may_be_asked(id) && !self.is_shunned(id, now)
    }

    /// Whether a configured address is at this ip.
    pub fn is_at_configured_address(&self, address: IpAddr) -> bool {
        self.configured.iter().any(|peer| ip(&peer.address) == Some(address))
    }

    /// Everybody who is connected and should not be.
    pub fn intruders(&self, now: Instant) -> Vec<PeerId> {
        let connected = self.peers.iter().filter(|(_, peer)| peer.connections > 0);
        connected.filter(|(id, _)| self.admits(id, now).is_err()).map(|(id, _)| *id).collect()
    }

    /// Everybody who is connected and whom the operator does not trust.
    pub fn strangers(&self) -> Vec<PeerId> {
        let connected = self.peers.iter().filter(|(_, peer)| peer.connections > 0);
        connected.filter(|(id, _)| !self.is_trusted(id)).map(|(id, _)| *id).collect()
    }

    /// See [`P2pClient::candidates`](crate::p2p::P2pClient::candidates).
    pub fn candidates(&self, now: Instant) -> Vec<PeerId> {
        // A configured peer that hung up (real nodes close idle connections) is dialled again by the request itself.
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
        let best = listed(&|id| self.is_heard(id, now));
        // Better one of the operator's own with a bad record than nobody.
        if best.is_empty() { listed(&|id| self.is_trusted(id)) } else { best }
    }
}

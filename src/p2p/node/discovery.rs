//! Peers that the network tells of: whom to dial, and which connections to keep, until there are enough.
//!
//! Kademlia looks around by itself (a lookup of our own id and of random ones, every [`BOOTSTRAP_INTERVAL`]), which
//! fills its routing table and connects us with some for a while; mDNS finds who is on the local network. From both we
//! keep those that speak the sync protocol. Only connections that we made count: strangers who connect with us can't
//! take the places.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use super::dialer::delay;
use crate::p2p::admission::dials::MAX_ADDRESSES;
use crate::p2p::config::P2pConfig;

/// Peers of the local network that are remembered.
const MAX_NEARBY: usize = 256;

/// What is known of peers that nobody configured.
pub(super) struct Discovery {
    target: usize,
    retry_min: Duration,
    retry_max: Duration,
    /// Found by mDNS.
    nearby: HashMap<PeerId, Vec<Multiaddr>>,
    /// Connections that we made, configured peers' included.
    dialled: HashMap<PeerId, ConnectionId>,
    /// Those of them that are kept open.
    kept: HashSet<PeerId>,
    /// Peers that we dialled from here and that did not turn out useful (yet): how often, and when again.
    tried: HashMap<PeerId, (u32, Instant)>,
}

impl Discovery {
    pub fn new(config: &P2pConfig) -> Self {
        Self {
            target: config.target_peers,
            retry_min: config.redial_min,
            retry_max: config.redial_max,
            nearby: HashMap::new(),
            dialled: HashMap::new(),
            kept: HashSet::new(),
            tried: HashMap::new(),
        }
    }

    pub fn connected(&mut self, peer: PeerId, connection: ConnectionId) {
        self.dialled.insert(peer, connection);
    }

    pub fn disconnected(&mut self, peer: &PeerId) {
        self.dialled.remove(peer);
        self.kept.remove(peer);
    }

    pub fn missing(&self) -> usize {
        self.target.saturating_sub(self.kept.len())
    }

    /// Takes connections into the number of those that are kept, as far as they are missing.
    pub fn keep(&mut self, useful: impl Fn(&PeerId) -> bool) -> Vec<(PeerId, ConnectionId)> {
        self.kept.retain(|peer| useful(peer));
        let new = self.dialled.iter().filter(|(peer, _)| !self.kept.contains(*peer) && useful(peer));
        let new: Vec<_> = new.take(self.missing()).map(|(peer, connection)| (*peer, *connection)).collect();
        for (peer, _) in &new {
            self.kept.insert(*peer);
            self.tried.remove(peer);
        }
        new
    }

    /// As many of those wanted as are missing, at random, each not before its time. Taken from the `known` peers and
    /// those of the local network; of their addresses, those which are `allowed`.
    pub fn choose(
        &mut self,
        known: impl Iterator<Item = (PeerId, Vec<Multiaddr>)>,
        wanted: impl Fn(&PeerId) -> bool,
        allowed: impl Fn(&Multiaddr) -> bool,
        now: Instant,
    ) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut known: HashMap<_, _> = known.collect();
        for (peer, addresses) in &self.nearby {
            known.entry(*peer).or_default().extend(addresses.iter().cloned());
        }
        self.tried.retain(|peer, _| known.contains_key(peer));
        let mut due: Vec<_> = known
            .into_iter()
            .filter(|(peer, _)| !self.dialled.contains_key(peer) && wanted(peer))
            .filter(|(peer, _)| self.tried.get(peer).is_none_or(|(_, until)| *until <= now))
            .map(|(peer, addresses)| (peer, addresses.into_iter().filter(&allowed).take(MAX_ADDRESSES)))
            .map(|(peer, addresses)| (peer, addresses.collect::<Vec<_>>()))
            .filter(|(_, addresses)| !addresses.is_empty())
            .collect();
        fastrand::shuffle(&mut due);
        due.truncate(self.missing());
        for (peer, _) in &due {
            let (times, until) = self.tried.entry(*peer).or_insert((0, now));
            *until = now + delay(*times, self.retry_min, self.retry_max);
            *times = times.saturating_add(1);
        }
        due
    }

    pub fn found(&mut self, peer: PeerId, address: Multiaddr) {
        if self.nearby.len() < MAX_NEARBY || self.nearby.contains_key(&peer) {
            let addresses = self.nearby.entry(peer).or_default();
            if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }

    pub fn expired(&mut self, peer: &PeerId, address: &Multiaddr) {
        if let Some(addresses) = self.nearby.get_mut(peer) {
            addresses.retain(|known| known != address);
            if addresses.is_empty() {
                self.nearby.remove(peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;
    use crate::p2p::address::is_dialable;

    fn discovery(target_peers: usize) -> Discovery {
        Discovery::new(&P2pConfig { target_peers, ..P2pConfig::new(Keypair::generate_ed25519()) })
    }

    fn known(peer: PeerId) -> (PeerId, Vec<Multiaddr>) {
        (peer, vec!["/ip4/192.0.2.1/tcp/1".parse().unwrap()])
    }

    #[test]
    fn as_many_are_dialled_as_are_missing_and_none_in_a_tight_loop() {
        let mut now = Instant::now();
        let mut discovery = discovery(3);
        let kept = PeerId::random();
        discovery.connected(kept, ConnectionId::new_unchecked(1));
        assert_eq!(discovery.keep(|_| false), [], "connected, and of no use");
        assert_eq!(discovery.keep(|_| true), [(kept, ConnectionId::new_unchecked(1))]);
        assert_eq!(discovery.keep(|_| true), [], "once");
        let others: Vec<_> = (0..5).map(|_| PeerId::random()).collect();
        let all = || others.iter().copied().chain([kept]).map(known);
        let first: HashSet<_> =
            discovery.choose(all(), |_| true, is_dialable, now).into_iter().map(|(peer, _)| peer).collect();
        assert_eq!(first.len(), 2);
        let second: HashSet<_> =
            discovery.choose(all(), |_| true, is_dialable, now).into_iter().map(|(peer, _)| peer).collect();
        assert!(second.len() == 2 && second.is_disjoint(&first) && !second.contains(&kept));
        assert_eq!(discovery.choose(all(), |_| true, is_dialable, now).len(), 1);
        assert_eq!(discovery.choose(all(), |_| true, is_dialable, now), [], "all have been tried");
        for times in 0..10 {
            now += discovery.retry_max;
            assert_eq!(
                discovery.choose(std::iter::once(known(others[0])), |_| true, is_dialable, now).len(),
                1,
                "{times}"
            );
        }
        now += discovery.retry_max / 3;
        assert_eq!(
            discovery.choose(std::iter::once(known(others[0])), |_| true, is_dialable, now),
            [],
            "the delay has grown"
        );
        discovery.disconnected(&kept);
        assert_eq!(discovery.missing(), 3);
    }

    #[test]
    fn strangers_of_the_local_network_are_found_and_forgotten() {
        let now = Instant::now();
        let mut discovery = discovery(1);
        let (peer, address) = (PeerId::random(), "/ip4/192.0.2.1/tcp/1".parse::<Multiaddr>().unwrap());
        discovery.found(peer, address.clone());
        discovery.found(peer, "/ip4/192.0.2.1/udp/1/quic-v1".parse().unwrap());
        for _ in 0..2 * MAX_NEARBY {
            discovery.found(PeerId::random(), address.clone());
        }
        assert_eq!(discovery.nearby.len(), MAX_NEARBY);
        discovery.nearby.retain(|known, _| *known == peer);
        assert_eq!(
            discovery.choose(std::iter::empty(), |_| true, is_dialable, now),
            [(peer, vec![address.clone()])],
            "what can be dialled"
        );
        let later = now + discovery.retry_max;
        assert_eq!(discovery.choose(std::iter::empty(), |_| false, is_dialable, later), [], "nobody wants it");
        discovery.expired(&peer, &address);
        assert_eq!(discovery.choose(std::iter::empty(), |_| true, is_dialable, later), []);
    }
}

//! Discovery state: peers to dial and connections to keep, until there are enough.
//!
//! Kademlia's periodic bootstrap fills its routing table and connects with some peers for a while; mDNS finds peers on
//! the local network. Of both, peers that speak the sync protocol are kept. Only outgoing connections count: peers that
//! connect with this node can't use up the target.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use super::dialer::backoff;
use crate::p2p::admission::dial_limits::MAX_ADDRESSES;
use crate::p2p::config::P2pConfig;

/// Peers on the local network that are remembered.
const MAX_NEARBY: usize = 256;

/// Discovered peers, and the outgoing connections.
pub(super) struct Discovery {
    target: usize,
    retry_min: Duration,
    retry_max: Duration,
    /// Peers found by mDNS.
    nearby: HashMap<PeerId, Vec<Multiaddr>>,
    /// Outgoing connections, those with configured peers included.
    dialled: HashMap<PeerId, ConnectionId>,
    /// Peers whose connections are kept open.
    kept: HashSet<PeerId>,
    /// Discovered peers that were dialled and are not useful (yet): number of dials, and time of the next one.
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

    /// Number of connections to keep beside the kept ones.
    pub fn missing(&self) -> usize {
        self.target.saturating_sub(self.kept.len())
    }

    /// Keeps the connections of useful peers, up to the target. Returns the new ones.
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

    /// Chooses peers to dial at random, as many as are missing, each with its `allowed` addresses. They are `wanted`,
    /// either `known` or found by mDNS, and not in a retry delay.
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
            *until = now + backoff(*times, self.retry_min, self.retry_max);
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
    use super::*;
    use crate::p2p::address::is_dialable;
    use crate::p2p::node::worker::test::config;

    fn discovery(target_peers: usize) -> Discovery {
        Discovery::new(&P2pConfig { target_peers, ..config() })
    }

    /// Chooses from known peers, each with one address.
    fn choose(discovery: &mut Discovery, known: Vec<PeerId>, now: Instant) -> HashSet<PeerId> {
        let known = known.into_iter().map(|peer| (peer, vec!["/ip4/192.0.2.1/tcp/1".parse().unwrap()]));
        discovery.choose(known, |_| true, is_dialable, now).into_iter().map(|(peer, _)| peer).collect()
    }

    #[test]
    fn missing_peers_are_dialled_with_backoff() {
        let mut now = Instant::now();
        let mut discovery = discovery(3);
        let kept = PeerId::random();
        discovery.connected(kept, ConnectionId::new_unchecked(1));
        assert_eq!(discovery.keep(|_| false), [], "connected, and of no use");
        assert_eq!(discovery.keep(|_| true), [(kept, ConnectionId::new_unchecked(1))]);
        assert_eq!(discovery.keep(|_| true), [], "once");
        let others: Vec<_> = (0..5).map(|_| PeerId::random()).collect();
        let all = || others.iter().copied().chain([kept]).collect::<Vec<_>>();
        let first = choose(&mut discovery, all(), now);
        assert_eq!(first.len(), 2);
        let second = choose(&mut discovery, all(), now);
        assert!(second.len() == 2 && second.is_disjoint(&first) && !second.contains(&kept));
        assert_eq!(choose(&mut discovery, all(), now).len(), 1);
        assert_eq!(choose(&mut discovery, all(), now).len(), 0, "all have been tried");
        for times in 0..10 {
            now += discovery.retry_max;
            assert_eq!(choose(&mut discovery, vec![others[0]], now).len(), 1, "{times}");
        }
        now += discovery.retry_max / 3;
        assert_eq!(choose(&mut discovery, vec![others[0]], now).len(), 0, "the delay has grown");
        discovery.disconnected(&kept);
        assert_eq!(discovery.missing(), 3);
    }

    #[test]
    fn peers_on_the_local_network_are_remembered_and_expire() {
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
        assert_eq!(discovery.choose(std::iter::empty(), |_| false, is_dialable, later), [], "it is not wanted");
        discovery.expired(&peer, &address);
        assert_eq!(discovery.choose(std::iter::empty(), |_| true, is_dialable, later), []);
    }
}

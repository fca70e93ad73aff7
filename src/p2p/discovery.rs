//! Peers that the network tells of: whom to dial, and which connections to keep, until there are enough.
//!
//! Kademlia looks around by itself (a lookup of our own id and of random ones, every [`BOOTSTRAP_INTERVAL`]), which
//! fills its routing table and connects us with some for a while; mDNS finds who is on the local network. From both we
//! keep those that speak the sync protocol. Only connections that we made count: strangers who connect with us can't
//! take the places.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, mdns};

use super::P2pConfig;
use super::dialer::{delay, to_peer};
use super::dials::MAX_ADDRESSES;
use super::guard::Guard;
use super::worker::Worker;

/// How often Kademlia walks through the network.
pub(super) const BOOTSTRAP_INTERVAL: Duration = Duration::from_secs(5 * 60);
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

    fn missing(&self) -> usize {
        self.target.saturating_sub(self.kept.len())
    }

    /// Takes connections into the number of those that are kept, as far as they are missing.
    fn keep(&mut self, useful: impl Fn(&PeerId) -> bool) -> Vec<(PeerId, ConnectionId)> {
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
    fn choose(
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

    fn found(&mut self, peer: PeerId, address: Multiaddr) {
        if self.nearby.len() < MAX_NEARBY || self.nearby.contains_key(&peer) {
            let addresses = self.nearby.entry(peer).or_default();
            if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }

    fn expired(&mut self, peer: &PeerId, address: &Multiaddr) {
        if let Some(addresses) = self.nearby.get_mut(peer) {
            addresses.retain(|known| known != address);
            if addresses.is_empty() {
                self.nearby.remove(peer);
            }
        }
    }
}

impl Worker {
    /// Keeps what is useful, and dials others where that is not enough.
    pub fn discover(&mut self) {
        let now = Instant::now();
        self.enforce();
        let Guard { parts: behaviour, dials, .. } = self.swarm.behaviour_mut();
        let book = self.shared.book();
        for (peer, connection) in self.discovery.keep(|peer| book.is_useful(peer, now)) {
            behaviour.keep_alive.hold(peer, connection);
        }
        if self.discovery.missing() == 0 {
            return;
        }
        let known = behaviour.kad.kbuckets().flat_map(|bucket| {
            let peers = bucket.iter().map(|entry| {
                let addresses = entry.node.value.iter().cloned().collect();
                (*entry.node.key.preimage(), addresses)
            });
            peers.collect::<Vec<_>>()
        });
        let wanted = |peer: &PeerId| !book.is_configured(peer) && book.is_heard(peer, now);
        let chosen = self.discovery.choose(known, wanted, |address| dials.allows_now(address, now), now);
        drop(book);
        for (peer, addresses) in chosen {
            let addresses = self.swarm.behaviour_mut().dials.take(addresses, now);
            tracing::debug!(%peer, "dialling a peer that the network told of");
            if let Err(error) = self.swarm.dial(to_peer(peer, addresses)) {
                tracing::debug!(%peer, %error, "it can't be dialled");
            }
        }
    }

    pub fn on_mdns_event(&mut self, event: mdns::Event) {
        match event {
            mdns::Event::Discovered(found) => {
                for (peer, address) in found {
                    self.discovery.found(peer, address);
                }
                self.discover();
            }
            mdns::Event::Expired(expired) => {
                for (peer, address) in expired {
                    self.discovery.expired(&peer, &address);
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

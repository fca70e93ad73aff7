//! Discovery in the worker: dials of discovered peers, and the addresses in Kademlia's table.

use std::time::Instant;

use libp2p::{Multiaddr, PeerId, kad, mdns};

use super::Worker;
use crate::p2p::admission::Admission;
use crate::p2p::admission::dial_limits::MAX_ADDRESSES;
use crate::p2p::node::dialer::dial_peer;

impl Worker {
    /// Runs a discovery round: keeps useful connections, and dials other peers where they are too few.
    pub fn discover(&mut self) {
        let now = Instant::now();
        self.enforce_admission();
        let Admission { inner: behaviour, dials, .. } = self.swarm.behaviour_mut();
        let book = self.shared.book();
        for (peer, connection) in self.discovery.keep(|peer| book.is_useful(peer, now)) {
            behaviour.keep_alive.hold(peer, connection);
        }
        if self.discovery.missing() == 0 {
            return;
        }
        let known = behaviour.background.kad.kbuckets().flat_map(|bucket| {
            let peers = bucket.iter().map(|entry| {
                let addresses = entry.node.value.iter().cloned().collect();
                (*entry.node.key.preimage(), addresses)
            });
            peers.collect::<Vec<_>>()
        });
        let wanted = |peer: &PeerId| !book.is_configured(peer) && book.is_eligible(peer, now);
        let chosen = self.discovery.choose(known, wanted, |address| dials.allows_now(address, now), now);
        drop(book);
        for (peer, addresses) in chosen {
            let addresses = self.swarm.behaviour_mut().dials.select(addresses, now);
            tracing::debug!(%peer, "dialling a discovered peer");
            if let Err(error) = self.swarm.dial(dial_peer(peer, addresses)) {
                tracing::debug!(%peer, %error, "a discovered peer can't be dialled");
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

    /// Updates the addresses of a peer in Kademlia's table, which never forgets any: over [`MAX_ADDRESSES`], those are
    /// removed that the peer no longer announces, but not the first, which may be the one it was reached at.
    pub(super) fn set_kad_addresses(&mut self, peer: PeerId, mut announced: Vec<Multiaddr>) {
        let kad = &mut self.swarm.behaviour_mut().inner.background.kad;
        let (kept, old): (Vec<_>, Vec<_>) = kad_addresses(kad, peer)
            .into_iter()
            .enumerate()
            .partition(|(index, address)| *index == 0 || announced.contains(address));
        announced.retain(|address| kept.iter().all(|(_, known)| known != address));
        announced.truncate(MAX_ADDRESSES.saturating_sub(kept.len()));
        let free = MAX_ADDRESSES.saturating_sub(kept.len() + announced.len());
        for (_, address) in old.iter().skip(free) {
            kad.remove_address(&peer, address);
        }
        for address in announced {
            kad.add_address(&peer, address);
        }
    }

    /// Removes addresses of a peer that may not be advertised from Kademlia's table: Kademlia adds any at which the
    /// peer was reached, and gives them to other peers.
    pub(super) fn remove_unadvertised(&mut self, peer: PeerId) {
        let Admission { inner: behaviour, dials, .. } = self.swarm.behaviour_mut();
        let kad = &mut behaviour.background.kad;
        let (advertised, hidden): (Vec<_>, Vec<_>) =
            kad_addresses(kad, peer).into_iter().partition(|address| dials.may_advertise(address));
        if !hidden.is_empty() && advertised.is_empty() {
            // Without an address the peer would leave the table, and lookups would start from no peer.
            kad.add_address(&peer, Multiaddr::empty());
        }
        for address in hidden {
            kad.remove_address(&peer, &address);
        }
    }
}

/// Addresses of a peer in Kademlia's table.
pub(super) fn kad_addresses(kad: &mut kad::Behaviour<kad::store::MemoryStore>, peer: PeerId) -> Vec<Multiaddr> {
    let mut known = Vec::new();
    if let Some(bucket) = kad.kbucket(peer) {
        for entry in bucket.iter().filter(|entry| *entry.node.key.preimage() == peer) {
            known.extend(entry.node.value.iter().cloned());
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures::{FutureExt, StreamExt};
    use tokio_util::sync::CancellationToken;

    use super::kad_addresses as addresses;
    use super::*;
    use crate::p2p::node::build;
    use crate::p2p::node::worker::test::{PATIENCE, Silent, config, listening};
    use crate::p2p::{self, Offence, P2pConfig};

    #[tokio::test]
    async fn peers_on_the_local_network_are_dialled_at_once() {
        let stop = CancellationToken::new();
        let (near, _) = p2p::start(listening(), Arc::new(Silent), stop.clone()).await.unwrap();
        let discovery_interval = Duration::from_millis(10);
        let (client, mut worker) = build(&P2pConfig { discovery_interval, ..config() }, Arc::new(Silent)).unwrap();
        let found = (near.local_peer_id(), near.listen_addresses()[0].clone());
        worker.on_mdns_event(mdns::Event::Discovered(vec![found]));
        let dialled = worker.swarm.network_info().connection_counters().num_pending_outgoing();
        assert_eq!(dialled, 1);
        let running = tokio::spawn(worker.run(stop.clone()));
        let mut changes = client.changes();
        let connected = async {
            while client.candidates() != [near.local_peer_id()] {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, connected).await.expect("it is connected");
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn peers_of_the_routing_table_are_dialled_unless_they_are_shunned_or_enough() {
        for (target_peers, shunned, dialled) in [(8, false, 1), (0, false, 0), (8, true, 0)] {
            let (client, mut worker) = build(&P2pConfig { target_peers, ..config() }, Arc::new(Silent)).unwrap();
            let peer = PeerId::random();
            worker
                .swarm
                .behaviour_mut()
                .inner
                .background
                .kad
                .add_address(&peer, "/ip4/127.0.0.1/tcp/1".parse().unwrap());
            if shunned {
                client.penalise(peer, Offence::InvalidBlock);
            }
            worker.discover();
            let pending = worker.swarm.network_info().connection_counters().num_pending_outgoing();
            assert_eq!(pending, dialled, "{target_peers} {shunned}");
        }
    }

    #[tokio::test]
    async fn only_addresses_that_may_be_dialled_are_advertised() {
        let (name, inner, here, open) =
            ("/dns4/inside/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1", "/ip4/1.1.1.1/tcp/1");
        for (private_addresses, given, expected) in [
            (false, &[name, inner, here, open][..], &[open][..]),
            (false, &[name, inner, here], &[]),
            (true, &[name, inner, here, open], &[inner, here, open]),
            (true, &[name], &[]),
        ] {
            let config = P2pConfig { private_addresses, target_peers: 0, ..config() };
            let (_, mut worker) = build(&config, Arc::new(Silent)).unwrap();
            let peer = PeerId::random();
            for address in given {
                worker.swarm.behaviour_mut().inner.background.kad.add_address(&peer, address.parse().unwrap());
            }
            // Handle the finite events of these changes.
            while let Some(Some(event)) = worker.swarm.next().now_or_never() {
                worker.on_event(event);
            }
            let bare = Multiaddr::empty().with_p2p(peer).unwrap();
            let expected = expected.iter().map(|address| address.parse::<Multiaddr>().unwrap().with_p2p(peer).unwrap());
            let expected: Vec<_> = expected.collect();
            let expected = if expected.is_empty() { vec![bare] } else { expected };
            assert_eq!(addresses(&mut worker.swarm.behaviour_mut().inner.background.kad, peer), expected);
        }
    }

    #[tokio::test]
    async fn configured_peers_are_not_dialled_at_discovered_addresses() {
        let (peer, discovered) = (PeerId::random(), "/ip4/127.0.0.1/tcp/1".parse::<Multiaddr>().unwrap());
        let own = format!("n=/ip4/127.0.0.1/tcp/2/p2p/{peer}").parse().unwrap();
        for (peers, dialled) in [(vec![], true), (vec![own], false)] {
            let (_, mut worker) = build(&P2pConfig { peers, ..config() }, Arc::new(Silent)).unwrap();
            assert_eq!(worker.swarm.dial(dial_peer(peer, vec![discovered.clone()])).is_ok(), dialled);
        }
    }
}

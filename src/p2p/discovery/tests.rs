use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use libp2p::identity::Keypair;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::p2p::address::is_dialable;
use crate::p2p::connections::known as addresses;
use crate::p2p::{self, Offence, Responder};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers with nothing.
pub(in crate::p2p) struct Mute;

#[async_trait::async_trait]
impl Responder for Mute {
    async fn respond(&self, _: PeerId, _: Bytes) -> Bytes {
        Bytes::new()
    }
}

fn config() -> P2pConfig {
    P2pConfig::new(Keypair::generate_ed25519())
}

fn discovery(target_peers: usize) -> Discovery {
    Discovery::new(&P2pConfig { target_peers, ..config() })
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
        assert_eq!(discovery.choose(std::iter::once(known(others[0])), |_| true, is_dialable, now).len(), 1, "{times}");
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

#[tokio::test]
async fn who_is_found_on_the_local_network_is_dialled_at_once() {
    let stop = CancellationToken::new();
    let listening = P2pConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()], ..config() };
    let (near, _) = p2p::start(listening, Arc::new(Mute), stop.clone()).await.unwrap();
    let discovery_interval = Duration::from_millis(10);
    let (client, mut worker) = p2p::build(P2pConfig { discovery_interval, ..config() }, Arc::new(Mute)).unwrap();
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
        let (client, mut worker) = p2p::build(P2pConfig { target_peers, ..config() }, Arc::new(Mute)).unwrap();
        let peer = PeerId::random();
        worker.swarm.behaviour_mut().parts.kad.add_address(&peer, "/ip4/127.0.0.1/tcp/1".parse().unwrap());
        if shunned {
            client.penalise(peer, Offence::InvalidBlock);
        }
        worker.discover();
        let pending = worker.swarm.network_info().connection_counters().num_pending_outgoing();
        assert_eq!(pending, dialled, "{target_peers} {shunned}");
    }
}

#[tokio::test]
async fn nobody_is_told_an_address_that_nobody_could_have_us_dial() {
    let (name, inner, here, open) =
        ("/dns4/inside/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1", "/ip4/1.1.1.1/tcp/1");
    for (private_addresses, given, told) in [
        (false, &[name, inner, here, open][..], &[open][..]),
        (false, &[name, inner, here], &[]),
        (true, &[name, inner, here, open], &[inner, here, open]),
        (true, &[name], &[]),
    ] {
        let config = P2pConfig { private_addresses, target_peers: 0, ..config() };
        let (_, mut worker) = p2p::build(config, Arc::new(Mute)).unwrap();
        let peer = PeerId::random();
        for address in given {
            worker.swarm.behaviour_mut().parts.kad.add_address(&peer, address.parse().unwrap());
        }
        // Each change is told by an event; they have an end.
        while let Some(Some(event)) = worker.swarm.next().now_or_never() {
            worker.on_event(event);
        }
        let bare = Multiaddr::empty().with_p2p(peer).unwrap();
        let told = told.iter().map(|address| address.parse::<Multiaddr>().unwrap().with_p2p(peer).unwrap());
        let told: Vec<_> = told.collect();
        let expected = if told.is_empty() { vec![bare] } else { told };
        assert_eq!(addresses(&mut worker.swarm.behaviour_mut().parts.kad, peer), expected);
    }
}

#[tokio::test]
async fn where_the_operators_own_peers_are_is_for_him_to_say() {
    let (peer, told) = (PeerId::random(), "/ip4/127.0.0.1/tcp/1".parse::<Multiaddr>().unwrap());
    let own = format!("n=/ip4/127.0.0.1/tcp/2/p2p/{peer}").parse().unwrap();
    for (peers, dialled) in [(vec![], true), (vec![own], false)] {
        let (_, mut worker) = p2p::build(P2pConfig { peers, ..config() }, Arc::new(Mute)).unwrap();
        assert_eq!(worker.swarm.dial(to_peer(peer, vec![told.clone()])).is_ok(), dialled);
    }
}

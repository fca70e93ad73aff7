use std::time::Duration;

use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::request_response::{self, Event, Message, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};

use super::*;
use crate::protocol::codec::JsonCodec;

/// Ids of requests can be had from libp2p only: of as many requests from a real peer.
async fn ids(count: usize) -> Vec<InboundRequestId> {
    let swarm = || -> Swarm<request_response::Behaviour<JsonCodec>> {
        let protocols = || [(StreamProtocol::new("/test"), ProtocolSupport::Full)];
        SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| request_response::Behaviour::new(protocols(), Default::default()))
            .unwrap()
            .build()
    };
    let (mut here, mut there) = (swarm(), swarm());
    here.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let SwarmEvent::NewListenAddr { address, .. } = here.select_next_some().await else { panic!("it listens") };
    there.add_peer_address(*here.local_peer_id(), address);
    for _ in 0..count {
        there.behaviour_mut().send_request(here.local_peer_id(), bytes::Bytes::from_static(b"{}").into());
    }
    let mut ids = Vec::new();
    while ids.len() < count {
        tokio::select! {
            _ = there.select_next_some() => {}
            event = here.select_next_some() => {
                if let SwarmEvent::Behaviour(Event::Message { message: Message::Request { request_id, .. }, .. }) = event {
                    ids.push(request_id);
                }
            }
        }
    }
    ids
}

fn inbound(change: impl FnOnce(&mut P2pConfig)) -> InboundLimits {
    let mut config = P2pConfig::new(Keypair::generate_ed25519());
    change(&mut config);
    InboundLimits::new(&config)
}

fn requester(ip: &str, trusted: bool) -> Requester {
    Requester { peer: PeerId::random(), subnet: Subnet::of(ip.parse().unwrap()), trusted }
}

const MIB: usize = 1 << 20;

impl InboundLimits {
    /// Charges and admits a short request.
    fn enter(&mut self, id: InboundRequestId, requester: Requester, bytes: usize, now: Instant) -> Result<(), Code> {
        self.charge_request(&requester, 0, now)?;
        self.admit(id, requester, bytes)
    }
}

#[tokio::test]
async fn requests_in_flight_are_limited_per_peer_and_in_all() {
    let (ids, now) = (ids(12).await, Instant::now());
    let mut inbound = inbound(|config| (config.max_inbound, config.max_inbound_per_peer) = (10, 4));
    let (greedy, trusted) = (requester("1.1.1.1", false), requester("1.1.1.1", true));
    for id in &ids[..4] {
        inbound.enter(*id, greedy, 0, now).unwrap();
    }
    assert_eq!(inbound.enter(ids[4], greedy, 0, now), Err(Code::Busy), "the peer's limit is reached");
    for id in &ids[4..8] {
        inbound.enter(*id, requester("3.3.3.3", false), 0, now).unwrap();
    }
    assert_eq!(
        inbound.enter(ids[8], requester("2.2.2.2", false), 0, now),
        Err(Code::Busy),
        "a quarter is reserved for trusted peers"
    );
    for id in &ids[8..10] {
        inbound.enter(*id, trusted, 0, now).unwrap();
    }
    assert_eq!(inbound.enter(ids[10], trusted, 0, now), Err(Code::Busy), "the limit is reached");
    inbound.work_done(&ids[0]);
    inbound.stream_closed(&ids[0]);
    inbound.enter(ids[10], trusted, 0, now).unwrap();
    for id in &ids {
        inbound.stream_closed(id);
        inbound.stream_closed(id);
        inbound.work_done(id);
    }
    assert_eq!((inbound.len(), inbound.bytes()), (0, 0));
}

#[tokio::test]
async fn the_untrusted_peers_of_a_subnet_share_a_limit() {
    let (ids, now) = (ids(12).await, Instant::now());
    let places = |config: &mut P2pConfig| config.max_inbound = 16;
    let (mut local, mut inbound) = (inbound(places), inbound(places));
    let neighbour = || requester("1.1.1.1", false);
    for id in &ids[..6] {
        inbound.enter(*id, neighbour(), 0, now).unwrap();
    }
    assert_eq!(inbound.enter(ids[6], neighbour(), 0, now), Err(Code::Busy), "under whatever id");
    inbound.enter(ids[6], requester("1.1.1.1", true), 0, now).unwrap();
    inbound.enter(ids[7], requester("2.2.2.2", false), 0, now).unwrap();
    inbound.work_done(&ids[0]);
    inbound.stream_closed(&ids[0]);
    inbound.enter(ids[8], neighbour(), 0, now).unwrap();
    assert_eq!(inbound.enter(ids[9], neighbour(), 0, now), Err(Code::Busy), "only one request had ended");
    for id in &ids {
        local.enter(*id, requester("127.0.0.1", false), 0, now).expect("this machine is no subnet");
    }
}

#[tokio::test]
async fn a_request_counts_until_its_work_is_done_and_is_charged() {
    let (ids, now) = (ids(6).await, Instant::now());
    let mut inbound = inbound(|config| (config.max_inbound, config.peer_rate_limit) = (4, 10));
    let (asks, again) = (requester("127.0.0.1", false), requester("127.0.0.1", false));
    for id in &ids[..3] {
        inbound.enter(*id, asks, MIB, now).unwrap();
        inbound.stream_closed(id);
    }
    assert_eq!((inbound.len(), inbound.bytes()), (3, 3 * MIB), "the work goes on");
    assert_eq!(inbound.enter(ids[3], again, 0, now), Err(Code::Busy), "under whatever id");
    assert!(inbound.answer_ready(&ids[0], 2 * MIB, now), "to a closed stream");
    inbound.work_done(&ids[1]);
    assert_eq!((inbound.len(), inbound.bytes()), (1, MIB));
    inbound.enter(ids[3], again, 0, now).unwrap();
    assert_eq!(inbound.enter(ids[4], asks, 0, now), Err(Code::RateLimited), "the answer was charged");
}

#[tokio::test]
async fn memory_is_limited_in_all_per_peer_and_per_subnet() {
    let (ids, now) = (ids(8).await, Instant::now());
    let mut inbound = inbound(|config| config.answer_bytes = 40 * MIB);
    let (first, neighbour, second) =
        (requester("1.1.1.1", false), requester("1.1.1.9", false), requester("2.2.2.2", false));
    let (another, third, trusted) =
        (requester("1.1.1.20", false), requester("3.3.3.3", false), requester("1.1.1.1", true));
    inbound.enter(ids[0], first, 8 * MIB, now).unwrap();
    assert_eq!(inbound.enter(ids[1], first, 3 * MIB, now), Err(Code::Busy), "a quarter is the most");
    inbound.enter(ids[1], first, 2 * MIB, now).unwrap();
    inbound.enter(ids[2], first, SHORT_BYTES, now).unwrap();
    inbound.work_done(&ids[2]);
    inbound.stream_closed(&ids[2]);
    inbound.enter(ids[2], neighbour, 10 * MIB, now).unwrap();
    assert_eq!(inbound.enter(ids[3], another, MIB, now), Err(Code::Busy), "half for all of a subnet");
    assert_eq!(inbound.enter(ids[3], second, 6 * MIB, now), Err(Code::Busy), "long answers leave three eighths");
    inbound.enter(ids[3], second, 5 * MIB, now).unwrap();
    assert_eq!(inbound.enter(ids[4], third, MIB, now), Err(Code::Busy), "from any peer");
    inbound.enter(ids[4], third, SHORT_BYTES, now).unwrap();
    inbound.enter(ids[5], trusted, 15 * MIB - SHORT_BYTES, now).unwrap();
    assert_eq!(inbound.bytes(), 40 * MIB);
    assert_eq!(inbound.enter(ids[6], third, 1, now), Err(Code::Busy), "a quarter is reserved for trusted peers");
    assert!(!inbound.answer_ready(&ids[3], 6 * MIB, now), "longer than estimated, and over the limit");
    assert!(inbound.answer_ready(&ids[0], MIB, now), "shorter than estimated");
    assert_eq!(inbound.bytes(), 33 * MIB);
    inbound.work_done(&ids[5]);
    inbound.stream_closed(&ids[5]);
    assert!(inbound.answer_ready(&ids[3], 11 * MIB, now), "the only one of its subnet");
    assert!(!inbound.answer_ready(&ids[4], 2 * MIB, now), "a short one that has become long");
    for id in &ids {
        inbound.work_done(id);
        inbound.stream_closed(id);
    }
    assert_eq!((inbound.len(), inbound.bytes()), (0, 0));
}

#[tokio::test]
async fn one_answer_fits_in_the_least_memory() {
    let (ids, now) = (ids(2).await, Instant::now());
    let mut inbound = inbound(|config| config.answer_bytes = 0);
    let one = requester("1.1.1.1", false);
    inbound.enter(ids[0], one, MIB, now).unwrap();
    assert!(inbound.answer_ready(&ids[0], MAX_RESPONSE_BYTES, now));
    assert_eq!(inbound.enter(ids[1], one, 1, now), Err(Code::Busy));
    inbound.stream_closed(&ids[0]);
    inbound.enter(ids[1], one, MAX_RESPONSE_BYTES, now).unwrap();
}

#[tokio::test]
async fn the_rate_counts_blocks_per_peer_and_per_subnet() {
    let (ids, now) = (ids(1).await, Instant::now());
    let mut inbound = inbound(|config| config.peer_rate_limit = 10);
    let ask = |inbound: &mut InboundLimits, requester, blocks: usize, now| {
        inbound.enter(ids[0], requester, 0, now)?;
        assert!(inbound.answer_ready(&ids[0], blocks * BLOCK_BYTES, now));
        inbound.stream_closed(&ids[0]);
        Ok::<_, Code>(())
    };
    let (one, trusted) = (requester("1.1.1.1", false), requester("1.1.1.1", true));
    ask(&mut inbound, one, 150, now).unwrap();
    assert_eq!(ask(&mut inbound, one, 0, now), Err(Code::RateLimited), "ten seconds' worth, and a debt");
    let later = now + Duration::from_secs(6);
    assert_eq!(ask(&mut inbound, one, 0, later), Ok(()), "paid");
    assert_eq!((0..200).filter(|_| ask(&mut inbound, trusted, 1000, now).is_ok()).count(), 200);
    let crowd = (0..100).filter(|_| ask(&mut inbound, requester("1.1.1.9", false), 9, later).is_ok()).count();
    assert!((20..60).contains(&crowd), "{crowd} of one /24, each for the first time");
    let here = (0..100).filter(|_| ask(&mut inbound, requester("127.0.0.1", false), 9, later).is_ok()).count();
    assert_eq!(here, 100, "this machine is no subnet");
}

#[test]
fn a_request_is_charged_by_its_length() {
    let now = Instant::now();
    let (mut free, mut inbound) =
        (inbound(|config| config.peer_rate_limit = 0), inbound(|config| config.peer_rate_limit = 10));
    let (one, neighbour, trusted) =
        (requester("1.1.1.1", false), requester("1.1.1.1", false), requester("1.1.1.1", true));
    assert_eq!(inbound.charge_request(&one, 150 * BLOCK_BYTES, now), Ok(()));
    assert_eq!(inbound.charge_request(&one, 0, now), Err(Code::RateLimited), "ten seconds' worth, and a debt");
    assert_eq!(inbound.charge_request(&neighbour, 300 * BLOCK_BYTES, now), Ok(()));
    assert_eq!(
        inbound.charge_request(&requester("1.1.1.9", false), 0, now),
        Err(Code::RateLimited),
        "the subnet's limit is reached"
    );
    assert_eq!(inbound.charge_request(&trusted, 1000 * BLOCK_BYTES, now), Ok(()));
    assert_eq!(inbound.charge_request(&trusted, 0, now), Ok(()));
    assert_eq!((0..100).filter(|_| free.charge_request(&one, MIB, now).is_ok()).count(), 100, "no limit");
}

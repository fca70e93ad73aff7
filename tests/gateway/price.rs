//! What a client pays for what is fetched from a peer.

use std::time::Instant;

use modal_gateway::config::Config;

use crate::support::{
    gateway::{Backend, PATIENCE, TestGateway, TestStore, synthetic},
    peer::ScriptedPeer,
    serving::Serving,
};

/// As in `rate.rs`: bytes of an answer that cost a unit, and by how much a peer's are dearer.
const UNIT_BYTES: usize = 64 << 10;
const FORWARDED: u64 = 5;

#[tokio::test]
async fn a_peers_answer_is_charged_whole_even_if_not_sent() {
    let peer = ScriptedPeer::start(Serving::of(&synthetic(1000)).script()).await;
    let peers = [format!("peer={}", peer.address)];
    let adjust = |config| Config { rate_limit: 1, rate_burst: 1000, ..config };
    let gateway = TestGateway::over(TestStore::create(Backend::Sqlite).await, &peers, adjust).await;
    gateway.p2p.wait_connected("peer", PATIENCE).await.unwrap();
    let ask = async |client: &str, copies: &str| {
        let start = Instant::now();
        let reply = gateway.request(|http, base| {
            let request = http.get(format!("{base}/data/miner_block/range?from_index=0&to_index=999&peer=peer"));
            request.header("x-forwarded-for", client).header("if-none-match", copies)
        });
        let reply = reply.await;
        let left = reply.header("ratelimit").unwrap().strip_prefix("\"client\";r=").unwrap();
        let left: u64 = left.split(';').next().unwrap().parse().unwrap();
        (reply, left, start)
    };
    let (whole, left, start) = ask("192.0.2.1", "\"another\"").await;
    assert_eq!((whole.status, whole.json()["data"]["count"].as_u64()), (200, Some(1000)));
    let units = (whole.body.len() / UNIT_BYTES) as u64;
    assert!(units > 2, "{} bytes tell nothing", whole.body.len());
    // One comes back each second.
    let paid = |start: Instant| {
        let least = 1000 - FORWARDED * (1 + units);
        least..=least + start.elapsed().as_secs()
    };
    assert!(paid(start).contains(&left), "{left}");
    let (known, left, start) = ask("192.0.2.2", "*").await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert!(paid(start).contains(&left), "{left}: it was fetched all the same");
}

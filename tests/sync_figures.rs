//! What a sync may cost: the times are measured, so that these tests run alone, one after the other.

mod support;

#[path = "sync/node.rs"]
mod node;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use modal_gateway::{
    chain::{Level, MinerBlock},
    source::job::Mode,
};
use node::{PEER_TIMEOUT, Syncing, by, serve};
use rstest::rstest;
use support::{
    clock::judge,
    gateway::Backend,
    linked::linked,
    peer::{Reply, ScriptedPeer},
    serving::Serving,
};
use tokio::sync::Mutex;

/// Held by the test that measures.
static ALONE: Mutex<()> = Mutex::const_new(());

/// How long a peer has for an answer among liars: the honest one sends thousands of blocks, maybe on a busy machine.
const ANSWER: Duration = Duration::from_secs(5);

/// Blocks of the chain among liars.
const LENGTH: u64 = 100_000;

/// How long a sync from these peers takes, which ends with this chain.
async fn time(backend: Backend, peers: &[&ScriptedPeer], chain: &[MinerBlock]) -> Duration {
    let syncing = Syncing::at(backend, &[], Level::Linked).await.waiting(ANSWER);
    for peer in peers {
        syncing.meet(peer).await;
    }
    let started = Instant::now();
    syncing.sync(&by(Mode::Delta)).await.unwrap();
    let took = started.elapsed();
    assert_eq!(tip(&syncing).await, chain.last().map(|block| block.hash.clone()));
    took
}

async fn tip(syncing: &Syncing) -> Option<String> {
    syncing.store.state().await.unwrap().tip.map(|tip| tip.hash)
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn three_liars_cost_at_most_half_the_time_more(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let _alone = ALONE.lock().await;
    let chain = linked(None, LENGTH, "honest");
    let mut invalid = chain.clone();
    // Ages ahead of now. A target off the schedule would blame nobody at this level, and be fetched a few times.
    invalid[LENGTH as usize / 2].timestamp = i64::MAX / 2;
    let honest = serve(&Serving::of(&chain)).await;
    let nothing = Serving::of(&chain).claiming(&"9".repeat(30), LENGTH + 100).blocks(Vec::clear);
    let boaster = serve(&nothing).await;
    let forger = serve(&Serving::of(&invalid)).await;
    let staller = serve(&Serving::of(&chain).silent_beyond(LENGTH / 2)).await;

    let before = time(backend, &[&honest], &chain).await;
    let crowd = [&boaster, &forger, &staller, &honest];
    let mut among = time(backend, &crowd, &chain).await;
    // What else the machine has to do comes and goes.
    let alone = time(backend, &[&honest], &chain).await.max(before);
    // A plan that fails begins with a poll, which may wait for the peer that is silent.
    let most = alone.mul_f64(1.5) + ANSWER;
    if among > most {
        among = among.min(time(backend, &crowd, &chain).await);
    }
    println!("{backend:?}: {LENGTH} blocks in {alone:?} from an honest peer, in {among:?} among three liars");
    judge(among <= most, format_args!("{among:?} among three liars, {alone:?} without them"));
    for (liar, path) in [(&boaster, "chain_info"), (&forger, "range"), (&staller, "range")] {
        let asked = |request: &serde_json::Value| request["path"].as_str().is_some_and(|asked| asked.ends_with(path));
        assert!(liar.requests().iter().any(asked), "each had its chance: {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_peer_that_falls_silent_does_not_delay_the_next_poll() {
    let _alone = ALONE.lock().await;
    let chain = linked(None, 100, "honest");
    // Its claim is the greatest, so that it is asked first.
    let serving = Serving::of(&chain).info(|info| info["cumulative_difficulty"] = "9".repeat(30).into());
    let is_silent = AtomicBool::new(false);
    let silent = ScriptedPeer::start(move |request| {
        is_silent.fetch_or(request["path"] == "/data/miner_block/find_ancestor", Ordering::Relaxed);
        if is_silent.load(Ordering::Relaxed) { Reply::Silence } else { serving.answer(&request) }
    });
    let (silent, honest) = (silent.await, serve(&Serving::of(&chain)).await);
    let syncing = Syncing::at(Backend::Sqlite, &chain[..50], Level::Linked).await;
    syncing.meet(&silent).await;
    syncing.meet(&honest).await;
    syncing.p2p.set_trust(silent.peer_id, true).unwrap();
    let started = Instant::now();
    syncing.sync(&by(Mode::Delta)).await.unwrap();
    let took = started.elapsed();
    assert_eq!(tip(&syncing).await, chain.last().map(|block| block.hash.clone()));
    assert!(took >= PEER_TIMEOUT, "{took:?}: the trusted peer was not asked first");
    // The next poll may take as long again, if it waits for the trusted peer.
    judge(took < PEER_TIMEOUT.mul_f64(1.75), format_args!("{took:?}"));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_last_ten_of_100_000_blocks_take_few_requests_and_no_time(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    // Whether our last blocks are others, too.
    #[values(false, true)] forked: bool,
) {
    let _alone = ALONE.lock().await;
    let chain = linked(None, 100_000, "honest");
    let held = chain.len() - 10;
    let syncing = Syncing::at(backend, &chain[..held], Level::Linked).await;
    let chain = match forked {
        true => [&chain[..held - 3], &linked(Some(&chain[held - 4]), 13, "fork")].concat(),
        false => chain,
    };
    let peer = serve(&Serving::of(&chain)).await;
    syncing.meet(&peer).await;
    let started = Instant::now();
    let progress = syncing.sync(&by(Mode::Delta)).await.unwrap();
    let took = started.elapsed();
    assert_eq!(tip(&syncing).await, chain.last().map(|block| block.hash.clone()));
    assert_eq!(progress.blocks, if forked { 13 } else { 10 });
    let requests = peer.requests().len();
    println!("{backend:?}: {requests} requests, {took:?}");
    assert!(requests < 20, "{requests} requests");
    judge(took < Duration::from_secs(1), format_args!("{took:?}"));
}

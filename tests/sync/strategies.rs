//! The ways to fetch a chain, from peers of every kind.

use modal_gateway::{
    chain::Level,
    source::job::{Mode, Phase},
};
use rstest::rstest;
use serde_json::{Value, json};

use super::{
    liars::assert_blamed,
    node::{Syncing, by, counts, fill, serve},
};
use crate::support::{
    chain::{HEAVY, LIGHT, main_chain},
    gateway::{Backend, PATIENCE, TestGateway, TestStore},
    linked::network,
    peer::{Reply, ScriptedPeer},
    serving::Serving,
};

/// The paths asked, and how often each.
fn asked(peer: &ScriptedPeer, path: &str) -> Vec<Value> {
    let requests = peer.requests().into_iter();
    let data = requests.filter(|request| request["path"].as_str().unwrap().ends_with(path));
    data.map(|request| request["data"].clone()).collect()
}

#[rstest]
#[tokio::test]
async fn each_strategy_fetches_the_whole_chain(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Mode::Full, Mode::Incremental, Mode::Epoch, Mode::Headers, Mode::Delta)] mode: Mode,
    #[values("today's", "fifty at a time", "first release")] kind: &str,
) {
    let chain = main_chain();
    let node = match kind {
        "fifty at a time" => Serving::of(chain).at_most(50),
        "first release" => Serving::of(chain).first_release(),
        _ => Serving::of(chain),
    };
    let peer = serve(&node).await;
    let syncing = Syncing::with(backend, &[]).await.waiting(PATIENCE);
    syncing.meet(&peer).await;
    let progress = syncing.sync(&by(mode)).await.unwrap();
    syncing.assert_holds(chain).await;

    let length = chain.len() as u64;
    assert_eq!((progress.phase, progress.blocks, progress.retries), (Phase::Done, length, 0), "{progress:?}");
    assert_eq!((progress.from_index, progress.to_index), (Some(0), Some(length - 1)));
    assert_eq!((progress.common_ancestor_index, progress.aside), (None, false));
    assert_eq!((progress.verification, progress.eta_seconds, &progress.last_error), (Some(Level::Pow), None, &None));
    let gave = counts(&progress, &peer);
    assert!(gave.blocks >= length && gave.bytes == progress.bytes && gave.bytes > length * 300, "{gave:?}");
    assert_eq!((gave.requests, gave.penalties), (peer.requests().len() as u64, vec![]));
    assert_eq!(syncing.info(&peer).penalties, 0);

    match mode {
        Mode::Full => assert_eq!(asked(&peer, "/canonical").len(), 1),
        Mode::Epoch => {
            let epochs: Vec<_> = asked(&peer, "/epoch").into_iter().map(|data| data["epoch"].clone()).collect();
            assert_eq!(epochs, (0..30).map(Value::from).collect::<Vec<_>>(), "each once, in order");
        }
        _ => assert!(asked(&peer, "/canonical").is_empty() && asked(&peer, "/epoch").is_empty()),
    }
    if mode == Mode::Headers {
        assert!(!asked(&peer, "/headers").is_empty(), "asked for, and done without");
    }
    let ranges = asked(&peer, "/range");
    assert!(ranges.iter().all(|data| data["max_chunk_size"].as_u64().is_some_and(|size| (1..=1000).contains(&size))));
}

#[rstest]
#[tokio::test]
async fn a_strategy_goes_on_from_what_is_there(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Mode::Full, Mode::Incremental, Mode::Epoch, Mode::Headers, Mode::Delta)] mode: Mode,
) {
    let chain = main_chain();
    let peer = serve(&Serving::of(chain)).await;
    let syncing = Syncing::with(backend, &chain.first(1_150)).await.waiting(PATIENCE);
    syncing.meet(&peer).await;
    let progress = syncing.sync(&by(mode)).await.unwrap();
    syncing.assert_holds(chain).await;
    assert_eq!((progress.from_index, progress.to_index, progress.blocks), (Some(1_150), Some(1_200), 51));
    assert_eq!((progress.common_ancestor_index, progress.aside), (Some(1_149), false));
    let again = syncing.sync(&by(mode)).await.unwrap();
    assert_eq!((again.phase, again.blocks), (Phase::Done, 0), "there is nothing left to do");
}

#[rstest]
#[tokio::test]
async fn our_own_nodes_give_headers_and_compress(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Mode::Headers, Mode::Delta, Mode::Full)] mode: Mode,
) {
    let chain = main_chain();
    let theirs = TestStore::create(backend).await;
    fill(&*theirs.open().await, chain, Level::Pow).await;
    let gateway =
        TestGateway::over(theirs, &[], |config| modal_gateway::config::Config { network: network(), ..config });
    let gateway = gateway.await;
    let syncing = Syncing::with(backend, &[]).await.waiting(PATIENCE);
    syncing.meet_at(gateway.p2p.dial_addresses().remove(0)).await;
    let progress = syncing.sync(&by(mode)).await.unwrap();
    syncing.assert_holds(chain).await;
    let length = chain.len() as u64;
    let headers = if mode == Mode::Headers { length } else { 0 };
    assert_eq!((progress.blocks, progress.headers), (length, headers));
    let plain: usize = chain.iter().map(|block| block.to_json().len()).sum();
    println!("{mode:?}: {} bytes on the wire, {plain} of blocks", progress.bytes);
    assert!(progress.bytes <= plain as u64 / 3, "{} bytes on the wire, {plain} of blocks", progress.bytes);
}

/// A peer whose chain becomes another one when it has answered the first request of this path for blocks from `from`
/// on.
async fn moving(
    node: &Serving,
    path: &'static str,
    from: u64,
    then: &[modal_gateway::chain::MinerBlock],
) -> ScriptedPeer {
    let (chain, answer, then) = (node.chain(), node.script(), std::sync::Mutex::new(Some(then.to_vec())));
    ScriptedPeer::start(move |request| {
        let reply = answer(request.clone());
        if request["path"].as_str().is_some_and(|asked| asked.ends_with(path))
            && request["data"]["from_index"] == from
            && request["data"]["to_index"].as_u64() > Some(from)
            && let Some(then) = then.lock().unwrap().take()
        {
            *chain.lock().unwrap() = then;
        }
        reply
    })
    .await
}

#[rstest]
#[tokio::test]
async fn a_tip_that_moves_meanwhile_is_followed(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Mode::Incremental, Mode::Headers, Mode::Delta)] mode: Mode,
    #[values("grows", "is reorganised")] how: &str,
) {
    let chain = main_chain();
    let then = match how {
        "grows" => chain.clone(),
        _ => chain.fork(900, "meanwhile").extend(100, &HEAVY).extend(60, &LIGHT),
    };
    let node = Serving::of(&chain.first(1_100)).at_most(50).headers(|_| {});
    let peer = moving(&node, "/range", 0, &then).await;
    let syncing = Syncing::with(backend, &[]).await.waiting(PATIENCE);
    syncing.meet(&peer).await;
    let progress = syncing.sync(&by(mode)).await.unwrap();
    syncing.assert_holds(&then).await;
    // A shorter chain lacks blocks that it had: once, and little is made of it.
    let (info, held) = (syncing.info(&peer), counts(&progress, &peer).penalties);
    let excused = if how == "grows" { &[][..] } else { &["unreliable"][..] };
    assert!(held.is_empty() || held == excused, "a tip may move: {held:?}");
    assert!(info.penalties == held.len() as u64 && info.score <= 5.0 && !info.shunned, "{info:?}");
}

#[rstest]
// Inside a window, and between two of headers.
#[case::incremental(Mode::Incremental, "/range", 900)]
#[case::delta(Mode::Delta, "/range", 900)]
#[case::headers(Mode::Headers, "/headers", 0)]
#[tokio::test]
async fn a_reorganisation_between_two_answers_is_no_offence(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] mode: Mode,
    #[case] path: &'static str,
    #[case] at: u64,
) {
    let chain = main_chain();
    let then = chain.fork(900, "meanwhile").extend(200, &HEAVY);
    let node = Serving::of(&chain.first(1_050)).at_most(50).headers(|_| {});
    let peer = moving(&node, path, at, &then).await;
    let syncing = Syncing::with(backend, &[]).await.waiting(PATIENCE);
    syncing.meet(&peer).await;
    let progress = syncing.sync(&by(mode)).await.unwrap();
    syncing.assert_holds(&then).await;
    assert!(progress.retries > 0, "what came did not fit: {progress:?}");
    assert_eq!((counts(&progress, &peer).penalties, syncing.info(&peer).penalties), (vec![], 0));
}

#[rstest]
#[tokio::test]
async fn the_heavier_of_two_peers_wins(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(60, 140)] length: usize,
    #[values(0, 300)] held: usize,
) {
    let chain = main_chain();
    let light = chain.first(401);
    let heavy = chain.fork(300, "heavy").extend(length, &HEAVY);
    assert!(heavy.work() > light.work());
    let peers = [serve(&Serving::of(&light)).await, serve(&Serving::of(&heavy)).await];
    let syncing = Syncing::with(backend, &chain[..held]).await.waiting(PATIENCE);
    for peer in &peers {
        syncing.meet(peer).await;
    }
    syncing.sync(&by(Mode::Delta)).await.unwrap();
    syncing.assert_holds(&heavy).await;
    for peer in &peers {
        assert_eq!(syncing.info(peer).penalties, 0, "to have another chain is no offence");
    }
    let requests = asked(&peers[1], "/chain_info");
    assert_eq!(
        requests[0],
        json!({"local_block_hashes": [], "include_blocks": false}),
        "whole chains are not asked for"
    );
}

#[tokio::test]
async fn an_answer_over_ten_mebibytes_is_the_end_of_a_full_sync_only() {
    let chain = main_chain();
    let node = Serving::of(chain);
    let answer = node.script();
    let peer = ScriptedPeer::start(move |request| match request["path"].as_str() {
        Some("/data/miner_block/canonical") => Reply::Raw(vec![b' '; (10 << 20) + 1].into()),
        _ => answer(request),
    })
    .await;
    let syncing = Syncing::with(Backend::Sqlite, &[]).await.waiting(PATIENCE);
    syncing.meet(&peer).await;
    syncing.sync_until(&by(Mode::Full), |progress| progress.retries > 0).await;
    syncing.assert_holds(&[]).await;
    syncing.sync(&by(Mode::Delta)).await.unwrap();
    syncing.assert_holds(chain).await;
}

#[rstest]
#[tokio::test]
async fn a_peer_that_asks_to_slow_down_is_asked_again(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("Too many requests", "Too many requests in progress")] text: &'static str,
) {
    let chain = main_chain();
    let (script, asked) = (Serving::of(chain).script(), std::sync::atomic::AtomicU32::new(0));
    let peer = ScriptedPeer::start(move |request| {
        let range = request["path"] == "/data/miner_block/range";
        match range && asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 2 == 0 {
            true => Reply::Json(json!({"ok": false, "data": null, "errors": {"error": text}})),
            false => script(request),
        }
    });
    let peer = peer.await;
    let syncing = Syncing::with(backend, &[]).await.waiting(PATIENCE);
    syncing.meet(&peer).await;
    let progress = syncing.sync(&by(Mode::Delta)).await.unwrap();
    syncing.assert_holds(chain).await;
    let peer = counts(&progress, &peer);
    assert!(peer.failures > 0 && peer.penalties.is_empty(), "{progress:?}");
}

#[rstest]
#[tokio::test]
async fn a_block_that_is_longer_than_ours_may_be_is_no_offence(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    // The network's nodes have no such limit: a miner's long block is on an honest node's chain.
    let ours = main_chain().first(20);
    let long = ours.fork(19, &"x".repeat(200_000)).extend(1, &HEAVY);
    let peer = serve(&Serving::of(&long)).await;
    let syncing = Syncing::with(backend, &ours).await.waiting(PATIENCE);
    syncing.meet(&peer).await;
    let error = syncing.sync(&by(Mode::Delta)).await.expect_err("there is nobody to get the chain from");
    assert!(error.to_string().contains("too long"), "{error}");
    syncing.assert_holds(&ours).await;
    assert_blamed(&syncing, &peer, None).await;
}

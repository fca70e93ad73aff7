//! Peers that claim what they don't have: work, a tip, or headers that are not those of their blocks.

use std::time::Duration;

use modal_gateway::{
    chain::{Level, MinerBlock},
    source::job::{Mode, SyncState},
    sync::{Service, Settings},
};
use rstest::rstest;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    liars::{AT, HELD, LENGTH, assert_blamed, assert_honest_chain_wins, beginning, honest},
    node::{Syncing, by, eventually, serve, settings},
};
use crate::support::{
    chain::{Chain, HEAVY, LIGHT, main_chain},
    gateway::{Backend, PATIENCE},
    peer::ScriptedPeer,
    serving::Serving,
};

#[rstest]
#[tokio::test]
async fn claimed_numbers_are_only_hints(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(HELD, LENGTH)] held: usize,
    // As of a node that counts what it keeps beside its chain, and of one that boasts.
    #[values("4", "999999999999999999999999999999")] more: &str,
) {
    let work = honest().work() + more.parse::<u128>().unwrap();
    let node = Serving::of(&honest()).info(move |info| {
        info["cumulative_difficulty"] = json!(work.to_string());
        info["chain_length"] = json!(LENGTH + 3);
        info["chain_height"] = json!(LENGTH + 2);
    });
    let peer = serve(&node).await;
    let syncing = Syncing::with(backend, &honest()[..held]).await;
    syncing.meet(&peer).await;
    syncing.sync(&by(Mode::Delta)).await.unwrap();
    syncing.assert_holds(&honest()).await;
    assert_blamed(&syncing, &peer, None).await;
    let info = syncing.info(&peer);
    let chain = info.chain.unwrap();
    assert_eq!((chain.tip_index, chain.claimed_height), (Some(LENGTH as u64 - 1), LENGTH as u64 + 2));
}

#[rstest]
#[tokio::test]
async fn a_weighed_chain_is_not_fetched_again_for_a_greater_claim(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let light = honest().fork(HELD as u64, "light").extend(10, &LIGHT);
    let node = Serving::of(&light).info(|info| info["cumulative_difficulty"] = json!("9".repeat(30)));
    let peer = serve(&node).await;
    let syncing = Syncing::with(backend, &honest()).await;
    syncing.meet(&peer).await;
    let _running = syncing.run();
    syncing.wait_for(SyncState::Synced).await;
    let ranges = || peer.requests().iter().filter(|asked| asked["path"] == "/data/miner_block/range").count();
    let before = ranges();
    // Another one connects, so that all are looked at again.
    let other = serve(&Serving::of(&honest()).info(|_| {})).await;
    syncing.meet(&other).await;
    let asked = async || syncing.p2p.peers().iter().all(|info| info.chain.is_some()).then_some(());
    other.publish(super::following::announcement(&main_chain()[LENGTH + 5]));
    eventually(asked).await;
    assert_eq!(ranges(), before, "its weight is known by its tip");
    syncing.assert_holds(&honest()).await;
    assert_eq!(syncing.info(&peer).penalties, 0);
}

#[rstest]
#[tokio::test]
async fn a_lighter_branch_that_several_peers_have_is_weighed_once(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let light = honest().fork(HELD as u64, "light").extend(10, &LIGHT);
    let node = Serving::of(&light).info(|info| info["cumulative_difficulty"] = json!("9".repeat(30)));
    let syncing = Syncing::with(backend, &honest()).await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        let peer = serve(&node).await;
        syncing.meet(&peer).await;
        peers.push(peer);
    }
    let progress = syncing.sync(&by(Mode::Delta)).await.unwrap();
    assert_eq!((progress.blocks, progress.retries), (10, 0));
    syncing.assert_holds(&honest()).await;
    assert!(peers.iter().all(|peer| syncing.info(peer).penalties == 0), "honest nodes count stray blocks too");
}

#[rstest]
#[tokio::test]
async fn a_branch_that_loses_by_its_own_headers_costs_no_hash(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Mode::Full, Mode::Headers, Mode::Delta)] mode: Mode,
) {
    // Headers that lead to the tip of a heavy chain with little work. Each hash that is computed of them would be held
    // against the peer.
    let heavy = honest().fork(AT as u64, "heavy").extend(100, &HEAVY);
    let mut forged = heavy.to_vec();
    for at in AT + 1..forged.len() {
        forged[at].previous_hash = forged[at - 1].hash.clone();
        if at + 1 < forged.len() {
            forged[at].hash = format!("00ff{at:060x}");
        }
    }
    let node = Serving::of(&forged).headers(|_| {}).info(|info| info["cumulative_difficulty"] = json!("9".repeat(30)));
    let peer = serve(&node).await;
    let syncing = Syncing::with(backend, &honest()).await;
    syncing.meet(&peer).await;
    let progress = syncing.sync(&by(mode)).await.unwrap();
    assert_eq!((progress.blocks, progress.retries, progress.last_error), (0, 0, None));
    // At the end it is asked for its tip again, and no more.
    let mut asked: Vec<_> = peer.requests().iter().map(|asked| asked["path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(asked.pop().unwrap(), "/data/miner_block/chain_info");
    let last = match mode {
        Mode::Full => "/data/miner_block/canonical",
        Mode::Headers => "/data/miner_block/headers",
        _ => "/data/miner_block/range",
    };
    assert_eq!(asked.pop().unwrap(), last, "with headers, no block is asked for after them");
    syncing.assert_holds(&honest()).await;
    assert_eq!(syncing.info(&peer).penalties, 0, "to have less work is no offence");

    // Nothing is proven by that: a peer that has the heavy chain, with the same tip, is followed.
    let other = serve(&Serving::of(&heavy)).await;
    syncing.meet(&other).await;
    syncing.sync(&by(mode)).await.unwrap();
    syncing.assert_holds(&heavy).await;
}

#[rstest]
#[tokio::test]
async fn a_claimed_tip_that_the_peer_lacks_is_not_followed(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    // At its own height, beyond its end, and where no chain can be.
    #[values(300, 5_000, u64::MAX - 1)] height: u64,
    #[values(Mode::Full, Mode::Headers, Mode::Delta)] mode: Mode,
) {
    let liar = serve(&Serving::of(&honest()).claiming(&"9".repeat(30), height)).await;
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&liar).await;
    syncing.sync_until(&by(mode), |progress| progress.retries > 0).await;
    beginning(&syncing).await;
    // A tip may have been reorganised away meanwhile.
    let info = syncing.info(&liar);
    assert_eq!((info.last_penalty, info.shunned), (None, false));
    assert_honest_chain_wins(&syncing, &liar).await;
}

/// A peer whose headers have this change at [`AT`].
fn header(change: impl Fn(&mut MinerBlock) + Send + Sync + 'static) -> Serving {
    Serving::of(&honest()).headers(move |list| list.iter_mut().filter(|it| it.index == AT as u64).for_each(&change))
}

#[rstest]
#[case::schedule(header(|it| (it.target_difficulty, it.hash) = (2, "0".repeat(64))), "`schedule`")]
#[case::target(header(|it| it.hash = "f".repeat(64)), "`target`")]
#[tokio::test]
async fn an_invalid_header_is_found_before_a_block_is_fetched(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] node: Serving,
    #[case] said: &str,
) {
    let liar = serve(&node).await;
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&liar).await;
    let error = syncing.sync(&by(Mode::Headers)).await.unwrap_err();
    assert!(error.to_string().contains(said), "{error}");
    assert_eq!(beginning(&syncing).await, HELD);
    assert!(liar.requests().iter().all(|request| request["path"] != "/data/miner_block/range"));
    assert_blamed(&syncing, &liar, Some("invalid_block")).await;
    assert_honest_chain_wins(&syncing, &liar).await;
}

#[rstest]
#[tokio::test]
async fn blocks_of_another_chain_than_their_headers_are_not_taken(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let other = honest().fork(HELD as u64 - 1, "other").extend(LENGTH, &LIGHT).to_vec();
    let liar = Serving::of(&honest()).headers(|_| {});
    let liar =
        serve(&liar.blocks(move |list| list.iter_mut().for_each(|it| *it = other[it.index as usize].clone()))).await;
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&liar).await;
    syncing.sync_until(&by(Mode::Headers), |progress| progress.retries > 0).await;
    assert_eq!(beginning(&syncing).await, HELD, "they are good blocks, and not those that were weighed");
    assert_eq!(syncing.info(&liar).penalties, 0, "it may have reorganised meanwhile");
}

/// The same change to every list of headers that has a block at [`AT`].
fn messy(change: impl Fn(&mut Vec<MinerBlock>, usize) + Send + Sync + 'static) -> Serving {
    Serving::of(&honest()).headers(move |list| {
        if let Some(at) = list.iter().position(|it| it.index == AT as u64) {
            change(list, at);
        }
    })
}

#[rstest]
#[case::several(messy(|list, at| list.insert(at, MinerBlock { hash: "0".repeat(64), ..list[at].clone() })))]
#[case::none(messy(|list, at| drop(list.remove(at))))]
#[case::elsewhere(messy(|list, at| list[at].index += 1))]
#[case::stray(messy(|list, at| list[at].hash = "0".repeat(64)))]
#[tokio::test]
async fn headers_of_a_messy_store_are_done_without(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] node: Serving,
) {
    let peer = serve(&node).await;
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&peer).await;
    let progress = syncing.sync(&by(Mode::Headers)).await.unwrap();
    syncing.assert_holds(&honest()).await;
    assert_eq!((progress.retries, syncing.info(&peer).penalties), (0, 0), "its blocks are good: {progress:?}");
    assert!(
        peer.requests().iter().any(|request| request["path"] == "/data/miner_block/headers"),
        "they were asked for"
    );
}

/// A tip at index 10 whose parent is our tip would let each plan begin above its end, and bring nothing.
#[rstest]
#[tokio::test]
async fn a_tip_below_its_parent_does_not_keep_the_sync_busy(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let made_up = "00".to_owned() + &"7e".repeat(31);
    let low = MinerBlock {
        hash: made_up.clone(),
        index: 10,
        previous_hash: honest()[HELD - 1].hash.clone(),
        ..honest()[10].clone()
    };
    let node = Serving::of(&honest()).claiming(&"9".repeat(30), 1_000);
    let liar = ScriptedPeer::start(move |request| match request["data"]["hash"] == json!(made_up) {
        true => Serving::of(std::slice::from_ref(&low)).answer(&request),
        false => node.answer(&request),
    })
    .await;
    let peer = serve(&Serving::of(&honest())).await;
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&liar).await;
    syncing.meet(&peer).await;
    let ended = tokio::time::timeout(PATIENCE, syncing.sync(&by(Mode::Delta))).await;
    ended.expect("the job ends").unwrap();
    syncing.assert_holds(&honest()).await;
    assert_eq!(syncing.info(&peer).penalties, 0);
}

/// Its own count says that its chain is shorter; its work says that it is the better one.
#[rstest]
#[tokio::test]
async fn a_heavier_chain_of_the_same_length_is_fetched_from_a_store_with_a_gap(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let ours = honest().fork(HELD as u64, "ours").extend(5, &LIGHT);
    let theirs = honest().fork(HELD as u64, "theirs").extend(5, &HEAVY);
    let (work, length) = (theirs.work() - theirs[3].actualized_difficulty, theirs.len() - 1);
    let peer = serve(&Serving::of(&theirs).info(move |info| {
        info["cumulative_difficulty"] = json!(work.to_string());
        info["chain_length"] = json!(length);
        info["chain_height"] = json!(length - 1);
    }))
    .await;
    let syncing = Syncing::with(backend, &ours).await;
    syncing.meet(&peer).await;
    syncing.sync(&by(Mode::Delta)).await.unwrap();
    syncing.assert_holds(&theirs).await;
    assert_eq!(syncing.info(&peer).penalties, 0);
}

#[rstest]
#[tokio::test]
async fn a_peer_of_another_network_is_not_compared_at_every_poll(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let foreign = serve(&Serving::of(&Chain::genesis(1).extend(5, &LIGHT))).await;
    let peer = serve(&Serving::of(&honest())).await;
    let syncing = Syncing::with(backend, &honest()).await;
    syncing.meet(&foreign).await;
    syncing.meet(&peer).await;
    let settings = Settings { interval: Duration::from_millis(50), ..settings(Level::Pow) };
    let service = Service::new(syncing.store.clone(), syncing.p2p.clone(), &settings).unwrap();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(service.run(stop));
    let polls = |peer: &ScriptedPeer| {
        peer.requests().iter().filter(|asked| asked["path"] == "/data/miner_block/chain_info").count()
    };
    eventually(async || (polls(&peer) >= 5).then_some(())).await;
    assert_eq!(polls(&foreign), 1, "its answer counts for a while");
    assert_eq!(syncing.info(&foreign).penalties, 0);
    syncing.wait_for(SyncState::Synced).await;
}

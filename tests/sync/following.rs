//! A service that follows: gossip, peers that come and go.

use std::sync::Arc;

use libp2p::identity::Keypair;
use modal_gateway::{
    chain::{Level, MinerBlock},
    p2p::{self, Offence, P2pConfig, Verdict},
    source::job::SyncState,
    sync::{Service, Settings},
};
use rstest::rstest;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::node::{Syncing, eventually, serve, settings};
use crate::support::{
    chain::{Chain, HEAVY, LIGHT, MIDDLE, main_chain},
    gateway::{Backend, EmptyResponder, PATIENCE},
    peer::{Reply, ScriptedPeer},
    serving::Serving,
};

/// A block as the network's nodes tell it each other.
pub(super) fn announcement(block: &MinerBlock) -> Value {
    json!({
        "hash": block.hash, "index": block.index, "epoch": block.epoch, "nominated_peer_id": block.nominated_peer_id,
        "previous_hash": block.previous_hash, "difficulty": block.target_difficulty.to_string(),
        "nonce": block.nonce.to_string(), "timestamp": block.timestamp.to_string(), "miner_number": block.miner_number,
    })
}

/// A service that is in sync with peers of this chain, which are given too.
async fn in_sync<const N: usize>(
    backend: Backend,
    chain: &Chain,
) -> (Syncing, [(ScriptedPeer, Serving); N], impl Drop + use<N>) {
    let syncing = Syncing::with(backend, chain).await;
    let running = syncing.run();
    let peers = futures::future::join_all((0..N).map(|_| async {
        let node = Serving::of(chain);
        let peer = serve(&node).await;
        syncing.meet(&peer).await;
        (peer, node)
    }));
    let peers = peers.await.try_into().unwrap_or_else(|_| panic!("as many as wanted"));
    syncing.wait_for(SyncState::Synced).await;
    (syncing, peers, running)
}

/// Waits until the peer has heard something, and tells what.
async fn heard(peer: &ScriptedPeer) -> Vec<Value> {
    let mut heard = peer.heard();
    let something = heard.wait_for(|heard| !heard.is_empty());
    tokio::time::timeout(PATIENCE, something).await.expect("it hears of it").unwrap().clone()
}

#[rstest]
#[tokio::test]
async fn a_block_that_extends_the_chain_is_appended_and_passed_on(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let chain = main_chain().first(51);
    let (syncing, [(announcer, _), (other, _)], _running) = in_sync(backend, &chain.first(50)).await;
    announcer.publish(announcement(chain.tip()));
    syncing.wait_for_tip(chain.tip()).await;
    let seen_at = syncing.chain().await[50].seen_at;
    assert!(seen_at.is_some_and(|at| at > 1_700_000_000), "{seen_at:?}");
    let as_announced = MinerBlock { seen_at, ..chain.tip().clone() };
    syncing.assert_holds(&[&chain[..50], &[as_announced]].concat()).await;
    assert_eq!(heard(&other).await, [announcement(chain.tip())]);
    assert!(syncing.store.jobs(10).await.unwrap().is_empty(), "nobody had to be asked");
}

#[rstest]
#[tokio::test]
async fn a_known_block_is_relayed_as_stored_and_not_in_another_encoding(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let chain = main_chain().first(51);
    let (syncing, [(announcer, _), (other, _)], _running) = in_sync(backend, &chain).await;
    let (mut forged, mut padded) = (announcement(chain.tip()), announcement(chain.tip()));
    forged["miner_number"] = json!(chain.tip().miner_number + 1);
    padded["padding"] = json!("x".repeat(2_000));
    for message in [forged, padded, announcement(&chain[3]), announcement(chain.tip())] {
        announcer.publish(message);
    }
    assert_eq!(heard(&other).await, [announcement(chain.tip())], "neither forged nor padded nor old");
    assert_eq!(syncing.info(&announcer).penalties, 0);
}

#[rstest]
#[tokio::test]
async fn an_invalid_block_is_not_relayed_and_its_author_is_penalised(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values("nonce", "miner_number", "difficulty", "timestamp", "no block at all")] wrong: &str,
) {
    let chain = main_chain().first(51);
    let (syncing, [(liar, _), (honest, _), (other, _)], _running) = in_sync(backend, &chain.first(50)).await;
    let mut message = announcement(chain.tip());
    match wrong {
        "nonce" => message["nonce"] = json!((chain.tip().nonce + 1).to_string()),
        "miner_number" => message["miner_number"] = json!(chain.tip().miner_number + 1),
        "difficulty" => message["difficulty"] = json!("2"),
        "timestamp" => message["timestamp"] = json!((chain.tip().timestamp + 1).to_string()),
        _ => message = json!("tea, anyone?"),
    }
    liar.publish(message);
    if wrong != "no block at all" {
        eventually(async || (syncing.info(&liar).penalties > 0).then_some(())).await;
        let info = syncing.info(&liar);
        assert_eq!((info.last_penalty, info.shunned), (Some("invalid_block"), true));
    }
    honest.publish(announcement(chain.tip()));
    syncing.wait_for_tip(chain.tip()).await;
    assert_eq!(heard(&other).await, [announcement(chain.tip())], "only the good one is passed on");
    assert_eq!(syncing.store.state().await.unwrap().total_blocks, 51);
    assert_eq!((syncing.info(&honest).penalties, syncing.info(&other).penalties), (0, 0));
}

#[rstest]
#[tokio::test]
async fn a_relay_of_an_invalid_block_is_not_penalised(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let chain = main_chain().first(51);
    let (syncing, [(honest, _)], _running) = in_sync(backend, &chain.first(50)).await;
    // Passes everything on without a look.
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let config = P2pConfig { listen, target_peers: 0, ..P2pConfig::new(Keypair::generate_ed25519()) };
    let (relay, _) = p2p::start(config, Arc::new(EmptyResponder), stop).await.unwrap();
    let (mut passed, passing) = (relay.gossip().unwrap(), relay.clone());
    tokio::spawn(async move {
        while let Some(message) = passed.recv().await {
            passing.report_verdict(&message, Verdict::Accept);
        }
    });
    let liar = serve(&Serving::of(&chain.first(50))).await;
    relay.dial(liar.address.clone()).await.unwrap();
    syncing.meet_at(relay.dial_addresses().remove(0)).await;

    let mut bad = announcement(chain.tip());
    bad["nonce"] = json!((chain.tip().nonce + 1).to_string());
    liar.publish(bad);
    eventually(async || (syncing.p2p.gossip_stats().received > 0).then_some(())).await;
    // What comes later is taken later.
    honest.publish(announcement(chain.tip()));
    syncing.wait_for_tip(chain.tip()).await;
    let relay = relay.local_peer_id().to_string();
    let info = syncing.p2p.peers().into_iter().find(|info| info.peer_id.as_ref() == Some(&relay)).unwrap();
    assert_eq!((info.last_penalty, info.shunned), (None, false));
}

#[rstest]
#[tokio::test]
async fn an_unknown_parent_starts_a_sync_from_the_announcer(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let chain = main_chain().first(70);
    let (syncing, [(announcer, node), others @ ..], _running) = in_sync::<17>(backend, &chain.first(50)).await;
    // Of these many only the best are asked, and the announcer is not one of them.
    let long = vec![b'x'; modal_gateway::protocol::MAX_REQUEST_BYTES + 1];
    syncing.p2p.request(announcer.peer_id, long.into(), PATIENCE).await.expect_err("longer than the protocol allows");
    eventually(async || (syncing.p2p.candidates().last() == Some(&announcer.peer_id)).then_some(())).await;
    *node.chain().lock().unwrap() = chain.to_vec();
    announcer.publish(announcement(chain.tip()));
    syncing.wait_for_tip(chain.tip()).await;
    syncing.wait_for(SyncState::Synced).await;
    syncing.assert_holds(&chain).await;
    let fetched = |peer: &ScriptedPeer| peer.requests().iter().any(|asked| asked["path"] == "/data/miner_block/range");
    assert!(fetched(&announcer) && !others.iter().any(|(other, _)| fetched(other)));
}

#[rstest]
#[tokio::test]
async fn an_announcer_without_blocks_does_not_delay_the_sync(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let chain = main_chain().first(51);
    let syncing = Syncing::with(backend, &chain.first(50)).await;
    let honest = serve(&Serving::of(&chain.first(50))).await;
    let unresponsive = ScriptedPeer::start(|_| Reply::Silence).await;
    syncing.meet(&honest).await;
    syncing.meet(&unresponsive).await;
    let settings = Settings { peer_timeout: PATIENCE, ..settings(Level::Pow) };
    let service = Service::new(syncing.store.clone(), syncing.p2p.clone(), &settings).unwrap();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(service.run(stop));
    syncing.wait_for(SyncState::Synced).await;
    let before = unresponsive.requests().len();
    unresponsive.publish(announcement(&main_chain()[60]));
    eventually(async || (unresponsive.requests().len() > before).then_some(())).await;
    honest.publish(announcement(chain.tip()));
    // The unresponsive one hangs up after 10 s; it is waited for 3 s.
    tokio::time::timeout(PATIENCE, syncing.wait_for_tip(chain.tip())).await.expect("it is held up");
}

#[rstest]
#[tokio::test]
async fn a_block_of_a_distrusted_announcer_is_fetched_from_another_peer(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let chain = main_chain().first(51);
    let (syncing, [(shunned, _), (_honest, node)], _running) = in_sync(backend, &chain.first(50)).await;
    syncing.p2p.penalise(shunned.peer_id, Offence::BrokenAnswer);
    *node.chain().lock().unwrap() = chain.to_vec();
    shunned.publish(announcement(chain.tip()));
    syncing.wait_for_tip(chain.tip()).await;
}

#[rstest]
#[tokio::test]
async fn a_competing_block_is_an_orphan_until_its_branch_is_heavier(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let ours = main_chain().first(50).extend(1, &MIDDLE);
    let first = ours.fork(49, "theirs").extend(1, &LIGHT);
    let second = first.clone().extend(1, &HEAVY);
    let (syncing, [(announcer, node)], _running) = in_sync(backend, &ours).await;
    announcer.publish(announcement(first.tip()));
    eventually(async || syncing.store.get(&first.tip().hash).await.unwrap()).await;
    syncing.assert_holds(&ours).await;
    let (at_50, count, _) = syncing.store.at_index(50).await.unwrap();
    assert_eq!((at_50[0].hash.as_str(), at_50[1].hash.as_str(), count), (&*ours[50].hash, &*first[50].hash, 2));
    assert!(at_50[0].canonical && !at_50[1].canonical && at_50[1].orphaned);

    *node.chain().lock().unwrap() = second.to_vec();
    announcer.publish(announcement(second.tip()));
    syncing.wait_for_tip(second.tip()).await;
    let (at_50, count, _) = syncing.store.at_index(50).await.unwrap();
    assert_eq!((at_50[0].hash.as_str(), at_50[1].hash.as_str(), count), (&*first[50].hash, &*ours[50].hash, 2));
    assert_eq!(syncing.info(&announcer).penalties, 0);
}

#[rstest]
#[tokio::test]
async fn a_heavier_block_takes_the_tips_place(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let ours = main_chain().first(51);
    let theirs = ours.fork(49, "theirs").extend(1, &HEAVY);
    let (syncing, [(announcer, _), (other, _)], _running) = in_sync(backend, &ours).await;
    announcer.publish(announcement(theirs.tip()));
    syncing.wait_for_tip(theirs.tip()).await;
    let state = syncing.store.state().await.unwrap();
    assert_eq!((state.length, state.total_blocks), (51, 52));
    assert_eq!(state.cumulative_difficulty.to_string(), theirs.work().to_string());
    let lost: Value = serde_json::from_str(&syncing.store.get(&ours.tip().hash).await.unwrap().unwrap().json).unwrap();
    assert_eq!((&lost["is_orphaned"], &lost["competing_hash"]), (&json!(true), &json!(theirs.tip().hash)));
    assert_eq!(heard(&other).await, [announcement(theirs.tip())]);
}

#[rstest]
#[tokio::test]
async fn without_a_peer_the_sync_is_stalled_until_one_connects(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let chain = main_chain();
    let syncing = Syncing::with(backend, &chain.first(30)).await;
    let _running = syncing.run();
    let status = syncing.wait_for(SyncState::Stalled).await;
    assert!(status.reason.is_some() && status.useful_peers == 0, "{status:?}");
    eventually(async || {
        let status = syncing.wait_for(SyncState::Stalled).await;
        status.reason.filter(|reason| reason.contains("no useful peer"))
    })
    .await;
    let peer = serve(&Serving::of(chain)).await;
    syncing.meet(&peer).await;
    syncing.wait_for_tip(chain.tip()).await;
    let status = syncing.wait_for(SyncState::Synced).await;
    assert_eq!((status.useful_peers, status.reason), (1, None));
    syncing.assert_holds(chain).await;
}

#[rstest]
#[tokio::test]
async fn peers_of_another_network_are_not_useful(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    // Lighter than ours, so that nothing of it would be fetched anyway, and heavier.
    #[values(LIGHT, HEAVY)] worth: std::ops::RangeInclusive<u128>,
) {
    let theirs = Chain::genesis(1).extend(40, &worth);
    let syncing = Syncing::with(backend, &main_chain().first(50)).await;
    let _running = syncing.run();
    let stranger = serve(&Serving::of(&theirs)).await;
    syncing.meet(&stranger).await;
    let stalled = async || {
        let status = syncing.wait_for(SyncState::Stalled).await;
        assert_eq!(status.useful_peers, 0);
        status.reason.filter(|reason| reason.contains(&theirs[0].hash))
    };
    eventually(stalled).await;
    let asked = || stranger.requests().len();
    // A job of 7 requests finds it out. On a busy machine the peer may be met again before that is noted.
    let jobs = syncing.store.jobs(100).await.unwrap().len();
    assert!(jobs <= 3 && asked() < 30, "{jobs} jobs, {} requests", asked());

    let peer = serve(&Serving::of(main_chain())).await;
    syncing.meet(&peer).await;
    syncing.wait_for_tip(main_chain().tip()).await;
    assert_eq!(syncing.wait_for(SyncState::Synced).await.useful_peers, 1, "only one of them");
    assert_eq!(syncing.info(&stranger).penalties, 0, "to be on another network is no offence");
}

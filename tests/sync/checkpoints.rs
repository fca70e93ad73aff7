//! Checkpoints: what our chain holds of them is not given up for a branch without them, whatever it weighs.

use modal_gateway::{
    chain::{Level, MinerBlock, Network, Position},
    source::job::{Genesis, GenesisSource, Mode, SyncState},
    store::EventKind,
    sync::{Service, Settings},
};
use rstest::rstest;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    following::announcement,
    node::{Syncing, by, eventually, serve, settings},
};
use crate::support::{
    chain::{HEAVY, LIGHT, main_chain},
    gateway::Backend,
    linked::network,
    serving::Serving,
};

/// A service that insists on this block.
fn insisting(syncing: &Syncing, block: &MinerBlock) -> Service {
    let network = Network { checkpoints: vec![Position::from(block)], ..network() };
    let settings = Settings { network, ..settings(Level::Pow) };
    Service::new(syncing.store.clone(), syncing.p2p.clone(), &settings).unwrap()
}

#[rstest]
#[tokio::test]
async fn a_heavier_branch_from_below_a_checkpoint_is_refused(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Mode::Headers, Mode::Delta)] mode: Mode,
    // Whether it ends before the checkpoint, and has got its work already, or goes on with another block there.
    #[values(20, 40)] length: usize,
) {
    let ours = main_chain().first(101);
    let heavy = ours.fork(50, "heavy").extend(length, &HEAVY);
    assert!(heavy.first(71).work() > ours.work());
    let peer = serve(&Serving::of(&heavy).headers(|_| {})).await;
    let syncing = Syncing::with(backend, &ours).await;
    let before = syncing.store.state().await.unwrap();
    syncing.meet(&peer).await;
    let service = insisting(&syncing, &ours[80]);
    let error = service.sync_once(&by(mode), &CancellationToken::new(), |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("checkpoint at 80") && error.contains(&peer.peer_id.to_string()), "{error}");
    syncing.assert_holds(&ours).await;
    assert_eq!(syncing.store.state().await.unwrap(), before);
    assert_eq!(syncing.info(&peer).penalties, 0, "to be on another branch is no offence");
}

#[rstest]
#[tokio::test]
async fn a_chain_that_lacks_a_checkpoint_is_left_for_one_that_has_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let ours = main_chain().first(101);
    let heavy = ours.fork(50, "heavy").extend(40, &HEAVY);
    let peer = serve(&Serving::of(&heavy)).await;
    let syncing = Syncing::with(backend, &ours).await;
    syncing.meet(&peer).await;
    let service = insisting(&syncing, &heavy[80]);
    service.sync_once(&by(Mode::Delta), &CancellationToken::new(), |_| {}).await.unwrap();
    syncing.assert_holds(&heavy).await;
}

#[rstest]
#[tokio::test]
async fn gossip_cannot_replace_a_checkpoint(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let ours = main_chain().first(51);
    let theirs = ours.fork(48, "theirs").extend(1, &HEAVY);
    assert!(theirs.work() > ours.work());
    let peer = serve(&Serving::of(&ours)).await;
    let syncing = Syncing::with(backend, &ours).await;
    syncing.meet(&peer).await;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(insisting(&syncing, ours.tip()).run(stop));
    syncing.wait_for(SyncState::Synced).await;
    peer.publish(announcement(theirs.tip()));
    eventually(async || syncing.store.get(&theirs.tip().hash).await.unwrap()).await;
    syncing.assert_holds(&ours).await;
    assert_eq!(syncing.info(&peer).penalties, 0);
}

#[rstest]
#[tokio::test]
async fn a_chain_stored_before_its_checkpoint_was_configured_is_rewound_at_the_start(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    // How much of the wrong chain the other peer has: to its end, and less than what is left of it here.
    #[values(101, 75)] length: usize,
) {
    let wrong = main_chain().first(101);
    let right = wrong.fork(50, "right").extend(40, &LIGHT);
    assert!(right.work() < wrong.work());
    let syncing = Syncing::with(backend, &wrong).await;
    let follower = serve(&Serving::of(&wrong.first(length))).await;
    syncing.meet(&follower).await;
    let stop = CancellationToken::new();
    let first = stop.clone().drop_guard();
    tokio::spawn(insisting(&syncing, &right[80]).run(stop));

    let stalled = async |text: &str| {
        let status = syncing.wait_for(SyncState::Stalled).await;
        status.reason.filter(|reason| reason.contains(text))
    };
    eventually(async || stalled("checkpoint at 80").await).await;
    syncing.assert_holds(&wrong[..80]).await;
    let event = syncing.store.events(0, 100).await.unwrap().pop().unwrap();
    let document: Value = serde_json::from_str(&event.document).unwrap();
    assert_eq!(event.kind, EventKind::Reorganised);
    let event = [&document["ancestor"]["index"], &document["old_tip"]["index"], &document["orphaned"]];
    assert_eq!(event, [&json!(79), &json!(100), &json!(21)], "{document:#}");
    assert!(document["reason"].as_str().is_some_and(|reason| reason.contains("checkpoint at 80")), "{document:#}");

    // The next process was not there, and finds nothing to rewind.
    drop(first);
    let stop = CancellationToken::new();
    let _second = stop.clone().drop_guard();
    tokio::spawn(insisting(&syncing, &right[80]).run(stop));
    if length < 80 {
        eventually(async || stalled("does not have the network's checkpoint at 80 yet").await).await;
    }

    let peer = serve(&Serving::of(&right)).await;
    syncing.meet(&peer).await;
    syncing.wait_for_tip(right.tip()).await;
    syncing.wait_for(SyncState::Synced).await;
    syncing.assert_holds(&right).await;
    assert_eq!(syncing.info(&follower).penalties, 0, "to be on another branch is no offence");
}

/// As a process leaves it that ended between the rewind and the note that the genesis is open again.
#[rstest]
#[tokio::test]
async fn an_empty_store_that_had_settled_for_another_genesis_takes_that_of_the_checkpoint(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let right = main_chain().first(50);
    let syncing = Syncing::with(backend, &[]).await;
    let wrong = Genesis { hash: right[1].hash.clone(), source: GenesisSource::FirstSync, peer_id: None };
    wrong.settle(&*syncing.store).await.unwrap();
    let peer = serve(&Serving::of(&right)).await;
    syncing.meet(&peer).await;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(insisting(&syncing, &right[0]).run(stop));
    syncing.wait_for_tip(right.tip()).await;
    syncing.assert_holds(&right).await;
    assert_eq!(syncing.info(&peer).penalties, 0);
}

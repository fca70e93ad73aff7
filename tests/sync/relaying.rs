//! What is passed on of the gossip: a announcer on one side, a listener on the other, which are not connected.

use modal_gateway::{chain::Level, chain::MinerBlock, source::job::SyncState};
use rstest::rstest;
use serde_json::Value;
use tokio_util::sync::DropGuard;

use super::{
    following::announcement,
    node::{Syncing, eventually, serve},
};
use crate::support::{
    chain::{Chain, LIGHT, MIDDLE, main_chain},
    gateway::{Backend, PATIENCE},
    peer::ScriptedPeer,
    serving::Serving,
};

/// A service at this level between two peers of the same chain.
struct Between {
    syncing: Syncing,
    announcer: ScriptedPeer,
    listener: ScriptedPeer,
    _running: DropGuard,
}

impl Between {
    async fn start(backend: Backend, level: Level, ours: &[MinerBlock]) -> Self {
        let syncing = Syncing::at(backend, ours, level).await;
        let running = syncing.run();
        let (announcer, listener) = (serve(&Serving::of(ours)).await, serve(&Serving::of(ours)).await);
        syncing.meet(&announcer).await;
        syncing.meet(&listener).await;
        syncing.wait_for(SyncState::Synced).await;
        Self { syncing, announcer, listener, _running: running }
    }

    /// Waits until the listener has heard so much; all that it has heard.
    async fn heard(&self, count: usize) -> Vec<Value> {
        let mut heard = self.listener.heard();
        let enough = heard.wait_for(|heard| heard.len() >= count);
        tokio::time::timeout(PATIENCE, enough).await.expect("it hears of it").unwrap().clone()
    }
}

#[rstest]
#[tokio::test]
async fn unverified_blocks_are_not_relayed(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let chain = main_chain().first(52);
    let between = Between::start(backend, Level::Linked, &chain[..50]).await;
    // Each is taken in, and one that is known is told once more.
    for block in &chain[50..] {
        between.announcer.publish(announcement(block));
        between.syncing.wait_for_tip(block).await;
    }
    between.announcer.publish(announcement(chain.tip()));
    let received = || between.syncing.p2p.gossip_stats().received;
    eventually(async || (received() >= 3).then_some(())).await;
    // What is told by ourselves afterwards comes after all that was passed on before.
    let own = announcement(&main_chain()[60]);
    let tell = async || {
        between.syncing.p2p.publish(serde_json::to_vec(&own).unwrap().into()).unwrap();
        (!between.listener.heard().borrow().is_empty()).then_some(())
    };
    eventually(tell).await;
    let heard = between.heard(1).await;
    assert!(heard.iter().all(|heard| *heard == own), "{heard:#?}");
    assert_eq!(between.syncing.info(&between.announcer).penalties, 0);
}

#[rstest]
#[tokio::test]
async fn a_genesis_is_not_passed_on(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let chain = main_chain().first(2);
    // Not below the tip: it is the tip.
    let between = Between::start(backend, Level::Pow, &chain[..1]).await;
    for block in [&chain[0], &Chain::genesis(1)[0], &chain[1]] {
        between.announcer.publish(announcement(block));
    }
    assert_eq!(between.heard(1).await, [announcement(&chain[1])]);
    assert_eq!(between.syncing.info(&between.announcer).penalties, 0);
}

#[rstest]
#[tokio::test]
async fn verified_blocks_are_passed_on_from_the_tip_on(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let ours = main_chain().first(50).extend(1, &MIDDLE);
    let next = ours.clone().extend(1, &LIGHT);
    let below = ours.fork(48, "below").extend(1, &LIGHT);
    let beside = ours.fork(49, "beside").extend(1, &LIGHT);
    let unknown = Chain::genesis(1).extend(60, &LIGHT);
    let between = Between::start(backend, Level::Pow, &ours).await;
    for block in [&ours[30], below.tip(), unknown.tip(), beside.tip(), next.tip()] {
        between.announcer.publish(announcement(block));
    }
    assert_eq!(between.heard(2).await, [announcement(beside.tip()), announcement(next.tip())]);
    let kept = between.syncing.store.get(&below.tip().hash).await.unwrap();
    assert!(kept.is_some_and(|kept| !kept.canonical), "it is verified and kept beside the chain");
    assert_eq!(between.syncing.info(&between.announcer).penalties, 0);
}

#[rstest]
#[tokio::test]
async fn of_many_blocks_beside_the_tip_a_few_are_kept_and_passed_on(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let ours = main_chain().first(50).extend(1, &MIDDLE);
    let beside: Vec<_> = (0..20).map(|number| ours.fork(49, &format!("beside {number}")).extend(1, &LIGHT)).collect();
    let next = ours.clone().extend(1, &LIGHT);
    let between = Between::start(backend, Level::Pow, &ours).await;
    for chain in beside.iter().chain([&next]) {
        between.announcer.publish(announcement(chain.tip()));
    }
    between.syncing.wait_for_tip(next.tip()).await;
    let (stored, ..) = between.syncing.store.at_index(50).await.unwrap();
    assert_eq!(stored.len(), 8, "with that on the chain");
    let heard = between.heard(8).await;
    assert_eq!((heard.len(), &heard[7]), (8, &announcement(next.tip())), "none of those that are not kept");
    assert_eq!(between.syncing.info(&between.announcer).penalties, 0, "each is a valid block");
}

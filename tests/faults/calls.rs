//! Calls of a store whose server vanishes: none waits long, none takes a connection with it, and a commit of which the
//! writer doesn't learn whether it counts counts once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use modal_gateway::{
    chain::{ChainEnd, Level, MinerBlock},
    store::{self, BlockStore, ChainState, MAX_WAITING, OpenOptions, StoreError},
};
use tokio::{task::JoinSet, time::timeout};

use crate::support::clock::judge;
use crate::{
    support::{
        cluster::Cluster,
        gateway::{PATIENCE, parent, synthetic, verifier},
        hole::Hole,
    },
    world::alone,
};

/// Longest that a call may take: what it is given, and what it takes a busy machine to say so.
const LIMIT: Duration = Duration::from_secs(3);

/// A store with three blocks behind a relay.
async fn store() -> (Cluster, Hole, Arc<dyn BlockStore>) {
    let cluster = Cluster::start();
    let hole = Hole::before(cluster.address).await;
    let store = store::open(&cluster.url(hole.address, "postgres"), &OpenOptions::default()).await.unwrap();
    append(&*store, 0, 3).await.unwrap();
    (cluster, hole, store)
}

async fn append(store: &dyn BlockStore, from: usize, to: usize) -> store::Result<ChainState> {
    let chain: Vec<MinerBlock> = synthetic(to as u64);
    let end: Option<ChainEnd> = from.checked_sub(1).map(|last| parent(last as u64, &chain[last].hash));
    let mut writer = store.write().await?;
    writer.append(verifier(Level::None).verify(end.as_ref(), chain[from..].to_vec()).unwrap()).await?;
    writer.commit().await
}

/// Tries again until the store can be reached; how long that took.
async fn until_reached<T>(mut call: impl AsyncFnMut() -> store::Result<T>) -> (store::Result<T>, Duration) {
    let (started, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
    let reached = async {
        loop {
            ticks.tick().await;
            match call().await {
                Err(StoreError::Unreachable(_)) => {}
                outcome => return outcome,
            }
        }
    };
    (timeout(PATIENCE, reached).await.expect("it is reached again"), started.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_callers_of_a_server_that_vanished() {
    let _alone = alone().await;
    let (_cluster, hole, store) = store().await;
    hole.open();
    let mut calls = JoinSet::new();
    for _ in 0..1000 {
        let store = store.clone();
        calls.spawn(async move {
            let asked = Instant::now();
            (store.range(0, 9).await.unwrap_err(), asked.elapsed())
        });
    }
    let calls = calls.join_all().await;
    let slowest = calls.iter().map(|(_, took)| *took).max().unwrap();
    let at_once = |took: &Duration| *took < LIMIT / 6;
    let refused = calls.iter().filter(|(error, took)| matches!(error, StoreError::Busy(_)) && at_once(took)).count();
    judge(slowest < LIMIT, format_args!("{slowest:?}"));
    judge(refused >= 1000 - MAX_WAITING - 8, format_args!("only {refused} were refused at once"));

    // Once that is known it takes no time to say so.
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    timeout(PATIENCE, async {
        while store.stats().up {
            _ = ticks.tick().await
        }
    })
    .await
    .expect("it is known");
    let asked = Instant::now();
    for _ in 0..100 {
        let error = store.state().await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    }
    let each = asked.elapsed() / 100;
    judge(each < Duration::from_millis(20), format_args!("{each:?} each"));
    let figures = store.stats();
    assert_eq!((figures.up, figures.outages, figures.readers.waiting), (false, 1, 0));

    hole.close();
    let (_, back) = until_reached(async || store.range(0, 9).await).await;
    judge(back < LIMIT, format_args!("back after {back:?}"));
    eprintln!(
        "1000 callers: the slowest took {slowest:.2?}, {refused} had no room; then {each:.0?} each; back after {back:.2?}"
    );
    let reads = futures::future::join_all((0..8).map(|_| store.range(0, 9))).await;
    assert!(reads.into_iter().all(|read| read.unwrap().list.count == 3), "all connections are there again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_that_give_up_take_no_connection_with_them() {
    let _alone = alone().await;
    let (_cluster, hole, store) = store().await;
    let reads = async || {
        let reads = futures::future::join_all((0..8).map(|_| store.range(0, 9))).await;
        reads.into_iter().try_for_each(|read| read.map(|_| ()))
    };
    reads().await.unwrap();
    hole.open();
    assert!(timeout(Duration::from_millis(100), reads()).await.is_err());
    assert!(store.stats().readers.in_use > 0);
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let returned = async {
        while store.stats().readers.in_use > 0 {
            _ = ticks.tick().await
        }
    };
    timeout(PATIENCE, returned).await.expect("they come back");
    hole.close();
    assert!(until_reached(reads).await.0.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_writer_does_not_wait_for_a_server_that_vanished() {
    let _alone = alone().await;
    let (_cluster, hole, store) = store().await;
    let mut writer = store.write().await.unwrap();
    let after = parent(2, "main-2");
    let blocks = verifier(Level::None).verify(Some(&after), synthetic(6)[3..].to_vec()).unwrap();
    hole.open();
    let begun = Instant::now();
    let error = timeout(PATIENCE, writer.append(blocks)).await.expect("it ends").unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    judge(begun.elapsed() < LIMIT, format_args!("{:?}", begun.elapsed()));
    let error = writer.commit().await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "half of it must not count: {error:?}");
    hole.close();
    let (state, back) = until_reached(async || append(&*store, 3, 6).await).await;
    assert_eq!(state.unwrap().length, 6);
    judge(back < LIMIT, format_args!("back after {back:?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_unconfirmed_commit_is_not_written_twice() {
    let _alone = alone().await;
    let (_cluster, hole, store) = store().await;
    hole.lose_commit();
    let error = append(&*store, 3, 6).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    let (again, _) = until_reached(async || append(&*store, 3, 6).await).await;
    let error = again.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "it is there already: {error:?}");
    let state = store.state().await.unwrap();
    assert_eq!((state.length, state.version), (6, 2));
    let told: Vec<_> = store.events(0, 9).await.unwrap().into_iter().map(|event| event.id).collect();
    assert_eq!(told, [1, 2]);
}

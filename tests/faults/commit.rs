//! A commit of which the writer doesn't learn whether it counts.

use std::time::Duration;

use modal_gateway::{
    chain::{ChainEnd, Level},
    store::{self, OpenOptions, StoreError},
};

use crate::support::{
    cluster::Cluster,
    gateway::{PATIENCE, parent, synthetic, verifier},
    hole::Hole,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_committed_without_a_word_is_not_written_twice() {
    let cluster = Cluster::start();
    let hole = Hole::before(cluster.address).await;
    let store = store::open(&cluster.url(hole.address, "postgres"), &OpenOptions::default()).await.unwrap();
    let chain = synthetic(6);
    let append = async |from: usize, to: usize| {
        let end: Option<ChainEnd> = from.checked_sub(1).map(|last| parent(last as u64, &chain[last].hash));
        let mut writer = store.write().await?;
        writer.append(verifier(Level::None).verify(end.as_ref(), chain[from..to].to_vec()).unwrap()).await?;
        writer.commit().await
    };
    append(0, 3).await.unwrap();
    hole.lose_commit();
    let error = append(3, 6).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");

    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let again = tokio::time::timeout(PATIENCE, async {
        loop {
            ticks.tick().await;
            match append(3, 6).await {
                Err(StoreError::Unreachable(_)) => {}
                outcome => return outcome,
            }
        }
    });
    let error = again.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "it is there already: {error:?}");
    let state = store.state().await.unwrap();
    assert_eq!((state.length, state.version), (6, 2));
    let told: Vec<_> = store.events(0, 9).await.unwrap().into_iter().map(|event| event.id).collect();
    assert_eq!(told, [1, 2]);
}

//! Jobs are rows: they outlive the process, can be cancelled, and one process at a time does them.

use std::sync::Arc;

use modal_gateway::{
    source::job::{JobSpec, Mode, Phase, Progress, Stage, Stages, SyncState},
    store::Job,
    sync::SyncError,
};
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use super::node::{Syncing, by, eventually, serve};
use crate::support::{
    chain::main_chain,
    gateway::{Backend, TestStore},
    peer::ScriptedPeer,
    relay::Relay,
    serving::Serving,
};

/// A peer that gives the first 1000 blocks, a few at a time, and falls silent after some more.
async fn stalling() -> (ScriptedPeer, Serving) {
    let node = Serving::of(main_chain()).at_most(100).silent_beyond(1_050);
    (serve(&node).await, node)
}

/// Waits until the peer has fallen silent and what came before is written.
async fn stalled(syncing: &Syncing, node: &Serving) {
    node.unanswered().wait_for(|count| *count > 0).await.unwrap();
    eventually(async || (syncing.store.state().await.unwrap().length >= 1_000).then_some(())).await;
}

async fn latest(syncing: &Syncing) -> (Job, Progress) {
    let job = syncing.store.jobs(1).await.unwrap().remove(0);
    let progress = serde_json::from_str(&job.progress).unwrap();
    (job, progress)
}

#[rstest]
#[tokio::test]
async fn a_job_goes_on_after_a_restart(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let syncing = Syncing::with(backend, &[]).await;
    let (peer, node) = stalling().await;
    syncing.meet(&peer).await;
    let running = syncing.run();
    stalled(&syncing, &node).await;
    let (before, progress) = latest(&syncing).await;
    assert!(!before.finished && !progress.phase.is_final(), "{progress:?}");
    drop((peer, running));

    let syncing = syncing.beside().await;
    let honest = serve(&Serving::of(main_chain())).await;
    syncing.meet(&honest).await;
    let _running = syncing.run();
    syncing.wait_for_tip(main_chain().tip()).await;
    eventually(async || latest(&syncing).await.0.finished.then_some(())).await;
    let (after, progress) = latest(&syncing).await;
    assert_eq!((after.id, progress.phase), (before.id, Phase::Done), "the same job");
    syncing.assert_holds(main_chain()).await;
    let fetched = honest.requests().into_iter().filter(|request| request["path"] == "/data/miner_block/range");
    let firsts: Vec<_> = fetched.filter_map(|request| request["data"]["from_index"].as_u64()).collect();
    assert!(firsts.iter().all(|from| *from >= 1_000), "what was there is not fetched again: {firsts:?}");
}

#[tokio::test]
async fn a_job_continues_after_its_database_was_away() {
    let mut test = TestStore::create(Backend::Postgres).await;
    let relay = Relay::to(&test.url).await;
    let server = std::mem::replace(&mut test.url, relay.url.clone());
    let syncing = Syncing::on(test).await;
    let (peer, node) = stalling().await;
    syncing.meet(&peer).await;
    let (service, job, stop) = (syncing.service(), by(Mode::Delta), CancellationToken::new());
    let outage = async {
        stalled(&syncing, &node).await;
        let address = relay.cut().await;
        // What notices it is the progress that is to be written, if not the job itself.
        eventually(async || (!syncing.store.stats().up).then_some(())).await;
        let relay = Relay::at(address, &server).await;
        let honest = serve(&Serving::of(main_chain())).await;
        syncing.meet(&honest).await;
        (relay, honest)
    };
    let (ended, _there) = tokio::join!(service.sync_once(&job, &stop, |_| {}), outage);
    assert_eq!(ended.unwrap().phase, Phase::Done);
    let jobs = syncing.store.jobs(10).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.phase.as_str()).collect::<Vec<_>>(), ["done"], "one job, to its end");
    syncing.assert_holds(main_chain()).await;
}

#[rstest]
#[tokio::test]
async fn a_job_can_be_cancelled(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let syncing = Syncing::with(backend, &[]).await;
    let (peer, node) = stalling().await;
    syncing.meet(&peer).await;
    let stop = CancellationToken::new();
    let (service, job) = (syncing.service(), by(Mode::Delta));
    let cancel = async {
        stalled(&syncing, &node).await;
        let id = latest(&syncing).await.0.id;
        assert!(syncing.store.cancel_job(id).await.unwrap());
    };
    let (ended, ()) = tokio::join!(service.sync_once(&job, &stop, |_| {}), cancel);
    assert!(matches!(ended, Err(SyncError::Cancelled)), "{ended:?}");
    let (job, progress) = latest(&syncing).await;
    assert_eq!((job.finished, job.phase.as_str(), progress.phase), (true, "cancelled", Phase::Cancelled));
    assert!(!syncing.store.cancel_job(job.id).await.unwrap(), "it is over");
    let held = syncing.chain().await.len();
    syncing.assert_holds(&main_chain()[..held]).await;
}

#[rstest]
#[tokio::test]
async fn a_job_cancelled_in_the_queue_never_runs(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let syncing = Syncing::with(backend, &[]).await;
    let spec = serde_json::to_string(&JobSpec::default()).unwrap();
    let id = syncing.store.create_job(&spec).await.unwrap();
    assert!(syncing.store.cancel_job(id).await.unwrap());
    let _running = syncing.run();
    let job = eventually(async || syncing.store.job(id).await.unwrap().filter(|job| job.finished)).await;
    assert_eq!(job.phase, "cancelled");
}

#[rstest]
#[tokio::test]
async fn jobs_that_others_ask_for_are_done_in_turn(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let syncing = Syncing::with(backend, &[]).await;
    let peer = serve(&Serving::of(main_chain())).await;
    syncing.meet(&peer).await;
    let mut ids = Vec::new();
    for mode in Mode::ALL {
        let spec = serde_json::to_string(&by(mode)).unwrap();
        ids.push(syncing.store.create_job(&spec).await.unwrap());
    }
    let odd = syncing.store.create_job("{\"mode\": \"sideways\"}").await.unwrap();
    let _running = syncing.run();
    let jobs = eventually(async || {
        let jobs = syncing.store.jobs(100).await.unwrap();
        jobs.iter().all(|job| job.finished).then_some(jobs)
    })
    .await;
    for job in jobs {
        let expected = if job.id == odd { "failed" } else { "done" };
        assert_eq!(job.phase, expected, "{job:?}");
    }
    syncing.assert_holds(main_chain()).await;
}

#[rstest]
#[tokio::test]
async fn one_process_at_a_time_syncs_and_another_takes_over(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let chain = main_chain();
    let leader = Syncing::with(backend, &chain.first(10)).await;
    let leading = leader.run();
    leader.wait_for(SyncState::Stalled).await;
    eventually(async || leader.store.get_note("sync_status").await.unwrap()).await;
    let follower = leader.beside().await;
    let peer = serve(&Serving::of(chain)).await;
    follower.meet(&peer).await;
    let refused = follower.sync(&by(Mode::Delta)).await;
    assert!(matches!(refused, Err(SyncError::Leased)), "{refused:?}");
    let _following = follower.run();
    assert_eq!(follower.store.state().await.unwrap().length, 10);
    assert!(peer.requests().is_empty(), "a follower asks nobody");
    drop(leading);
    follower.wait_for_tip(chain.tip()).await;
    follower.wait_for(SyncState::Synced).await;
    follower.assert_holds(chain).await;
    leader.assert_holds(chain).await;
}

/// With Postgres, where a writer of the chain keeps nobody from writing how a job does.
#[tokio::test]
async fn the_queues_before_a_slow_writer_are_short_and_reported() {
    let peer = serve(&Serving::of(main_chain())).await;
    let syncing = Syncing::with(Backend::Postgres, &[]).await;
    syncing.meet(&peer).await;
    let other = syncing.beside().await;
    let writer = other.store.write().await.unwrap();
    let stages = Arc::new(Stages::default());
    let (service, spec, stop) =
        (syncing.service().with_stages(stages.clone()), by(Mode::Epoch), CancellationToken::new());
    let full = async {
        eventually(async || (Stage::ALL.map(|stage| stages.waiting(stage)) == [2, 2]).then_some(())).await;
        drop(writer);
    };
    let (ended, ()) = tokio::join!(service.sync_once(&spec, &stop, |_| {}), full);
    assert_eq!(ended.unwrap().blocks, main_chain().len() as u64);
    assert_eq!(Stage::ALL.map(|stage| stages.waiting(stage)), [0, 0]);
    syncing.assert_holds(main_chain()).await;
}

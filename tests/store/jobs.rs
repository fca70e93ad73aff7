//! Jobs and notes.

use super::*;

#[rstest]
#[tokio::test]
async fn a_job_is_created_updated_and_finished(#[values(Sqlite, Postgres)] kind: Kind) {
    let place = Place::new(kind).await;
    let store = place.open().await;
    let id = store.create_job("{\"mode\":\"full\"}", 10).await.unwrap();
    let job = store.job(id).await.unwrap().unwrap();
    assert_eq!((job.id, job.phase.as_str(), job.finished, job.cancel_requested), (id, QUEUED, false, false));
    assert_eq!((job.spec.as_str(), job.progress.as_str()), ("{\"mode\":\"full\"}", "{}"));
    assert_eq!((job.created_at, job.updated_at), (10, 10));

    store.update_job(id, "verify", "{\"done\":3}", 11).await.unwrap();
    store.close().await;
    let store = place.open().await;
    let job = store.job(id).await.unwrap().unwrap();
    assert_eq!((job.phase.as_str(), job.progress.as_str(), job.finished), ("verify", "{\"done\":3}", false));
    assert_eq!((job.created_at, job.updated_at), (10, 11));

    for phase in store::FINISHED_PHASES {
        store.update_job(id, phase, "{}", 12).await.unwrap();
        assert!(store.job(id).await.unwrap().unwrap().finished, "{phase}");
        assert!(!store.cancel_job(id, 13).await.unwrap(), "{phase}");
    }
    assert_eq!(store.job(id + 1).await.unwrap(), None);
    assert_eq!(store.job(u64::MAX).await.unwrap(), None);
    let error = store.update_job(id + 1, "done", "{}", 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
}

#[rstest]
#[tokio::test]
async fn a_wish_to_cancel_outlives_updates(#[values(Sqlite, Postgres)] kind: Kind) {
    let place = Place::new(kind).await;
    let store = place.open().await;
    let (id, other) = (store.create_job("{}", 1).await.unwrap(), store.create_job("{}", 1).await.unwrap());
    assert!(store.cancel_job(id, 2).await.unwrap());
    assert!(store.cancel_job(id, 3).await.unwrap(), "it isn't finished yet");
    store.update_job(id, "download", "{}", 4).await.unwrap();
    let job = store.job(id).await.unwrap().unwrap();
    assert_eq!((job.cancel_requested, job.finished, job.updated_at), (true, false, 4));
    assert!(!store.job(other).await.unwrap().unwrap().cancel_requested);
    assert!(!store.cancel_job(other + 1, 2).await.unwrap());
    assert!(!store.cancel_job(u64::MAX, 2).await.unwrap());
}

#[rstest]
#[tokio::test]
async fn finished_jobs_are_kept_for_a_while(#[values(Sqlite, Postgres)] kind: Kind) {
    let place = Place::new(kind).await;
    let store = place.open().await;
    let running = store.create_job("{}", 1).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..KEPT_JOBS + 5 {
        let id = store.create_job("{}", 1).await.unwrap();
        store.update_job(id, "done", "{}", 2).await.unwrap();
        ids.push(id);
    }
    assert!(ids.is_sorted() && ids[0] > running);
    let last = store.create_job("{}", 3).await.unwrap();
    let left: Vec<_> = store.jobs(1000).await.unwrap().into_iter().map(|job| job.id).collect();
    let newest = ids.iter().rev().take(KEPT_JOBS as usize).copied();
    assert_eq!(left, [last].into_iter().chain(newest).chain([running]).collect::<Vec<_>>());
    assert_eq!(store.jobs(2).await.unwrap().len(), 2);
}

#[rstest]
#[tokio::test]
async fn a_note_is_replaced(#[values(Sqlite, Postgres)] kind: Kind) {
    let place = Place::new(kind).await;
    let store = place.open().await;
    assert_eq!(store.get_note("state").await.unwrap(), None);
    store.put_note("state", "syncing", 5).await.unwrap();
    store.put_note("other", "x", 6).await.unwrap();
    store.put_note("state", "synced", 7).await.unwrap();
    store.close().await;
    let store = place.open().await;
    assert_eq!(store.get_note("state").await.unwrap(), Some(("synced".into(), 7)));
}

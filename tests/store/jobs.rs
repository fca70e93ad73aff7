//! Jobs and notes.

use super::*;

#[rstest]
#[tokio::test]
async fn a_job_is_created_updated_and_finished(#[values(Sqlite, Postgres)] kind: Kind) {
    let test = TestDatabase::new(kind).await;
    let store = test.open().await;
    let before = store.now().await.unwrap();
    let id = store.create_job("{\"mode\":\"full\"}").await.unwrap();
    let job = store.job(id).await.unwrap().unwrap();
    assert_eq!((job.id, job.phase.as_str(), job.finished, job.cancel_requested), (id, QUEUED, false, false));
    assert_eq!((job.spec.as_str(), job.progress.as_str()), ("{\"mode\":\"full\"}", "{}"));
    assert_eq!(job.created_at, job.updated_at);
    assert!((before..=store.now().await.unwrap()).contains(&job.created_at), "{job:?}");
    let created_at = job.created_at;

    store.update_job(id, "verify", "{\"done\":3}").await.unwrap();
    store.close().await;
    let store = test.open().await;
    let job = store.job(id).await.unwrap().unwrap();
    assert_eq!((job.phase.as_str(), job.progress.as_str(), job.finished), ("verify", "{\"done\":3}", false));
    assert_eq!(job.created_at, created_at);
    assert!((created_at..=store.now().await.unwrap()).contains(&job.updated_at), "{job:?}");

    for phase in store::FINISHED_PHASES {
        store.update_job(id, phase, "{}").await.unwrap();
        assert!(store.job(id).await.unwrap().unwrap().finished, "{phase}");
        assert!(!store.cancel_job(id).await.unwrap(), "{phase}");
    }
    assert_eq!(store.job(id + 1).await.unwrap(), None);
    assert_eq!(store.job(u64::MAX).await.unwrap(), None);
    let error = store.update_job(id + 1, "done", "{}").await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
}

#[rstest]
#[tokio::test]
async fn a_requested_cancellation_outlives_updates(#[values(Sqlite, Postgres)] kind: Kind) {
    let test = TestDatabase::new(kind).await;
    let store = test.open().await;
    let (id, other) = (store.create_job("{}").await.unwrap(), store.create_job("{}").await.unwrap());
    assert!(store.cancel_job(id).await.unwrap());
    assert!(store.cancel_job(id).await.unwrap(), "it isn't finished yet");
    store.update_job(id, "download", "{}").await.unwrap();
    let job = store.job(id).await.unwrap().unwrap();
    assert_eq!((job.cancel_requested, job.finished), (true, false));
    assert!(!store.job(other).await.unwrap().unwrap().cancel_requested);
    assert!(!store.cancel_job(other + 1).await.unwrap());
    assert!(!store.cancel_job(u64::MAX).await.unwrap());
}

#[rstest]
#[tokio::test]
async fn finished_jobs_are_kept_for_a_while(#[values(Sqlite, Postgres)] kind: Kind) {
    let test = TestDatabase::new(kind).await;
    let store = test.open().await;
    let running = store.create_job("{}").await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..KEPT_JOBS + 5 {
        let id = store.create_job("{}").await.unwrap();
        store.update_job(id, "done", "{}").await.unwrap();
        ids.push(id);
    }
    assert!(ids.is_sorted() && ids[0] > running);
    let last = store.create_job("{}").await.unwrap();
    let left: Vec<_> = store.jobs(1000).await.unwrap().into_iter().map(|job| job.id).collect();
    let newest = ids.iter().rev().take(KEPT_JOBS as usize).copied();
    assert_eq!(left, [last].into_iter().chain(newest).chain([running]).collect::<Vec<_>>());
    assert_eq!(store.jobs(2).await.unwrap().len(), 2);
}

#[rstest]
#[tokio::test]
async fn a_note_is_replaced(#[values(Sqlite, Postgres)] kind: Kind) {
    let test = TestDatabase::new(kind).await;
    let store = test.open().await;
    assert_eq!(store.get_note("state").await.unwrap(), None);
    store.put_note("state", "syncing").await.unwrap();
    store.put_note("other", "x").await.unwrap();
    store.put_note("state", "synced").await.unwrap();
    store.close().await;
    let store = test.open().await;
    assert_eq!(store.get_note("state").await.unwrap().unwrap().value, "synced");
}

/// Whatever the clock of a process says: what it writes has the database's time, and ages are differences of that.
#[rstest]
#[tokio::test]
async fn times_are_those_of_the_databases_clock(#[values(Sqlite, Postgres)] kind: Kind) {
    let test = TestDatabase::new(kind).await;
    let store = test.open().await;
    let clock = match kind {
        Sqlite => "unixepoch()",
        Postgres => "EXTRACT(EPOCH FROM clock_timestamp())",
    };
    store.put_note("state", "syncing").await.unwrap();
    let id = store.create_job("{}").await.unwrap();
    append(&store, plain(2)).await;
    let job = format!("created_at = {{at}} AND updated_at = {{at}} AND id = {id}");
    for (table, of) in [("note", "at = {at} AND key = 'state'"), ("job", &job), ("event", "at = {at} AND id = 1")] {
        // Rows whose time lies within the last minute of the database.
        let within = of.replace("= {at}", &format!("BETWEEN {clock} - 60 AND {clock} + 1"));
        let count =
            format!("UPDATE {table} SET id = id WHERE {within}").replace("note SET id = id", "note SET key = key");
        let count = count.replace("job SET id = id", "job SET spec = spec");
        assert_eq!(test.execute(&count).await.unwrap(), 1, "{count}");
    }
    // As if an hour had gone by.
    let note = store.get_note("state").await.unwrap().unwrap();
    assert!((0..60).contains(&note.age), "{note:?}");
    assert_eq!(test.execute("UPDATE note SET at = at - 3600").await.unwrap(), 1);
    let later = store.get_note("state").await.unwrap().unwrap();
    assert_eq!(later.at, note.at - 3600);
    assert!((3600..3660).contains(&later.age), "{later:?}");
    assert!(store.now().await.unwrap() - later.at >= later.age);
    // The clock was set back.
    assert_eq!(test.execute("UPDATE note SET at = at + 7200").await.unwrap(), 1);
    let ahead = store.get_note("state").await.unwrap().unwrap();
    assert!((-3600..-3540).contains(&ahead.age), "{ahead:?}");
}

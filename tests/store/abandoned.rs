//! Abandoned calls: their connections are used again or closed.

use super::*;
use crate::support::until::eventually;

#[tokio::test]
async fn an_abandoned_writer_breaks_no_connection() {
    let test = TestDatabase::new(Postgres).await;
    // Longer than the server takes to report a waiting statement, shorter than a rollback may take.
    let options = OpenOptions { acquire_timeout: Duration::from_millis(900), ..OpenOptions::default() };
    let store = store::open(&test.url(), &options).await.unwrap();
    append(&store, plain(3)).await;
    let other = test.open().await;
    let holder = other.write().await.unwrap();
    let waits = eventually(async || {
        let waiting =
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (test.execute(waiting).await.unwrap() > 0).then_some(())
    });
    tokio::select! {
        biased;
        writer = store.write() => panic!("it does not wait: {:?}", writer.map(|_| ())),
        () = waits => {}
    }
    // The abandoned statement's answer is that the lock was not available.
    eventually(async || (store.stats().writer.in_use == 0).then_some(())).await;
    holder.commit().await.unwrap();
    assert_eq!(append(&store, branch("new", "block_hash_002", 3, 5)).await.length, 5);
}

#[tokio::test]
async fn an_abandoned_thread_keeps_its_permit_until_it_is_done() {
    let test = TestDatabase::new(Sqlite).await;
    let options = OpenOptions { read_timeout: Duration::from_millis(300), ..OpenOptions::default() };
    let store = store::open(&test.url(), &options).await.unwrap();
    append(&store, plain(3)).await;
    let mut other = SqliteConnection::connect(&test.url()).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    // Each of the program's connections to the file is a thread.
    let url = test.url();
    let file = std::path::Path::new(url.strip_prefix("sqlite://").unwrap()).canonicalize().unwrap();
    let opened = || {
        let opened = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        opened.filter(|one| std::fs::read_link(one.path()).is_ok_and(|path| path == file)).count()
    };
    let before = opened();
    assert!(before > 1, "the writer's and the other connection");
    // The first call waits for the lock, 5 s at most, and the others for its permit.
    for _ in 0..4 {
        let error = store.put_note("key", "value").await.unwrap_err();
        assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
    }
    assert_eq!((opened(), store.stats().writer.in_use), (before, 1), "another thread was begun");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    eventually(async || (store.stats().writer.in_use == 0).then_some(())).await;
    store.put_note("key", "other").await.unwrap();
    assert_eq!(store.get_note("key").await.unwrap().unwrap().value, "other");
}

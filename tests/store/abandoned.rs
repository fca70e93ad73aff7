//! Abandoned calls: their connections are used again or closed.

use std::{future::poll_fn, pin::pin, task::Poll};

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
    let mut waits = pin!(eventually(async || {
        let waiting =
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (test.execute(waiting).await.unwrap() > 0).then_some(())
    }));
    loop {
        tokio::select! {
            biased;
            // Before anybody saw it wait.
            writer = store.write() => assert!(matches!(writer, Err(StoreError::Busy(_))), "it does not wait"),
            () = &mut waits => break,
        }
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
    // Either may take longer than its 300 ms on a busy disk.
    eventually(async || store.put_note("key", "other").await.ok()).await;
    let note = eventually(async || store.get_note("key").await.ok()).await;
    assert_eq!(note.unwrap().value, "other");
}

#[rstest]
#[tokio::test]
async fn an_append_that_is_cut_off_leaves_nothing(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(3)).await;
    let blocks = || branch("new", "block_hash_002", 3, 603);
    // At each moment at which it waits: for the statement before, within the rows, for the answer to them. That
    // differs, so it is done a few times.
    let mut cuts = 0;
    for _ in 0..5 {
        for waits in 0.. {
            let mut writer = store.write().await.unwrap();
            let mut appending = writer.append(verified(blocks()));
            let mut left = waits;
            let outcome = poll_fn(|context| match appending.as_mut().poll(context) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending if left == 0 => Poll::Ready(None),
                Poll::Pending => {
                    left -= 1;
                    Poll::Pending
                }
            });
            let outcome = outcome.await;
            drop(appending);
            if let Some(outcome) = outcome {
                outcome.unwrap();
                break;
            }
            cuts += 1;
            drop(writer);
            let mut writer = store.write().await.unwrap();
            assert_eq!(writer.canonical_at(2).await.unwrap().unwrap().0, "block_hash_002", "after {waits} waits");
            assert_eq!(writer.canonical_at(3).await.unwrap(), None, "after {waits} waits");
        }
    }
    assert!(cuts > 2, "it was cut off {cuts} times");
    let state = append(&store, blocks()).await;
    assert_eq!((state.length, &state), (603, &recount(&store).await));
}

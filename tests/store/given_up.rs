//! Calls whose caller has lost patience.

use super::*;
use crate::support::until::eventually;

#[tokio::test]
async fn a_writer_that_is_given_up_spoils_no_connection() {
    let place = Place::new(Postgres).await;
    // Longer than the server takes to say that a statement waits, shorter than a transaction is taken back in.
    let options = OpenOptions { wait: Duration::from_millis(900), ..OpenOptions::default() };
    let store = store::open(&place.url(), &options).await.unwrap();
    append(&store, plain(3)).await;
    let other = place.open().await;
    let holder = other.write().await.unwrap();
    let waits = eventually(async || {
        let waiting =
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (place.execute(waiting).await.unwrap() > 0).then_some(())
    });
    tokio::select! {
        biased;
        writer = store.write() => panic!("it does not wait: {:?}", writer.map(|_| ())),
        () = waits => {}
    }
    // The answer that nobody waits for any more is that the lock was not to be had.
    eventually(async || (store.figures().writer.lent == 0).then_some(())).await;
    holder.commit().await.unwrap();
    assert_eq!(append(&store, branch("new", "block_hash_002", 3, 5)).await.length, 5);
}

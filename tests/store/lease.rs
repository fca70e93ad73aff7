//! The right to synchronise a store, which one handle at a time has.

use super::*;

/// The lease, as soon as the one before is released: the server notices a closed connection with some delay.
pub async fn soon(store: &Arc<dyn BlockStore>) -> Box<dyn Lease> {
    let taken = async {
        loop {
            if let Some(lease) = store.lease().await.unwrap() {
                break lease;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), taken).await.expect("the lease is released")
}

#[rstest]
#[tokio::test]
async fn one_handle_has_the_lease(#[values(Sqlite, Postgres)] kind: Kind) {
    let test = TestDatabase::new(kind).await;
    let (store, other) = (test.open().await, test.open().await);
    let mut lease = store.lease().await.unwrap().unwrap();
    assert!(lease.held().await);
    assert!(other.lease().await.unwrap().is_none());
    assert!(store.lease().await.unwrap().is_none());
    // The lease keeps no handle from writing or reading.
    append(&other, plain(3)).await;
    assert_eq!(store.state().await.unwrap().length, 3);
    assert!(lease.held().await);
    drop(lease);
    let mut lease = soon(&other).await;
    assert!(lease.held().await);
    assert!(store.lease().await.unwrap().is_none());

    let elsewhere = TestDatabase::new(kind).await;
    assert!(elsewhere.open().await.lease().await.unwrap().is_some(), "another store has a lease of its own");
}

#[tokio::test]
async fn a_link_to_a_store_has_its_lease() {
    let (test, store) = holding(Sqlite, plain(1)).await;
    let TestDatabase::Folder(folder) = &test else { unreachable!() };
    std::os::unix::fs::symlink("chain.db", folder.path().join("link.db")).unwrap();
    std::os::unix::fs::symlink(".", folder.path().join("folder")).unwrap();
    let _lease = store.lease().await.unwrap().unwrap();
    for name in ["link.db", "folder/chain.db", "folder/link.db"] {
        let linked = store::open(&test.url().replace("chain.db", name), &impatient()).await.unwrap();
        assert!(linked.lease().await.unwrap().is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_store_in_memory_has_a_lease_of_its_own() {
    let store = store::open("sqlite::memory:", &impatient()).await.unwrap();
    let lease = store.lease().await.unwrap().unwrap();
    assert!(store.lease().await.unwrap().is_none());
    drop(lease);
    assert!(store.lease().await.unwrap().unwrap().held().await);
}

#[tokio::test]
async fn a_lease_ends_with_its_connection() {
    let test = TestDatabase::new(Postgres).await;
    let store = test.open().await;
    let mut lease = store.lease().await.unwrap().unwrap();
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' \
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(test.execute(kill).await.unwrap(), 1);
    assert!(!lease.held().await);
    assert!(!lease.held().await);
    let mut next = soon(&store).await;
    assert!(next.held().await && !lease.held().await);
}

#[tokio::test]
async fn a_lease_is_not_held_when_the_server_is_unreachable() {
    let test = TestDatabase::new(Postgres).await;
    let relay = support::relay::Relay::to(&test.url()).await;
    let store = store::open(&relay.url, &impatient()).await.unwrap();
    let mut lease = store.lease().await.unwrap().unwrap();
    assert!(lease.held().await);
    relay.cut().await;
    assert!(!lease.held().await);
    let error = store.lease().await.err().unwrap();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    soon(&test.open().await).await;
}

#[tokio::test]
async fn a_store_that_can_only_be_read_gives_no_lease() {
    let (test, store) = holding(Sqlite, plain(3)).await;
    store.close().await;
    let store = store::open(&(test.url() + "?mode=ro"), &impatient()).await.unwrap();
    assert!(matches!(store.lease().await, Err(StoreError::ReadOnly(_))));
    assert!(matches!(store.create_job("{}").await, Err(StoreError::ReadOnly(_))));
    assert_eq!(store.jobs(9).await.unwrap(), []);
}

//! Postgres behind PgBouncer.

use super::{lease::soon, support::pgbouncer::PgBouncer, *};

#[tokio::test]
async fn a_pooler_of_sessions_changes_nothing() {
    let test = TestDatabase::new(Postgres).await;
    let pooler = PgBouncer::before(&test.url(), "session").await;
    let open = async || store::open(&pooler.url, &impatient()).await.unwrap();
    let (store, other) = (open().await, open().await);
    append(&store, plain(600)).await;
    assert_eq!(other.range(0, 999).await.unwrap().list.json, joined(&plain(600)));

    let mut lease = store.lease().await.unwrap().unwrap();
    assert!(other.lease().await.unwrap().is_none());
    assert!(lease.held().await);
    drop(lease);
    assert!(soon(&other).await.held().await);

    // The limits of the session hold too: who waits for the writers' lock gives up.
    let writer = store.write().await.unwrap();
    let error = other.write().await.err().unwrap();
    assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
    drop(writer);
    assert_eq!(append(&other, branch("new", "block_hash_599", 600, 602)).await.length, 602);
}

#[rstest]
#[tokio::test]
async fn a_pooler_of_less_than_sessions_is_refused(#[values("transaction", "statement")] mode: &str) {
    let test = TestDatabase::new(Postgres).await;
    let pooler = PgBouncer::before(&test.url(), mode).await;
    for error in [
        store::open(&pooler.url, &impatient()).await.err().unwrap(),
        store::migrate(&pooler.url, &impatient()).await.unwrap_err(),
    ] {
        assert!(matches!(&error, StoreError::Unusable(text) if text.contains("pool_mode = session")), "{error:?}");
    }
}

#[tokio::test]
async fn options_that_a_pooler_does_not_pass_on_are_about_the_url() {
    let test = TestDatabase::new(Postgres).await;
    let pooler = PgBouncer::before(&test.url(), "session").await;
    let patient = OpenOptions { server_wait: Duration::from_secs(600), ..impatient() };
    let error = store::open(&(pooler.url.clone() + "?options[search_path]=public"), &patient).await.err().unwrap();
    assert!(matches!(&error, StoreError::Url(text) if text.contains("ALTER ROLE")), "{error:?}");
}

//! Postgres behind PgBouncer.

use futures::StreamExt;
use sqlx::{ConnectOptions, postgres::PgConnectOptions};

use super::{
    lease::soon,
    support::{cluster::Cluster, pgbouncer::PgBouncer},
    *,
};

#[rstest]
#[tokio::test]
async fn a_pooler_changes_nothing(#[values("session", "transaction")] mode: &str) {
    let test = TestDatabase::new(Postgres).await;
    let pooler = PgBouncer::before(&test.url(), mode).await;
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

    // What is written beside the chain, and events.
    let job = store.create_job("{}").await.unwrap();
    store.update_job(job, "blocks", "{}").await.unwrap();
    assert!(other.cancel_job(job).await.unwrap() && other.job(job).await.unwrap().unwrap().cancel_requested);
    store.put_note("key", "value").await.unwrap();
    assert_eq!(other.get_note("key").await.unwrap().unwrap().value, "value");
    let ids: Vec<_> = store.events(0, 9).await.unwrap().into_iter().map(|event| event.id).collect();
    assert_eq!(ids, [1, 2]);
    assert_eq!(recount(&store).await, store.state().await.unwrap());
}

/// Many reads and a writer share few sessions of the server, in both of which the same names of statements occur.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_and_a_writer_share_few_sessions() {
    let test = TestDatabase::new(Postgres).await;
    let pooler = PgBouncer::with(&test.url(), "transaction", "default_pool_size = 6").await;
    let open = async || store::open(&pooler.url, &OpenOptions::default()).await.unwrap();
    let (store, other) = (open().await, open().await);
    append(&store, plain(100)).await;
    let mut lease = store.lease().await.unwrap().unwrap();
    let read = async |number: u64| {
        let store = if number.is_multiple_of(2) { &store } else { &other };
        match number % 4 {
            0 | 1 => {
                let hash = format!("block_hash_{:03}", number % 100);
                let found = store.get(&hash).await.unwrap().unwrap();
                assert_eq!((found.index, found.canonical), (number % 100, true));
            }
            _ => assert_eq!(store.range(number % 50, number % 50 + 9).await.unwrap().list.count, 10),
        }
    };
    let reads = futures::stream::iter(0..200).for_each_concurrent(8, read);
    let writes = async {
        for round in 0..10 {
            let parent = if round == 0 { "block_hash_099".into() } else { format!("more_{:03}", 99 + round) };
            append(&other, branch("more", &parent, 100 + round, 101 + round)).await;
        }
    };
    tokio::join!(reads, writes);
    assert_eq!(store.state().await.unwrap().length, 110);
    assert!(lease.held().await);
}

#[tokio::test]
async fn a_pooler_of_statements_is_refused() {
    let test = TestDatabase::new(Postgres).await;
    let pooler = PgBouncer::before(&test.url(), "statement").await;
    for error in [
        store::open(&pooler.url, &impatient()).await.err().unwrap(),
        store::migrate(&pooler.url, &impatient()).await.unwrap_err(),
    ] {
        assert!(matches!(&error, StoreError::Unusable(text) if text.contains("pool_mode = transaction")), "{error:?}");
    }
}

/// Each statement of a connection gets the server's connection that has been idle for longest.
#[tokio::test]
async fn a_pooler_that_takes_turns_is_noticed() {
    let test = TestDatabase::new(Postgres).await;
    let pooler = PgBouncer::with(&test.url(), "transaction", "server_round_robin = 1").await;
    let client: PgConnectOptions = pooler.url.parse().unwrap();
    let client = client.extra_float_digits(None);
    let (mut one, mut other) = (client.connect().await.unwrap(), client.connect().await.unwrap());
    for statement in ["BEGIN", "COMMIT"] {
        for connection in [&mut one, &mut other] {
            sqlx::raw_sql(statement).execute(connection).await.unwrap();
        }
    }
    let store = store::open(&pooler.url, &impatient()).await.unwrap();
    let mut lease = store.lease().await.unwrap().unwrap();
    append(&store, plain(3)).await;
    for _ in 0..20 {
        assert_eq!(store.range(0, 9).await.unwrap().list.count, 3);
    }
    assert!(lease.held().await);
}

/// PgBouncer accepts a client before it has reached the server, and lets its first statement wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_behind_a_pooler_is_waited_for() {
    let cluster = Cluster::start();
    let url = cluster.url(cluster.address, "postgres");
    let pooler = PgBouncer::with(&url, "session", "server_login_retry = 1").await;
    store::open(&pooler.url, &impatient()).await.unwrap().close().await;
    cluster.stop("fast");
    let waiting = |seconds, options| OpenOptions { server_wait: Duration::from_secs(seconds), ..options };
    let hasty = OpenOptions { acquire_timeout: Duration::from_millis(300), ..OpenOptions::default() };
    let started = Instant::now();
    let error = store::open(&pooler.url, &waiting(3, hasty)).await.err().unwrap();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    assert!(started.elapsed() >= Duration::from_secs(3), "{:?}: {error:?}", started.elapsed());
    let url = pooler.url.clone();
    let opening = tokio::spawn(async move { store::open(&url, &waiting(600, impatient())).await.map(|_| ()) });
    cluster.up();
    opening.await.unwrap().unwrap();
}

#[tokio::test]
async fn options_that_a_pooler_does_not_pass_on_are_about_the_url() {
    let test = TestDatabase::new(Postgres).await;
    let pooler = PgBouncer::before(&test.url(), "session").await;
    let patient = OpenOptions { server_wait: Duration::from_secs(600), ..impatient() };
    let error = store::open(&(pooler.url.clone() + "?options[search_path]=public"), &patient).await.err().unwrap();
    assert!(matches!(&error, StoreError::Url(text) if text.contains("ALTER ROLE")), "{error:?}");
}

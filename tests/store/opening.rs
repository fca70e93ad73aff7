//! Opening, closing, schema versions, and stores that are damaged, missing or gone.

use super::*;
use crate::support::{clock::judge, gateway::PATIENCE, pgbouncer::PgBouncer, until::eventually};

#[rstest]
#[tokio::test]
async fn a_store_that_is_opened_again_has_kept_everything(#[values(Sqlite, Postgres)] kind: Kind) {
    let (test, store) = holding(kind, fixture()).await;
    let state = store.state().await.unwrap();
    store.close().await;
    let error = store.state().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    let store = test.open().await;
    assert_eq!(store.state().await.unwrap(), state);
    assert_eq!(store.range(0, 99).await.unwrap().list.json, joined(&fixture()));
}

#[rstest]
#[tokio::test]
async fn the_schema_is_migrated_on_request(#[values(Sqlite, Postgres)] kind: Kind) {
    let test = TestDatabase::new(kind).await;
    let as_it_is = OpenOptions { migrate: false, ..impatient() };
    let error = store::open(&test.url(), &as_it_is).await.err().unwrap();
    assert!(matches!(&error, StoreError::Unusable(text) if text.contains("holds no store")), "{error:?}");
    assert_eq!(store::migrate(&test.url(), &as_it_is).await.unwrap(), (0, 5));
    assert_eq!(store::migrate(&test.url(), &as_it_is).await.unwrap(), (5, 5));
    store::open(&test.url(), &as_it_is).await.unwrap();

    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 SELECT 99, description, success, checksum, execution_time FROM _sqlx_migrations WHERE version = 1";
    test.execute(newer).await.unwrap();
    let refused = [
        store::open(&test.url(), &impatient()).await.err().unwrap(),
        store::migrate(&test.url(), &impatient()).await.unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, StoreError::NewerSchema { found: 99, known: 5 }), "{error:?}");
    }
}

#[tokio::test]
async fn a_store_in_a_later_schema_of_the_search_path_is_not_used() {
    let (test, store) = holding(Postgres, plain(3)).await;
    test.execute("CREATE SCHEMA ahead").await.unwrap();
    let url = test.url() + "?options[search_path]=ahead,public";
    let as_it_is = OpenOptions { migrate: false, ..impatient() };
    let error = store::open(&url, &as_it_is).await.err().unwrap();
    assert!(matches!(&error, StoreError::Unusable(text) if text.contains("holds no store")), "{error:?}");
    assert_eq!(store::migrate(&url, &impatient()).await.unwrap(), (0, 5));
    let ahead = store::open(&url, &as_it_is).await.unwrap();
    assert_eq!(ahead.state().await.unwrap(), ChainState::default());
    append(&ahead, plain(5)).await;
    assert_eq!((ahead.state().await.unwrap().length, store.state().await.unwrap().length), (5, 3));
    let _leases = (ahead.lease().await.unwrap().unwrap(), store.lease().await.unwrap().unwrap());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_new_store_is_opened_many_times_at_once(#[values(Sqlite, Postgres)] kind: Kind) {
    let test = TestDatabase::new(kind).await;
    let url = test.url();
    let opening = (0..6).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { store::open(&url, &OpenOptions::default()).await })
    });
    for opened in futures::future::join_all(opening).await {
        assert_eq!(opened.unwrap().unwrap().state().await.unwrap(), ChainState::default());
    }
}

/// A gateway that comes while another one migrates a long chain waits for it, however long that takes.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_start_during_a_migration_waits_for_it(#[values(false, true)] pooled: bool) {
    let test = TestDatabase::new(Postgres).await;
    let pooler = match pooled {
        true => Some(PgBouncer::before(&test.url(), "transaction").await),
        false => None,
    };
    let url = pooler.as_ref().map_or_else(|| test.url(), |pooler| pooler.url.clone());
    store::open(&url, &impatient()).await.unwrap().close().await;
    let mut migrating = PgConnection::connect(&test.url()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE _sqlx_migrations").execute(&mut migrating).await.unwrap();
    let opening = tokio::spawn(async move { store::open(&url, &impatient()).await });
    // Longer than other statements may wait for a lock.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
                 AND now() - query_start > interval '2 seconds'";
    eventually(async || {
        let mut watching = PgConnection::connect(&test.url()).await.unwrap();
        let (waiting,): (i64,) = sqlx::query_as(waits).fetch_one(&mut watching).await.unwrap();
        assert!(!opening.is_finished(), "it has given up");
        (waiting > 0).then_some(())
    })
    .await;
    sqlx::raw_sql("COMMIT").execute(&mut migrating).await.unwrap();
    opening.await.unwrap().unwrap().close().await;
}

#[rstest]
#[tokio::test]
async fn a_read_only_store_can_be_read(#[values(Sqlite, Postgres)] kind: Kind) {
    let (test, store) = holding(kind, plain(3)).await;
    store.close().await;
    let url = match &test {
        TestDatabase::Folder(_) => test.url() + "?mode=ro",
        TestDatabase::Database(_) => {
            test.execute(
                "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', \
                           current_database()); END $$",
            )
            .await
            .unwrap();
            test.url()
        }
    };
    let store = store::open(&url, &impatient()).await.unwrap();
    assert_eq!(store.range(0, 9).await.unwrap().list.json, joined(&plain(3)));
    let error = store.write().await.err().unwrap();
    assert!(matches!(error, StoreError::ReadOnly(_)), "{error:?}");
}

#[rstest]
#[tokio::test]
async fn an_invalid_row_is_reported_as_damage(#[values(Sqlite, Postgres)] kind: Kind) {
    let (test, store) = holding(kind, plain(3)).await;
    test.execute("UPDATE chain SET cumulative_difficulty = 'much'").await.unwrap();
    for error in [store.state().await.unwrap_err(), store.write().await.err().unwrap()] {
        assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
    }
    assert!(store.range(0, 9).await.is_ok());
    test.execute("UPDATE chain SET cumulative_difficulty = '3003', tip_hash = NULL").await.unwrap();
    let error = store.range(0, 9).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
}

#[tokio::test]
async fn a_missing_sqlite_file_is_created_on_request() {
    let test = TestDatabase::new(Sqlite).await;
    let keep = OpenOptions { create: false, ..impatient() };
    for url in [test.url(), test.url() + "?mode=ro", test.url().replace("chain.db", "no/chain.db")] {
        let error = store::open(&url, &keep).await.err().unwrap();
        assert!(matches!(&error, StoreError::Missing(path) if path.ends_with("chain.db")), "{error:?}");
    }
    let TestDatabase::Folder(folder) = &test else { unreachable!() };
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    for url in [
        "sqlite://",
        "sqlite:",
        "mysql://host/x",
        "chain.db",
        "sqlite://x?mode=odd",
        "sqlite://x?mode=memory",
        "sqlite:file:x",
        "sqlite://%3Amemory%3A",
        "postgres://host:port/x",
    ] {
        let error = store::open(url, &impatient()).await.err().unwrap();
        assert!(matches!(error, StoreError::Url(_)), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_damaged() {
    let test = TestDatabase::new(Sqlite).await;
    let TestDatabase::Folder(folder) = &test else { unreachable!() };
    let path = folder.path().join("chain.db");
    std::fs::write(&path, "no database ".repeat(1000)).unwrap();
    for url in [test.url(), test.url() + "?mode=ro"] {
        let error = store::open(&url, &impatient()).await.err().unwrap();
        assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "no database ".repeat(1000));
}

#[tokio::test]
async fn a_file_that_comes_back_as_no_database_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    // Moved with its log, at once.
    let (place, aside) = (folder.path().join("store"), folder.path().join("aside"));
    std::fs::create_dir(&place).unwrap();
    let url = format!("sqlite://{}/chain.db", place.display());
    let store = store::open(&url, &impatient()).await.unwrap();
    let state = append(&store, plain(3)).await;
    std::fs::rename(&place, &aside).unwrap();
    eventually(async || (store.state().await.is_err() && !store.stats().up).then_some(())).await;

    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("chain.db"), "no database ".repeat(1000)).unwrap();
    eventually(async || matches!(store.state().await, Err(StoreError::Damaged(_))).then_some(())).await;
    assert!(store.stats().up, "it can be reached");

    std::fs::remove_dir_all(&place).unwrap();
    std::fs::rename(&aside, &place).unwrap();
    assert_eq!(eventually(async || store.state().await.ok()).await, state);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_memory_is_read_while_it_is_written() {
    let store = store::open("sqlite::memory:", &impatient()).await.unwrap();
    let other = store::open("sqlite::memory:", &impatient()).await.unwrap();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    let read = store.range(0, 9999).await.unwrap();
                    assert_eq!(read.list.count, 250 * read.snapshot.version);
                    if read.snapshot.version == 8 {
                        break;
                    }
                }
            })
        })
        .collect();
    for chunk in plain(2000).chunks(250) {
        append(&store, chunk.to_vec()).await;
    }
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(store.state().await.unwrap(), recount(&store).await);
    assert_eq!(other.state().await.unwrap().length, 0);
}

#[tokio::test]
async fn an_unreachable_postgres_is_named_without_its_password() {
    let test = TestDatabase::new(Postgres).await;
    let error = store::open(&test.url().replace("modal_gateway", "no_such"), &impatient()).await.err().unwrap();
    assert!(matches!(error, StoreError::Missing(_)), "{error:?}");
    let error = store::open("postgres://user:secret@127.0.0.1:1/chain", &impatient()).await.err().unwrap();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[tokio::test]
async fn a_server_that_is_not_up_is_waited_for_no_longer_than_was_said() {
    let free = support::ports::free_port();
    let url = format!("postgres://user@127.0.0.1:{free}/chain");
    let (started, patient) = (Instant::now(), OpenOptions { server_wait: Duration::from_secs(1), ..impatient() });
    let error = store::open(&url, &patient).await.err().unwrap();
    assert!(matches!(&error, StoreError::Unreachable(text) if text.contains(&free.to_string())), "{error:?}");
    assert!(started.elapsed() >= Duration::from_secs(1));
    // One that answers is up, whatever the answer.
    let (started, test) = (Instant::now(), TestDatabase::new(Postgres).await);
    let absent = test.url().replace("modal_gateway", "no_such");
    let patient = OpenOptions { server_wait: Duration::from_secs(600), ..impatient() };
    let error = store::open(&absent, &patient).await.err().unwrap();
    assert!(matches!(error, StoreError::Missing(_)), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn a_stopped_postgres_is_unreachable_until_it_returns() {
    let test = TestDatabase::new(Postgres).await;
    let relay = support::relay::Relay::to(&test.url()).await;
    let store = store::open(&relay.url, &impatient()).await.unwrap();
    append(&store, plain(3)).await;
    let writer = store.write().await.unwrap();
    let address = relay.cut().await;
    let error = writer.commit().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    for _ in 0..3 {
        let error = store.state().await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
        let error = store.write().await.err().unwrap();
        assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    }
    let _relay = support::relay::Relay::at(address, &test.url()).await;
    let returned = Instant::now();
    let state = loop {
        match store.state().await {
            Ok(state) => break state,
            Err(error) => assert!(returned.elapsed() < PATIENCE, "{error:?}"),
        }
        tokio::task::yield_now().await;
    };
    judge(returned.elapsed() < Duration::from_secs(3), format_args!("{:?}", returned.elapsed()));
    assert_eq!((state.version, state.length), (1, 3));
    assert_eq!(append(&store, branch("new", "block_hash_002", 3, 5)).await.length, 5);
}

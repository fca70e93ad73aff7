//! Reads from streaming replicas.

use super::{
    support::{cluster::Cluster, pgbouncer::PgBouncer, until::eventually},
    *,
};

/// Most time that a read may take in which a replica turns out to be unusable, and what it takes a busy machine.
const SOON: Duration = Duration::from_secs(3);

/// A primary with three blocks, a replica of it, a handle that writes, and a store that reads from the replica.
struct Replicated {
    primary: Cluster,
    replica: Cluster,
    _pooler: Option<PgBouncer>,
    writer: Arc<dyn BlockStore>,
    store: Arc<dyn BlockStore>,
}

fn url(cluster: &Cluster) -> String {
    cluster.url(cluster.address, "postgres")
}

/// A store over the primary, with reads from these.
async fn with_replicas(primary: &Cluster, replicas: &[String]) -> Arc<dyn BlockStore> {
    let opened = store::open(&url(primary), &impatient()).await.unwrap();
    store::with_replicas(opened, replicas, &impatient())
}

impl Replicated {
    async fn start(pooled: bool) -> Self {
        let primary = Cluster::start();
        let writer = store::open(&url(&primary), &impatient()).await.unwrap();
        append(&writer, plain(3)).await;
        let replica = primary.standby();
        let pooler = match pooled {
            true => Some(PgBouncer::before(&url(&replica), "transaction").await),
            false => None,
        };
        let replica_url = pooler.as_ref().map_or_else(|| url(&replica), |pooler| pooler.url.clone());
        let store = with_replicas(&primary, &[replica_url]).await;
        let replicated = Self { primary, replica, _pooler: pooler, writer, store };
        replicated.is_used(true).await;
        replicated
    }

    /// Appends a block by another process.
    async fn grow(&self) -> ChainState {
        let tip = self.writer.state().await.unwrap().tip.unwrap();
        append(&self.writer, branch("block_hash", &tip.hash, tip.index + 1, tip.index + 2)).await
    }

    /// Waits until the replica is used, or is left out.
    async fn is_used(&self, used: bool) {
        eventually(async || (self.figures().0 == used).then_some(())).await;
    }

    /// Whether the replica is used; reads from it, and from the primary.
    fn figures(&self) -> (bool, u64, u64) {
        let stats = self.store.replica_stats().unwrap();
        (stats.replicas[0].up, stats.replicas[0].reads, stats.primary_reads)
    }

    /// Reads as answers do; the version that each of them saw is at least `version`.
    async fn reads_at_least(&self, version: u64) {
        for _ in 0..5 {
            let started = Instant::now();
            let state = self.store.state().await.unwrap();
            let range = self.store.range(0, 99).await.unwrap();
            let (_, anchored) = self.store.anchor("block_hash_000").await.unwrap();
            let event = self.store.event_at(u64::MAX).await.unwrap().unwrap();
            let seen = [state.version, range.snapshot.version, anchored, event.id];
            assert!(seen.iter().all(|seen| *seen >= version), "{seen:?} is behind {version}");
            assert!(seen.is_sorted(), "{seen:?}: a later read is behind an earlier one");
            support::clock::judge(started.elapsed() < SOON, format_args!("{:?}", started.elapsed()));
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn reads_go_to_a_replica_while_it_is_level(#[values(false, true)] pooled: bool) {
    let world = Replicated::start(pooled).await;
    let (_, replica_before, primary_before) = world.figures();
    for _ in 0..20 {
        assert_eq!(world.store.range(0, 99).await.unwrap().list.json, joined(&plain(3)));
    }
    let (_, replica_reads, primary_reads) = world.figures();
    assert_eq!((replica_reads - replica_before, primary_reads - primary_before), (20, 0));

    // Writes go to the primary, and a job is found at once by who requested it.
    let job = world.store.create_job("{}").await.unwrap();
    assert_eq!(world.store.job(job).await.unwrap().unwrap().id, job);

    world.replica.sql("SELECT pg_wal_replay_pause()");
    let state = world.grow().await;
    world.store.require_block(&state.tip.unwrap().hash).await.unwrap();
    world.reads_at_least(2).await;
    let (used, replica_reads, _) = world.figures();
    assert!(!used, "the replica is behind");
    for version in 3..6 {
        world.grow().await;
        world.store.require(version).await.unwrap();
        world.reads_at_least(version).await;
    }
    // Versions and blocks that the primary does not have change nothing.
    world.store.require(1000).await.unwrap();
    world.store.require_block("nowhere").await.unwrap();
    world.reads_at_least(5).await;
    assert_eq!(world.figures().1, replica_reads, "a replica that is behind gives no answer");

    world.replica.sql("SELECT pg_wal_replay_resume()");
    world.is_used(true).await;
    world.reads_at_least(5).await;
    assert!(world.figures().1 > replica_reads);
}

/// Notes make no version of the chain: a replica that does not replay has old ones, and no lack of blocks shows it.
#[tokio::test(flavor = "multi_thread")]
async fn notes_are_current_while_a_replica_stands_still() {
    let world = Replicated::start(false).await;
    world.writer.put_note("sync_status", "before").await.unwrap();
    let note = async || world.store.get_note("sync_status").await.unwrap().map(|note| note.value);
    assert_eq!(note().await.as_deref(), Some("before"));
    world.replica.sql("SELECT pg_wal_replay_pause()");
    world.writer.put_note("sync_status", "after").await.unwrap();
    assert_eq!(note().await.as_deref(), Some("after"));
    assert!(world.figures().0, "for the chain it is level");
    // Without the primary an old one is better than none.
    world.replica.sql("SELECT pg_wal_replay_resume()");
    let replayed = "SELECT value FROM note WHERE key = 'sync_status'";
    eventually(async || (world.replica.sql(replayed).trim() == "after").then_some(())).await;
    world.primary.stop("immediate");
    assert_eq!(note().await.as_deref(), Some("after"));
}

/// Without a word of any client, a replica is at most a moment behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_to_replay_is_left_out() {
    let world = Replicated::start(false).await;
    world.replica.sql("SELECT pg_wal_replay_pause()");
    world.grow().await;
    let started = Instant::now();
    eventually(async || (world.store.state().await.unwrap().version == 2).then_some(())).await;
    eprintln!("the new tip is read after {:.0?}", started.elapsed());
    support::clock::judge(started.elapsed() < Duration::from_millis(600), format_args!("{:?}", started.elapsed()));
    world.reads_at_least(2).await;
}

#[rstest]
#[case::stopped("immediate")]
#[case::frozen("STOP")]
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_ends_or_hangs_fails_no_read(#[case] how: &str) {
    let world = Replicated::start(false).await;
    match how {
        "STOP" => world.replica.signal("STOP"),
        mode => world.replica.stop(mode),
    }
    world.reads_at_least(1).await;
    world.is_used(false).await;
    world.grow().await;
    world.store.require(2).await.unwrap();
    world.reads_at_least(2).await;
    match how {
        "STOP" => world.replica.signal("CONT"),
        _ => world.replica.up(),
    }
    world.is_used(true).await;
    let (_, before, _) = world.figures();
    world.reads_at_least(2).await;
    assert!(world.figures().1 > before);
}

/// Reads need no primary, as long as nothing newer has been seen.
#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_without_the_primary() {
    let world = Replicated::start(false).await;
    world.primary.stop("fast");
    world.reads_at_least(1).await;
    let error = world.store.create_job("{}").await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    let error = world.store.require_block("nowhere").await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "only the primary knows: {error:?}");
    world.primary.up();
    eventually(async || world.store.create_job("{}").await.ok()).await;
}

/// A server that has become a primary itself may go another way.
#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_replica_is_left_out() {
    let world = Replicated::start(false).await;
    world.replica.promote();
    world.is_used(false).await;
    let promoted = store::open(&url(&world.replica), &impatient()).await.unwrap();
    append(&promoted, branch("other", "block_hash_002", 3, 9)).await;
    world.reads_at_least(1).await;
    assert_eq!(world.store.state().await.unwrap().length, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_others_and_of_older_schemas_are_left_out() {
    let (primary, foreign) = (Cluster::start(), Cluster::start());
    // Before the schema: its replica has none while it does not replay.
    let early = primary.standby();
    early.sql("SELECT pg_wal_replay_pause()");
    let writer = store::open(&url(&primary), &impatient()).await.unwrap();
    append(&writer, plain(3)).await;
    let other = store::open(&url(&foreign), &impatient()).await.unwrap();
    append(&other, branch("foreign", "0", 0, 9)).await;
    let of_others = foreign.standby();
    let store = with_replicas(&primary, &[url(&of_others), url(&early), url(&primary)]).await;
    let used = || store.replica_stats().unwrap().replicas.into_iter().map(|replica| replica.up).collect::<Vec<_>>();
    for _ in 0..50 {
        assert_eq!(store.range(0, 99).await.unwrap().list.json, joined(&plain(3)));
        assert_eq!(used(), [false; 3]);
        tokio::task::yield_now().await;
    }
    early.sql("SELECT pg_wal_replay_resume()");
    eventually(async || (used() == [false, true, false]).then_some(())).await;
    assert_eq!(store.range(0, 99).await.unwrap().list.json, joined(&plain(3)));
    assert_eq!(used(), [false, true, false]);
}

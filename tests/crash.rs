//! Kills a sync at random moments, over and over: whatever the moment, the store is consistent afterwards, the job goes
//! on, and the end is that of a sync nobody disturbed.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use libp2p::identity::Keypair;
use modal_gateway::{
    app::Node,
    chain::{CumulativeDifficulty, Level, MinerBlock, PowOptions, Verifier},
    config::Config,
    store::{self, OpenOptions},
};
use rstest::rstest;
use sqlx::{Connection, PgConnection};
use support::{
    gateway::Backend,
    linked::{NETWORK_FILE, linked, network},
    postgres::Database,
    process::program,
    until::eventually,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

mod support;

/// Kills of each store.
const KILLS: u32 = 100;

/// Index of the last block that both branches share, and how many blocks each has behind it.
const SHARED: u64 = 300;
const OURS: u64 = 400;
const THEIRS: u64 = 5_000;

/// A store that can be put back to its beginning: a shared beginning and a branch that is going to lose.
struct Victim {
    folder: TempDir,
    database: Option<(Database, Database)>,
}

impl Victim {
    async fn create(backend: Backend, chain: Vec<MinerBlock>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some((Database::create().await, Database::create().await)),
        };
        let victim = Self { folder, database };
        let start = match &victim.database {
            None => format!("sqlite://{}", victim.file("start.db").display()),
            Some((start, _)) => start.url.clone(),
        };
        fill(&start, chain).await;
        victim.reset().await;
        victim
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self) -> String {
        match &self.database {
            None => format!("sqlite://{}", self.file("store.db").display()),
            Some((_, store)) => store.url.clone(),
        }
    }

    /// Back to the beginning.
    async fn reset(&self) {
        match &self.database {
            None => {
                for old in ["store.db", "store.db-wal", "store.db-shm"] {
                    let _ = std::fs::remove_file(self.file(old));
                }
                std::fs::copy(self.file("start.db"), self.file("store.db")).unwrap();
            }
            Some((start, store)) => store.copy_from(start).await,
        }
    }

    /// Waits until nobody is connected: a server process may still commit what a client sent before it was killed.
    async fn left_alone(&self) {
        let Some((_, store)) = &self.database else { return };
        let mut connection = PgConnection::connect(&store.url).await.unwrap();
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                      AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
        eventually(async || {
            let others: i64 = sqlx::query_scalar(others).fetch_one(&mut connection).await.unwrap();
            (others == 0).then_some(())
        })
        .await;
    }

    /// A process that syncs it from `peer`.
    fn sync(&self, peer: &str) -> Child {
        std::fs::write(self.file("network.toml"), NETWORK_FILE).unwrap();
        let url = self.url();
        let args = ["sync", peer, "--verify", "linked", "--database-url", &url, "--network", "network.toml"];
        let mut command = program(self.folder.path(), args);
        command
            .env("RUST_LOG", "modal_gateway::sync=trace")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

async fn fill(url: &str, chain: Vec<MinerBlock>) {
    let store = store::open(url, &OpenOptions::default()).await.unwrap();
    let verifier = Verifier::new(&network(), Level::Linked, PowOptions::default()).unwrap();
    let mut writer = store.write().await.unwrap();
    writer.append(verifier.verify(None, chain).unwrap()).await.unwrap();
    writer.commit().await.unwrap();
    store.close().await;
}

/// Checks that there is one chain, that it links, and that the sums are right; its tip, and a hash of all of it.
async fn audit(url: &str) -> (u64, String) {
    use sha2::{Digest, Sha256};
    let store = store::open(url, &OpenOptions { connections: 1, ..OpenOptions::default() }).await.unwrap();
    let state = store.state().await.unwrap();
    let tip = state.tip.clone().expect("the beginning is never lost");
    let (mut work, mut previous, mut count, mut hash) =
        (CumulativeDifficulty::default(), "0".to_owned(), 0, Sha256::new());
    while count <= tip.index {
        let blocks = store.range(count, count + 999).await.unwrap();
        hash.update(&blocks.list.json);
        for block in blocks.list.parse::<MinerBlock>().unwrap() {
            assert_eq!((block.index, &block.previous_hash), (count, &previous), "the chain is broken");
            assert!(block.is_canonical && !block.is_orphaned);
            work = work + block.actualized_difficulty;
            (previous, count) = (block.hash, count + 1);
        }
        assert!(blocks.list.count > 0, "blocks are missing from {count} on");
    }
    assert_eq!((state.length, &state.cumulative_difficulty, &tip.hash), (count, &work, &previous));
    assert_eq!(store.work_at(tip.index).await.unwrap(), Some(work));
    if let Some(stage) = store.staged().await.unwrap() {
        assert!(stage.ancestor.is_some_and(|ancestor| ancestor.index == SHARED), "an ancestor that is not ours");
    }
    store.close().await;
    (tip.index, hex::encode(hash.finalize()))
}

/// Waits for a process, or kills it at `moment`; whether it ended by itself, and whether the kill fell into a
/// transaction.
fn end(mut child: Child, moment: Option<Duration>) -> (bool, bool) {
    let inside = Arc::new(AtomicBool::new(false));
    let (told, stderr) = (inside.clone(), BufReader::new(child.stderr.take().unwrap()));
    let reader = std::thread::spawn(move || {
        let mut lines = Vec::new();
        for line in stderr.lines().map_while(Result::ok) {
            if line.contains("transaction begins") {
                told.store(true, Ordering::Relaxed);
            } else if line.contains("transaction ends") {
                told.store(false, Ordering::Relaxed);
            }
            lines.push(line);
        }
        lines
    });
    let (done, killed) = std::sync::mpsc::channel::<()>();
    let pid = child.id().to_string();
    let killer = moment.map(|moment| {
        std::thread::spawn(move || match killed.recv_timeout(moment) {
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                Command::new("kill").args(["-KILL", &pid]).status().is_ok_and(|status| status.success())
            }
            _ => false,
        })
    });
    // The end of the pipe is the end of the process, which is reaped only after the killer is done with its number.
    let lines = reader.join().unwrap();
    drop(done);
    let killed = killer.is_some_and(|killer| killer.join().unwrap());
    let status = child.wait().unwrap();
    assert!(killed || status.success(), "the sync failed:\n{}", lines.join("\n"));
    (status.success(), !status.success() && inside.load(Ordering::Relaxed))
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_killed_at_any_moment_goes_on(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let shared = linked(None, SHARED + 1, "shared");
    let branch = |count, salt| [shared.clone(), linked(shared.last(), count, salt)].concat();
    let victim = Victim::create(backend, branch(OURS, "ours")).await;

    // A node of our own with the heavier chain.
    let theirs = format!("sqlite://{}", victim.file("peer.db").display());
    fill(&theirs, branch(THEIRS, "theirs")).await;
    let config = Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        network: network(),
        verify: Level::Linked,
        sync: false,
        ..Config::default()
    };
    let store = store::open(&theirs, &OpenOptions::default()).await.unwrap();
    let node = Node::start_with(&config, store, Keypair::generate_ed25519()).await.unwrap();
    let peer = node.addresses().remove(0).to_string();
    let stop = CancellationToken::new();
    let running = tokio::spawn(node.run(stop.clone()));

    let started = Instant::now();
    let child = victim.sync(&peer);
    tokio::task::block_in_place(|| end(child, None));
    let undisturbed = started.elapsed();
    let expected = audit(&victim.url()).await;
    assert_eq!(expected.0, SHARED + THEIRS);
    victim.reset().await;

    let seed = std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut kills, mut inside, mut completed) = (0, 0, 0);
    while kills < KILLS {
        let child = victim.sync(&peer);
        let moment = undisturbed.mul_f64(random.f64());
        let (done, in_transaction) = tokio::task::block_in_place(|| end(child, Some(moment)));
        victim.left_alone().await;
        let found = audit(&victim.url()).await;
        inside += u32::from(in_transaction);
        if done {
            assert_eq!(found, expected, "seed {seed}");
            completed += 1;
            victim.reset().await;
        } else {
            kills += 1;
        }
    }
    let child = victim.sync(&peer);
    tokio::task::block_in_place(|| end(child, None));
    assert_eq!(audit(&victim.url()).await, expected, "seed {seed}");
    println!("{backend:?}: {kills} kills, {inside} inside a transaction, {completed} syncs completed, seed {seed}");
    assert!(inside > 0, "no kill fell into a transaction: seed {seed}");
    stop.cancel();
    running.await.unwrap().unwrap();
}

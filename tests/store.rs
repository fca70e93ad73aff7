//! What every store does, run over both databases: one body per property.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use modal_gateway::{
    chain::{
        ChainEnd, CumulativeDifficulty, Deviation, Enforcement, EpochNumbering, Level, MinerBlock, Network, Position,
        PowOptions, VerifiedBlocks, Verifier,
    },
    protocol::BlockList,
    store::{
        self, Anchor, BlockStore, ChainState, EventKind, KEPT_EVENTS, KEPT_JOBS, Lease, MAX_BLOCKS_PER_INDEX,
        MAX_EVENTS_LENGTH, MAX_LISTED_HASHES, OpenOptions, QUEUED, Reorganisation, Snapshot, StoreError, Tip,
    },
};
use rstest::rstest;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use support::postgres;

mod support;

#[path = "store/abandoned.rs"]
mod abandoned;
#[path = "store/branch.rs"]
mod branch;
#[path = "store/events.rs"]
mod events;
#[path = "store/jobs.rs"]
mod jobs;
#[path = "store/lease.rs"]
mod lease;
#[path = "store/limits.rs"]
mod limits;
#[path = "store/lookup.rs"]
mod lookup;
#[path = "store/opening.rs"]
mod opening;
#[path = "store/pooled.rs"]
mod pooled;
#[path = "store/reading.rs"]
mod reading;
#[path = "store/replicas.rs"]
mod replicas;
#[path = "store/views.rs"]
mod views;
#[path = "store/writing.rs"]
mod writing;

/// The databases.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Sqlite,
    Postgres,
}
use Kind::{Postgres, Sqlite};

/// An empty database for a store.
enum TestDatabase {
    Folder(tempfile::TempDir),
    Database(postgres::Database),
}

impl TestDatabase {
    async fn new(kind: Kind) -> Self {
        match kind {
            Sqlite => Self::Folder(tempfile::tempdir().unwrap()),
            Postgres => Self::Database(postgres::Database::create().await),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Folder(folder) => format!("sqlite://{}/chain.db", folder.path().display()),
            Self::Database(database) => database.url.clone(),
        }
    }

    async fn open(&self) -> Arc<dyn BlockStore> {
        store::open(&self.url(), &impatient()).await.unwrap()
    }

    /// Brings the schema back to what it was before the migration `version`.
    async fn before_migration(&self, version: i64) {
        for (_, statements) in UNDO.iter().filter(|(undone, _)| *undone >= version) {
            for sql in *statements {
                self.execute(sql).await.unwrap();
            }
        }
        self.execute(&format!("DELETE FROM _sqlx_migrations WHERE version >= {version}")).await.unwrap();
    }

    /// Runs SQL on the database directly.
    async fn execute(&self, sql: &str) -> sqlx::Result<u64> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Folder(_) => {
                let mut connection = SqliteConnection::connect(&self.url()).await?;
                Ok(sqlx::query(sql).execute(&mut connection).await?.rows_affected())
            }
            Self::Database(_) => {
                let mut connection = PgConnection::connect(&self.url()).await?;
                Ok(sqlx::query(sql).execute(&mut connection).await?.rows_affected())
            }
        }
    }
}

/// What takes back each migration, the newest first.
const UNDO: [(i64, &[&str]); 3] = [
    (5, &["DROP VIEW epoch", "DROP VIEW miner_block"]),
    (4, &["DROP INDEX block_nominee", "DROP INDEX event_reorganised"]),
    (
        3,
        &[
            "ALTER TABLE chain DROP COLUMN largest",
            "ALTER TABLE chain DROP COLUMN off_schedule",
            "ALTER TABLE chain DROP COLUMN off_timestamp",
        ],
    ),
];

/// Options that wait long enough for what will happen on a machine with many others' work, and not long for what won't.
fn impatient() -> OpenOptions {
    OpenOptions { acquire_timeout: Duration::from_secs(4), ..OpenOptions::default() }
}

fn fixture() -> Vec<MinerBlock> {
    let lines = include_str!("fixtures/randomx-chain-61.ndjson").lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Blocks `from..to` of a chain whose hashes begin with `name`, after the block with hash `parent`.
fn branch(name: &str, parent: &str, from: u64, to: u64) -> Vec<MinerBlock> {
    let hash = |index| format!("{name}_{index:03}");
    let block = |index| MinerBlock {
        hash: hash(index),
        index,
        epoch: index / 40,
        previous_hash: if index == from { parent.into() } else { hash(index - 1) },
        target_difficulty: 1000,
        actualized_difficulty: 1000 + u128::from(index),
        nominated_peer_id: format!("miner {}", index % 7),
        is_canonical: true,
        ..MinerBlock::default()
    };
    (from..to).map(block).collect()
}

/// The chain of the protocol's first document: hashes are plain text.
fn plain(length: u64) -> Vec<MinerBlock> {
    branch("block_hash", "0", 0, length)
}

fn verified_to(level: Level, blocks: Vec<MinerBlock>) -> VerifiedBlocks {
    let network = Network { genesis_hash: None, difficulty_schedule: Enforcement::Off, ..Network::devnet() };
    let verifier = Verifier::new(&network, level, PowOptions::default()).unwrap();
    let parent = blocks[0].index.checked_sub(1).map(|index| {
        let parent = MinerBlock { index, hash: blocks[0].previous_hash.clone(), ..MinerBlock::default() };
        ChainEnd::new(&parent, &parent)
    });
    verifier.verify(parent.as_ref(), blocks).unwrap()
}

fn verified(blocks: Vec<MinerBlock>) -> VerifiedBlocks {
    verified_to(Level::None, blocks)
}

async fn append(store: &Arc<dyn BlockStore>, blocks: Vec<MinerBlock>) -> ChainState {
    let mut writer = store.write().await.unwrap();
    writer.append(verified(blocks)).await.unwrap();
    writer.commit().await.unwrap()
}

/// A store in a new database that holds these blocks.
async fn holding(kind: Kind, blocks: Vec<MinerBlock>) -> (TestDatabase, Arc<dyn BlockStore>) {
    let test = TestDatabase::new(kind).await;
    let store = test.open().await;
    append(&store, blocks).await;
    (test, store)
}

/// What the store answers for a block on its canonical chain.
fn canonical_text(block: &MinerBlock) -> String {
    let test = MinerBlock { is_canonical: true, is_orphaned: false, orphaned_at: None, ..block.clone() };
    MinerBlock { orphan_reason: None, competing_hash: None, ..test }.to_json()
}

fn joined(blocks: &[MinerBlock]) -> String {
    blocks.iter().map(canonical_text).collect::<Vec<_>>().join(",")
}

fn tip_of(block: &MinerBlock) -> Option<Tip> {
    Some(Tip { index: block.index, hash: block.hash.clone(), epoch: block.epoch })
}

/// The state that the whole chain, read block by block, amounts to.
async fn recount(store: &Arc<dyn BlockStore>) -> ChainState {
    let state = store.state().await.unwrap();
    let read = store.range(0, u64::MAX).await.unwrap();
    let blocks: Vec<MinerBlock> = read.list.parse().unwrap();
    let distinct = |values: Vec<String>| values.into_iter().collect::<std::collections::HashSet<_>>().len() as u64;
    let deviating = |deviation| blocks.iter().filter(|block| block.deviations.contains(&deviation)).count() as u64;
    ChainState {
        version: state.version,
        total_blocks: state.total_blocks,
        tip: blocks.last().and_then(tip_of),
        length: blocks.len() as u64,
        cumulative_difficulty: blocks.iter().map(|block| block.actualized_difficulty).sum(),
        bytes: blocks.iter().map(|block| block.to_json().len() as u64).sum(),
        epochs: distinct(blocks.iter().map(|block| block.epoch.to_string()).collect()),
        miners: distinct(blocks.iter().map(|block| block.nominated_peer_id.clone()).collect()),
        level: read.snapshot.level,
        // Blocks that are gone count too.
        largest: state.largest.max(blocks.iter().map(|block| block.to_json().len() as u64).max().unwrap_or_default()),
        off_schedule: deviating(Deviation::Schedule),
        off_timestamp: deviating(Deviation::Timestamp),
    }
}

fn difficulty(text: &str) -> CumulativeDifficulty {
    text.parse().unwrap()
}

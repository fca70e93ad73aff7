//! Where the chain is kept: one trait, two backends, chosen once by the URL.
//!
//! Every read is one SQL statement, so that it sees one state of the chain and names it (`version`).
//! Blocks come out as the JSON text that both doors send: it is written once, when a block is stored.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::chain::{ChainEnd, CumulativeDifficulty, EpochNumbering, Level, MinerBlock, Position, VerifiedBlocks};

mod attended;
mod error;
mod health;
mod pool;
mod postgres;
mod row;
mod schema;
mod sql;
mod sqlite;
mod statements;
mod sync;
mod sync_sql;
mod transaction;
mod writer;

pub use error::StoreError;
pub use pool::MAX_WAITING;
pub use sync::{
    Event, EventKind, FINISHED_PHASES, Job, KEPT_EVENTS, KEPT_JOBS, Lease, Note, QUEUED, Reorganisation, Stage,
    SyncStore, lease_in_turn,
};

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The last block of the canonical chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    /// Index (height) of the block.
    pub index: u64,
    /// Its hash.
    pub hash: String,
    /// The epoch that the block claims.
    pub epoch: u64,
}

impl From<&Tip> for Position {
    fn from(tip: &Tip) -> Self {
        Self { index: tip.index, hash: tip.hash.clone() }
    }
}

/// What is known of the canonical chain without reading it: one row, kept with each write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainState {
    /// Grows by one with each committed write that changes a block: two reads of equal version and tip saw the same
    /// chain. A store that loses its last writes, by a failover or with an older backup, uses versions anew.
    pub version: u64,
    /// The last block, `None` for an empty chain.
    pub tip: Option<Tip>,
    /// Number of canonical blocks.
    pub length: u64,
    /// Number of blocks in the store, orphans included.
    pub total_blocks: u64,
    /// Sum of the canonical blocks' actualized difficulties.
    pub cumulative_difficulty: CumulativeDifficulty,
    /// Bytes of the canonical blocks' JSON texts, without separators.
    pub bytes: u64,
    /// Number of different epochs among the canonical blocks.
    pub epochs: u64,
    /// Number of different nominated peer ids among the canonical blocks; genesis' empty one counts, as real nodes do.
    pub miners: u64,
    /// The weakest verification level among the canonical blocks; `None` for an empty chain.
    pub level: Option<Level>,
    /// Bytes of the longest JSON text that a canonical block ever had; blocks that are gone count. 8192 at least in a
    /// store that is older than this figure and held blocks.
    pub largest: u64,
    /// Number of canonical blocks with [`Deviation::Schedule`](crate::chain::Deviation::Schedule).
    pub off_schedule: u64,
    /// Number of canonical blocks with [`Deviation::Timestamp`](crate::chain::Deviation::Timestamp).
    pub off_timestamp: u64,
}

impl ChainState {
    /// How many blocks of this chain fit `bytes` for certain, joined by commas: at least one.
    pub fn blocks_within(&self, bytes: u64) -> u64 {
        (bytes / self.largest.saturating_add(1)).max(1)
    }
}

/// A run of canonical blocks in ascending index order.
#[derive(Debug, Clone, Default)]
pub struct Blocks {
    /// The chain's version at the time of reading.
    pub version: u64,
    /// The tip at the time of reading.
    pub tip: Option<Tip>,
    /// The blocks as JSON objects joined by commas: what goes between `[` and `]`.
    pub json: String,
    /// How many blocks.
    pub count: u64,
    /// Index of the last of them.
    pub last_index: Option<u64>,
    /// Hash of the last of them.
    pub last_hash: Option<String>,
    /// The weakest verification level among them.
    pub level: Option<Level>,
}

/// One block found by its hash.
#[derive(Debug, Clone)]
pub struct Found {
    /// The chain's version at the time of reading.
    pub version: u64,
    /// The tip at the time of reading.
    pub tip: Option<Tip>,
    /// The block as a JSON object.
    pub json: String,
    /// Its index.
    pub index: u64,
    /// Whether it is on the canonical chain.
    pub canonical: bool,
    /// How far it was verified.
    pub level: Level,
}

/// A block as `debug_index` tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// Index of the block.
    pub index: u64,
    /// Hash of the block.
    pub hash: String,
    /// Its parent's hash.
    pub previous_hash: String,
    /// Whether it is on the canonical chain.
    pub canonical: bool,
    /// Whether it is marked as orphaned.
    pub orphaned: bool,
    /// Why it was orphaned.
    pub orphan_reason: Option<String>,
}

/// Where a block stands to the canonical chain; answers whether a paged read may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// The block is canonical.
    Canonical,
    /// The block was reorganised away; the deepest canonical ancestor known, index and hash.
    Orphaned(Option<(u64, String)>),
    /// No such block.
    Unknown,
}

/// A store of miner blocks. Implementations enforce one canonical block per index in the database itself.
#[async_trait]
pub trait BlockStore: SyncStore {
    /// The state of the canonical chain: one row.
    async fn state(&self) -> Result<ChainState>;

    /// The block with this hash, orphans too.
    async fn get(&self, hash: &str) -> Result<Option<Found>>;

    /// The canonical blocks that carry this epoch value, at most `limit` of them, in index order.
    async fn epoch(&self, epoch: u64, limit: u64) -> Result<Blocks>;

    /// The canonical blocks from `from` to `to`, both included. The caller bounds the width.
    async fn range(&self, from: u64, to: u64) -> Result<Blocks>;

    /// Every block at `index`, canonical first, then by hash; and the canonical block at `index + 1`, if any.
    /// At most [`MAX_BLOCKS_PER_INDEX`] are returned; the `u64` is how many there are.
    async fn at_index(&self, index: u64) -> Result<(Vec<IndexEntry>, u64, Option<IndexEntry>)>;

    /// The canonical hashes at these indexes; indexes beyond the chain are left out.
    async fn canonical_hashes(&self, indexes: &[u64]) -> Result<HashMap<u64, String>>;

    /// The highest index among the canonical blocks with one of these hashes.
    async fn highest_canonical(&self, hashes: &[String]) -> Result<Option<u64>>;

    /// Where the block with this hash stands to the canonical chain, and the version that this is true of.
    async fn anchor(&self, hash: &str) -> Result<(Anchor, u64)>;

    /// The canonical block at `index` and the level it was verified to.
    async fn block_at(&self, index: u64) -> Result<Option<(MinerBlock, Level)>>;

    /// The canonical chain up to and with `index`, as far as it takes to append to it.
    async fn chain_end(&self, index: u64, numbering: EpochNumbering) -> Result<Option<ChainEnd>>;

    /// The work of the canonical chain up to and with `index`.
    async fn work_at(&self, index: u64) -> Result<Option<CumulativeDifficulty>>;

    /// Begins a write: one transaction, one writer at a time. Dropping the writer takes everything back.
    async fn write(&self) -> Result<Box<dyn ChainWriter>>;

    /// How it does.
    fn figures(&self) -> Figures;

    /// Closes the connections; later calls fail.
    async fn close(&self);
}

/// How a store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Whether the database can be reached, as far as is known.
    pub up: bool,
    /// How often it could not be reached any more.
    pub outages: u64,
    /// The connections for reading.
    pub readers: Fill,
    /// The connection for writing; all 0 for a store that can only be read.
    pub writer: Fill,
}

/// How full a pool of connections is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fill {
    /// Most connections at once.
    pub most: u64,
    /// Those in use.
    pub lent: u64,
    /// Those that are open without being used.
    pub idle: u64,
    /// Callers that wait for one, at most [`MAX_WAITING`].
    pub waiting: u64,
}

/// A transaction that changes the chain. Readers see all of it after [`commit`](ChainWriter::commit), or nothing.
#[async_trait]
pub trait ChainWriter: Send {
    /// The chain as this transaction has it so far.
    fn state(&self) -> &ChainState;

    /// The canonical block at `index` as this transaction has it: its hash and the level it was verified to.
    async fn canonical_at(&mut self, index: u64) -> Result<Option<(String, Level)>>;

    /// Appends blocks to the tip. They must follow it by index and hash, else [`StoreError::Conflict`].
    /// The stored text says canonical and not orphaned, whatever the blocks say. A block already in the store as an
    /// orphan becomes canonical again.
    async fn append(&mut self, blocks: VerifiedBlocks) -> Result<()>;

    /// Keeps blocks beside the chain, marked as orphaned, with the level they were verified to; a hash that is already
    /// stored is left as it is. Returns how many were new.
    async fn add_orphans(&mut self, blocks: &[MinerBlock], level: Level) -> Result<u64>;

    /// Orphans every canonical block above `keep` (`None`: all of them), with the reason, the hash that won and the
    /// time (unix seconds). Returns how many.
    async fn rewind(&mut self, keep: Option<u64>, reason: &str, competing_hash: Option<&str>, now: i64) -> Result<u64>;

    /// Says that the canonical blocks from `from` to `to`, both included, are verified at least to `level`. Returns how
    /// many were not.
    async fn raise(&mut self, from: u64, to: u64, level: Level) -> Result<u64>;

    /// Adds blocks to the branch that is kept aside, or begins it with the child of `ancestor`, a canonical block, or
    /// with genesis. Readers don't see them, and the chain's version stays.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a branch from another ancestor is kept aside, if the blocks don't follow it, or if
    /// the ancestor isn't canonical.
    async fn stage(&mut self, ancestor: Option<&Position>, job: u64, blocks: VerifiedBlocks) -> Result<()>;

    /// Forgets the branch that is kept aside, if there is one.
    async fn clear_stage(&mut self) -> Result<()>;

    /// Makes that branch canonical from its ancestor on, in place of what is there, which is orphaned as by
    /// [`rewind`](Self::rewind) with the branch's last hash as the one that won. Whether it should win is the caller's
    /// to decide. Memory is bounded, whatever the branch's length.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if there is no such branch, or its ancestor isn't canonical any more.
    async fn adopt_stage(&mut self, reason: &str, now: i64) -> Result<Reorganisation>;

    /// Makes it all visible at once, with one [`Event`] if blocks were appended or orphaned; the state after it.
    async fn commit(self: Box<Self>) -> Result<ChainState>;
}

/// Most blocks that [`BlockStore::at_index`] returns.
pub const MAX_BLOCKS_PER_INDEX: u64 = 1000;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Apply the migrations that are missing. Without it a store of an older schema is refused.
    pub migrate: bool,
    /// Create a SQLite file that is missing.
    pub create: bool,
    /// Connections for reading.
    pub connections: u32,
    /// Longest that a read, or a change beside the chain, may take, waiting for a connection included.
    pub read: Duration,
    /// How long to wait for the right to write the chain, or for a server when the store is opened. What is written then
    /// may take longer, as long as the database is there.
    pub wait: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { migrate: true, create: true, connections: 8, read: Duration::from_secs(2), wait: Duration::from_secs(5) }
    }
}

/// Opens the store that `url` names: `sqlite://PATH[?mode=ro]`, `sqlite::memory:` or `postgres://…`.
///
/// # Errors
/// [`StoreError::Url`] for any other scheme, and whatever keeps the database from being opened: see [`StoreError`].
pub async fn open(url: &str, options: &OpenOptions) -> Result<Arc<dyn BlockStore>> {
    match Database::of(url)? {
        Database::Sqlite => Ok(Arc::new(sqlite::open(url, options).await?)),
        Database::Postgres => Ok(Arc::new(postgres::open(url, options).await?)),
    }
}

/// Brings the schema of the store that `url` names up to date, whatever `options.migrate` says. Returns its version
/// before (0: there was none) and after.
///
/// # Errors
/// As [`open`].
pub async fn migrate(url: &str, options: &OpenOptions) -> Result<(i64, i64)> {
    match Database::of(url)? {
        Database::Sqlite => sqlite::migrate(url, options).await,
        Database::Postgres => postgres::migrate(url, options).await,
    }
}

/// The databases that we know.
enum Database {
    Sqlite,
    Postgres,
}

impl Database {
    fn of(url: &str) -> Result<Self> {
        match url.split(':').next() {
            Some("sqlite") => Ok(Self::Sqlite),
            Some("postgres" | "postgresql") => Ok(Self::Postgres),
            _ => Err(StoreError::Url("expected sqlite://PATH or postgres://HOST/DATABASE".into())),
        }
    }
}

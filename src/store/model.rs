//! What a store keeps and reports: the chain, the staged branch, events, jobs, notes; and how a store is opened.

use std::{fmt, time::Duration};

use serde::Serialize;
use sqlx::FromRow;

use super::error_kind::ErrorKind;
use crate::{
    chain::{CumulativeDifficulty, Level, MinerBlock, Position, words},
    protocol::BlockList,
};

/// Most blocks that [`BlockStore::at_index`](super::BlockStore::at_index) returns.
pub const MAX_BLOCKS_PER_INDEX: u64 = 1000;

/// Number of events that are kept, the latest. There may be a few more, since older ones are deleted in batches.
pub const KEPT_EVENTS: u64 = 10_000;

/// Length in characters of the events' documents from which on no more are read at once.
pub const MAX_EVENTS_LENGTH: u64 = 256 << 10;

/// Most hashes in one list of an event.
pub const MAX_LISTED_HASHES: usize = 1000;

/// Number of finished jobs that are kept.
pub const KEPT_JOBS: u64 = 100;

/// The phase that a job begins with.
pub const QUEUED: &str = "queued";

/// The phases in which a job is finished.
pub const FINISHED_PHASES: [&str; 3] = ["done", "failed", "cancelled"];

/// The last block of the canonical chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tip {
    /// Index (height) of the block.
    pub index: u64,
    /// Hash of the block.
    pub hash: String,
    /// The epoch that the block claims.
    pub epoch: u64,
}

impl fmt::Display for Tip {
    /// The index, a colon, and the hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.index, self.hash)
    }
}

impl From<&Tip> for Position {
    fn from(tip: &Tip) -> Self {
        Self { index: tip.index, hash: tip.hash.clone() }
    }
}

/// The chain that something was read from, and how far the blocks that were read are verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Snapshot {
    /// See [`ChainState::version`].
    pub version: u64,
    /// The tip at the time of reading.
    pub tip: Option<Tip>,
    /// The weakest verification level among the blocks that were read; `None` where none was.
    pub level: Option<Level>,
}

impl Snapshot {
    /// Whether both were read from the same chain. A store that was replaced may have another chain of the same
    /// version.
    pub fn same_chain(&self, other: &Self) -> bool {
        (self.version, &self.tip) == (other.version, &other.tip)
    }
}

/// State and statistics of the canonical chain: one row, updated with each write.
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
    /// Bytes of the longest JSON text that a canonical block ever had, deleted blocks included. At least 8192 in a
    /// store that held blocks before this statistic was kept.
    pub largest: u64,
    /// Number of canonical blocks with [`Deviation::Schedule`](crate::chain::Deviation::Schedule).
    pub off_schedule: u64,
    /// Number of canonical blocks with [`Deviation::Timestamp`](crate::chain::Deviation::Timestamp).
    pub off_timestamp: u64,
}

impl ChainState {
    /// This chain, as blocks of this level were read from it.
    pub fn snapshot(&self, level: Option<Level>) -> Snapshot {
        Snapshot { version: self.version, tip: self.tip.clone(), level }
    }

    /// Hash of the tip.
    pub fn tip_hash(&self) -> Option<&str> {
        self.tip.as_ref().map(|tip| tip.hash.as_str())
    }

    /// Number of blocks of this chain that certainly fit `bytes`, joined by commas: at least one.
    pub fn blocks_within(&self, bytes: u64) -> u64 {
        (bytes / self.largest.saturating_add(1)).max(1)
    }
}

/// A run of canonical blocks in ascending index order.
#[derive(Debug, Clone, Default)]
pub struct Blocks {
    /// The chain that the blocks were read from.
    pub snapshot: Snapshot,
    /// The blocks.
    pub list: BlockList,
    /// Index of the last block.
    pub last_index: Option<u64>,
    /// Hash of the last block.
    pub last_hash: Option<String>,
}

/// Blocks in the order of a lookup.
#[derive(Debug, Clone)]
pub struct Run {
    /// The chain at the time of reading, and the weakest level among the blocks.
    pub snapshot: Snapshot,
    /// The blocks.
    pub blocks: Vec<MinerBlock>,
    /// Index of the last block that was looked at, if there may be more behind it.
    pub more_below: Option<u64>,
}

/// One block, found by its hash.
#[derive(Debug, Clone)]
pub struct FoundBlock {
    /// The chain at the time of reading, and the block's verification level.
    pub snapshot: Snapshot,
    /// The block as a JSON object.
    pub json: String,
    /// Index of the block.
    pub index: u64,
    /// Whether the block is on the canonical chain.
    pub canonical: bool,
}

/// A block as `debug_index` reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// Index of the block.
    pub index: u64,
    /// Hash of the block.
    pub hash: String,
    /// Hash of the parent.
    pub previous_hash: String,
    /// Whether the block is on the canonical chain.
    pub canonical: bool,
    /// Whether the block is marked as orphaned.
    pub orphaned: bool,
    /// Why the block was orphaned.
    pub orphan_reason: Option<String>,
}

/// Where a block stands to the canonical chain, which decides whether a paged read may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// The block is canonical.
    Canonical,
    /// The block was reorganised away; index and hash of the deepest canonical ancestor known.
    Orphaned(Option<(u64, String)>),
    /// No such block.
    Unknown,
}

/// A branch of verified blocks that readers don't see, stored until its work wins or loses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedBranch {
    /// The parent of the first block, canonical when the branch began; `None`: the branch begins with genesis.
    pub ancestor: Option<Position>,
    /// The last block.
    pub end: MinerBlock,
    /// Number of blocks.
    pub count: u64,
    /// The work of the whole chain if the branch is adopted.
    pub work: CumulativeDifficulty,
    /// The weakest verification level among the blocks.
    pub level: Level,
    /// The job that staged the last blocks.
    pub job: u64,
}

/// What [`ChainWriter::adopt_stage`](super::ChainWriter::adopt_stage) did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reorganisation {
    /// The last block that stayed; `None`: not even genesis did, or there was none.
    pub ancestor: Option<Position>,
    /// The tip before.
    pub old_tip: Option<Position>,
    /// The tip after.
    pub new_tip: Position,
    /// Number of blocks that left the canonical chain.
    pub orphaned: u64,
    /// Number of blocks that joined it.
    pub adopted: u64,
}

/// Kinds of changes of the canonical chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Blocks were appended: `{from, to, tip, previous_hash, added}`. `previous_hash` is that of the tip before, null
    /// for an empty chain; `added` has the blocks' hashes.
    Extended,
    /// Blocks were orphaned, and others may have become canonical: `{ancestor, old_tip, new_tip, orphaned, adopted,
    /// reason, removed, added}`. `orphaned` and `adopted` are numbers, `removed` and `added` the hashes.
    Reorganised,
}

words!(EventKind { Extended = "extended", Reorganised = "reorganised" });

/// One committed change of the canonical chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The version that the chain got with the change: ascending, with gaps. Never used again, unless the store loses
    /// its last writes.
    pub id: u64,
    /// Time of the commit, unix seconds by the database's clock.
    pub at: i64,
    /// Kind of the change.
    pub kind: EventKind,
    /// The tip after the change; `None` for an empty chain.
    pub tip: Option<Position>,
    /// A JSON object with the members that [`EventKind`] names. Blocks are `{index, hash}` or `null`. Lists of hashes
    /// are in index order, and have the first [`MAX_LISTED_HASHES`] or fewer where hashes are longer than usual. Events
    /// of earlier releases have neither `previous_hash` nor lists.
    pub document: String,
}

/// A synchronisation that was requested.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Job {
    /// Number of the job: ascending, never used again.
    #[sqlx(try_from = "i64")]
    pub id: u64,
    /// [`QUEUED`], then what the job reports, in the end one of [`FINISHED_PHASES`].
    pub phase: String,
    /// Whether the phase is one of [`FINISHED_PHASES`].
    pub finished: bool,
    /// Whether the job's cancellation was requested.
    pub cancel_requested: bool,
    /// What is to be done, JSON.
    pub spec: String,
    /// What is done, JSON; `{}` before the first update.
    pub progress: String,
    /// Time of the request, unix seconds by the database's clock.
    pub created_at: i64,
    /// Time of the last change, unix seconds by the database's clock.
    pub updated_at: i64,
}

/// A value stored under a key.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Note {
    /// The value.
    pub value: String,
    /// Time of the write, unix seconds by the database's clock.
    pub at: i64,
    /// Seconds since then by the same clock; negative after the clock was set back.
    pub age: i64,
}

/// Statistics of a store and its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Whether the database can be reached, as far as is known.
    pub up: bool,
    /// Number of times that the database became unreachable.
    pub outages: u64,
    /// Numbers of operations that failed, in the order of [`ErrorKind::ALL`].
    pub errors: [u64; ErrorKind::ALL.len()],
    /// The connections for reading.
    pub readers: PoolStats,
    /// The connection for writing; all 0 for a store that can only be read.
    pub writer: PoolStats,
}

/// Numbers of connections in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStats {
    /// Most connections at once.
    pub max: u64,
    /// Connections in use.
    pub in_use: u64,
    /// Connections that are open and not in use.
    pub idle: u64,
    /// Callers that wait for a connection, at most [`MAX_WAITING`](super::MAX_WAITING).
    pub waiting: u64,
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Apply the migrations that are missing. Without it a store of an older schema is refused.
    pub migrate: bool,
    /// Create a SQLite file that is missing.
    pub create: bool,
    /// Open the store for writing too. Without it a SQLite file needs no right to write.
    pub write: bool,
    /// Connections for reading.
    pub connections: u32,
    /// Longest wait for a server that is not up yet; 0 fails at once.
    pub server_wait: Duration,
    /// Longest duration of a read, or of a change beside the chain, with the wait for a connection.
    pub read_timeout: Duration,
    /// Longest wait for the right to write the chain, or for a server when the store is opened. The write itself may
    /// take longer, as long as the database is reachable.
    pub acquire_timeout: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        let (read_timeout, acquire_timeout) = (Duration::from_secs(2), Duration::from_secs(5));
        let server_wait = Duration::ZERO;
        Self { migrate: true, create: true, write: true, connections: 8, server_wait, read_timeout, acquire_timeout }
    }
}

//! What a store does, whatever its database.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;

use super::{
    error::Result,
    model::{
        Anchor, Blocks, ChainState, Event, FoundBlock, IndexEntry, Job, Note, Reorganisation, Run, StagedBranch,
        StoreStats,
    },
    replica_stats::ReplicaStats,
};
use crate::chain::{ChainEnd, CumulativeDifficulty, EpochNumbering, Level, MinerBlock, Position, VerifiedBlocks};

/// A store of miner blocks. Implementations enforce one canonical block per index in the database itself.
#[async_trait]
pub trait BlockStore: SyncStore + LookupStore {
    /// The state of the canonical chain: one row.
    async fn state(&self) -> Result<ChainState>;

    /// The block with this hash, orphans too.
    async fn get(&self, hash: &str) -> Result<Option<FoundBlock>>;

    /// The canonical blocks that carry this epoch value, at most `limit` of them, in index order.
    async fn epoch(&self, epoch: u64, limit: u64) -> Result<Blocks>;

    /// The canonical blocks from `from` to `to`, both included. The caller bounds the width.
    async fn range(&self, from: u64, to: u64) -> Result<Blocks>;

    /// Every block at `index`, canonical first, then by hash; and the canonical block at `index + 1`, if any.
    /// At most [`MAX_BLOCKS_PER_INDEX`](super::MAX_BLOCKS_PER_INDEX) are returned; the `u64` is their number.
    async fn at_index(&self, index: u64) -> Result<(Vec<IndexEntry>, u64, Option<IndexEntry>)>;

    /// The JSON texts of the blocks with these hashes, orphans too; `None` if a block is missing, or if they have more
    /// than `length` characters together.
    async fn documents(&self, hashes: &[String], length: u64) -> Result<Option<HashMap<String, String>>>;

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

    /// Number of the canonical blocks from `from` to `to`, both included, that are verified to less than `level`. Looks
    /// at each of these blocks.
    async fn count_below(&self, level: Level, from: u64, to: u64) -> Result<u64>;

    /// Begins a write: one transaction, one writer at a time. Dropping the writer rolls it back.
    async fn write(&self) -> Result<Box<dyn ChainWriter>>;

    /// Bytes of the database: the pages of a SQLite file without its log, or all files of a Postgres database.
    async fn size(&self) -> Result<u64>;

    /// Whether the database is a standby, which replays what another server writes.
    async fn is_standby(&self) -> Result<bool>;

    /// Later reads are not behind this version of the chain, if the database has it. Without replicas none ever is.
    async fn require(&self, _version: u64) -> Result<()> {
        Ok(())
    }

    /// The same, for a version that has this block, orphaned or not.
    async fn require_block(&self, _hash: &str) -> Result<()> {
        Ok(())
    }

    /// Statistics of the database and the connections.
    fn stats(&self) -> StoreStats;

    /// Statistics of the replicas; `None` where the store has none.
    fn replica_stats(&self) -> Option<ReplicaStats> {
        None
    }

    /// Closes the connections; later calls fail.
    async fn close(&self);
}

/// A transaction that changes the chain. Readers see all of it after [`commit`](ChainWriter::commit), or nothing.
#[async_trait]
pub trait ChainWriter: Send {
    /// The state of the chain in this transaction.
    fn state(&self) -> &ChainState;

    /// Hash and verification level of the canonical block at `index` in this transaction.
    async fn canonical_at(&mut self, index: u64) -> Result<Option<(String, Level)>>;

    /// Appends blocks to the tip. They must follow it by index and hash, else
    /// [`StoreError::Conflict`](super::StoreError::Conflict). The stored text says canonical and not orphaned, whatever
    /// the blocks say. A block already in the store as an orphan becomes canonical again.
    async fn append(&mut self, blocks: VerifiedBlocks) -> Result<()>;

    /// Stores blocks beside the chain, marked as orphaned, with the level they were verified to; a hash that is already
    /// stored is left as it is. Returns the number of new ones.
    async fn add_orphans(&mut self, blocks: &[MinerBlock], level: Level) -> Result<u64>;

    /// Orphans every canonical block above `keep` (`None`: all of them), with the reason, the hash that won and the
    /// time (unix seconds). Returns their number.
    async fn rewind(&mut self, keep: Option<u64>, reason: &str, competing_hash: Option<&str>, now: i64) -> Result<u64>;

    /// Raises the level of the canonical blocks from `from` to `to`, both included, to at least `level`. Returns the
    /// number of those that were below.
    async fn raise(&mut self, from: u64, to: u64, level: Level) -> Result<u64>;

    /// Adds blocks to the staged branch, or begins one with the child of `ancestor`, a canonical block, or with
    /// genesis. Readers don't see them, and the chain's version stays.
    ///
    /// # Errors
    /// [`StoreError::Conflict`](super::StoreError::Conflict) if a branch from another ancestor is staged, if the blocks
    /// don't follow it, or if the ancestor isn't canonical.
    async fn stage(&mut self, ancestor: Option<&Position>, job: u64, blocks: VerifiedBlocks) -> Result<()>;

    /// Deletes the staged branch, if there is one.
    async fn clear_stage(&mut self) -> Result<()>;

    /// Makes the staged branch canonical from its ancestor on, in place of the blocks there, which are orphaned as by
    /// [`rewind`](Self::rewind) with the branch's last hash as the one that won. The caller decides whether it should
    /// win. Memory is bounded, whatever the branch's length.
    ///
    /// # Errors
    /// [`StoreError::Conflict`](super::StoreError::Conflict) if no branch is staged, or its ancestor isn't canonical.
    async fn adopt_stage(&mut self, reason: &str, now: i64) -> Result<Reorganisation>;

    /// Makes the changes visible at once, with one [`Event`] if blocks were appended or orphaned; the state after them.
    async fn commit(self: Box<Self>) -> Result<ChainState>;
}

/// Lookups for people and programs that explore the chain. None of them reads more than it returns.
#[async_trait]
pub trait LookupStore: Send + Sync + 'static {
    /// The canonical blocks below the index `before` that nominate `nominee`, the highest first, out of `limit` blocks
    /// whose nominees begin with the same 64 characters.
    async fn by_nominee(&self, nominee: &str, before: u64, limit: u64) -> Result<Run>;

    /// Number of canonical blocks that nominate `nominee`.
    async fn nominations(&self, nominee: &str) -> Result<u64>;

    /// The first `limit` orphans from index `from` down, in descending order and by hash; at `from` itself those whose
    /// hash is greater than `after`.
    async fn orphans(&self, from: u64, after: &str, limit: u64) -> Result<Run>;

    /// The first `limit` blocks by hash whose hash begins with `prefix`, lowercase hex digits.
    async fn with_prefix(&self, prefix: &str, limit: u64) -> Result<Vec<IndexEntry>>;

    /// The last `limit` kept events of kind [`EventKind::Reorganised`](super::EventKind::Reorganised) before the one
    /// with the id `before`, the last one first.
    async fn reorganisations(&self, before: u64, limit: u64) -> Result<Vec<Event>>;
}

/// What only synchronisation needs of a store: the staged branch, events, jobs, notes, the lease.
#[async_trait]
pub trait SyncStore: Send + Sync + 'static {
    /// The staged branch, if there is one.
    async fn staged(&self) -> Result<Option<StagedBranch>>;

    /// The end of the staged branch, to which more blocks may be staged. `None` too if its epoch began with a canonical
    /// block that isn't canonical any more.
    async fn staged_end(&self, numbering: EpochNumbering) -> Result<Option<ChainEnd>>;

    /// The first `limit` events after the one with the id `after`, in ascending order, of the last
    /// [`KEPT_EVENTS`](super::KEPT_EVENTS). Fewer, but at least one, where their documents are longer than
    /// [`MAX_EVENTS_LENGTH`](super::MAX_EVENTS_LENGTH).
    async fn events(&self, after: u64, limit: u64) -> Result<Vec<Event>>;

    /// The last event up to and with the id `id`: its tip is the one that the chain had at that version, since versions
    /// without an event leave it as it is. `None` too if the event has been deleted since.
    async fn event_at(&self, id: u64) -> Result<Option<Event>>;

    /// The last `limit` jobs, newest first.
    async fn jobs(&self, limit: u64) -> Result<Vec<Job>>;

    /// The jobs that aren't finished, oldest first.
    async fn unfinished_jobs(&self) -> Result<Vec<Job>>;

    /// The job with this id.
    async fn job(&self, id: u64) -> Result<Option<Job>>;

    /// Creates a job in phase [`QUEUED`](super::QUEUED) and deletes finished ones except for the last
    /// [`KEPT_JOBS`](super::KEPT_JOBS); the new one's id.
    async fn create_job(&self, spec: &str) -> Result<u64>;

    /// Sets a job's phase and progress; a requested cancellation stays.
    ///
    /// # Errors
    /// [`StoreError::Conflict`](super::StoreError::Conflict) if there is no such job.
    async fn update_job(&self, id: u64, phase: &str, progress: &str) -> Result<()>;

    /// Requests a job's cancellation. Whether there is such a job that isn't finished.
    async fn cancel_job(&self, id: u64) -> Result<bool>;

    /// Stores a value under a key, in place of an earlier one.
    async fn put_note(&self, key: &str, value: &str) -> Result<()>;

    /// The value under a key, with the time of its write and its age.
    async fn get_note(&self, key: &str) -> Result<Option<Note>>;

    /// The time by the database's clock, unix seconds: what times in the store are to be compared with.
    async fn now(&self) -> Result<i64>;

    /// Takes the lease, or `None` while another process has it: at once, without waiting. A store in memory, which no
    /// other process sees, has one of its own.
    async fn lease(&self) -> Result<Option<Box<dyn Lease>>>;
}

/// The right to synchronise this store, which one process at a time has. Dropping it releases it.
///
/// It keeps processes from doing the same work twice. The chain stays whole without it: each write is a transaction
/// that refuses what doesn't fit.
#[async_trait]
pub trait Lease: Send + Sync {
    /// Whether the lease is still held. One that is lost stays lost; take another.
    async fn held(&mut self) -> bool;
}

/// Attempts to take a lease, and the pause between two.
const LEASE_TRIES: usize = 20;
const LEASE_PAUSE: Duration = Duration::from_millis(50);

/// Takes the lease for a command that follows another: a server learns with some delay that the process before has
/// ended. `None` while another process keeps it.
///
/// # Errors
/// The store's.
pub async fn acquire_lease<S: SyncStore + ?Sized>(store: &S) -> Result<Option<Box<dyn Lease>>> {
    for _ in 1..LEASE_TRIES {
        if let Some(lease) = store.lease().await? {
            return Ok(Some(lease));
        }
        tokio::time::sleep(LEASE_PAUSE).await;
    }
    store.lease().await
}

//! What a synchronisation keeps beside the chain: a branch that has not won yet, what became of the chain, jobs, notes.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use super::Result;
use crate::chain::{ChainEnd, CumulativeDifficulty, EpochNumbering, Level, MinerBlock, Position};

/// How many events are kept: the latest. There may be a few more, since older ones are deleted now and then.
pub const KEPT_EVENTS: u64 = 10_000;

/// How many finished jobs are kept.
pub const KEPT_JOBS: u64 = 100;

/// The phase that a job begins with.
pub const QUEUED: &str = "queued";

/// The phases in which nothing more becomes of a job.
pub const FINISHED_PHASES: [&str; 3] = ["done", "failed", "cancelled"];

/// A branch of verified blocks that readers don't see: it is kept aside until its work wins or loses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The canonical block that it follows, which was canonical when the branch began; `None`: it begins with genesis.
    pub ancestor: Option<Position>,
    /// Its last block.
    pub end: MinerBlock,
    /// How many blocks.
    pub count: u64,
    /// The work of the whole chain if the branch is adopted.
    pub work: CumulativeDifficulty,
    /// The weakest verification level among its blocks.
    pub level: Level,
    /// The job that staged its last blocks.
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
    /// How many blocks left the canonical chain.
    pub orphaned: u64,
    /// How many came.
    pub adopted: u64,
}

/// What became of the canonical chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Blocks were appended: `{from, to, tip}`.
    Extended,
    /// Blocks were orphaned: `{ancestor, old_tip, new_tip, orphaned, adopted, reason}`.
    Reorganised,
}

impl EventKind {
    /// The name: snake_case, stable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Extended => "extended",
            Self::Reorganised => "reorganised",
        }
    }

    /// The kind with this [`name`](Self::as_str).
    pub fn named(name: &str) -> Option<Self> {
        [Self::Extended, Self::Reorganised].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One committed change of the canonical chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The version that the chain got with it: ascending, with gaps. Never used again, unless the store loses its last
    /// writes.
    pub id: u64,
    /// When it was committed, unix seconds by the database's clock.
    pub at: i64,
    /// What happened.
    pub kind: EventKind,
    /// The tip after it; `None` for an empty chain.
    pub tip: Option<Position>,
    /// A JSON object with the fields that [`EventKind`] names. Blocks are `{index, hash}` or `null`.
    pub document: String,
}

/// A synchronisation that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its number: ascending, never used again.
    pub id: u64,
    /// How far it is: [`QUEUED`], then what the job says, in the end one of [`FINISHED_PHASES`].
    pub phase: String,
    /// Whether the phase is one of [`FINISHED_PHASES`].
    pub finished: bool,
    /// Whether somebody wants it to end.
    pub cancel_requested: bool,
    /// What is to be done, JSON.
    pub spec: String,
    /// What is done, JSON; `{}` before the first update.
    pub progress: String,
    /// When it was created, unix seconds by the database's clock.
    pub created_at: i64,
    /// When it last changed, unix seconds by the database's clock.
    pub updated_at: i64,
}

/// A value kept under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The value.
    pub value: String,
    /// When it was put there, unix seconds by the database's clock.
    pub at: i64,
    /// Seconds since then by the same clock; negative after the clock was set back.
    pub age: i64,
}

/// The right to synchronise this store, which one process at a time has. Dropping it gives it back.
///
/// It keeps processes from doing the same work twice. The chain stays whole without it: each write is a transaction that
/// refuses what doesn't fit.
#[async_trait]
pub trait Lease: Send + Sync {
    /// Whether it still stands. A lease that is lost stays lost; take another.
    async fn held(&mut self) -> bool;
}

/// How often, and how long after each other, a lease is tried for.
const LEASE_TRIES: usize = 20;
const LEASE_PAUSE: Duration = Duration::from_millis(50);

/// The right to synchronise this store, for a command that follows others: a server learns in its own time that the process
/// before us has ended. `None` where another process keeps it.
///
/// # Errors
/// The store's.
pub async fn lease_in_turn<S: SyncStore + ?Sized>(store: &S) -> Result<Option<Box<dyn Lease>>> {
    for _ in 1..LEASE_TRIES {
        if let Some(lease) = store.lease().await? {
            return Ok(Some(lease));
        }
        tokio::time::sleep(LEASE_PAUSE).await;
    }
    store.lease().await
}

/// The part of a store that readers of the chain don't need.
#[async_trait]
pub trait SyncStore: Send + Sync + 'static {
    /// The branch that is kept aside, if there is one.
    async fn staged(&self) -> Result<Option<Stage>>;

    /// The end of that branch, to which more blocks may be staged. `None` too if its epoch began with a canonical block
    /// that isn't there any more.
    async fn staged_end(&self, numbering: EpochNumbering) -> Result<Option<ChainEnd>>;

    /// The first `limit` events after the one with the id `after`, in ascending order. The last [`KEPT_EVENTS`] are there.
    async fn events(&self, after: u64, limit: u64) -> Result<Vec<Event>>;

    /// The last event up to and with the id `id`: its tip is the one that the chain had at that version, since versions
    /// without an event leave it as it is. `None` too if it was so long ago that it isn't kept.
    async fn event_at(&self, id: u64) -> Result<Option<Event>>;

    /// The last `limit` jobs, newest first.
    async fn jobs(&self, limit: u64) -> Result<Vec<Job>>;

    /// The jobs that aren't finished, oldest first.
    async fn unfinished_jobs(&self) -> Result<Vec<Job>>;

    /// The job with this id.
    async fn job(&self, id: u64) -> Result<Option<Job>>;

    /// Creates a job in phase [`QUEUED`] and deletes finished ones except for the last [`KEPT_JOBS`]; the new one's id.
    async fn create_job(&self, spec: &str) -> Result<u64>;

    /// Sets a job's phase and progress; a wish to cancel it stays.
    ///
    /// # Errors
    /// [`StoreError::Conflict`](super::StoreError::Conflict) if there is no such job.
    async fn update_job(&self, id: u64, phase: &str, progress: &str) -> Result<()>;

    /// Asks a job to end. Whether there is such a job that isn't finished.
    async fn cancel_job(&self, id: u64) -> Result<bool>;

    /// Keeps a value under a key, in place of an earlier one.
    async fn put_note(&self, key: &str, value: &str) -> Result<()>;

    /// The value under a key, when it was put there, and how long ago that is.
    async fn get_note(&self, key: &str) -> Result<Option<Note>>;

    /// The time by the database's clock, unix seconds: what times in the store are to be compared with.
    async fn now(&self) -> Result<i64>;

    /// Takes the lease, or `None` while somebody else has it: at once, without waiting. A store in memory, which no
    /// other process sees, has one of its own.
    async fn lease(&self) -> Result<Option<Box<dyn Lease>>>;
}

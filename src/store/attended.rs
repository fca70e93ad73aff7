//! A writer that doesn't wait for a database that has gone.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::{ColumnIndex, Executor};

use super::{
    ChainState, ChainWriter, Reorganisation, Result, StoreError,
    pool::Pool,
    sql::{Backend, Column},
    writer::SqlWriter,
};
use crate::chain::{Level, MinerBlock, Position, VerifiedBlocks};

/// Longest that one step of a write may take: adopting a branch is one, whatever its length. Whether the database is
/// there is found out much sooner.
const STEP_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// A writer whose every step is watched.
pub(super) struct Attended<DB: Backend> {
    pool: Arc<Pool<DB>>,
    writer: SqlWriter<DB>,
    /// A step failed in the database: it may be half done, and nothing of it may count.
    failed: bool,
}

/// One step of `$self`.
macro_rules! step {
    ($self:ident . $step:ident ($($value:expr),*)) => {{
        if $self.failed {
            return Err(failed_before());
        }
        // Until it is over: the caller may lose patience.
        $self.failed = true;
        let before = $self.writer.writes();
        let outcome = $self.pool.attend(STEP_TIMEOUT, $self.writer.$step($($value),*)).await;
        $self.failed = match &outcome {
            Ok(_) => false,
            Err(StoreError::Conflict(_)) => $self.writer.writes() > before,
            Err(_) => true,
        };
        outcome
    }};
}

impl<DB: Backend> Attended<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'c> &'c str: ColumnIndex<DB::Row>,
    usize: ColumnIndex<DB::Row>,
    i64: Column<DB>,
    bool: Column<DB>,
    String: Column<DB>,
    Option<i64>: Column<DB>,
    Option<String>: Column<DB>,
{
    /// Begins the transaction; `wait` is for the connection, and again for the writers' lock.
    pub async fn begin(pool: Arc<Pool<DB>>, wait: Duration) -> Result<Self> {
        let writer = pool.attend(3 * wait, SqlWriter::begin(&pool)).await?;
        Ok(Self { pool, writer, failed: false })
    }
}

#[async_trait]
impl<DB: Backend> ChainWriter for Attended<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'c> &'c str: ColumnIndex<DB::Row>,
    usize: ColumnIndex<DB::Row>,
    i64: Column<DB>,
    bool: Column<DB>,
    String: Column<DB>,
    Option<i64>: Column<DB>,
    Option<String>: Column<DB>,
{
    fn state(&self) -> &ChainState {
        self.writer.state()
    }

    async fn canonical_at(&mut self, index: u64) -> Result<Option<(String, Level)>> {
        step!(self.canonical_at(index))
    }

    async fn append(&mut self, blocks: VerifiedBlocks) -> Result<()> {
        step!(self.append(blocks))
    }

    async fn add_orphans(&mut self, blocks: &[MinerBlock], level: Level) -> Result<u64> {
        step!(self.add_orphans(blocks, level))
    }

    async fn rewind(&mut self, keep: Option<u64>, reason: &str, competing_hash: Option<&str>, now: i64) -> Result<u64> {
        step!(self.rewind(keep, reason, competing_hash, now))
    }

    async fn raise(&mut self, from: u64, to: u64, level: Level) -> Result<u64> {
        step!(self.raise(from, to, level))
    }

    async fn stage(&mut self, ancestor: Option<&Position>, job: u64, blocks: VerifiedBlocks) -> Result<()> {
        step!(self.stage(ancestor, job, blocks))
    }

    async fn clear_stage(&mut self) -> Result<()> {
        step!(self.clear_stage())
    }

    async fn adopt_stage(&mut self, reason: &str, now: i64) -> Result<Reorganisation> {
        step!(self.adopt_stage(reason, now))
    }

    async fn commit(self: Box<Self>) -> Result<ChainState> {
        let Self { pool, writer, failed } = *self;
        if failed {
            return Err(failed_before());
        }
        pool.attend(STEP_TIMEOUT, Box::new(writer).commit()).await
    }
}

fn failed_before() -> StoreError {
    StoreError::Conflict("an earlier step of this write has failed".into())
}

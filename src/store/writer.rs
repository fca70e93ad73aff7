//! Writing the chain: one transaction, each step of which has a deadline.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    backend::{Backend, pool::Pool},
    error::{Result, StoreError},
    model::{ChainState, Reorganisation},
    traits::ChainWriter,
};
use crate::chain::{Level, MinerBlock, Position, VerifiedBlocks};

mod events;
mod staged;
pub mod statistics;
mod transaction;

use transaction::WriteTransaction;

/// Longest duration of one step of a write: adopting a branch is one, whatever its length. An unreachable database is
/// noticed much sooner.
const STEP_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// A [`WriteTransaction`] whose steps have a deadline.
pub struct SqlWriter<DB: Backend> {
    pool: Arc<Pool<DB>>,
    transaction: WriteTransaction<DB>,
    /// A step failed in the database: it may be half done, and nothing of it may be committed.
    failed: bool,
}

/// One step of `$self`.
macro_rules! step {
    ($self:ident . $step:ident ($($value:expr),*)) => {{
        if $self.failed {
            return Err(failed_before());
        }
        // Until the step is over: the caller may drop it before.
        $self.failed = true;
        let before = $self.transaction.writes;
        let outcome = $self.pool.with_deadline(STEP_TIMEOUT, $self.transaction.$step($($value),*)).await;
        $self.failed = match &outcome {
            Ok(_) => false,
            Err(StoreError::Conflict(_)) => $self.transaction.writes > before,
            Err(_) => true,
        };
        outcome
    }};
}

impl<DB: Backend> SqlWriter<DB> {
    /// Begins the transaction; `wait` is for the connection, and again for the writers' lock.
    pub async fn begin(pool: Arc<Pool<DB>>, wait: Duration) -> Result<Self> {
        let transaction = pool.with_deadline(3 * wait, WriteTransaction::begin(&pool)).await?;
        Ok(Self { pool, transaction, failed: false })
    }
}

#[async_trait]
impl<DB: Backend> ChainWriter for SqlWriter<DB> {
    fn state(&self) -> &ChainState {
        &self.transaction.state
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
        let Self { pool, transaction, failed } = *self;
        if failed {
            return Err(failed_before());
        }
        pool.with_deadline(STEP_TIMEOUT, transaction.commit()).await
    }
}

fn failed_before() -> StoreError {
    StoreError::Conflict("an earlier step of this write has failed".into())
}

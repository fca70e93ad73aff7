//! The commit stage: writes verified batches, appended or staged until the branch wins.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::{context::JobRun, plan::Plan, verify::BATCH};
use crate::{
    chain::{CumulativeDifficulty, MinerBlock, Position, VerifiedBlocks, Weight, unix_now},
    source::job::AssumedBlocks,
    store::{ChainWriter, Reorganisation, StoreError},
    sync::{
        failure::SyncFailure,
        local_chain::{ORPHAN_REASON, weight},
    },
};

/// Blocks after which a transaction ends though further ones are there: so many share the cost of one, and other
/// writers don't wait long.
const TRANSACTION: usize = 4 * BATCH;

/// The result of a plan without a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the planned chain is now the store's. If not, it was verified to its end and weighs less: it was
    /// dropped, unless the next plan continues it.
    pub adopted: bool,
    /// Work of the planned chain.
    pub work: CumulativeDifficulty,
    /// Hash of its last block; `None` without blocks.
    pub tip_hash: Option<String>,
}

impl JobRun {
    /// Writes batches as they come, those that are there already in one transaction. A branch is staged until it weighs
    /// more than the store's chain, and then adopted.
    pub async fn commit(
        &self,
        plan: &Plan,
        mut verified: mpsc::Receiver<Result<VerifiedBlocks, SyncFailure>>,
    ) -> Result<Outcome, SyncFailure> {
        let (mut is_branch, mut length) = (plan.is_branch, plan.from);
        let (mut ancestor, mut continues_stage) = (plan.ancestor.clone(), plan.continues_stage);
        let mut outcome = Outcome { adopted: false, work: plan.work, tip_hash: None };
        let mut failure = None;
        while failure.is_none()
            && let Some(next) = verified.recv().await
        {
            let mut batches = match next {
                Ok(batch) => vec![batch],
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
            let mut blocks: usize = batches.iter().map(VerifiedBlocks::len).sum();
            if is_branch && ancestor.as_ref().map_or(0, |ancestor| ancestor.index + 1) == length {
                is_branch = self.drop_shared_blocks(&mut batches, &mut ancestor, &mut length, &mut outcome).await?;
                is_branch |= !plan.is_proven(length);
            }
            let (mut writer, mut reorganised, mut assumed) = (self.begin_write().await?, None, 0);
            // The crash test reads these two lines: did the kill fall between them?
            tracing::trace!("transaction begins");
            while let Some(batch) = batches.pop() {
                length += batch.len() as u64;
                if batch.level() < self.verifier.level() {
                    assumed += batch.len() as u64;
                }
                outcome.work =
                    batch.blocks().iter().fold(outcome.work, |work, block| work + block.actualized_difficulty);
                let tip_hash = batch.blocks().last().map(|block| block.hash.clone()).unwrap_or_default();
                outcome.tip_hash = Some(tip_hash.clone());
                match is_branch {
                    true => {
                        if !std::mem::replace(&mut continues_stage, true) {
                            writer.clear_stage().await?;
                        }
                        writer.stage(ancestor.as_ref(), self.job, batch).await.map_err(chain_changed)?;
                        let beats = Weight { work: outcome.work, length, tip_hash } > weight(writer.state());
                        let wins = beats || plan.adopt_at.is_some_and(|index| length > index);
                        if wins && plan.is_proven(length) {
                            let adopted = writer.adopt_stage(ORPHAN_REASON, unix_now()).await;
                            reorganised = Some(adopted.map_err(chain_changed)?);
                            is_branch = false;
                        }
                    }
                    false => writer.append(batch).await.map_err(chain_changed)?,
                }
                let next = if blocks < TRANSACTION { verified.try_recv().ok() } else { None };
                match next {
                    Some(Ok(batch)) => (blocks, _) = (blocks + batch.len(), batches.push(batch)),
                    Some(Err(error)) => failure = Some(error),
                    None => {}
                }
            }
            writer.commit().await?;
            tracing::trace!(blocks, "transaction ends");
            let adopted = reorganised.is_some();
            // Without a block that left it, the chain was extended by blocks that were staged.
            if let Some(Reorganisation { orphaned: orphaned @ 1.., adopted, new_tip, .. }) = reorganised {
                let (tip, hash) = (new_tip.index, new_tip.hash);
                tracing::info!(depth = orphaned, adopted, tip, hash, "the chain was reorganised");
            }
            if let Some(pin) = plan.assumed.as_ref().filter(|pin| length > pin.index) {
                match is_branch {
                    true => self.known.record_after_assumed(outcome.tip_hash.as_deref().unwrap_or_default()),
                    false if adopted => _ = AssumedBlocks::count(&*self.store, pin).await?,
                    false => {}
                }
            }
            self.tracker.update(|progress| {
                progress.aside = is_branch;
                progress.assumed += assumed;
            });
            self.tracker.written(blocks as u64);
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        if is_branch && continues_stage && plan.is_last() {
            self.clear_stage().await?;
        }
        if let Some(tip_hash) = outcome.tip_hash.clone().filter(|hash| *hash == plan.claim.hash) {
            self.known.record_weight(Weight { work: outcome.work, length, tip_hash });
        }
        Ok(Outcome { adopted: !is_branch, ..outcome })
    }

    /// Deletes the staged branch.
    pub async fn clear_stage(&self) -> Result<(), SyncFailure> {
        let mut writer = self.begin_write().await?;
        writer.clear_stage().await?;
        writer.commit().await?;
        Ok(())
    }

    /// Begins a write; waits for other writers.
    async fn begin_write(&self) -> Result<Box<dyn ChainWriter>, SyncFailure> {
        use backon::Retryable;
        let write = || self.store.write();
        let policy = backon::ExponentialBuilder::default().with_jitter();
        Ok(write.retry(policy).when(|error| matches!(error, StoreError::Busy(_))).await?)
    }

    /// Removes blocks of a branch that are on the store's chain: the peer may have misstated the common ancestor.
    /// Returns whether the rest is still a branch.
    pub async fn drop_shared_blocks(
        &self,
        batches: &mut Vec<VerifiedBlocks>,
        ancestor: &mut Option<Position>,
        length: &mut u64,
        outcome: &mut Outcome,
    ) -> Result<bool, SyncFailure> {
        for batch in std::mem::take(batches) {
            let next = ancestor.as_ref().map_or(0, |ancestor| ancestor.index + 1);
            let indexes: Vec<_> = batch.blocks().iter().map(|block| block.index).collect();
            let ours = match indexes.first() {
                Some(first) if *first == next => self.store.canonical_hashes(&indexes).await?,
                _ => HashMap::new(),
            };
            let is_ours = |block: &&MinerBlock| ours.get(&block.index) == Some(&block.hash);
            let shared: Vec<_> = batch.blocks().iter().take_while(is_ours).collect();
            if let Some(last) = shared.last() {
                *ancestor = Some(Position { index: last.index, hash: last.hash.clone() });
                *length = last.index + 1;
                outcome.work = shared.iter().fold(outcome.work, |work, block| work + block.actualized_difficulty);
                outcome.tip_hash = Some(last.hash.clone());
            }
            let count = shared.len();
            let rest = batch.without_first(count);
            if !rest.is_empty() {
                batches.push(rest);
            }
        }
        let tip = self.store.state().await?.tip;
        let tip = tip.map(|tip| Position { index: tip.index, hash: tip.hash });
        Ok(tip != *ancestor)
    }
}

/// A conflict: this program or another process changed the chain during the plan.
fn chain_changed(error: StoreError) -> SyncFailure {
    match error {
        StoreError::Conflict(problem) => {
            tracing::debug!(problem, "the chain changed under the plan");
            SyncFailure::ChainChanged
        }
        error => error.into(),
    }
}

//! Writing verified batches to the store: on our chain, or aside until the branch weighs more and is adopted.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::{context::Run, plan::Plan, verify::BATCH};
use crate::{
    chain::{CumulativeDifficulty, MinerBlock, Position, VerifiedBlocks, Weight, unix_now},
    store::{ChainWriter, StoreError},
    sync::{
        failure::Setback,
        local_chain::{REASON, weight},
    },
};

/// How a plan ended that met no setback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether our chain is now the planned one. If not, all of it was verified and weighs less; it was dropped, unless
    /// the next plan goes on behind it.
    pub adopted: bool,
    /// The work that the planned chain has.
    pub work: CumulativeDifficulty,
    /// Hash of its last block; `None` if no block came.
    pub tip_hash: Option<String>,
}

impl Run {
    /// Writes batches as they come; a branch is kept aside until it weighs more than our chain, and then adopted.
    pub async fn commit(
        &self,
        plan: &Plan,
        mut verified: mpsc::Receiver<Result<VerifiedBlocks, Setback>>,
    ) -> Result<Outcome, Setback> {
        let (mut aside, mut length) = (plan.aside, plan.from);
        let mut ancestor = plan.ancestor.clone();
        let mut outcome = Outcome { adopted: false, work: plan.work, tip_hash: None };
        let mut setback = None;
        while setback.is_none()
            && let Some(next) = verified.recv().await
        {
            let mut batches = Vec::new();
            let mut blocks = 0;
            let mut next = Some(next);
            while let Some(batch) = next {
                match batch {
                    Ok(batch) => (blocks, _) = (blocks + batch.len(), batches.push(batch)),
                    Err(error) => setback = Some(error),
                }
                let more = setback.is_none() && blocks < BATCH;
                next = if more { verified.try_recv().ok() } else { None };
            }
            if blocks == 0 {
                continue;
            }
            if aside && ancestor.as_ref().map_or(0, |ancestor| ancestor.index + 1) == length {
                aside = self.shared(&mut batches, &mut ancestor, &mut length, &mut outcome).await?;
            }
            let mut writer = self.write().await?;
            // The crash test tells by these two whether a kill fell between them.
            tracing::trace!(blocks, "transaction begins");
            for batch in batches {
                length += batch.len() as u64;
                outcome.work =
                    batch.blocks().iter().fold(outcome.work, |work, block| work + block.actualized_difficulty);
                let tip_hash = batch.blocks().last().map(|block| block.hash.clone()).unwrap_or_default();
                outcome.tip_hash = Some(tip_hash.clone());
                match aside {
                    true => {
                        writer.stage(ancestor.as_ref(), self.job, batch).await.map_err(moved)?;
                        let beats = Weight { work: outcome.work, length, tip_hash } > weight(writer.state());
                        if beats || plan.wins_at.is_some_and(|index| length > index) {
                            writer.adopt_stage(REASON, unix_now()).await.map_err(moved)?;
                            aside = false;
                        }
                    }
                    false => writer.append(batch).await.map_err(moved)?,
                }
            }
            writer.commit().await?;
            tracing::trace!(blocks, "transaction ends");
            self.tracker.update(|progress| progress.aside = aside);
            self.tracker.written(blocks as u64);
        }
        if let Some(setback) = setback {
            return Err(setback);
        }
        if aside && plan.is_last() {
            let mut writer = self.write().await?;
            writer.clear_stage().await?;
            writer.commit().await?;
        }
        if let Some(tip_hash) = outcome.tip_hash.clone().filter(|hash| *hash == plan.claim.hash) {
            self.known.weigh(Weight { work: outcome.work, length, tip_hash });
        }
        Ok(Outcome { adopted: !aside, ..outcome })
    }

    /// A writer; whoever else writes is waited for.
    async fn write(&self) -> Result<Box<dyn ChainWriter>, Setback> {
        use backon::Retryable;
        let write = || self.store.write();
        let policy = backon::ExponentialBuilder::default().with_jitter();
        Ok(write.retry(policy).when(|error| matches!(error, StoreError::Busy(_))).await?)
    }

    /// Takes blocks of a branch out that are on our chain: where it leaves ours was its teller's word. Whether the rest is
    /// still to be kept aside.
    pub async fn shared(
        &self,
        batches: &mut Vec<VerifiedBlocks>,
        ancestor: &mut Option<Position>,
        length: &mut u64,
        outcome: &mut Outcome,
    ) -> Result<bool, Setback> {
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

/// The chain changed under the plan: another part of this program, or another process, wrote to it.
fn moved(error: StoreError) -> Setback {
    match error {
        StoreError::Conflict(problem) => {
            tracing::debug!(problem, "the chain changed under the plan");
            Setback::Moved
        }
        error => error.into(),
    }
}

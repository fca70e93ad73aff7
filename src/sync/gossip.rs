//! What to do with a block that the gossip topic brings.

use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::{pipeline::REASON, plan::weight, service::Service};
use crate::{
    chain::{
        ChainEnd, MinerBlock, Position, Rule, VerifiedBlocks, VerifyError, difficulty::meets, fork_choice::Weight,
        unix_now,
    },
    p2p::{Gossip, Offence, Verdict},
    protocol::gossip,
    source::job::JobSpec,
    store::{ChainState, StoreError},
};

/// A gap up to this many blocks is filled by the peer that told of the newest.
const MAX_GAP: u64 = 1000;

/// How far below the tip a block may be that is kept beside the chain: no more than an epoch.
const MAX_ORPHAN_DEPTH: u64 = 40;

/// How soon gossip of the same peer may start another sync.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Longest wait for the verification of one block: a machine that can't keep up syncs in batches instead.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(10);

impl Service {
    /// Takes a block in, or says what job shall find out about it.
    pub(super) async fn on_gossip(&mut self, message: Gossip) -> Result<Option<JobSpec>, StoreError> {
        let (verdict, job) = match gossip::decode(&message.data, unix_now()) {
            // What becomes of the store is not the message's fault, and it must not wait for a verdict.
            Ok(block) => {
                let taken = self.take(&message, block).await;
                taken.inspect_err(|_| self.p2p.judge(&message, Verdict::Ignore))?
            }
            Err(problem) => {
                tracing::debug!(peer = %message.from, problem, "gossip that is no block");
                (Verdict::Reject, None)
            }
        };
        self.p2p.judge(&message, verdict);
        Ok(job)
    }

    async fn take(&mut self, message: &Gossip, block: MinerBlock) -> Result<(Verdict, Option<JobSpec>), StoreError> {
        let state = self.store.state().await?;
        if self.store.get(&block.hash).await?.is_some() {
            return Ok((Verdict::Accept, None));
        }
        let tip = state.tip.as_ref().map_or(0, |tip| tip.index);
        if block.index.saturating_add(MAX_ORPHAN_DEPTH) < tip {
            return Ok((Verdict::Ignore, None));
        }
        let parent = match (block.index.checked_sub(1), self.store.get(&block.previous_hash).await?) {
            (Some(below), Some(parent)) if parent.canonical && parent.index == below => {
                self.store.chain_end(below, self.network.epoch_numbering).await?
            }
            _ => None,
        };
        let Some(parent) = parent else {
            // Whether it is worth anything shows when its chain is there.
            if !self.may_start_a_sync(&block, message.from) {
                return Ok((Verdict::Ignore, None));
            }
            let near = block.index <= tip.saturating_add(MAX_GAP);
            let peer = near.then(|| message.from.to_string());
            return Ok((Verdict::Ignore, Some(JobSpec { peer, ..JobSpec::default() })));
        };
        let (verifier, after) = (self.verifier.clone(), parent.clone());
        let verify = tokio::task::spawn_blocking(move || verifier.verify(Some(&after), vec![block]));
        match tokio::time::timeout(VERIFY_TIMEOUT, verify).await {
            Ok(Ok(Ok(verified))) => {
                self.keep(&state, parent, verified).await?;
                Ok((Verdict::Accept, None))
            }
            Ok(Ok(Err(VerifyError::Violation(violation)))) => {
                tracing::debug!(peer = %message.from, %violation, "gossip of an invalid block");
                if violation.rule == Rule::Timestamp {
                    return Ok((Verdict::Ignore, None));
                }
                // Whoever only passed it on may not have looked: others do so before they verify.
                if message.author == Some(message.from) {
                    self.p2p.penalise(message.from, Offence::InvalidBlock);
                }
                Ok((Verdict::Reject, None))
            }
            // Nothing is known about the block; the next look at the peers finds it.
            _ => Ok((Verdict::Ignore, None)),
        }
    }

    /// Whether a block without a parent is worth a look at the chain of the peer that passed it on: it claims the least
    /// work that any block has, and the peer is neither distrusted nor was asked for that reason just now.
    fn may_start_a_sync(&mut self, block: &MinerBlock, from: PeerId) -> bool {
        let now = Instant::now();
        self.gossip_asked.retain(|_, asked| now - *asked < ASK_AGAIN);
        let worth = block.target_difficulty > 0 && meets(&block.hash, block.target_difficulty);
        let distrusted = self.distrusted().any(|peer| peer == from);
        worth && !distrusted && self.gossip_asked.insert(from, now).is_none()
    }

    /// Appends a verified block, adopts it with the branch that it makes heavier, or keeps it beside the chain.
    async fn keep(&self, state: &ChainState, parent: ChainEnd, verified: VerifiedBlocks) -> Result<(), StoreError> {
        match self.write_block(state, parent, verified).await {
            // Somebody was faster: the next look at the peers tells what is missing.
            Err(StoreError::Conflict(problem)) => {
                tracing::debug!(problem, "a block of the gossip came too late");
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn write_block(
        &self,
        state: &ChainState,
        parent: ChainEnd,
        verified: VerifiedBlocks,
    ) -> Result<(), StoreError> {
        let extends = state.tip.as_ref().is_some_and(|tip| tip.hash == parent.hash);
        let work = self.store.work_at(parent.index).await?.unwrap_or_default();
        let mut writer = self.store.write().await?;
        if extends {
            writer.append(verified).await?;
        } else {
            let Some(block) = verified.blocks().first() else { return Ok(()) };
            let work = work + block.actualized_difficulty;
            let branch = Weight { work, length: block.index + 1, tip_hash: block.hash.clone() };
            if branch > weight(writer.state()) {
                writer.clear_stage().await?;
                let ancestor = Position { index: parent.index, hash: parent.hash };
                writer.stage(Some(&ancestor), 0, verified).await?;
                writer.adopt_stage(REASON, unix_now()).await?;
            } else {
                let (blocks, level) = (verified.blocks(), verified.level());
                writer.add_orphans(blocks, level).await?;
            }
        }
        writer.commit().await.map(|_| ())
    }
}

//! What to do with a block that the gossip topic brings.

use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::{
    pipeline::{REASON, is_unproven},
    plan::{checkpoint_above, weight},
    service::Service,
};
use crate::{
    chain::{
        ChainEnd, MinerBlock, Position, Rule, VerifiedBlocks, VerifyError, difficulty::meets, fork_choice::Weight,
        unix_now,
    },
    p2p::{Gossip, Offence, Verdict},
    protocol::gossip,
    store::{ChainState, StoreError},
};

/// How far below the tip a block may be that is kept beside the chain: no more than an epoch.
const MAX_ORPHAN_DEPTH: u64 = 40;

/// How much longer than ours a message about a block may be that we know: others may write more spaces and members.
const MAX_PADDING: usize = 2;

/// How soon gossip of the same peer may start another look at the peers.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Longest wait for the verification of one block: a machine that can't keep up syncs in batches instead.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(10);

impl Service {
    /// Takes a block in; whether it is one that only a look at the peers' chains can tell of.
    pub(super) async fn on_gossip(&mut self, message: Gossip) -> Result<bool, StoreError> {
        let (verdict, look) = match gossip::decode(&message.data, unix_now()) {
            // What becomes of the store is not the message's fault, and it must not wait for a verdict.
            Ok(block) => {
                let taken = self.take(&message, block).await;
                taken.inspect_err(|_| self.p2p.judge(&message, Verdict::Ignore))?
            }
            Err(problem) => {
                tracing::debug!(peer = %message.from, problem, "gossip that is no block");
                (Verdict::Reject, false)
            }
        };
        self.p2p.judge(&message, verdict);
        Ok(look)
    }

    async fn take(&mut self, message: &Gossip, block: MinerBlock) -> Result<(Verdict, bool), StoreError> {
        let state = self.store.state().await?;
        let tip = state.tip.as_ref().map_or(0, |tip| tip.index);
        if block.index.saturating_add(MAX_ORPHAN_DEPTH) < tip {
            return Ok((Verdict::Ignore, false));
        }
        if let Some(known) = self.store.get(&block.hash).await? {
            let verdict = if repeats(&message.data, &block, &known.json) { Verdict::Accept } else { Verdict::Ignore };
            return Ok((verdict, false));
        }
        // One read: between two the chain may change, and the block would be judged by another parent than its own.
        let below = match block.index.checked_sub(1) {
            Some(below) => self.store.chain_end(below, self.network.epoch_numbering).await?,
            None => None,
        };
        let Some(parent) = below.filter(|parent| parent.hash == block.previous_hash) else {
            // Whether it is worth anything shows when its chain is there.
            return Ok((Verdict::Ignore, self.is_worth_a_look(&block, message.from)));
        };
        let (verifier, after) = (self.verifier.clone(), parent.clone());
        let verify = tokio::task::spawn_blocking(move || verifier.verify(Some(&after), vec![block]));
        match tokio::time::timeout(VERIFY_TIMEOUT, verify).await {
            Ok(Ok(Ok(verified))) => {
                self.keep(&state, parent, verified).await?;
                Ok((Verdict::Accept, false))
            }
            Ok(Ok(Err(VerifyError::Violation(violation)))) => {
                tracing::debug!(peer = %message.from, %violation, "gossip of an invalid block");
                if violation.rule == Rule::Timestamp || is_unproven(self.verifier.level(), &violation) {
                    return Ok((Verdict::Ignore, false));
                }
                // Whoever only passed it on may not have looked: others do so before they verify.
                if message.author == Some(message.from) {
                    self.p2p.penalise(message.from, Offence::InvalidBlock);
                }
                Ok((Verdict::Reject, false))
            }
            // Nothing is known about the block; the next look at the peers finds it.
            _ => Ok((Verdict::Ignore, false)),
        }
    }

    /// Whether a block without a parent is worth a look at the peers, first of all the one that passed it on: it claims
    /// the least work that any block has, and the peer is neither distrusted nor was asked for that reason just now.
    fn is_worth_a_look(&mut self, block: &MinerBlock, from: PeerId) -> bool {
        let now = Instant::now();
        self.gossip_asked.retain(|_, asked| now - *asked < ASK_AGAIN);
        let worth = block.target_difficulty > 0 && meets(&block.hash, block.target_difficulty);
        let distrusted = self.distrusted().any(|peer| peer == from);
        let look = worth && !distrusted && self.gossip_asked.insert(from, now).is_none();
        if look {
            self.teller = Some(from);
        }
        look
    }

    /// Appends a verified block, adopts it with the branch that it makes heavier, or keeps it beside the chain: always
    /// so where the branch would take a checkpoint away.
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
        let settled = checkpoint_above(&*self.store, &self.network, parent.index).await?.is_some();
        let mut writer = self.store.write().await?;
        if extends {
            writer.append(verified).await?;
        } else {
            let Some(block) = verified.blocks().first() else { return Ok(()) };
            let work = work + block.actualized_difficulty;
            let branch = Weight { work, length: block.index + 1, tip_hash: block.hash.clone() };
            if !settled && branch > weight(writer.state()) {
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

/// Whether a message, which tells of the block `told`, says what is stored of the block with that hash and little else.
/// Nobody has looked at the rest, and whatever is passed on takes everybody's room.
fn repeats(message: &[u8], told: &MinerBlock, stored: &str) -> bool {
    let Ok(stored) = serde_json::from_str::<MinerBlock>(stored) else { return false };
    let own = gossip::encode(&stored);
    gossip::encode(told) == own && message.len() <= MAX_PADDING * own.len()
}

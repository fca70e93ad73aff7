//! Handles blocks from the gossip topic.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use tokio::sync::mpsc;

use super::state::Service;
use crate::{
    chain::{
        ChainEnd, Level, MinerBlock, Position, VerifiedBlocks, VerifyError, Violation, Weight, difficulty::meets,
        unix_now,
    },
    p2p::{Gossip, Offence, P2pClient, Verdict},
    protocol::gossip,
    store::{ChainState, StoreError},
    sync::{
        job::verify::{is_unproven, verify_hashes},
        local_chain::{ORPHAN_REASON, checkpoint_above, rests_on_assumed, weight},
    },
};

/// Greatest depth below the tip of a block that is kept as an orphan: an epoch.
const MAX_ORPHAN_DEPTH: u64 = 40;

/// Most blocks that wait for their parents: some hours of the network's.
const MAX_PENDING: usize = 256;

/// Most of them with one parent. All are verified when it comes, and anybody can invent such blocks.
const MAX_SIBLINGS_PENDING: usize = 4;

/// Most blocks of one index in the store beside which a further orphan is kept. Where the difficulty follows from no rule
/// that is enforced, a block costs its miner a second, and what is stored stays.
const MAX_SIBLINGS: usize = 8;

/// Longest message about a known block, in multiples of its own encoding: nodes may write more spaces and members.
const MAX_PADDING: usize = 2;

/// Shortest time between two tip polls for the same announcer.
const ANNOUNCER_PAUSE: Duration = Duration::from_secs(5);

/// Longest time to verify one block. A slower machine syncs in batches.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(10);

/// Gossip messages, and their blocks whose parents are missing.
pub(super) struct GossipInbox {
    receiver: Option<mpsc::Receiver<Gossip>>,
    pending: Vec<MinerBlock>,
}

impl GossipInbox {
    /// An inbox for a topic; without one, messages never come.
    pub fn new(receiver: Option<mpsc::Receiver<Gossip>>) -> Self {
        Self { receiver, pending: Vec::new() }
    }

    /// The next message.
    pub async fn next(&mut self) -> Option<Gossip> {
        match &mut self.receiver {
            Some(receiver) => receiver.recv().await,
            None => std::future::pending().await,
        }
    }

    /// Keeps a message's block until its parent is there. It is not relayed.
    pub fn defer(&mut self, p2p: &P2pClient, message: &Gossip) {
        let verdict = match gossip::decode(&message.data, unix_now()) {
            Ok(block) => {
                self.keep(block);
                Verdict::Ignore
            }
            Err(_) => Verdict::Reject,
        };
        p2p.report_verdict(message, verdict);
    }

    /// Keeps a block that meets a difficulty of at least 1. Over the limit the lowest ones stay, which are needed
    /// first.
    fn keep(&mut self, block: MinerBlock) {
        let siblings = self.pending.iter().filter(|known| known.previous_hash == block.previous_hash).count();
        let is_known = self.pending.iter().any(|known| known.hash == block.hash);
        if !has_work(&block) || is_known || siblings == MAX_SIBLINGS_PENDING {
            return;
        }
        self.pending.push(block);
        if self.pending.len() > MAX_PENDING {
            let highest = (0..self.pending.len()).max_by_key(|at| self.pending[*at].index).unwrap_or_default();
            self.pending.swap_remove(highest);
        }
    }

    /// Forgets the pending blocks: a tip poll finds what is still missing.
    pub fn clear(&mut self) {
        self.pending.clear();
    }

    /// Removes a block with this parent.
    fn take_child(&mut self, hash: &str) -> Option<MinerBlock> {
        let at = self.pending.iter().position(|block| block.previous_hash == hash)?;
        Some(self.pending.swap_remove(at))
    }
}

impl Service {
    /// Handles a message; returns whether it calls for a tip poll.
    pub(super) async fn on_gossip(&mut self, message: Gossip, inbox: &mut GossipInbox) -> Result<bool, StoreError> {
        let (verdict, poll) = match gossip::decode(&message.data, unix_now()) {
            // A failing store is not the message's fault, and the verdict must not wait for it.
            Ok(block) => {
                let taken = self.accept(&message, block, inbox).await;
                taken.inspect_err(|_| self.p2p.report_verdict(&message, Verdict::Ignore))?
            }
            Err(problem) => {
                tracing::debug!(peer = %message.from, problem, "a gossip message is not a block");
                (Verdict::Reject, false)
            }
        };
        self.p2p.report_verdict(&message, verdict);
        self.append_pending(inbox).await?;
        Ok(poll)
    }

    /// Appends pending blocks to the tip, one after the other.
    pub(super) async fn append_pending(&mut self, inbox: &mut GossipInbox) -> Result<(), StoreError> {
        while !inbox.pending.is_empty() {
            let state = self.store.state().await?;
            let Some(tip) = &state.tip else { break };
            let Some(block) = inbox.take_child(&tip.hash) else { break };
            let Some(parent) = self.store.chain_end(tip.index, self.network.epoch_numbering).await? else { break };
            if let Ok(Some(verified)) = self.verify(&parent, block).await {
                self.keep(&state, parent, verified).await?;
            }
        }
        let tip = self.store.state().await?.tip.map_or(0, |tip| tip.index);
        inbox.pending.retain(|block| block.index > tip && block.index - tip <= MAX_PENDING as u64);
        Ok(())
    }

    /// Verifies a block that follows `parent`; `None` if that was not possible in time.
    async fn verify(&self, parent: &ChainEnd, block: MinerBlock) -> Result<Option<VerifiedBlocks>, Violation> {
        let (verifier, after, stages) = (self.verifier.clone(), parent.clone(), self.stages.clone());
        let verify = tokio::task::spawn_blocking(move || {
            let mut blocks = vec![block];
            stages.add_differences(verifier.derive(&mut blocks));
            verifier.verify(Some(&after), blocks)
        });
        let verify = self.stages.verification.measure(tokio::time::timeout(VERIFY_TIMEOUT, verify));
        match verify.await {
            Ok(Ok(Ok(verified))) => Ok(Some(verified)),
            Ok(Ok(Err(VerifyError::Violation(violation)))) => Err(violation),
            // Nothing is known about the block; the next tip poll finds it.
            _ => Ok(None),
        }
    }

    async fn accept(
        &mut self,
        message: &Gossip,
        block: MinerBlock,
        inbox: &mut GossipInbox,
    ) -> Result<(Verdict, bool), StoreError> {
        let state = self.store.state().await?;
        let tip = state.tip.as_ref().map_or(0, |tip| tip.index);
        if block.index.saturating_add(MAX_ORPHAN_DEPTH) < tip {
            return Ok((Verdict::Ignore, false));
        }
        // Real nodes replace a block by a heavier one and drop all blocks above it. So blocks below the tip are not
        // relayed, nor unverified ones, nor a genesis.
        let may_relay = block.index > 0 && block.index >= tip;
        if let Some(known) = self.store.get(&block.hash).await? {
            let may_relay = may_relay
                && known.snapshot.level == Some(Level::Pow)
                && adds_nothing(&message.data, &block, &known.json);
            return Ok((relay(may_relay), false));
        }
        // One read: between two the chain may change, and the block would be verified after the wrong parent.
        let below = match block.index.checked_sub(1) {
            Some(below) => self.store.chain_end(below, self.network.epoch_numbering).await?,
            None => None,
        };
        let Some(parent) = below.filter(|parent| parent.hash == block.previous_hash) else {
            // The chain of the block decides, once it is there.
            let poll = self.is_worth_a_poll(&block, message.from);
            if poll && !self.hash_may_be_right(&block).await {
                return Ok((Verdict::Ignore, false));
            }
            if block.index > tip {
                inbox.keep(block);
            }
            return Ok((Verdict::Ignore, poll));
        };
        match self.verify(&parent, block).await {
            Ok(None) => Ok((Verdict::Ignore, false)),
            Ok(Some(verified)) => {
                let may_relay = may_relay && verified.level() == Level::Pow;
                let is_kept = self.keep(&state, parent, verified).await?;
                Ok((relay(may_relay && is_kept), false))
            }
            Err(violation) => {
                tracing::debug!(peer = %message.from, %violation, "an invalid block from gossip");
                let weakest = self.verifier.level().min(state.level.unwrap_or(Level::Pow));
                if !violation.rule.proves_forgery() || is_unproven(weakest, &violation) {
                    return Ok((Verdict::Ignore, false));
                }
                // A peer that only relays a block may not have verified it: nodes relay first.
                if message.author == Some(message.from) {
                    self.p2p.penalise(message.from, Offence::InvalidBlock);
                }
                Ok((Verdict::Reject, false))
            }
        }
    }

    /// Whether a block without a known parent calls for a tip poll, the announcer first: it meets a difficulty of at
    /// least 1, and the announcer is not distrusted and did not start a poll just now.
    fn is_worth_a_poll(&mut self, block: &MinerBlock, from: PeerId) -> bool {
        let now = Instant::now();
        self.announcer_polls.retain(|_, asked| now - *asked < ANNOUNCER_PAUSE);
        let distrusted = self.distrusted().any(|peer| peer == from);
        let poll = has_work(block) && !distrusted && self.announcer_polls.insert(from, now).is_none();
        if poll {
            self.announcer = Some(from);
        }
        poll
    }

    /// Whether a block's hash is not refuted by its header: invented blocks start no poll.
    async fn hash_may_be_right(&self, block: &MinerBlock) -> bool {
        let verified = verify_hashes(&self.verifier, vec![block.clone()]);
        !matches!(tokio::time::timeout(VERIFY_TIMEOUT, verified).await, Ok(Ok(Err(VerifyError::Violation(_)))))
    }

    /// Appends a verified block, adopts it with the branch that it makes the heavier one, or keeps it as an orphan;
    /// always that if the branch may not replace the chain, whatever it weighs. Returns whether it is worth relaying:
    /// one of too many orphans is not kept.
    async fn keep(&self, state: &ChainState, parent: ChainEnd, verified: VerifiedBlocks) -> Result<bool, StoreError> {
        match self.write_block(state, parent, verified).await {
            // The chain changed meanwhile: the next tip poll finds what is missing.
            Err(StoreError::Conflict(problem)) => {
                tracing::debug!(problem, "a block from gossip came too late");
                Ok(true)
            }
            outcome => outcome,
        }
    }

    async fn write_block(
        &self,
        state: &ChainState,
        parent: ChainEnd,
        verified: VerifiedBlocks,
    ) -> Result<bool, StoreError> {
        let Some(block) = verified.blocks().first() else { return Ok(false) };
        let extends = state.tip.as_ref().is_some_and(|tip| tip.hash == parent.hash);
        let is_one_of_many = !extends && self.store.at_index(block.index).await?.0.len() >= MAX_SIBLINGS;
        let work = self.store.work_at(parent.index).await?.unwrap_or_default();
        // A branch may not leave the chain below a checkpoint, nor at a block whose work is not verified yet.
        let settled = checkpoint_above(&*self.store, &self.network, parent.index).await?.is_some()
            || rests_on_assumed(&*self.store, self.assume_valid(), parent.index).await?;
        let mut writer = self.store.write().await?;
        if extends {
            writer.append(verified).await?;
        } else {
            let work = work + block.actualized_difficulty;
            let branch = Weight { work, length: block.index + 1, tip_hash: block.hash.clone() };
            if !settled && branch > weight(writer.state()) {
                writer.clear_stage().await?;
                let ancestor = Position { index: parent.index, hash: parent.hash };
                writer.stage(Some(&ancestor), 0, verified).await?;
                writer.adopt_stage(ORPHAN_REASON, unix_now()).await?;
            } else if is_one_of_many {
                return Ok(false);
            } else {
                let (blocks, level) = (verified.blocks(), verified.level());
                writer.add_orphans(blocks, level).await?;
            }
        }
        writer.commit().await.map(|_| true)
    }
}

/// Whether a block meets a difficulty of at least 1.
fn has_work(block: &MinerBlock) -> bool {
    block.target_difficulty > 0 && meets(&block.hash, block.target_difficulty)
}

/// Relays a block, or not, without blame.
fn relay(may_relay: bool) -> Verdict {
    if may_relay { Verdict::Accept } else { Verdict::Ignore }
}

/// Whether a message about the block `announced` holds the stored block and little else. Nothing checks the rest, and
/// relaying it would cost every peer.
fn adds_nothing(message: &[u8], announced: &MinerBlock, stored: &str) -> bool {
    let Ok(stored) = serde_json::from_str::<MinerBlock>(stored) else { return false };
    let own = gossip::encode(&stored);
    // Nodes number epochs in two ways.
    let announced = MinerBlock { epoch: stored.epoch, ..announced.clone() };
    gossip::encode(&announced) == own && message.len() <= MAX_PADDING * own.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_blocks_wait_for_one_parent() {
        let mut inbox = GossipInbox::new(None);
        let block = |parent: &str, number: u64| MinerBlock {
            hash: format!("00{number:062x}"),
            previous_hash: parent.into(),
            index: 7,
            target_difficulty: 1,
            ..MinerBlock::default()
        };
        (0..100).for_each(|number| inbox.keep(block("invented", number)));
        inbox.keep(block("other", 100));
        let waiting = |inbox: &mut GossipInbox, parent| std::iter::from_fn(|| inbox.take_child(parent)).count();
        assert_eq!(waiting(&mut inbox, "invented"), MAX_SIBLINGS_PENDING);
        assert_eq!(waiting(&mut inbox, "other"), 1);
    }
}

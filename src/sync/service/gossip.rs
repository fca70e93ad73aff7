//! What to do with a block that the gossip topic brings.

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
        job::verify::is_unproven,
        local_chain::{REASON, checkpoint_above, weight},
    },
};

/// How far below the tip a block may be that is kept beside the chain: no more than an epoch.
const MAX_ORPHAN_DEPTH: u64 = 40;

/// Blocks that wait for their parents: some hours of the network's.
const MAX_WAITING: usize = 256;

/// How much longer than ours a message about a block may be that we know: others may write more spaces and members.
const MAX_PADDING: usize = 2;

/// How soon gossip of the same peer may start another look at the peers.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Longest wait for the verification of one block: a machine that can't keep up syncs in batches instead.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(10);

/// Gossip, and the blocks of it whose parents are not there yet.
pub(super) struct Inbox {
    receiver: Option<mpsc::Receiver<Gossip>>,
    waiting: Vec<MinerBlock>,
}

impl Inbox {
    /// Over the messages of a topic that may not be there.
    pub fn new(receiver: Option<mpsc::Receiver<Gossip>>) -> Self {
        Self { receiver, waiting: Vec::new() }
    }

    /// The next message.
    pub async fn next(&mut self) -> Option<Gossip> {
        match &mut self.receiver {
            Some(receiver) => receiver.recv().await,
            None => std::future::pending().await,
        }
    }

    /// Keeps a message's block until its parent is there; nobody is told of it by us.
    pub fn put_by(&mut self, p2p: &P2pClient, message: &Gossip) {
        let verdict = match gossip::decode(&message.data, unix_now()) {
            Ok(block) => {
                self.keep(block);
                Verdict::Ignore
            }
            Err(_) => Verdict::Reject,
        };
        p2p.judge(message, verdict);
    }

    /// Keeps a block that claims the least work that any has; where there is no room, the lowest ones are kept, which come
    /// next.
    fn keep(&mut self, block: MinerBlock) {
        let worth = block.target_difficulty > 0 && meets(&block.hash, block.target_difficulty);
        if !worth || self.waiting.iter().any(|known| known.hash == block.hash) {
            return;
        }
        self.waiting.push(block);
        if self.waiting.len() > MAX_WAITING {
            let highest = (0..self.waiting.len()).max_by_key(|at| self.waiting[*at].index).unwrap_or_default();
            self.waiting.swap_remove(highest);
        }
    }

    /// Forgets what has waited: where its parents did not come, a look at the peers brings it.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Takes out a block that follows this one.
    fn child_of(&mut self, hash: &str) -> Option<MinerBlock> {
        let at = self.waiting.iter().position(|block| block.previous_hash == hash)?;
        Some(self.waiting.swap_remove(at))
    }
}

impl Service {
    /// Takes a block in; whether it is one that only a look at the peers' chains can tell of.
    pub(super) async fn on_gossip(&mut self, message: Gossip, inbox: &mut Inbox) -> Result<bool, StoreError> {
        let (verdict, look) = match gossip::decode(&message.data, unix_now()) {
            // What becomes of the store is not the message's fault, and it must not wait for a verdict.
            Ok(block) => {
                let taken = self.take(&message, block, inbox).await;
                taken.inspect_err(|_| self.p2p.judge(&message, Verdict::Ignore))?
            }
            Err(problem) => {
                tracing::debug!(peer = %message.from, problem, "gossip that is no block");
                (Verdict::Reject, false)
            }
        };
        self.p2p.judge(&message, verdict);
        self.connect(inbox).await?;
        Ok(look)
    }

    /// Appends what waits for the chain's tip, one block after the other.
    pub(super) async fn connect(&mut self, inbox: &mut Inbox) -> Result<(), StoreError> {
        while !inbox.waiting.is_empty() {
            let state = self.store.state().await?;
            let Some(tip) = &state.tip else { break };
            let Some(block) = inbox.child_of(&tip.hash) else { break };
            let Some(parent) = self.store.chain_end(tip.index, self.network.epoch_numbering).await? else { break };
            if let Ok(Some(verified)) = self.verify(&parent, block).await {
                self.keep(&state, parent, verified).await?;
            }
        }
        let tip = self.store.state().await?.tip.map_or(0, |tip| tip.index);
        inbox.waiting.retain(|block| block.index > tip && block.index - tip <= MAX_WAITING as u64);
        Ok(())
    }

    /// Verifies a block that follows `parent`; nothing where that could not be done in time.
    async fn verify(&self, parent: &ChainEnd, block: MinerBlock) -> Result<Option<VerifiedBlocks>, Violation> {
        let (verifier, after, stages) = (self.verifier.clone(), parent.clone(), self.stages.clone());
        let verify = tokio::task::spawn_blocking(move || {
            let mut blocks = vec![block];
            stages.differ(verifier.derive(&mut blocks));
            verifier.verify(Some(&after), blocks)
        });
        match tokio::time::timeout(VERIFY_TIMEOUT, verify).await {
            Ok(Ok(Ok(verified))) => Ok(Some(verified)),
            Ok(Ok(Err(VerifyError::Violation(violation)))) => Err(violation),
            // Nothing is known about the block; the next look at the peers finds it.
            _ => Ok(None),
        }
    }

    async fn take(
        &mut self,
        message: &Gossip,
        block: MinerBlock,
        inbox: &mut Inbox,
    ) -> Result<(Verdict, bool), StoreError> {
        let state = self.store.state().await?;
        let tip = state.tip.as_ref().map_or(0, |tip| tip.index);
        if block.index.saturating_add(MAX_ORPHAN_DEPTH) < tip {
            return Ok((Verdict::Ignore, false));
        }
        // A real node puts a heavier block in the place of one that it has, and drops whatever stands on that: what is below
        // the tip is for nobody else. Nor is what we have not verified, or a genesis.
        let may_pass_on = block.index > 0 && block.index >= tip;
        if let Some(known) = self.store.get(&block.hash).await? {
            let passes = may_pass_on && known.level == Level::Pow && repeats(&message.data, &block, &known.json);
            return Ok((if passes { Verdict::Accept } else { Verdict::Ignore }, false));
        }
        // One read: between two the chain may change, and the block would be judged by another parent than its own.
        let below = match block.index.checked_sub(1) {
            Some(below) => self.store.chain_end(below, self.network.epoch_numbering).await?,
            None => None,
        };
        let Some(parent) = below.filter(|parent| parent.hash == block.previous_hash) else {
            // Whether it is worth anything shows when its chain is there.
            let look = self.is_worth_a_look(&block, message.from);
            if look && !self.has_its_hash(&block).await {
                return Ok((Verdict::Ignore, false));
            }
            if block.index > tip {
                inbox.keep(block);
            }
            return Ok((Verdict::Ignore, look));
        };
        match self.verify(&parent, block).await {
            Ok(None) => Ok((Verdict::Ignore, false)),
            Ok(Some(verified)) => {
                let passes = may_pass_on && verified.level() == Level::Pow;
                self.keep(&state, parent, verified).await?;
                Ok((if passes { Verdict::Accept } else { Verdict::Ignore }, false))
            }
            Err(violation) => {
                tracing::debug!(peer = %message.from, %violation, "gossip of an invalid block");
                if !violation.rule.proves_forgery() || is_unproven(self.verifier.level(), &violation) {
                    return Ok((Verdict::Ignore, false));
                }
                // Whoever only passed it on may not have looked: others do so before they verify.
                if message.author == Some(message.from) {
                    self.p2p.penalise(message.from, Offence::InvalidBlock);
                }
                Ok((Verdict::Reject, false))
            }
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

    /// Whether a block's hash is not proven to be another one than that of its header: what costs nothing to make up starts
    /// no look.
    async fn has_its_hash(&self, block: &MinerBlock) -> bool {
        let (verifier, mut blocks) = (self.verifier.clone(), vec![block.clone()]);
        let verify = tokio::task::spawn_blocking(move || {
            verifier.derive(&mut blocks);
            blocks.iter().try_for_each(|block| verifier.verify_hash(block))
        });
        !matches!(tokio::time::timeout(VERIFY_TIMEOUT, verify).await, Ok(Ok(Err(VerifyError::Violation(_)))))
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
    // Nodes number the epoch in two ways.
    let told = MinerBlock { epoch: stored.epoch, ..told.clone() };
    gossip::encode(&told) == own && message.len() <= MAX_PADDING * own.len()
}

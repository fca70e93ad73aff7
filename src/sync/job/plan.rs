//! The plan of a job: which peer's blocks to fetch, from which common ancestor, appended or as a staged branch.

use libp2p::PeerId;

use super::context::{JobRun, RunState};
use crate::{
    chain::{AssumeValid, ChainEnd, CumulativeDifficulty, Level, Position, Weight, locator},
    p2p::Standing,
    protocol::query::CheckPoint,
    store::{ChainState, StagedBranch},
    sync::{
        failure::{PeerFault, SyncFailure},
        local_chain::{checkpoint_above, missing_checkpoint, rests_on_assumed, weight},
        peers::remote::{Claim, RemotePeer},
    },
};

/// The blocks of a peer's chain that are to be fetched.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The peer's claim.
    pub claim: Claim,
    /// The last block that the store has, on its chain or staged; `None` before genesis.
    pub parent: Option<ChainEnd>,
    /// The last block that both chains share; `None` before genesis.
    pub ancestor: Option<Position>,
    /// Whether the blocks are staged, because the store's chain goes on after the ancestor.
    pub is_branch: bool,
    /// Whether the blocks follow the ones that are staged. Else these are dropped, verified ones not before a block of the
    /// plan is verified: a peer that only claims a chain must not undo what was fetched of another.
    pub continues_stage: bool,
    /// Work of the chain up to `parent`.
    pub work: CumulativeDifficulty,
    /// Index of the first block to fetch.
    pub from: u64,
    /// Index of the last block to fetch: the claimed tip, or the most of one plan.
    pub to: u64,
    /// Index of a checkpoint that the store's chain lacks: from there on the planned chain wins, whatever its weight.
    pub adopt_at: Option<u64>,
    /// The blocks up to this one are verified to `linked`, and are staged until the chain is known to contain it.
    pub assumed: Option<AssumeValid>,
}

impl Plan {
    /// Whether the first `length` blocks of the chain may become canonical: without assumptions, or with the
    /// assume-valid block among them.
    pub fn is_proven(&self, length: u64) -> bool {
        self.assumed.as_ref().is_none_or(|pin| length > pin.index)
    }

    /// Whether headers up to the claimed tip show a chain that won't become the store's, whose weight is `ours`.
    pub fn loses(&self, claimed: &Weight, ours: &Weight) -> bool {
        self.is_branch && self.adopt_at.is_none() && claimed.tip_hash == self.claim.hash && claimed <= ours
    }

    /// The weakest level of the blocks below the planned ones, in a store with this state: the difficulty follows from
    /// their timestamps.
    pub fn level_below(&self, state: &ChainState) -> Level {
        if self.assumed.is_some() { Level::Linked } else { state.level.unwrap_or(Level::Pow) }
    }

    /// Whether the plan reaches the claimed tip; otherwise another one follows.
    pub fn is_last(&self) -> bool {
        self.to >= self.claim.height
    }
}

/// Most blocks that are requested one by one on the path down to where two chains part.
const MAX_DESCENT: usize = 256;

/// Most answers that are searched for blocks that a peer denied.
const MAX_SEARCHED_ANSWERS: usize = 25;

/// Most checkpoints that a peer is asked for, the lowest; the others are checked in its blocks.
const MAX_CHECKED: usize = 8;

impl JobRun {
    /// Whether a peer's claim, if true, beats the chain in the store, which lacks the checkpoint at `missing`. A weight
    /// that is known overrules the claim. A claim without work counts by its length; its blocks will show their work.
    pub fn is_better(&self, peer: &PeerId, claim: &Claim, state: &ChainState, missing: Option<u64>) -> bool {
        if claim.held {
            return false;
        }
        if state.tip.is_none() || missing.is_some_and(|index| claim.height >= index) {
            return true;
        }
        match (self.known.weight(peer, &claim.hash), claim.work) {
            (Some(known), _) => known > weight(state),
            (None, Some(work)) => {
                // A chain with gaps: its tip is higher than its length says, and it claims too little work.
                let may_be_longer = claim.length <= claim.height && claim.height >= state.length;
                may_be_longer || Weight { work, length: claim.length, tip_hash: claim.hash.clone() } > weight(state)
            }
            (None, None) => claim.length > state.length,
        }
    }

    /// Index of the last block of a plan that begins at `from`.
    fn end(&self, from: u64, claim: &Claim) -> u64 {
        claim.height.min(from.saturating_add(self.plan_blocks - 1))
    }

    /// Plans the fetch of a peer's claimed chain; `None` if it is part of the store's. The common ancestor that a
    /// doubted peer confirms is checked by links.
    ///
    /// # Errors
    /// The peer's fault, another genesis, a checkpoint that it lacks, or the store's.
    pub async fn plan(&self, lead: &RemotePeer, claim: Claim, run: &RunState) -> Result<Option<Plan>, SyncFailure> {
        let state = self.store.state().await?;
        let staged = self.store.staged().await?;
        let missing = missing_checkpoint(&*self.store, &self.network).await?;
        let mut plan = Plan {
            from: 0,
            to: self.end(0, &claim),
            parent: None,
            ancestor: None,
            is_branch: false,
            continues_stage: false,
            work: CumulativeDifficulty::default(),
            adopt_at: missing.filter(|index| *index <= claim.height),
            assumed: None,
            claim,
        };
        let Some(tip) = &state.tip else {
            self.check_checkpoints(lead, &plan.claim, None).await?;
            return self.finished(plan, staged, lead, run).await.map(Some);
        };
        let mut ancestor = self.common_ancestor(lead, tip.index.min(plan.claim.height)).await?;
        if run.doubted.contains(&lead.peer) {
            ancestor = self.linked_ancestor(lead, &plan.claim, ancestor).await?;
        }
        match ancestor {
            None if !self.open_genesis => {
                self.note(lead.peer, &plan.claim, Standing::OtherGenesis, None);
                return Err(self.other_genesis(lead).await?);
            }
            // The genesis is not final: the one with more work wins.
            None => {
                self.check_checkpoints(lead, &plan.claim, None).await?;
                plan.is_branch = true;
            }
            Some(ancestor) => {
                let parent = self.store.chain_end(ancestor, self.network.epoch_numbering).await?;
                let work = self.store.work_at(ancestor).await?;
                let (Some(parent), Some(work)) = (parent, work) else { return Err(SyncFailure::ChainChanged) };
                let shared = Position { index: parent.index, hash: parent.hash.clone() };
                // Above the claimed tip, its parent contradicts its index.
                if ancestor >= plan.claim.height {
                    // Otherwise the peer has reorganised since its claim.
                    if shared.hash != plan.claim.hash {
                        return Err(SyncFailure::Mismatch { peer: lead.peer, before: None });
                    }
                    self.p2p.note_work(lead.peer, work);
                    return Ok(None);
                }
                if let Some(index) = checkpoint_above(&*self.store, &self.network, ancestor).await? {
                    return Err(SyncFailure::Checkpoint { peer: lead.peer, index });
                }
                let pin = self.assume_valid.as_ref();
                if ancestor < tip.index && rests_on_assumed(&*self.store, pin, ancestor).await? {
                    return Err(SyncFailure::Unproven { peer: lead.peer, index: ancestor });
                }
                self.check_checkpoints(lead, &plan.claim, Some(ancestor)).await?;
                let standing = if ancestor == tip.index { Standing::Ahead } else { Standing::Forked };
                self.note(lead.peer, &plan.claim, standing, Some(shared.clone()));
                plan = Plan {
                    from: parent.index + 1,
                    to: self.end(parent.index + 1, &plan.claim),
                    parent: Some(parent),
                    ancestor: Some(shared),
                    is_branch: ancestor != tip.index,
                    work,
                    ..plan
                };
            }
        }
        self.finished(plan, staged, lead, run).await.map(Some)
    }

    /// The plan with what may be assumed of the chain, and with what is staged of it already.
    async fn finished(
        &self,
        mut plan: Plan,
        staged: Option<StagedBranch>,
        lead: &RemotePeer,
        run: &RunState,
    ) -> Result<Plan, SyncFailure> {
        plan.assumed = self.assumed(&plan, lead, run).await?;
        plan.is_branch |= plan.assumed.is_some();
        let Some(staged) = staged else { return Ok(plan) };
        if plan.is_branch && self.continues(&plan, &staged, lead).await? {
            plan.continues_stage = true;
            plan.from = staged.end.index + 1;
            plan.to = self.end(plan.from, &plan.claim);
            plan.work = staged.work;
            let end = self.store.staged_end(self.network.epoch_numbering).await?;
            plan.parent = Some(end.ok_or(SyncFailure::ChainChanged)?);
        } else if staged.level < self.verifier.level() {
            // What is not verified may be made up, and cost no hashes.
            self.clear_stage().await?;
        }
        Ok(plan)
    }

    /// The assume-valid block, if the peer says that it is on its chain, above the ancestor.
    async fn assumed(
        &self,
        plan: &Plan,
        lead: &RemotePeer,
        run: &RunState,
    ) -> Result<Option<AssumeValid>, SyncFailure> {
        let within = |pin: &&AssumeValid| (plan.from..=plan.claim.height).contains(&pin.index);
        let Some(pin) = self.assume_valid.as_ref().filter(within) else { return Ok(None) };
        if run.not_assumed.contains(&lead.peer) {
            return Ok(None);
        }
        let theirs = lead.hashes_at(pin.index).await.map_err(|fault| SyncFailure::Peer(lead.peer, fault))?;
        Ok(theirs.contains(&pin.hash).then(|| pin.clone()))
    }

    /// Checks a peer's blocks at the network's checkpoints above `ancestor`.
    async fn check_checkpoints(
        &self,
        lead: &RemotePeer,
        claim: &Claim,
        ancestor: Option<u64>,
    ) -> Result<(), SyncFailure> {
        let due = |index: u64| ancestor.is_none_or(|ancestor| index > ancestor) && index <= claim.height;
        let mut points: Vec<_> = self.network.checkpoints.iter().filter(|point| due(point.index)).collect();
        points.sort_unstable_by_key(|point| point.index);
        for point in points.into_iter().take(MAX_CHECKED) {
            let theirs = lead.hashes_at(point.index).await.map_err(|fault| SyncFailure::Peer(lead.peer, fault))?;
            // A gap says nothing before its block is there.
            if !theirs.is_empty() && !theirs.contains(&point.hash) {
                return Err(SyncFailure::OffCheckpoint { peer: lead.peer, index: point.index });
            }
        }
        Ok(())
    }

    /// Whether the staged blocks are the beginning of the plan: left by an interrupted job, or by a plan that was too
    /// short.
    async fn continues(&self, plan: &Plan, staged: &StagedBranch, lead: &RemotePeer) -> Result<bool, SyncFailure> {
        let is_whole = staged.end.index >= plan.claim.height;
        // Below the assume-valid block nothing is proven yet, and above it nothing is staged before it is found.
        let is_assumed = plan
            .assumed
            .as_ref()
            .is_some_and(|pin| staged.end.index < pin.index || self.known.is_after_assumed(&staged.end.hash));
        let least = if is_assumed { Level::Linked } else { self.verifier.level() };
        if staged.ancestor != plan.ancestor || is_whole || staged.level < least {
            return Ok(false);
        }
        let end = CheckPoint { index: staged.end.index, hash: staged.end.hash.clone() };
        let matched = lead.highest_match(vec![end]).await.map_err(|fault| SyncFailure::Peer(lead.peer, fault))?;
        Ok(matched == Some(staged.end.index))
    }

    /// The highest index, up to `top`, at which both chains have the same block. A node with several blocks at an index
    /// compares only one: a block that it denies is looked up.
    pub async fn common_ancestor(&self, lead: &RemotePeer, top: u64) -> Result<Option<u64>, SyncFailure> {
        let failed = |fault| SyncFailure::Peer(lead.peer, fault);
        let mut locator = locator::Locator::new(top);
        let found = loop {
            let indexes = match locator.next() {
                locator::Step::Found(index) => break index,
                locator::Step::Ask(indexes) => indexes,
            };
            let ours = self.store.canonical_hashes(&indexes).await?;
            if ours.len() != indexes.len() {
                return Err(SyncFailure::ChainChanged);
            }
            let mut points: Vec<_> = ours.into_iter().map(|(index, hash)| CheckPoint { index, hash }).collect();
            points.sort_unstable_by_key(|point| point.index);
            locator.answer(lead.highest_match(points).await.map_err(failed)?);
        };
        if found == Some(top) {
            return Ok(found);
        }
        let mut next = found.map_or(0, |found| found + 1);
        for _ in 0..MAX_SEARCHED_ANSWERS {
            let theirs = lead.after(next).await.map_err(failed)?;
            let indexes: Vec<_> = theirs.iter().map(|block| block.index).filter(|index| *index <= top).collect();
            let ours = self.store.canonical_hashes(&indexes).await?;
            let shared =
                |index| theirs.iter().any(|block| block.index == index && ours.get(&index) == Some(&block.hash));
            let highest = indexes.into_iter().max();
            while shared(next) {
                next += 1;
            }
            // All of the answer is shared: the next may be too.
            if next > top || highest.is_none_or(|highest| next <= highest) {
                break;
            }
        }
        Ok(next.checked_sub(1))
    }

    /// The highest block of the store's chain on the path down from a peer's blocks above `found`. A node with several
    /// blocks at an index may confirm one that is not on its chain.
    async fn linked_ancestor(
        &self,
        lead: &RemotePeer,
        claim: &Claim,
        found: Option<u64>,
    ) -> Result<Option<u64>, SyncFailure> {
        let failed = |fault| SyncFailure::Peer(lead.peer, fault);
        let start = found.map_or(0, |found| found + 1);
        let mut hash = claim.hash.clone();
        if start <= claim.height {
            let above = lead.after(start).await.map_err(failed)?;
            let ours = found.map(|found| vec![found]).unwrap_or_default();
            let ours = self.store.canonical_hashes(&ours).await?.into_values().next();
            let mut above: Vec<_> = above.into_iter().filter(|block| block.index == start).collect();
            // A block with the confirmed parent has caused the doubt.
            above.sort_by_key(|block| Some(&block.previous_hash) == ours.as_ref());
            let Some(above) = above.into_iter().next() else { return Ok(found) };
            hash = above.previous_hash;
        }
        for _ in 0..MAX_DESCENT {
            if let Some(ours) = self.store.get(&hash).await?.filter(|known| known.canonical) {
                return Ok(Some(ours.index));
            }
            match lead.get(&hash).await.map_err(failed)? {
                Some(block) if block.index > 0 => hash = block.previous_hash,
                Some(_) => return Ok(None),
                None => return Err(failed(PeerFault::Missing(start))),
            }
        }
        Err(failed(PeerFault::Ambiguous(start)))
    }

    /// The failure that a peer has another genesis.
    pub async fn other_genesis(&self, remote: &RemotePeer) -> Result<SyncFailure, SyncFailure> {
        let ours = self.store.canonical_hashes(&[0]).await?.remove(&0).ok_or(SyncFailure::ChainChanged)?;
        let theirs = remote.hashes_at(0).await.map_err(|fault| SyncFailure::Peer(remote.peer, fault))?;
        // The peer's own text, which is published: no longer than a hash.
        let theirs = theirs.into_iter().next().unwrap_or_default();
        let theirs = theirs.chars().filter(char::is_ascii_graphic).take(64).collect();
        Ok(SyncFailure::OtherGenesis { peer: remote.peer, theirs, ours })
    }
}

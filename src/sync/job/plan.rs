//! What to fetch: whose chain, from which common ancestor on, aside or straight on top of ours.

use super::context::Run;
use crate::{
    chain::{ChainEnd, CumulativeDifficulty, Position, Weight, locator},
    p2p::Standing,
    protocol::query::CheckPoint,
    store::{ChainState, Stage},
    sync::{
        failure::{Fault, Setback},
        local_chain::{checkpoint_above, lacking_checkpoint, weight},
        peers::remote::{Claim, Remote},
    },
};

/// A stretch of a peer's chain that is to be fetched.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the peer claims.
    pub claim: Claim,
    /// The last block that is there already, on our chain or on the stage; `None` before genesis.
    pub parent: Option<ChainEnd>,
    /// The last block that both chains share; `None` before genesis.
    pub ancestor: Option<Position>,
    /// Whether the blocks are kept aside, because ours go on behind the ancestor.
    pub aside: bool,
    /// Work of the chain up to `parent`.
    pub work: CumulativeDifficulty,
    /// Index of the first block to fetch.
    pub from: u64,
    /// Index of the last block to fetch: the claimed tip's, unless that is too far away.
    pub to: u64,
    /// Index of a checkpoint that our chain lacks: once the planned chain has come there it is the better one, whatever it
    /// weighs.
    pub wins_at: Option<u64>,
}

impl Plan {
    /// Whether it leads to the claimed tip. Another one goes on behind its end if not.
    pub fn is_last(&self) -> bool {
        self.to >= self.claim.height
    }
}

/// Blocks that are asked for one by one on the way down to where two chains part.
const MAX_DESCENT: usize = 256;

/// Answers that are looked through for blocks that a peer has although it denies one.
const MAX_LOOKS: usize = 25;

/// Checkpoints that a peer is asked for at most, the lowest ones; the others show when their blocks come.
const MAX_CHECKED: usize = 8;

impl Run {
    /// Whether a claim, if it is true, beats the chain in the store, which lacks the checkpoint at `lacking`. What was
    /// verified of the chain counts rather than what is claimed. A claim without work counts by its length; what its blocks
    /// weigh shows when they are there.
    pub fn is_better(&self, claim: &Claim, state: &ChainState, lacking: Option<u64>) -> bool {
        if claim.held {
            return false;
        }
        if state.tip.is_none() || lacking.is_some_and(|index| claim.height >= index) {
            return true;
        }
        match (self.known.weight(&claim.hash), claim.work) {
            (Some(verified), _) => verified > weight(state),
            // Fewer blocks than lead to its tip: it has gaps, and claims less than there is.
            (None, Some(_)) if claim.length <= claim.height => claim.height >= state.length,
            (None, Some(work)) => Weight { work, length: claim.length, tip_hash: claim.hash.clone() } > weight(state),
            (None, None) => claim.length > state.length,
        }
    }

    /// Index of the last block of a plan that begins at `from`.
    fn end(&self, from: u64, claim: &Claim) -> u64 {
        claim.height.min(from.saturating_add(self.plan_blocks - 1))
    }

    /// Plans the way to a peer's claimed tip; `None` where there is nothing to fetch, because its chain is part of ours.
    /// Where its word on where the chains part is `doubted`, its blocks are asked.
    ///
    /// # Errors
    /// The peer's fault, that its genesis is another one, that it lacks a checkpoint, or the store's.
    pub async fn plan(&self, lead: &Remote, claim: Claim, doubted: bool) -> Result<Option<Plan>, Setback> {
        let state = self.store.state().await?;
        let staged = self.store.staged().await?;
        let lacking = lacking_checkpoint(&*self.store, &self.network).await?;
        let mut plan = Plan {
            from: 0,
            to: self.end(0, &claim),
            parent: None,
            ancestor: None,
            aside: false,
            work: CumulativeDifficulty::default(),
            wins_at: lacking.filter(|index| *index <= claim.height),
            claim,
        };
        let Some(tip) = &state.tip else {
            self.check_checkpoints(lead, &plan.claim, None).await?;
            self.drop_stage(staged).await?;
            return Ok(Some(plan));
        };
        let mut ancestor = self.common_ancestor(lead, tip.index.min(plan.claim.height)).await?;
        if doubted {
            ancestor = self.linked_ancestor(lead, &plan.claim, ancestor).await?;
        }
        match ancestor {
            None if !self.open_genesis => {
                self.note(lead.peer, &plan.claim, Standing::OtherGenesis, None);
                return Err(self.other_genesis(lead).await?);
            }
            // Which of two geneses it is to be is not settled: the one under more work.
            None => {
                self.check_checkpoints(lead, &plan.claim, None).await?;
                plan.aside = true;
            }
            Some(ancestor) => {
                let parent = self.store.chain_end(ancestor, self.network.epoch_numbering).await?;
                let work = self.store.work_at(ancestor).await?;
                let (Some(parent), Some(work)) = (parent, work) else { return Err(Setback::Moved) };
                let shared = Position { index: parent.index, hash: parent.hash.clone() };
                if ancestor == plan.claim.height {
                    self.p2p.note_work(lead.peer, work);
                    // If not, it has reorganised since it made the claim.
                    let held = shared.hash == plan.claim.hash;
                    return if held { Ok(None) } else { Err(Setback::Seam { peer: lead.peer, before: None }) };
                }
                if let Some(index) = checkpoint_above(&*self.store, &self.network, ancestor).await? {
                    return Err(Setback::Checkpoint { peer: lead.peer, index });
                }
                self.check_checkpoints(lead, &plan.claim, Some(ancestor)).await?;
                let standing = if ancestor == tip.index { Standing::Ahead } else { Standing::Forked };
                self.note(lead.peer, &plan.claim, standing, Some(shared.clone()));
                plan = Plan {
                    from: parent.index + 1,
                    to: self.end(parent.index + 1, &plan.claim),
                    parent: Some(parent),
                    ancestor: Some(shared),
                    aside: ancestor != tip.index,
                    work,
                    ..plan
                };
            }
        }
        if let Some(staged) = staged {
            if plan.aside && self.continues(&plan, &staged, lead).await? {
                plan.from = staged.end.index + 1;
                plan.to = self.end(plan.from, &plan.claim);
                plan.work = staged.work;
                let end = self.store.staged_end(self.network.epoch_numbering).await?;
                plan.parent = Some(end.ok_or(Setback::Moved)?);
            } else {
                self.drop_stage(Some(staged)).await?;
            }
        }
        Ok(Some(plan))
    }

    /// Checks that a peer's chain has the network's blocks at its checkpoints above the block at `ancestor`.
    async fn check_checkpoints(&self, lead: &Remote, claim: &Claim, ancestor: Option<u64>) -> Result<(), Setback> {
        let due = |index: u64| ancestor.is_none_or(|ancestor| index > ancestor) && index <= claim.height;
        let mut points: Vec<_> = self.network.checkpoints.iter().filter(|point| due(point.index)).collect();
        points.sort_unstable_by_key(|point| point.index);
        for point in points.into_iter().take(MAX_CHECKED) {
            let theirs = lead.hashes_at(point.index).await.map_err(|fault| Setback::Peer(lead.peer, fault))?;
            // Of a gap nothing is known before its block is there.
            if !theirs.is_empty() && !theirs.contains(&point.hash) {
                return Err(Setback::OffCheckpoint { peer: lead.peer, index: point.index });
            }
        }
        Ok(())
    }

    /// Whether the stage is the beginning of what is planned: left there by an attempt that was interrupted, or by a plan
    /// that was too short.
    async fn continues(&self, plan: &Plan, staged: &Stage, lead: &Remote) -> Result<bool, Setback> {
        let is_whole = staged.end.index >= plan.claim.height;
        if staged.ancestor != plan.ancestor || is_whole || staged.level < self.verifier.level() {
            return Ok(false);
        }
        let end = CheckPoint { index: staged.end.index, hash: staged.end.hash.clone() };
        let matched = lead.highest_match(vec![end]).await.map_err(|fault| Setback::Peer(lead.peer, fault))?;
        Ok(matched == Some(staged.end.index))
    }

    async fn drop_stage(&self, staged: Option<Stage>) -> Result<(), Setback> {
        if staged.is_some() {
            let mut writer = self.store.write().await?;
            writer.clear_stage().await?;
            writer.commit().await?;
        }
        Ok(())
    }

    /// The highest index, up to `top`, at which both chains have the same block. Where a node keeps several blocks at an index
    /// it compares one of them only: what it denies is looked at before it is believed.
    pub async fn common_ancestor(&self, lead: &Remote, top: u64) -> Result<Option<u64>, Setback> {
        let failed = |fault| Setback::Peer(lead.peer, fault);
        let mut locator = locator::Locator::new(top);
        let found = loop {
            let indexes = match locator.next() {
                locator::Step::Found(index) => break index,
                locator::Step::Ask(indexes) => indexes,
            };
            let ours = self.store.canonical_hashes(&indexes).await?;
            if ours.len() != indexes.len() {
                return Err(Setback::Moved);
            }
            let mut points: Vec<_> = ours.into_iter().map(|(index, hash)| CheckPoint { index, hash }).collect();
            points.sort_unstable_by_key(|point| point.index);
            locator.answer(lead.highest_match(points).await.map_err(failed)?);
        };
        if found == Some(top) {
            return Ok(found);
        }
        let mut next = found.map_or(0, |found| found + 1);
        for _ in 0..MAX_LOOKS {
            let theirs = lead.after(next).await.map_err(failed)?;
            let indexes: Vec<_> = theirs.iter().map(|block| block.index).filter(|index| *index <= top).collect();
            let ours = self.store.canonical_hashes(&indexes).await?;
            let shared =
                |index| theirs.iter().any(|block| block.index == index && ours.get(&index) == Some(&block.hash));
            let highest = indexes.into_iter().max();
            while shared(next) {
                next += 1;
            }
            // All that it has there is shared: more may be.
            if next > top || highest.is_none_or(|highest| next <= highest) {
                break;
            }
        }
        Ok(next.checked_sub(1))
    }

    /// The highest block of ours that the way down from a peer's blocks above `found` meets. A node that keeps several blocks
    /// at an index may affirm one that the rest of its chain doesn't stand on.
    async fn linked_ancestor(&self, lead: &Remote, claim: &Claim, found: Option<u64>) -> Result<Option<u64>, Setback> {
        let failed = |fault| Setback::Peer(lead.peer, fault);
        let start = found.map_or(0, |found| found + 1);
        let mut hash = claim.hash.clone();
        if start <= claim.height {
            let above = lead.after(start).await.map_err(failed)?;
            let ours = found.map(|found| vec![found]).unwrap_or_default();
            let ours = self.store.canonical_hashes(&ours).await?.into_values().next();
            let mut above: Vec<_> = above.into_iter().filter(|block| block.index == start).collect();
            // One that stands on the affirmed block has led to the doubt.
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
                None => return Err(failed(Fault::Missing(start))),
            }
        }
        Err(failed(Fault::Tangled(start)))
    }

    /// The setback that a peer's genesis is not ours.
    pub async fn other_genesis(&self, remote: &Remote) -> Result<Setback, Setback> {
        let ours = self.store.canonical_hashes(&[0]).await?.remove(&0).ok_or(Setback::Moved)?;
        let theirs = remote.hashes_at(0).await.map_err(|fault| Setback::Peer(remote.peer, fault))?;
        // A peer's own word, as it is told to everybody: no longer than a hash.
        let theirs = theirs.into_iter().next().unwrap_or_default();
        let theirs = theirs.chars().filter(char::is_ascii_graphic).take(64).collect();
        Ok(Setback::OtherGenesis { peer: remote.peer, theirs, ours })
    }
}

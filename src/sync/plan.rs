//! What to fetch: whose chain, from which common ancestor on, aside or straight on top of ours.

use super::{
    remote::{Claim, Remote},
    run::Run,
    setback::Setback,
};
use crate::{
    chain::{ChainEnd, CumulativeDifficulty, Network, Position, fork_choice::Weight, locator},
    protocol::query::CheckPoint,
    store::{BlockStore, ChainState, Stage, StoreError},
};

/// A stretch of a peer's chain that is to be fetched.
#[derive(Debug, Clone)]
pub(super) struct Plan {
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
}

impl Plan {
    /// Whether it leads to the claimed tip. Another one goes on behind its end if not.
    pub fn is_last(&self) -> bool {
        self.to >= self.claim.height
    }
}

/// Most blocks of one plan: what a peer claims shall not size our lists. A longer stretch takes several.
pub(super) const MAX_BLOCKS: u64 = 1_000_000;

/// The weight of the chain in the store.
pub(super) fn weight(state: &ChainState) -> Weight {
    let tip_hash = state.tip.as_ref().map(|tip| tip.hash.clone()).unwrap_or_default();
    Weight { work: state.cumulative_difficulty, length: state.length, tip_hash }
}

/// Whether a claim, if it is true, beats the chain in the store. A claim without work counts by its length; what its
/// blocks weigh shows when they are there.
pub(super) fn is_better(claim: &Claim, state: &ChainState) -> bool {
    match claim.work {
        Some(work) => {
            let claimed = Weight { work, length: claim.length, tip_hash: claim.hash.clone() };
            state.tip.is_none() || claimed > weight(state)
        }
        None => claim.length > state.length,
    }
}

/// Index of a checkpoint of the network's that our chain holds above the block at `ancestor`. A branch that leaves ours
/// there can't hold it, however much the branch weighs before it comes so far.
///
/// # Errors
/// The store's.
pub(super) async fn checkpoint_above(
    store: &dyn BlockStore,
    network: &Network,
    ancestor: u64,
) -> Result<Option<u64>, StoreError> {
    let above: Vec<_> = network.checkpoints.iter().filter(|point| point.index > ancestor).collect();
    if above.is_empty() {
        return Ok(None);
    }
    let indexes: Vec<_> = above.iter().map(|point| point.index).collect();
    let ours = store.canonical_hashes(&indexes).await?;
    // One that was named after our chain had come so far may be missing from it: then another chain is what we need.
    Ok(above.into_iter().find(|point| ours.get(&point.index) == Some(&point.hash)).map(|point| point.index))
}

impl Run {
    /// Index of the last block of a plan that begins at `from`.
    fn end(&self, from: u64, claim: &Claim) -> u64 {
        claim.height.min(from.saturating_add(self.plan_blocks - 1))
    }

    /// Plans the way to a peer's claimed tip; `None` where there is nothing to fetch, because its chain is part of ours.
    ///
    /// # Errors
    /// The peer's fault, that its genesis is another one, that it lacks a checkpoint, that it claims more work than its
    /// chain has, or the store's.
    pub async fn plan(&self, lead: &Remote, claim: Claim) -> Result<Option<Plan>, Setback> {
        let state = self.store.state().await?;
        let staged = self.store.staged().await?;
        let Some(tip) = &state.tip else {
            self.drop_stage(staged).await?;
            let (to, work) = (self.end(0, &claim), CumulativeDifficulty::default());
            return Ok(Some(Plan { claim, parent: None, ancestor: None, aside: false, work, from: 0, to }));
        };
        let shared = self.common_ancestor(lead, tip.index.min(claim.height)).await?;
        let Some(ancestor) = shared else {
            return Err(self.other_genesis(lead).await?);
        };
        if ancestor == claim.height {
            let verified = self.store.work_at(ancestor).await?.unwrap_or_default();
            self.p2p.note_work(lead.peer, verified);
            let ours = self.store.canonical_hashes(&[ancestor]).await?.remove(&ancestor);
            return match (ours.as_ref() == Some(&claim.hash), claim.work.is_some_and(|claimed| claimed > verified)) {
                (true, true) => Err(Setback::FalseClaim(lead.peer)),
                (true, false) => Ok(None),
                // It has reorganised since it made the claim.
                (false, _) => Err(Setback::Seam { peer: lead.peer, before: None }),
            };
        }
        if let Some(index) = checkpoint_above(&*self.store, &self.network, ancestor).await? {
            return Err(Setback::Checkpoint { peer: lead.peer, index });
        }
        let aside = ancestor != tip.index;
        let numbering = self.network.epoch_numbering;
        let (Some(parent), Some(work)) =
            (self.store.chain_end(ancestor, numbering).await?, self.store.work_at(ancestor).await?)
        else {
            return Err(Setback::Moved);
        };
        let shared = Position { index: parent.index, hash: parent.hash.clone() };
        let mut plan = Plan {
            from: parent.index + 1,
            to: self.end(parent.index + 1, &claim),
            claim,
            parent: Some(parent),
            ancestor: Some(shared),
            aside,
            work,
        };
        if let Some(staged) = staged {
            if aside && self.continues(&plan, &staged, lead).await? {
                plan.from = staged.end.index + 1;
                plan.to = self.end(plan.from, &plan.claim);
                plan.work = staged.work;
                plan.parent = Some(self.store.staged_end(numbering).await?.ok_or(Setback::Moved)?);
            } else {
                self.drop_stage(Some(staged)).await?;
            }
        }
        Ok(Some(plan))
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

    /// The highest index, up to `top`, at which both chains have the same block.
    async fn common_ancestor(&self, lead: &Remote, top: u64) -> Result<Option<u64>, Setback> {
        let mut locator = locator::Locator::new(top);
        loop {
            let indexes = match locator.next() {
                locator::Step::Found(index) => return Ok(index),
                locator::Step::Ask(indexes) => indexes,
            };
            let ours = self.store.canonical_hashes(&indexes).await?;
            if ours.len() != indexes.len() {
                return Err(Setback::Moved);
            }
            let mut points: Vec<_> = ours.into_iter().map(|(index, hash)| CheckPoint { index, hash }).collect();
            points.sort_unstable_by_key(|point| point.index);
            let highest = lead.highest_match(points).await.map_err(|fault| Setback::Peer(lead.peer, fault))?;
            locator.answer(highest);
        }
    }

    /// Our own genesis.
    pub async fn genesis(&self) -> Result<CheckPoint, Setback> {
        let hash = self.store.canonical_hashes(&[0]).await?.remove(&0).ok_or(Setback::Moved)?;
        Ok(CheckPoint { index: 0, hash })
    }

    /// The setback that a peer's genesis is not ours.
    pub async fn other_genesis(&self, remote: &Remote) -> Result<Setback, Setback> {
        let theirs = remote.at(0).await.map_err(|fault| Setback::Peer(remote.peer, fault))?;
        // A peer's own word, as it is told to everybody: no longer than a hash.
        let theirs = theirs.map(|block| block.hash).unwrap_or_default();
        let theirs = theirs.chars().filter(char::is_ascii_graphic).take(64).collect();
        Ok(Setback::OtherGenesis { peer: remote.peer, theirs, ours: self.genesis().await?.hash })
    }
}

//! What a peer claims of its chain, and where the tip of one is that does not tell.

use super::{Claim, Remote, parse};
use crate::{
    protocol::{Query, answer::ChainInfoData},
    sync::fault::Fault,
};

/// How much further each step reaches than the one before on the way to the tip of such a peer.
const PROBE_STRIDE: u64 = 8;

impl Remote {
    /// What it claims; `None` where its chain is empty. `hint` is the likely length of its chain: where to look for the
    /// tip of a peer of the first release.
    pub(in crate::sync) async fn claim(&self, hint: u64) -> Result<Option<Claim>, Fault> {
        let query = Query::ChainInfo { local_block_hashes: Vec::new(), include_blocks: false, from_index: None };
        let claim = self.ask(&query, |data| {
            let info: ChainInfoData = parse(data)?;
            let work = info.cumulative_difficulty.parse().map_err(|error| format!("cumulative_difficulty: {error}"))?;
            let tip = info.tip_hash.filter(|_| info.chain_length > 0);
            let (length, height) = (info.chain_length, info.chain_height);
            Ok(tip.map(|hash| Claim { work: Some(work), length, claimed_height: height, height, hash, held: false }))
        });
        match claim.await {
            Err(fault) if fault.is_unknown_path() => self.probe(hint).await,
            claim => claim,
        }
    }

    /// Finds the tip of a peer that does not tell: exponentially from a chain of length `hint` on, then by bisection.
    /// Most peers have one of just that length or a little more: that takes few round trips.
    async fn probe(&self, hint: u64) -> Result<Option<Claim>, Fault> {
        let last = hint.saturating_sub(1);
        let (mut best, mut beyond) = match self.at(last).await? {
            Some(block) => (block, None),
            None => match self.at(0).await? {
                Some(first) => (first, Some(last.max(1))),
                None => return Ok(None),
            },
        };
        let mut step = 1_u64;
        while beyond.is_none() {
            let index = best.index.saturating_add(step);
            match self.at(index).await? {
                Some(block) if block.index <= best.index => return Err(Fault::broken("a chain without end".into())),
                Some(block) => (best, step) = (block, step.saturating_mul(PROBE_STRIDE)),
                None => beyond = Some(index),
            }
        }
        let mut beyond = beyond.unwrap_or(u64::MAX);
        while beyond - best.index > 1 {
            let middle = best.index + (beyond - best.index) / 2;
            match self.at(middle).await? {
                Some(block) => best = block,
                None => beyond = middle,
            }
        }
        let (height, hash) = (best.index, best.hash);
        let length = height.saturating_add(1);
        Ok(Some(Claim { work: None, length, claimed_height: height, height, hash, held: false }))
    }

    /// Puts the tip's real index into a claim: how many blocks a node keeps says little of it.
    pub(in crate::sync) async fn locate(&self, claim: &mut Claim) -> Result<(), Fault> {
        // Of a peer of the first release it was found by looking.
        if claim.work.is_some() {
            claim.height = self.get(&claim.hash).await?.ok_or(Fault::NoTip)?.index;
        }
        Ok(())
    }
}

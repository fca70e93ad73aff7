//! Where a branch that is being fetched really leaves our chain.

use std::collections::HashMap;

use super::{pipeline::Outcome, run::Run, setback::Setback};
use crate::chain::{MinerBlock, Position, VerifiedBlocks};

impl Run {
    /// Takes blocks of a branch out that are on our chain: where it leaves ours was its teller's word. Whether the rest is
    /// still to be kept aside.
    pub(super) async fn shared(
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

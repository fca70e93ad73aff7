//! Epochs, and what follows from one.

use std::collections::HashSet;

use super::{
    MAX_EPOCHS, Viewed, Views, max_blocks,
    model::{self, EPOCH_DEFINITION, EpochDetail, EpochPage, EpochSummary, Nomination, Validator},
};
use crate::{
    chain::{BLOCKS_PER_EPOCH, CumulativeDifficulty, Election, MinerBlock, election},
    protocol::{Code, Failure},
    store::{ChainState, Snapshot},
};

/// Hashes that difficulty 1 takes on average: the network's status page counts so.
const HASHES_PER_DIFFICULTY: f64 = 256.0;

impl Views {
    /// Epochs below `before`, or from the tip's on, newest first.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn epochs(
        &self,
        known: &ChainState,
        before: Option<u64>,
        limit: u64,
    ) -> Result<Viewed<EpochPage>, Failure> {
        let newest = known.tip.as_ref().and_then(|tip| election::epoch_of(tip.index));
        let top =
            newest.and_then(|tip| before.map_or(Some(tip), |before| before.checked_sub(1)).map(|top| top.min(tip)));
        let Some(top) = top else {
            let data = EpochPage { epochs: Vec::new(), next_before: None, definition: EPOCH_DEFINITION };
            return Ok(Viewed { snapshot: known.snapshot(None), settled: false, data });
        };
        let first = (top + 1).saturating_sub(limit.clamp(1, MAX_EPOCHS).min(epochs_within(known)));
        let (snapshot, blocks) = self.epochs_of(first, top).await?;
        let mut epochs: Vec<_> = (blocks.chunk_by(|a, b| election::epoch_of(a.index) == election::epoch_of(b.index)))
            .filter_map(|blocks| self.summary(&snapshot, blocks))
            .collect();
        epochs.reverse();
        let settled = before.is_some() && self.settled(&snapshot, *election::indexes(top).end());
        let data =
            EpochPage { epochs, next_before: Some(first).filter(|first| *first > 0), definition: EPOCH_DEFINITION };
        Ok(Viewed { snapshot, settled, data })
    }

    /// An epoch with what follows from it.
    ///
    /// # Errors
    /// [`Code::BlockNotFound`] if none of its blocks is there, [`Code::StoreUnavailable`].
    pub async fn epoch(&self, epoch: u64) -> Result<Viewed<EpochDetail>, Failure> {
        let (snapshot, blocks) = self.epochs_of(epoch, epoch).await?;
        let none = || Failure::with_detail(Code::BlockNotFound, format!("no block of epoch {epoch} is known"));
        let summary = self.summary(&snapshot, &blocks).ok_or_else(none)?;
        let election = summary.complete.then(|| elected(epoch, &blocks, !summary.is_final));
        let positions = blocks.into_iter().map(Nomination::from).collect();
        let settled = summary.is_final;
        Ok(Viewed {
            snapshot,
            settled,
            data: EpochDetail { summary, positions, election, definition: EPOCH_DEFINITION },
        })
    }

    /// The blocks of the epochs from `first` to `last`, both included.
    pub(super) async fn epochs_of(&self, first: u64, last: u64) -> Result<(Snapshot, Vec<MinerBlock>), Failure> {
        self.range(*election::indexes(first).start(), *election::indexes(last).end()).await
    }

    /// The figures of an epoch with these blocks; `None` if there are none.
    fn summary(&self, chain: &Snapshot, blocks: &[MinerBlock]) -> Option<EpochSummary> {
        let (first, last) = (blocks.first()?, blocks.last()?);
        let epoch = election::epoch_of(first.index)?;
        let last_index = *election::indexes(epoch).end();
        let work: CumulativeDifficulty = blocks.iter().map(|block| block.actualized_difficulty).sum();
        let nominees: HashSet<&str> = blocks.iter().map(|block| block.nominated_peer_id.as_str()).collect();
        Some(EpochSummary {
            epoch,
            first_index: *election::indexes(epoch).start(),
            last_index,
            blocks: blocks.len() as u64,
            complete: blocks.len() as u64 == BLOCKS_PER_EPOCH,
            is_final: self.settled(chain, last_index),
            difficulty: last.target_difficulty.to_string(),
            work: work.to_string(),
            mean_block_time: mean_block_time(blocks),
            hash_rate: hash_rate(blocks),
            first_time: first.timestamp,
            last_time: last.timestamp,
            nominees: nominees.len() as u64,
        })
    }
}

impl From<MinerBlock> for Nomination {
    fn from(block: MinerBlock) -> Self {
        let MinerBlock { index, hash, timestamp, nominated_peer_id: nominee, .. } = block;
        Self { index, hash, timestamp, nominee }
    }
}

/// Most epochs that are read at once: so many of the chain's longest blocks fit an answer.
pub(super) fn epochs_within(known: &ChainState) -> u64 {
    (max_blocks(known) / BLOCKS_PER_EPOCH).max(1)
}

/// What follows from the blocks of a complete epoch.
fn elected(epoch: u64, blocks: &[MinerBlock], provisional: bool) -> model::Election {
    let Election { seed, order, validators, alternates } = Election::of(blocks);
    model::Election {
        seed: seed.to_string(),
        provisional,
        serves_epoch: epoch.saturating_add(election::EPOCHS_UNTIL_SERVICE),
        shuffled: order.into_iter().map(|position| blocks[position].index).collect(),
        validators: validators.into_iter().map(Validator::from).collect(),
        alternates: alternates.into_iter().map(Validator::from).collect(),
    }
}

impl From<(String, u64)> for Validator {
    fn from((peer, stake): (String, u64)) -> Self {
        Self { peer, stake }
    }
}

/// Mean seconds from one of these blocks to the next; `None` for fewer than two.
pub(super) fn mean_block_time(blocks: &[MinerBlock]) -> Option<f64> {
    let (first, last) = (blocks.first()?, blocks.last()?);
    let steps = (blocks.len() - 1) as f64;
    let seconds = (i128::from(last.timestamp) - i128::from(first.timestamp)) as f64;
    (steps > 0.0).then(|| seconds / steps)
}

/// Hashes per second that these blocks took, as the network's status page has it: mean target difficulty times 256,
/// divided by the mean block time. `None` where that is not positive.
pub(super) fn hash_rate(blocks: &[MinerBlock]) -> Option<f64> {
    let seconds = mean_block_time(blocks).filter(|seconds| *seconds > 0.0)?;
    let total: f64 = blocks.iter().map(|block| block.target_difficulty as f64).sum();
    Some(total / blocks.len() as f64 * HASHES_PER_DIFFICULTY / seconds)
}

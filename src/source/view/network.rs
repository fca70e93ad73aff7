//! The network's figures: hash rate, difficulty, block times, progress of the epoch, its validators.

use super::{
    Viewed, Views,
    epochs::{hash_rate, mean_block_time},
    model::{EPOCH_DEFINITION, EpochProgress, NetworkFigures, Validator},
};
use crate::{
    chain::{BLOCKS_PER_EPOCH, Election, Enforcement, MinerBlock, Position, election, schedule::next_difficulty},
    protocol::Failure,
    source::store_answers::store_failure,
    store::ChainState,
};

/// Blocks that the hash rate and the mean block time are of: as many as the network's status page takes.
const RECENT_BLOCKS: usize = 10;

impl Views {
    /// The network's figures.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`](crate::protocol::Code::StoreUnavailable).
    pub async fn network(&self, known: &ChainState) -> Result<Viewed<NetworkFigures>, Failure> {
        let viewed = self.network_of(known).await?;
        match viewed.snapshot.version > known.version {
            // The chain has changed since: the figures are of the tip that the snapshot names.
            true => self.network_of(&self.store.state().await.map_err(store_failure)?).await,
            false => Ok(viewed),
        }
    }

    async fn network_of(&self, known: &ChainState) -> Result<Viewed<NetworkFigures>, Failure> {
        let tip = known.tip.as_ref().map_or(0, |tip| tip.index);
        let epoch = election::epoch_of(tip);
        // Of the tip's epoch, and of the one that its validators come from.
        let electing = epoch.and_then(|epoch| epoch.checked_sub(election::EPOCHS_UNTIL_SERVICE));
        let first = *election::indexes(electing.unwrap_or(0)).start();
        let (snapshot, blocks) = self.range(first.min((tip + 1).saturating_sub(RECENT_BLOCKS as u64)), tip).await?;
        let of_epoch = |epoch: u64| -> Vec<MinerBlock> {
            blocks.iter().filter(|block| election::epoch_of(block.index) == Some(epoch)).cloned().collect()
        };
        // A genesis without a time says nothing of how long the next block took.
        let timed = match blocks.as_slice() {
            [first, rest @ ..] if first.is_genesis() && first.timestamp == 0 => rest,
            all => all,
        };
        let recent = &timed[timed.len().saturating_sub(RECENT_BLOCKS)..];
        let block_time = mean_block_time(recent);
        let last = blocks.last();
        let validators = electing.map(of_epoch).filter(|blocks| blocks.len() as u64 == BLOCKS_PER_EPOCH);
        let data = NetworkFigures {
            network: self.network.name.clone(),
            length: known.length,
            work: known.cumulative_difficulty.to_string(),
            tip: last.map(Position::from),
            tip_time: last.map(|last| last.timestamp),
            difficulty: last.map(|last| last.target_difficulty.to_string()),
            hash_rate: hash_rate(recent),
            target_block_time: self.network.target_block_time,
            mean_block_time: block_time,
            epoch: epoch.and_then(|epoch| self.progress(epoch, &of_epoch(epoch), block_time)),
            validators: validators
                .map(|blocks| Election::of(&blocks).validators.into_iter().map(Validator::from).collect()),
            definition: EPOCH_DEFINITION,
        };
        Ok(Viewed { snapshot, settled: false, data })
    }

    fn progress(&self, epoch: u64, blocks: &[MinerBlock], block_time: Option<f64>) -> Option<EpochProgress> {
        let (first, last, count) = (blocks.first()?, blocks.last()?, blocks.len() as u64);
        let left = BLOCKS_PER_EPOCH.saturating_sub(count);
        // The whole epoch at the pace of the part that is there.
        let whole = mean_block_time(blocks).map(|seconds| seconds * (BLOCKS_PER_EPOCH - 1) as f64);
        let scheduled = self.network.difficulty_schedule != Enforcement::Off;
        let next_difficulty = whole.filter(|_| scheduled).map(|seconds| {
            let end = first.timestamp.saturating_add(seconds.round() as i64);
            next_difficulty(last.target_difficulty, first.timestamp, end, self.network.target_block_time).to_string()
        });
        Some(EpochProgress {
            epoch,
            blocks: count,
            of: BLOCKS_PER_EPOCH,
            seconds_left: block_time.map(|seconds| (seconds * left as f64).max(0.0)),
            next_difficulty,
        })
    }
}

//! Places in a chain: what a block that follows must refer to.

use serde::{Deserialize, Serialize};

use super::{
    block::{Header, MinerBlock},
    epoch::EpochNumbering,
};

/// An index and the hash of the block there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Index of the block.
    pub index: u64,
    /// Hash of the block.
    pub hash: String,
}

impl From<&MinerBlock> for Position {
    fn from(block: &MinerBlock) -> Self {
        Self { index: block.index, hash: block.hash.clone() }
    }
}

impl From<&ChainEnd> for Position {
    fn from(end: &ChainEnd) -> Self {
        Self { index: end.index, hash: end.hash.clone() }
    }
}

/// The end of a chain that more blocks are to follow, and what the difficulty schedule must know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEnd {
    /// Index of the last block.
    pub index: u64,
    /// Hash of the last block.
    pub hash: String,
    /// When mining of the last block began, unix seconds.
    pub timestamp: i64,
    /// Target difficulty of the last block.
    pub target_difficulty: u128,
    /// Timestamp of the first block of the last block's epoch, which may be itself; genesis has its own.
    pub epoch_started: i64,
}

impl ChainEnd {
    /// The end of a chain whose last block is `last`, in the epoch that begins with `first_of_epoch`. For genesis that
    /// is genesis, in either numbering.
    pub fn new(last: &MinerBlock, first_of_epoch: &MinerBlock) -> Self {
        Self {
            index: last.index,
            hash: last.hash.clone(),
            timestamp: last.timestamp,
            target_difficulty: last.target_difficulty,
            epoch_started: first_of_epoch.timestamp,
        }
    }

    /// The end after `block`, which follows `parent`.
    pub(super) fn after(parent: Option<&Self>, block: &Header, numbering: EpochNumbering) -> Self {
        let begins = numbering.first_index(numbering.epoch(block.index)) >= block.index;
        let epoch_started = parent.filter(|_| !begins).map_or(block.timestamp, |parent| parent.epoch_started);
        Self {
            index: block.index,
            hash: block.hash.clone(),
            timestamp: block.timestamp,
            target_difficulty: block.target_difficulty,
            epoch_started,
        }
    }
}

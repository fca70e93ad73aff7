//! Epochs: runs of 40 blocks, and the two ways in which nodes number them.

use serde::{Deserialize, Serialize};

/// Blocks in an epoch, the unit in which the network changes its difficulty.
pub const BLOCKS_PER_EPOCH: u64 = 40;

/// How a network numbers its epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochNumbering {
    /// `index / 40`: the network's first release.
    Plain,
    /// Genesis precedes epoch 0 but is counted to it: `(index - 1) / 40`, so that epoch 0 has 41 members.
    #[default]
    GenesisFirst,
}

impl EpochNumbering {
    /// The epoch of the block at `index`.
    pub fn epoch(self, index: u64) -> u64 {
        match self {
            Self::Plain => index / BLOCKS_PER_EPOCH,
            Self::GenesisFirst => index.saturating_sub(1) / BLOCKS_PER_EPOCH,
        }
    }

    /// Index of the block with which `epoch` begins. Genesis, where it is first, precedes epoch 0. Saturates.
    pub fn first_index(self, epoch: u64) -> u64 {
        let first = epoch.saturating_mul(BLOCKS_PER_EPOCH);
        match self {
            Self::Plain => first,
            Self::GenesisFirst => first.saturating_add(1),
        }
    }
}

//! Members of a block that follow from others: computed when a block is read, whatever was sent.
//!
//! The network's nodes send them in several ways, and all of them are honest: a block that came by gossip has no data
//! hash, and an epoch that is numbered otherwise than at its miner.

use std::ops::AddAssign;

use super::{Level, VerifiedBlocks, Verifier, VerifyError};
use crate::chain::{block::MinerBlock, difficulty::actualized, position::ChainEnd};

/// How many blocks were sent with a derived member that is there and differs from the computed one, by member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Differences {
    /// `data_hash`.
    pub data_hash: u64,
    /// `epoch`.
    pub epoch: u64,
    /// `actualized_difficulty`.
    pub actualized_difficulty: u64,
}

impl Differences {
    /// The members by name, each with its count.
    pub fn by_member(&self) -> [(&'static str, u64); 3] {
        [("data_hash", self.data_hash), ("epoch", self.epoch), ("actualized_difficulty", self.actualized_difficulty)]
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.data_hash + self.epoch + self.actualized_difficulty
    }
}

impl AddAssign for Differences {
    fn add_assign(&mut self, other: Self) {
        self.data_hash += other.data_hash;
        self.epoch += other.epoch;
        self.actualized_difficulty += other.actualized_difficulty;
    }
}

impl Verifier {
    /// Computes the derived members of blocks that were just read, as [`derive`](Self::derive), and
    /// [verifies](Self::verify) the blocks. Blocking.
    ///
    /// # Errors
    /// Those of [`verify`](Self::verify), beside the differences.
    pub fn derive_and_verify(
        &self,
        parent: Option<&ChainEnd>,
        mut blocks: Vec<MinerBlock>,
    ) -> (Differences, Result<VerifiedBlocks, VerifyError>) {
        (self.derive(&mut blocks), self.apply(parent, blocks, true))
    }

    /// Computes the derived members of blocks that were just read. From [`Level::Linked`] on all of them; at
    /// [`Level::None`], where nothing is known of how the blocks were made, only a data hash that is empty.
    pub fn derive(&self, blocks: &mut [MinerBlock]) -> Differences {
        let mut differences = Differences::default();
        for block in blocks {
            let data_hash = block.expected_data_hash();
            if block.data_hash.is_empty() {
                block.data_hash = data_hash;
            } else if self.level >= Level::Linked && block.data_hash != data_hash {
                differences.data_hash += 1;
                block.data_hash = data_hash;
            }
            if self.level < Level::Linked {
                continue;
            }
            let epoch = self.network.epoch_numbering.epoch(block.index);
            differences.epoch += u64::from(block.epoch != epoch);
            block.epoch = epoch;
            let worth = actualized(&block.hash, block.target_difficulty);
            differences.actualized_difficulty += u64::from(block.actualized_difficulty != worth);
            block.actualized_difficulty = worth;
        }
        differences
    }
}

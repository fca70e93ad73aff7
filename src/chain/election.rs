//! Who becomes a validator: the nominees of a complete epoch, shuffled by a seed that its miners found together.
//!
//! The definition is that of the network's mining library: an epoch has the blocks 40E+1 to 40E+40, genesis belongs to
//! none. The network's status page and its validator code count slightly different blocks to an epoch.

use std::{collections::HashMap, ops::RangeInclusive};

use sha2::{Digest, Sha256};

use super::{block::MinerBlock, epoch::BLOCKS_PER_EPOCH};

/// Most validators that an epoch's nominees give (the network's `validator_selection.rs`).
pub const MAX_VALIDATORS: usize = 27;

/// Most alternates, from the end of the shuffled nominees.
pub const MAX_ALTERNATES: usize = 13;

/// Epochs from the nominations to the service: epoch N is served by the nominees of N-2.
pub const EPOCHS_UNTIL_SERVICE: u64 = 2;

/// Indexes of the blocks of `epoch`. Saturates.
pub fn indexes(epoch: u64) -> RangeInclusive<u64> {
    let before = epoch.saturating_mul(BLOCKS_PER_EPOCH);
    before.saturating_add(1)..=before.saturating_add(BLOCKS_PER_EPOCH)
}

/// The epoch of the block at `index`; `None` for genesis.
pub fn epoch_of(index: u64) -> Option<u64> {
    index.checked_sub(1).map(|before| before / BLOCKS_PER_EPOCH)
}

/// What follows from the blocks of an epoch, given by ascending index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Election {
    /// XOR of the low 64 bits of the nonces.
    pub seed: u64,
    /// Positions in the epoch, from 0, in shuffled order.
    pub order: Vec<usize>,
    /// The first different nominees in shuffled order, at most [`MAX_VALIDATORS`], with the number of blocks that
    /// nominate each.
    pub validators: Vec<(String, u64)>,
    /// The last [`MAX_ALTERNATES`] different nominees in shuffled order, if there are more than [`MAX_VALIDATORS`].
    /// Some of them may be validators too, as in the network's own code.
    pub alternates: Vec<(String, u64)>,
}

impl Election {
    /// The election by these blocks.
    pub fn of(blocks: &[MinerBlock]) -> Self {
        let seed = blocks.iter().fold(0, |seed, block| seed ^ block.nonce as u64);
        let order = shuffled(seed, blocks.len());
        let mut stakes: HashMap<&str, u64> = HashMap::new();
        for block in blocks {
            *stakes.entry(&block.nominated_peer_id).or_default() += 1;
        }
        let mut nominees: Vec<(String, u64)> = Vec::with_capacity(stakes.len());
        for position in &order {
            // Removed when it is first met: the rest are repeats.
            if let Some((peer, stake)) = stakes.remove_entry(blocks[*position].nominated_peer_id.as_str()) {
                nominees.push((peer.to_owned(), stake));
            }
        }
        let alternates = match nominees.len() > MAX_VALIDATORS {
            true => nominees[nominees.len() - MAX_ALTERNATES..].to_vec(),
            false => Vec::new(),
        };
        nominees.truncate(MAX_VALIDATORS);
        Self { seed, order, validators: nominees, alternates }
    }
}

/// The numbers from 0 to `count - 1` in the order of a Fisher-Yates shuffle whose random numbers come from SHA-256,
/// beginning with `seed`.
pub fn shuffled(seed: u64, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = seed;
    for last in (1..count).rev() {
        let digest = Sha256::digest(state.to_le_bytes());
        let word = |at: usize| digest[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        state = word(0);
        // A remainder of at most `last` fits.
        order.swap(last, (word(8) % (last as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Vectors of the network's own shuffle.
    #[rstest]
    #[case(0, &[4, 1, 0, 2, 3])]
    #[case(1, &[6, 5, 2, 4, 3, 0, 7, 9, 8, 1])]
    #[case(42, &[3, 6, 9, 8, 2, 5, 4, 7, 0, 1])]
    #[case(12345, &[4, 1, 8, 0, 6, 7, 3, 9, 2, 5])]
    #[case(u64::MAX, &[1, 0, 5, 3, 2, 7, 4, 6])]
    #[case(7, &[])]
    #[case(7, &[0])]
    fn the_networks_vectors(#[case] seed: u64, #[case] order: &[usize]) {
        assert_eq!(shuffled(seed, order.len()), order);
    }

    #[test]
    fn the_first_epoch_of_the_bundled_chain() {
        let text = include_str!("../../tests/fixtures/randomx-chain-61.ndjson");
        let blocks: Vec<MinerBlock> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let epoch = &blocks[1..=40];
        let Election { seed, order, validators, alternates } = Election::of(epoch);
        let indexes: Vec<u64> = order.iter().map(|position| epoch[*position].index).collect();
        let expected = [
            35, 14, 18, 40, 19, 24, 4, 17, 26, 1, 8, 22, 28, 13, 29, 3, 20, 36, 34, 10, 39, 21, 27, 15, 37, 5, 12, 30,
            25, 32, 2, 31, 23, 9, 11, 16, 38, 6, 33, 7,
        ];
        assert_eq!((seed, indexes.as_slice()), (1480, expected.as_slice()));
        assert_eq!(validators.iter().map(|(_, stake)| stake).sum::<u64>(), 40);
        assert_eq!(validators[0].0, blocks[35].nominated_peer_id);
        assert!(alternates.is_empty());
    }

    #[test]
    fn alternates_come_from_the_end() {
        let block = |nonce: u64| MinerBlock {
            nominated_peer_id: format!("peer-{nonce}"),
            nonce: nonce.into(),
            ..MinerBlock::default()
        };
        for (different, alternates) in [(27, 0), (28, 13), (40, 13)] {
            let blocks: Vec<_> = (0..40).map(|nonce| block(nonce % different)).collect();
            let election = Election::of(&blocks);
            assert_eq!((election.validators.len(), election.alternates.len()), (27, alternates));
            let total: u64 = election.validators.iter().map(|(_, stake)| stake).sum();
            assert!(total <= 40 && election.validators.iter().all(|(_, stake)| *stake >= 1));
        }
    }

    #[test]
    fn an_epoch_begins_after_genesis() {
        assert_eq!((indexes(0), indexes(2)), (1..=40, 81..=120));
        assert_eq!([0, 1, 40, 41].map(epoch_of), [None, Some(0), Some(0), Some(1)]);
        assert_eq!(indexes(u64::MAX), u64::MAX..=u64::MAX);
    }
}

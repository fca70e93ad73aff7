//! How the network adjusts its difficulty: once an epoch, by the time that the epoch before took.

use ruint::aliases::U256;

use super::{epoch::BLOCKS_PER_EPOCH, network::Network, position::ChainEnd};

/// An exact quotient.
type Ratio = (u128, u128);

/// An epoch that takes less than the first ratio of its expected time multiplies the difficulty by the second.
const FASTER: [(Ratio, Ratio); 5] =
    [((1, 8), (8, 1)), ((1, 4), (4, 1)), ((1, 2), (2, 1)), ((3, 4), (3, 2)), ((9, 10), (11, 10))];

/// The same for an epoch that takes more.
const SLOWER: [(Ratio, Ratio); 3] = [((2, 1), (1, 2)), ((3, 2), (2, 3)), ((11, 10), (9, 10))];

/// The target difficulty of the epoch after one whose blocks had the target difficulty `current` and whose first and
/// last block have these timestamps (unix seconds). `target_block_time` is in seconds; an epoch should take 40 times
/// that, and counts as having taken at least a second. Rounded down, from 1 to 2^128 - 1.
pub fn next_difficulty(current: u128, first_timestamp: i64, last_timestamp: i64, target_block_time: u64) -> u128 {
    let actual = i128::from(last_timestamp) - i128::from(first_timestamp);
    let actual = actual.max(1).unsigned_abs();
    let expected = u128::from(BLOCKS_PER_EPOCH) * u128::from(target_block_time);
    // At most 68 bits each, so that nothing here overflows.
    let faster = FASTER.iter().find(|((numerator, denominator), _)| actual * denominator < expected * numerator);
    let slower = || SLOWER.iter().find(|((numerator, denominator), _)| actual * denominator > expected * numerator);
    match faster.or_else(slower) {
        None => current,
        Some((_, (numerator, denominator))) => {
            let adjusted = U256::from(current) * U256::from(*numerator) / U256::from(*denominator);
            adjusted.saturating_to::<u128>().max(1)
        }
    }
}

impl Network {
    /// The target difficulty that the schedule gives the block after `parent`, or genesis without one: the initial one
    /// for genesis and epoch 0, then [`next_difficulty`] of the epoch before.
    pub fn next_difficulty(&self, parent: Option<&ChainEnd>) -> u128 {
        let Some(parent) = parent else { return self.initial_difficulty };
        let index = parent.index.saturating_add(1);
        match self.epoch_numbering.epoch(index) {
            0 => self.initial_difficulty,
            epoch if self.epoch_numbering.first_index(epoch) == index => next_difficulty(
                parent.target_difficulty,
                parent.epoch_started,
                parent.timestamp,
                self.target_block_time,
            ),
            _ => parent.target_difficulty,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::chain::EpochNumbering;

    /// At 60 s a block, an epoch should take 2400 s.
    #[rstest]
    #[case::no_time(0, 8000)]
    #[case::backwards(-5000, 8000)]
    #[case::below_an_eighth(299, 8000)]
    #[case::an_eighth(300, 4000)]
    #[case::below_a_quarter(599, 4000)]
    #[case::a_quarter(600, 2000)]
    #[case::below_a_half(1199, 2000)]
    #[case::a_half(1200, 1500)]
    #[case::below_three_quarters(1799, 1500)]
    #[case::three_quarters(1800, 1100)]
    #[case::below_nine_tenths(2159, 1100)]
    #[case::nine_tenths(2160, 1000)]
    #[case::as_expected(2400, 1000)]
    #[case::eleven_tenths(2640, 1000)]
    #[case::above_eleven_tenths(2641, 900)]
    #[case::one_and_a_half(3600, 900)]
    #[case::above_one_and_a_half(3601, 666)]
    #[case::twice(4800, 666)]
    #[case::above_twice(4801, 500)]
    #[case::ages(i64::MAX, 500)]
    fn an_epoch_of_so_many_seconds_gives(#[case] seconds: i64, #[case] difficulty: u128) {
        assert_eq!(next_difficulty(1000, 0, seconds, 60), difficulty);
        if let Some(last) = 1_700_000_000_i64.checked_add(seconds) {
            assert_eq!(next_difficulty(1000, 1_700_000_000, last, 60), difficulty, "only the difference counts");
        }
    }

    #[test]
    fn difficulties_stay_in_bounds() {
        assert_eq!(next_difficulty(1, 0, 4801, 60), 1);
        assert_eq!(next_difficulty(u128::MAX, 0, 1, 60), u128::MAX);
        assert_eq!(next_difficulty(u128::MAX, 0, 2641, 60), u128::MAX / 10 * 9 + u128::MAX % 10 * 9 / 10);
        assert_eq!(next_difficulty(1000, i64::MIN, i64::MAX, u64::MAX), 8000);
    }

    proptest! {
        #[test]
        fn any_epoch_has_a_next_difficulty(current in 1_u128.., first: i64, last: i64, time in 1_u64..) {
            let next = next_difficulty(current, first, last, time);
            prop_assert!(next >= 1 && next >= current / 2 && next <= current.saturating_mul(8));
        }
    }

    fn end(index: u64) -> ChainEnd {
        ChainEnd { index, hash: String::new(), timestamp: 1000, target_difficulty: 7, epoch_started: 999 }
    }

    #[rstest]
    #[case(EpochNumbering::GenesisFirst, 41)]
    #[case(EpochNumbering::Plain, 40)]
    fn difficulty_changes_with_the_epoch(#[case] epoch_numbering: EpochNumbering, #[case] first: u64) {
        let network =
            Network { epoch_numbering, initial_difficulty: 1000, target_block_time: 60, ..Network::default() };
        assert_eq!(network.next_difficulty(None), 1000);
        for index in 1..first {
            assert_eq!(network.next_difficulty(Some(&end(index - 1))), 1000);
        }
        for epoch in 0..3 {
            let first = first + 40 * epoch;
            assert_eq!(network.next_difficulty(Some(&end(first - 1))), 56);
            for index in first + 1..first + 40 {
                assert_eq!(network.next_difficulty(Some(&end(index - 1))), 7);
            }
        }
    }
}

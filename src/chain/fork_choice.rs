//! Which of two chains wins.

use std::cmp::Ordering;

use super::difficulty::CumulativeDifficulty;

/// What a chain weighs. The greater one wins: more work, then more blocks, then the lower tip hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// Sum of the actualized difficulties.
    pub work: CumulativeDifficulty,
    /// How many blocks.
    pub length: u64,
    /// Hash of the last block; hashes of 64 hex digits compare as their numbers do.
    pub tip_hash: String,
}

impl Ord for Weight {
    fn cmp(&self, other: &Self) -> Ordering {
        let heavier = self.work.cmp(&other.work).then(self.length.cmp(&other.length));
        heavier.then_with(|| other.tip_hash.cmp(&self.tip_hash))
    }
}

impl PartialOrd for Weight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_wins_then_length_then_the_lower_hash() {
        let weight = |work: u128, length, tip_hash: &str| Weight {
            work: CumulativeDifficulty::default() + work,
            length,
            tip_hash: tip_hash.into(),
        };
        let ascending = [
            weight(9, 100, "0a"),
            weight(10, 2, "0a"),
            weight(10, 3, "0b"),
            weight(10, 3, "0a"),
            weight(10, 4, "0b"),
            weight(11, 1, "ff"),
        ];
        for pair in ascending.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
        assert_eq!(ascending[0].cmp(&ascending[0].clone()), Ordering::Equal);
    }
}

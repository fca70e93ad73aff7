//! Difficulties, targets and work, in 256-bit integers.

use std::{fmt, iter::Sum, ops::Add, str::FromStr};

use ruint::aliases::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::encoding::is_decimal;

/// The network's easiest target, that of difficulty 1: `0xffff << 232`.
const MAX_TARGET: U256 = U256::from_limbs([0, 0, 0, 0xffff << (232 - 192)]);

/// The work of a chain: the sum of its blocks' actualized difficulties. A decimal string in JSON.
///
/// 2^64 blocks of 2^128 each fit; what would still not fit saturates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CumulativeDifficulty(U256);

impl Add<u128> for CumulativeDifficulty {
    type Output = Self;
    fn add(self, actualized_difficulty: u128) -> Self {
        Self(self.0.saturating_add(U256::from(actualized_difficulty)))
    }
}

impl Add for CumulativeDifficulty {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum<u128> for CumulativeDifficulty {
    fn sum<I: Iterator<Item = u128>>(difficulties: I) -> Self {
        difficulties.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for CumulativeDifficulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A text that is no [`CumulativeDifficulty`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a cumulative difficulty: decimal digits of a number below 2^256")]
pub struct ParseDifficultyError;

impl FromStr for CumulativeDifficulty {
    type Err = ParseDifficultyError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !is_decimal(text) {
            return Err(ParseDifficultyError);
        }
        U256::from_str_radix(text, 10).map(Self).map_err(|_| ParseDifficultyError)
    }
}

impl Serialize for CumulativeDifficulty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CumulativeDifficulty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The number that a hash must stay below to meet `difficulty`: `max_target / difficulty`. Difficulty 0, which no block
/// may have, gets target 0, which no hash meets.
pub fn target(difficulty: u128) -> U256 {
    MAX_TARGET.checked_div(U256::from(difficulty)).unwrap_or(U256::ZERO)
}

/// The difficulty that `hash` would have met: `max_target / hash`, at most 2^128 - 1, which a hash of zeros gets too. A
/// text that isn't hex counts as much as the target difficulty.
pub fn actualized(hash: &str, target_difficulty: u128) -> u128 {
    match parse_hash(hash) {
        Some(hash) => MAX_TARGET.checked_div(hash).map_or(u128::MAX, |quotient| quotient.saturating_to()),
        None => target_difficulty,
    }
}

/// Whether `hash` is hex and below the [`target`] of `difficulty`.
pub fn meets(hash: &str, difficulty: u128) -> bool {
    parse_hash(hash).is_some_and(|hash| hash < target(difficulty))
}

fn parse_hash(text: &str) -> Option<U256> {
    let mut bytes = [0; 32];
    // As nearly every hash is.
    if hex::decode_to_slice(text, &mut bytes).is_ok() {
        return Some(U256::from_be_bytes(bytes));
    }
    let hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex { U256::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::chain::encoding::sha256_hex;

    #[test]
    fn the_networks_sha256_vector() {
        let nonce = (0..).find(|nonce| meets(&sha256_hex(format!("data{nonce}").as_bytes()), 500));
        assert_eq!(nonce, Some(2401));
    }

    #[test]
    fn targets_shrink_with_the_difficulty() {
        assert_eq!(format!("{:064x}", target(1)), format!("00ffff{}", "0".repeat(58)));
        assert_eq!(target(2), target(1) / U256::from(2));
        assert_eq!(target(u128::MAX), MAX_TARGET / U256::from(u128::MAX));
        assert_eq!(target(0), U256::ZERO);
        assert!(!meets(&"0".repeat(64), 0), "nothing meets difficulty 0");
    }

    #[test]
    fn a_hash_at_the_target_is_too_high() {
        for difficulty in [1, 500, u128::MAX] {
            assert!(!meets(&format!("{:064x}", target(difficulty)), difficulty));
            assert!(meets(&format!("{:064x}", target(difficulty) - U256::from(1)), difficulty));
        }
    }

    #[rstest]
    #[case::above_the_easiest_target(&"f".repeat(64), 0)]
    #[case::at_it(&format!("{MAX_TARGET:064x}"), 1)]
    #[case::half_of_it(&format!("{:064x}", MAX_TARGET / U256::from(2)), 2)]
    #[case::saturated(&format!("{:064x}", 1), u128::MAX)]
    #[case::zero(&"0".repeat(64), u128::MAX)]
    #[case::not_hex("block_hash_000", 77)]
    #[case::separators_and_prefixes("0x_f", 77)]
    #[case::empty("", 77)]
    #[case::too_long(&"f".repeat(65), 77)]
    fn a_hash_is_worth(#[case] hash: &str, #[case] worth: u128) {
        assert_eq!(actualized(hash, 77), worth);
    }

    #[test]
    fn work_adds_up_beyond_128_bits() {
        let work = CumulativeDifficulty::default() + u128::MAX + u128::MAX;
        assert_eq!(work.to_string(), "680564733841876926926749214863536422910");
        assert_eq!(work.to_string().parse(), Ok(work));
        assert_eq!(serde_json::to_string(&work).unwrap(), format!("\"{work}\""));
        assert_eq!(serde_json::from_str::<CumulativeDifficulty>(&format!("\"{work}\"")).unwrap(), work);
        assert!(work > CumulativeDifficulty::default() + u128::MAX);
        assert_eq!(CumulativeDifficulty(U256::MAX) + 1, CumulativeDifficulty(U256::MAX));
        assert_eq!(U256::MAX.to_string().parse(), Ok(CumulativeDifficulty(U256::MAX)));
        assert_eq!(format!("{:>5}", CumulativeDifficulty::default() + 7), "    7");
    }

    #[rstest]
    fn only_digits_are_work(
        #[values("", "-1", "+1", "0x10", "1_0", " 1", "1.0", &format!("{}0", U256::MAX))] text: &str,
    ) {
        assert_eq!(text.parse::<CumulativeDifficulty>(), Err(ParseDifficultyError));
    }
}

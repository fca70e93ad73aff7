//! Difficulties, targets and work, in 256-bit integers.

use std::{fmt, iter::Sum, ops::Add, str::FromStr};

use ruint::aliases::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

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

/// Parses plain decimal digits: no sign, space or separator, which the number parsers would take.
pub(super) fn parse_decimal(text: &str) -> Option<u128> {
    if is_decimal(text) { text.parse().ok() } else { None }
}

fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_hash(text: &str) -> Option<U256> {
    let hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex { U256::from_str_radix(text, 16).ok() } else { None }
}

//! The block of a network up to which blocks are assumed valid.

use serde::{Deserialize, Deserializer, de::Error};

use crate::chain::{difficulty::CumulativeDifficulty, encoding::has_hash_form, position::Position};

/// A block whose chain the settings vouch for. Blocks up to it, on a chain that contains it, are stored at
/// [`Level::Linked`](crate::chain::Level::Linked) and verified to [`Level::Pow`](crate::chain::Level::Pow) later. It is
/// no checkpoint: a chain without it is verified in full, and is not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssumeValid {
    /// Index of the block.
    pub index: u64,
    /// Hash of the block.
    pub hash: String,
    /// Work of the chain up to and with the block: the sum of the actualized difficulties.
    pub work: CumulativeDifficulty,
}

impl AssumeValid {
    /// Whether the block at this place, whose chain has this much work, is the one.
    pub fn is(&self, block: &Position, work: CumulativeDifficulty) -> bool {
        (self.index, &self.hash, self.work) == (block.index, &block.hash, work)
    }
}

/// As a settings file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    index: u64,
    hash: String,
    work: Work,
}

/// Settings files can't hold numbers of 256 bits, so that a string is taken too.
#[derive(Deserialize)]
#[serde(untagged, expecting = "work: expected a whole number, or a string of decimal digits below 2^256")]
enum Work {
    Number(u64),
    Text(CumulativeDifficulty),
}

impl<'de> Deserialize<'de> for AssumeValid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { index, hash, work } = Written::deserialize(deserializer)?;
        // Another form is that of no block: it would never be found, without a word.
        if !has_hash_form(&hash) {
            return Err(D::Error::custom("assume_valid: hash: expected 64 lower-case hex digits"));
        }
        let work = match work {
            Work::Number(number) => CumulativeDifficulty::default() + u128::from(number),
            Work::Text(work) => work,
        };
        Ok(Self { index, hash, work })
    }
}

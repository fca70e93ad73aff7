//! The rules, the levels of verification, and violations.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::chain::{
    Network,
    block::{MAX_BLOCK_BYTES, MAX_KEY_BYTES},
};
use crate::chain::{block::Deviation, encoding::words, pow::PowError};

/// How far blocks are verified. Each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What a store relies on: contiguous indexes, links, sizes. For sources that are trusted.
    None,
    /// All that shows without the proof-of-work hash: whether the hash belongs to the header stays open.
    Linked,
    /// The hash of each header is computed.
    Pow,
}

words!(Level { None = "none", Linked = "linked", Pow = "pow" });

impl Level {
    /// The number that a store keeps: 0, 1 or 2, in the order of the levels.
    pub fn code(self) -> i64 {
        self as i64
    }

    /// The level with this [`code`](Self::code).
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.code() == code)
    }
}

/// A rule that a block can violate. The first six hold at every level, [`Hash`](Rule::Hash) at [`Level::Pow`] only, the
/// others from [`Level::Linked`] on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The block's JSON text has at most [`MAX_BLOCK_BYTES`]; hash, previous hash and orphan reason at most
    /// [`MAX_KEY_BYTES`] each.
    Size,
    /// Hash, previous hash and orphan reason have no NUL character (databases don't store it), and the hash isn't
    /// empty.
    Text,
    /// Indexes count up by one from the parent's, or from 0.
    Index,
    /// The previous hash is the parent's hash, and no hash occurs twice.
    Link,
    /// The block at a checkpoint's index has the checkpoint's hash; see [`Network::checkpoints`].
    Checkpoint,
    /// The first block is the network's genesis; see [`Network::genesis_hash`]. A pinned hash holds at every level.
    Genesis,
    /// The hash is 64 lower-case hex digits.
    HashForm,
    /// The epoch is the index's in the network's numbering. Computed when a block is read, so that only a damaged store
    /// breaks it; the same holds for the next and for [`ActualizedDifficulty`](Rule::ActualizedDifficulty).
    Epoch,
    /// The data hash belongs to the miner's data.
    DataHash,
    /// The target difficulty isn't zero.
    Difficulty,
    /// The timestamp isn't further ahead of this machine's clock than [`Network::max_seconds_ahead`]; enforced or
    /// reported as [`Network::timestamps`] says.
    Timestamp,
    /// The timestamp isn't before [`Network::minimum_block_timestamp`]; not for genesis.
    MinimumTimestamp,
    /// The target difficulty is the one of [`Network::next_difficulty`]; enforced or reported as
    /// [`Network::difficulty_schedule`] says.
    Schedule,
    /// The actualized difficulty follows from the hash.
    ActualizedDifficulty,
    /// The hash is below the difficulty's target; not for genesis.
    Target,
    /// The hash is the proof-of-work hash of header and nonce.
    Hash,
}

impl Rule {
    /// Whether a block that breaks the rule must have been forged. An honest node may be on another network,
    /// or another branch of this one; its clock, or ours, may be wrong; and limits of size are ours.
    pub fn proves_forgery(self) -> bool {
        match self {
            Self::HashForm | Self::Difficulty | Self::Schedule | Self::Target | Self::Hash => true,
            Self::Size
            | Self::Text
            | Self::Index
            | Self::Link
            | Self::Checkpoint
            | Self::Genesis
            | Self::Epoch
            | Self::DataHash
            | Self::Timestamp
            | Self::MinimumTimestamp
            | Self::ActualizedDifficulty => false,
        }
    }

    /// The deviation of a block that breaks the rule where it is only reported; `None` for rules that always hold.
    pub(super) fn deviation(self) -> Option<Deviation> {
        match self {
            Self::Schedule => Some(Deviation::Schedule),
            Self::Timestamp => Some(Deviation::Timestamp),
            _ => None,
        }
    }
}

words!(Rule {
    Size = "size",
    Text = "text",
    Index = "index",
    Link = "link",
    Checkpoint = "checkpoint",
    Genesis = "genesis",
    HashForm = "hash_form",
    Epoch = "epoch",
    DataHash = "data_hash",
    Difficulty = "difficulty",
    Timestamp = "timestamp",
    MinimumTimestamp = "minimum_timestamp",
    Schedule = "schedule",
    ActualizedDifficulty = "actualized_difficulty",
    Target = "target",
    Hash = "hash",
});

/// A block that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block {index} ({shown}) violates rule `{rule}`: {detail}", shown = shorten(hash))]
pub struct Violation {
    /// Index that the block claims.
    pub index: u64,
    /// Hash that the block claims.
    pub hash: String,
    /// The rule.
    pub rule: Rule,
    /// What is wrong, with both values where there are two.
    pub detail: String,
}

/// Why blocks are not verified.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VerifyError {
    /// A block breaks a rule.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The proof of work could not be computed: the fault of this machine, of no block.
    #[error(transparent)]
    Pow(#[from] PowError),
}

/// A text from outside as a message shows it: at most a hash long, control characters escaped.
pub(super) fn shorten(text: &str) -> String {
    let shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
    if text.chars().nth(64).is_some() { shown + "…" } else { shown }
}

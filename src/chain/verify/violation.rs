//! The rules by name, and what is said about who breaks one.

use std::fmt;

use serde::Serialize;

#[cfg(doc)]
use super::Level;
#[cfg(doc)]
use crate::chain::{
    Network,
    block::{MAX_BLOCK_BYTES, MAX_KEY_BYTES},
};
use crate::chain::{block::Deviation, pow::PowError};

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
    /// The name: snake_case, stable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Text => "text",
            Self::Index => "index",
            Self::Link => "link",
            Self::Checkpoint => "checkpoint",
            Self::Genesis => "genesis",
            Self::HashForm => "hash_form",
            Self::Epoch => "epoch",
            Self::DataHash => "data_hash",
            Self::Difficulty => "difficulty",
            Self::Timestamp => "timestamp",
            Self::MinimumTimestamp => "minimum_timestamp",
            Self::Schedule => "schedule",
            Self::ActualizedDifficulty => "actualized_difficulty",
            Self::Target => "target",
            Self::Hash => "hash",
        }
    }

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

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

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

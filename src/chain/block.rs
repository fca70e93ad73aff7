//! A miner block: what the network sends, in both of its dialects, and the texts that its hashes are made of.

use serde::{Deserialize, Serialize};

use super::{
    difficulty::actualized,
    encoding::{Decimal, sha256_hex, words},
};

mod csv;
mod json;

/// Longest JSON text of a block that is taken in: what a block can have that came in one gossip message, which is at
/// most 64 KiB. The other 1024 bytes are for the members that gossip lacks and for numbers that gossip may write in
/// fewer digits. No text of a message becomes longer: what JSON must escape came as an escape of the same length or
/// more, `\\u0000` for one. Blocks of the network have some 700 bytes.
pub const MAX_BLOCK_BYTES: usize = (64 << 10) + 1024;

/// Longest hash, previous hash and orphan reason of a block that is taken in: databases keep these as they are, and
/// can't index texts much longer than twice this.
pub const MAX_KEY_BYTES: usize = 1024;

/// A miner block as one node sends it to another: header, miner, and the sender's view of its place in the chain.
///
/// Deserialises from either dialect of the network: the first release sends `difficulty`, the current one
/// `target_difficulty` and `actualized_difficulty`. Both difficulties of the target may be there if they agree. Members
/// that follow from others may be missing: the data hash is empty then, the epoch that of the network's usual
/// numbering, the actualized difficulty computed. Unknown fields are ignored. The nonce and the difficulties are
/// decimal strings. Serialises to the union of both, which either parses.
///
/// Hashes are text: the network's are 64 hex digits, but [`Level::None`](super::Level::None) takes any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MinerBlock {
    /// Hash of the header and the nonce.
    pub hash: String,
    /// Height; genesis has 0.
    pub index: u64,
    /// Epoch that the block claims; see [`EpochNumbering`].
    pub epoch: u64,
    /// When mining of the block began, unix seconds; genesis has 0.
    pub timestamp: i64,
    /// Hash of the parent; the network's genesis has `0`.
    pub previous_hash: String,
    /// SHA-256 of the miner's data; see [`expected_data_hash`](Self::expected_data_hash).
    pub data_hash: String,
    /// What the miner searched for.
    pub nonce: u128,
    /// Difficulty that the block had to meet.
    pub target_difficulty: u128,
    /// Difficulty that its hash would have met; see [`actualized`].
    pub actualized_difficulty: u128,
    /// Peer that the miner nominates; empty in genesis.
    pub nominated_peer_id: String,
    /// A number of the miner's choice.
    pub miner_number: u64,
    /// Whether the sender has it on its canonical chain.
    pub is_canonical: bool,
    /// Whether the sender has orphaned it.
    pub is_orphaned: bool,
    /// When the sender first saw it, unix seconds.
    pub seen_at: Option<i64>,
    /// When the sender orphaned it, unix seconds.
    pub orphaned_at: Option<i64>,
    /// Why the sender orphaned it.
    pub orphan_reason: Option<String>,
    /// The sender's chain height when it saw the block.
    pub height_at_time: Option<u64>,
    /// Hash of the block that won against it.
    pub competing_hash: Option<String>,
    /// Rules that it deviates from and that the network doesn't enforce, as far as they were looked at. In JSON the
    /// member is there only if there are any.
    pub deviations: Vec<Deviation>,
}

/// A rule that a block may deviate from where the network's settings only report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deviation {
    /// Its target difficulty is not the scheduled one.
    Schedule,
    /// Its timestamp was too far ahead when it was verified.
    Timestamp,
}

words!(Deviation { Schedule = "schedule", Timestamp = "timestamp" });

impl MinerBlock {
    /// [`Header::header_text`] of its header.
    pub fn header_text(&self) -> String {
        Header::from(self).header_text()
    }

    /// The data hash that belongs to the miner's data: `hex(sha256(nominated_peer_id ++ decimal(miner_number)))`.
    pub fn expected_data_hash(&self) -> String {
        sha256_hex(format!("{}{}", self.nominated_peer_id, self.miner_number).as_bytes())
    }

    /// Clears what the sender has seen of it: when it came, and its place in the sender's chain.
    pub fn clear_sender_view(&mut self) {
        (self.seen_at, self.height_at_time) = (None, None);
        (self.orphaned_at, self.orphan_reason, self.competing_hash) = (None, None, None);
        (self.is_canonical, self.is_orphaned) = (true, false);
    }

    /// Whether it is the first block of a chain, which needs no proof of work.
    pub fn is_genesis(&self) -> bool {
        self.index == 0
    }

    /// The block as the JSON text that is stored and sent: keys in fixed order, absent values as `null`.
    pub fn to_json(&self) -> String {
        // Only maps with keys that aren't text and failing writers make serde_json fail: neither is here.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What is hashed of a block, and its hash: enough to follow a chain and to weigh it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Header {
    /// Hash of the header and the nonce.
    pub hash: String,
    /// Height; genesis has 0.
    pub index: u64,
    /// Epoch that the block claims; not part of what is hashed.
    pub epoch: u64,
    /// When mining of the block began, unix seconds; genesis has 0.
    pub timestamp: i64,
    /// Hash of the parent; the network's genesis has `0`.
    pub previous_hash: String,
    /// SHA-256 of the miner's data.
    pub data_hash: String,
    /// What the miner searched for; a decimal string in JSON.
    #[serde(with = "Decimal")]
    pub nonce: u128,
    /// Difficulty that the block had to meet; a decimal string in JSON.
    #[serde(with = "Decimal")]
    pub target_difficulty: u128,
}

impl Header {
    /// What is hashed, with the decimal nonce behind it: index, unix seconds, previous hash, data hash and target
    /// difficulty, all decimal and without separators.
    pub fn header_text(&self) -> String {
        let Self { index, timestamp, previous_hash, data_hash, target_difficulty, .. } = self;
        format!("{index}{timestamp}{previous_hash}{data_hash}{target_difficulty}")
    }

    /// Difficulty that its hash would have met; see [`actualized`].
    pub fn actualized(&self) -> u128 {
        actualized(&self.hash, self.target_difficulty)
    }
}

impl From<&MinerBlock> for Header {
    fn from(block: &MinerBlock) -> Self {
        Self {
            hash: block.hash.clone(),
            index: block.index,
            epoch: block.epoch,
            timestamp: block.timestamp,
            previous_hash: block.previous_hash.clone(),
            data_hash: block.data_hash.clone(),
            nonce: block.nonce,
            target_difficulty: block.target_difficulty,
        }
    }
}

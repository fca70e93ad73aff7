//! A miner block: what the network sends, in both of its dialects, and the texts that its hashes are made of.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
    ser::SerializeStruct,
};
use sha2::{Digest, Sha256};

use self::deviation::Deviations;
use super::difficulty::{actualized, parse_decimal};

mod deviation;

pub use deviation::Deviation;

/// Blocks in an epoch, the unit in which the network changes its difficulty.
pub const BLOCKS_PER_EPOCH: u64 = 40;

/// Longest JSON text of a block that is taken in: what a block can have that came in one gossip message, which is at most
/// 64 KiB. The other 1024 bytes are for the members that gossip lacks and for numbers that gossip may tell in fewer digits. No
/// text of a message becomes longer: what JSON must escape came as an escape of the same length or more, `\\u0000` for one.
/// Blocks of the network have some 700 bytes.
pub const MAX_BLOCK_BYTES: usize = (64 << 10) + 1024;

/// Longest hash, previous hash and orphan reason of a block that is taken in: databases keep these as they are, and can't
/// index texts much longer than twice this.
pub const MAX_KEY_BYTES: usize = 1024;

/// How a network numbers its epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochNumbering {
    /// `index / 40`: the network's first release.
    Plain,
    /// Genesis precedes epoch 0 but is counted to it: `(index - 1) / 40`, so that epoch 0 has 41 members.
    #[default]
    GenesisFirst,
}

impl EpochNumbering {
    /// The epoch of the block at `index`.
    pub fn epoch(self, index: u64) -> u64 {
        match self {
            Self::Plain => index / BLOCKS_PER_EPOCH,
            Self::GenesisFirst => index.saturating_sub(1) / BLOCKS_PER_EPOCH,
        }
    }

    /// Index of the block with which `epoch` begins. Genesis, where it is first, precedes epoch 0. Saturates.
    pub fn first_index(self, epoch: u64) -> u64 {
        let first = epoch.saturating_mul(BLOCKS_PER_EPOCH);
        match self {
            Self::Plain => first,
            Self::GenesisFirst => first.saturating_add(1),
        }
    }
}

/// A miner block as one node tells it to another: header, miner, and the teller's view of its place in the chain.
///
/// Deserialises from either dialect of the network: the first release sends `difficulty`, the current one
/// `target_difficulty` and `actualized_difficulty`. Both difficulties of the target may be there if they agree; a
/// missing actualized difficulty is computed; unknown fields are ignored. The nonce and the difficulties are decimal
/// strings. Serialises to the union of both, which either parses.
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
    /// When it was mined, unix seconds; genesis has 0.
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
    /// Whether the teller has it on its canonical chain.
    pub is_canonical: bool,
    /// Whether the teller has orphaned it.
    pub is_orphaned: bool,
    /// When the teller first saw it, unix seconds.
    pub seen_at: Option<i64>,
    /// When the teller orphaned it, unix seconds.
    pub orphaned_at: Option<i64>,
    /// Why the teller orphaned it.
    pub orphan_reason: Option<String>,
    /// The teller's chain height when it saw the block.
    pub height_at_time: Option<u64>,
    /// Hash of the block that won against it.
    pub competing_hash: Option<String>,
    /// Rules that the teller found it to deviate from; absent in JSON where there are none. On reading, whatever is
    /// no such list is ignored, and so are words that name none.
    pub deviations: Vec<Deviation>,
}

impl MinerBlock {
    /// [`Header::header_text`] of its header.
    pub fn header_text(&self) -> String {
        Header::from(self).header_text()
    }

    /// The data hash that belongs to the miner's data: `hex(sha256(nominated_peer_id ++ decimal(miner_number)))`.
    pub fn expected_data_hash(&self) -> String {
        sha256_hex(format!("{}{}", self.nominated_peer_id, self.miner_number).as_bytes())
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
    /// When it was mined, unix seconds; genesis has 0.
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

/// Lower-case hex of the SHA-256 of `bytes`.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A u128 as a string of decimal digits.
pub(super) struct Decimal(pub(super) u128);

impl Decimal {
    /// For `#[serde(with = "Decimal")]` on a u128.
    fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    /// For `#[serde(with = "Decimal")]` on a u128.
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        <Self as Deserialize>::deserialize(deserializer).map(|Self(value)| value)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = Decimal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string of decimal digits below 2^128")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Decimal, E> {
                parse_decimal(text)
                    .map(Decimal)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

impl Serialize for MinerBlock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let deviates = !self.deviations.is_empty();
        let mut out = serializer.serialize_struct("MinerBlock", 19 + usize::from(deviates))?;
        out.serialize_field("hash", &self.hash)?;
        out.serialize_field("index", &self.index)?;
        out.serialize_field("epoch", &self.epoch)?;
        out.serialize_field("timestamp", &self.timestamp)?;
        out.serialize_field("previous_hash", &self.previous_hash)?;
        out.serialize_field("data_hash", &self.data_hash)?;
        out.serialize_field("nonce", &Decimal(self.nonce))?;
        out.serialize_field("difficulty", &Decimal(self.target_difficulty))?;
        out.serialize_field("target_difficulty", &Decimal(self.target_difficulty))?;
        out.serialize_field("actualized_difficulty", &Decimal(self.actualized_difficulty))?;
        out.serialize_field("nominated_peer_id", &self.nominated_peer_id)?;
        out.serialize_field("miner_number", &self.miner_number)?;
        out.serialize_field("is_canonical", &self.is_canonical)?;
        out.serialize_field("is_orphaned", &self.is_orphaned)?;
        out.serialize_field("seen_at", &self.seen_at)?;
        out.serialize_field("orphaned_at", &self.orphaned_at)?;
        out.serialize_field("orphan_reason", &self.orphan_reason)?;
        out.serialize_field("height_at_time", &self.height_at_time)?;
        out.serialize_field("competing_hash", &self.competing_hash)?;
        if deviates {
            out.serialize_field("deviations", &self.deviations)?;
        }
        out.end()
    }
}

impl<'de> Deserialize<'de> for MinerBlock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BlockVisitor)
    }
}

/// Reads a block by hand because a derived one would not say in which field a value of the wrong type is.
struct BlockVisitor;

/// Takes the value of `name` into `slot`; its errors name the field.
fn take<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
    name: &'static str,
    slot: &mut Option<T>,
) -> Result<(), A::Error> {
    let value = map.next_value().map_err(|error| Error::custom(format_args!("{name}: {error}")))?;
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::duplicate_field(name)),
    }
}

fn need<T, E: Error>(name: &'static str, slot: Option<T>) -> Result<T, E> {
    slot.ok_or_else(|| E::missing_field(name))
}

impl<'de> Visitor<'de> for BlockVisitor {
    type Value = MinerBlock;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a miner block (an object)")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MinerBlock, A::Error> {
        let (mut hash, mut previous_hash, mut data_hash, mut nominated_peer_id) = (None, None, None, None);
        let (mut index, mut epoch, mut timestamp, mut miner_number) = (None, None, None, None);
        let (mut is_canonical, mut is_orphaned) = (None, None);
        let (mut nonce, mut difficulty, mut target, mut actual) = (None, None, None, None);
        let (mut seen_at, mut orphaned_at, mut height_at_time) = (None, None, None);
        let (mut orphan_reason, mut competing_hash) = (None, None);
        let mut deviations = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "hash" => take(&mut map, "hash", &mut hash)?,
                "index" => take(&mut map, "index", &mut index)?,
                "epoch" => take(&mut map, "epoch", &mut epoch)?,
                "timestamp" => take(&mut map, "timestamp", &mut timestamp)?,
                "previous_hash" => take(&mut map, "previous_hash", &mut previous_hash)?,
                "data_hash" => take(&mut map, "data_hash", &mut data_hash)?,
                "nonce" => take(&mut map, "nonce", &mut nonce)?,
                "difficulty" => take(&mut map, "difficulty", &mut difficulty)?,
                "target_difficulty" => take(&mut map, "target_difficulty", &mut target)?,
                "actualized_difficulty" => take(&mut map, "actualized_difficulty", &mut actual)?,
                "nominated_peer_id" => take(&mut map, "nominated_peer_id", &mut nominated_peer_id)?,
                "miner_number" => take(&mut map, "miner_number", &mut miner_number)?,
                "is_canonical" => take(&mut map, "is_canonical", &mut is_canonical)?,
                "is_orphaned" => take(&mut map, "is_orphaned", &mut is_orphaned)?,
                "seen_at" => take(&mut map, "seen_at", &mut seen_at)?,
                "orphaned_at" => take(&mut map, "orphaned_at", &mut orphaned_at)?,
                "orphan_reason" => take(&mut map, "orphan_reason", &mut orphan_reason)?,
                "height_at_time" => take(&mut map, "height_at_time", &mut height_at_time)?,
                "competing_hash" => take(&mut map, "competing_hash", &mut competing_hash)?,
                "deviations" => map.next_value::<Deviations>()?.add_to(&mut deviations),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        // A difficulty that is `null` is one that isn't there.
        let decimal = |slot: Option<Option<Decimal>>| slot.flatten().map(|Decimal(value)| value);
        let target_difficulty = match (decimal(difficulty), decimal(target)) {
            (Some(difficulty), Some(target)) if difficulty != target => {
                let message = format_args!("difficulty {difficulty} and target_difficulty {target} disagree");
                return Err(Error::custom(message));
            }
            (Some(value), _) | (None, Some(value)) => value,
            (None, None) => return Err(Error::custom("missing field `target_difficulty` or `difficulty`")),
        };
        let hash: String = need("hash", hash)?;
        Ok(MinerBlock {
            index: need("index", index)?,
            epoch: need("epoch", epoch)?,
            timestamp: need("timestamp", timestamp)?,
            previous_hash: need("previous_hash", previous_hash)?,
            data_hash: need("data_hash", data_hash)?,
            nonce: need("nonce", nonce.map(|Decimal(value)| value))?,
            target_difficulty,
            actualized_difficulty: decimal(actual).unwrap_or_else(|| actualized(&hash, target_difficulty)),
            nominated_peer_id: need("nominated_peer_id", nominated_peer_id)?,
            miner_number: need("miner_number", miner_number)?,
            is_canonical: need("is_canonical", is_canonical)?,
            is_orphaned: need("is_orphaned", is_orphaned)?,
            seen_at: seen_at.flatten(),
            orphaned_at: orphaned_at.flatten(),
            orphan_reason: orphan_reason.flatten(),
            height_at_time: height_at_time.flatten(),
            competing_hash: competing_hash.flatten(),
            deviations,
            hash,
        })
    }
}

//! A block as JSON, read and written by hand: a derived reader would not say in which field a value of the wrong type
//! is.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
    ser::SerializeStruct,
};
use serde_json::{Value, value::RawValue};

use super::{Deviation, MinerBlock};
use crate::chain::{
    difficulty::actualized,
    encoding::{Decimal, parse_decimal},
    epoch::EpochNumbering,
};

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

struct BlockVisitor;

/// A text that is borrowed from what is read, where that has it as it is.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A difficulty that follows from the hash: what is no number counts as missing.
struct Worth(Option<u128>);

impl<'de> Deserialize<'de> for Worth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<Text<'_>>::deserialize(deserializer)?;
        Ok(Self(text.and_then(|Text(text)| parse_decimal(&text))))
    }
}

/// Longest text of deviations that is looked into. A longer one is none of ours: it would take up to a hundred times its
/// bytes as values, and a peer may send megabytes.
const MAX_DEVIATIONS_BYTES: usize = 256;

/// The deviations that another gateway, or our own store, has written; what is none is left out.
struct Deviations(Vec<Deviation>);

impl<'de> Deserialize<'de> for Deviations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let short = Some(text.get()).filter(|text| text.len() <= MAX_DEVIATIONS_BYTES);
        let words: Value = short.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let named =
            |kind: &Deviation| words.as_array().is_some_and(|words| words.iter().any(|word| *word == kind.as_str()));
        Ok(Self(Deviation::ALL.into_iter().filter(named).collect()))
    }
}

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
        let (mut orphan_reason, mut competing_hash, mut deviations) = (None, None, None);
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
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
                "deviations" => take(&mut map, "deviations", &mut deviations)?,
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
        let index = need("index", index)?;
        let absent = || EpochNumbering::default().epoch(index);
        Ok(MinerBlock {
            index,
            epoch: epoch.flatten().unwrap_or_else(absent),
            timestamp: need("timestamp", timestamp)?,
            previous_hash: need("previous_hash", previous_hash)?,
            data_hash: data_hash.flatten().unwrap_or_default(),
            nonce: need("nonce", nonce.map(|Decimal(value)| value))?,
            target_difficulty,
            actualized_difficulty: actual
                .and_then(|Worth(worth)| worth)
                .unwrap_or_else(|| actualized(&hash, target_difficulty)),
            nominated_peer_id: need("nominated_peer_id", nominated_peer_id)?,
            miner_number: need("miner_number", miner_number)?,
            is_canonical: need("is_canonical", is_canonical)?,
            is_orphaned: need("is_orphaned", is_orphaned)?,
            seen_at: seen_at.flatten(),
            orphaned_at: orphaned_at.flatten(),
            orphan_reason: orphan_reason.flatten(),
            height_at_time: height_at_time.flatten(),
            competing_hash: competing_hash.flatten(),
            deviations: deviations.map(|Deviations(deviations)| deviations).unwrap_or_default(),
            hash,
        })
    }
}

//! A freshly mined block as the gossip topic `/miner/block` carries it.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::chain::{Decimal, MinerBlock, difficulty::actualized};

/// The topic. On the wire it is this text, not a hash of it.
pub const BLOCK_TOPIC: &str = "/miner/block";

/// What travels: no data hash, which follows from the miner's data, and numbers of more than 64 bits as decimal
/// strings.
#[derive(Serialize, Deserialize)]
struct Message<'a> {
    hash: Cow<'a, str>,
    index: u64,
    epoch: u64,
    nominated_peer_id: Cow<'a, str>,
    previous_hash: Cow<'a, str>,
    #[serde(with = "Decimal")]
    difficulty: u128,
    #[serde(with = "Decimal")]
    nonce: u128,
    timestamp: String,
    miner_number: u64,
}

/// Writes a block for the topic.
pub fn encode(block: &MinerBlock) -> Bytes {
    let message = Message {
        hash: block.hash.as_str().into(),
        index: block.index,
        epoch: block.epoch,
        nominated_peer_id: block.nominated_peer_id.as_str().into(),
        previous_hash: block.previous_hash.as_str().into(),
        difficulty: block.target_difficulty,
        nonce: block.nonce,
        timestamp: block.timestamp.to_string(),
        miner_number: block.miner_number,
    };
    // Plain data: writing it as JSON doesn't fail.
    Bytes::from(serde_json::to_vec(&message).unwrap_or_default())
}

/// Reads a block from the topic: unverified, `seen_at` this time (unix seconds).
///
/// # Errors
/// What is wrong with the message.
pub fn decode(message: &[u8], seen_at: i64) -> Result<MinerBlock, String> {
    let message: Message<'_> = serde_json::from_slice(message).map_err(|error| error.to_string())?;
    let mut block = MinerBlock {
        actualized_difficulty: actualized(&message.hash, message.difficulty),
        hash: message.hash.into_owned(),
        index: message.index,
        epoch: message.epoch,
        timestamp: message.timestamp.parse().map_err(|_| "timestamp: expected decimal digits".to_owned())?,
        previous_hash: message.previous_hash.into_owned(),
        nonce: message.nonce,
        target_difficulty: message.difficulty,
        nominated_peer_id: message.nominated_peer_id.into_owned(),
        miner_number: message.miner_number,
        is_canonical: true,
        seen_at: Some(seen_at),
        ..MinerBlock::default()
    };
    block.data_hash = block.expected_data_hash();
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_survives_the_topic() {
        let chain = include_str!("../../tests/fixtures/randomx-chain-61.ndjson");
        for line in chain.lines().skip(1) {
            let block: MinerBlock = serde_json::from_str(line).unwrap();
            let decoded = decode(&encode(&block), 7).unwrap();
            assert_eq!(decoded, MinerBlock { seen_at: Some(7), height_at_time: None, ..block });
        }
    }

    #[test]
    fn a_hash_that_needs_escapes_survives_too() {
        let block = MinerBlock { hash: "a\"\n".into(), previous_hash: "\\ü".into(), ..MinerBlock::default() };
        let decoded = decode(&encode(&block), 7).unwrap();
        assert_eq!((decoded.hash, decoded.previous_hash), (block.hash, block.previous_hash));
    }

    #[test]
    fn the_message_has_the_networks_members() {
        let block = MinerBlock { hash: "h".into(), nonce: u128::MAX, timestamp: 5, ..MinerBlock::default() };
        let message: serde_json::Value = serde_json::from_slice(&encode(&block)).unwrap();
        let expected = serde_json::json!({
            "hash": "h", "index": 0, "epoch": 0, "nominated_peer_id": "", "previous_hash": "", "difficulty": "0",
            "nonce": u128::MAX.to_string(), "timestamp": "5", "miner_number": 0,
        });
        assert_eq!(message, expected);
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let good = String::from_utf8(encode(&MinerBlock::default()).to_vec()).unwrap();
        assert!(decode(good.as_bytes(), 0).is_ok());
        for (part, bad) in [("\"nonce\":\"0\"", "\"nonce\":\"-1\""), ("\"timestamp\":\"0\"", "\"timestamp\":\"x\"")] {
            assert!(good.contains(part));
            assert!(decode(good.replace(part, bad).as_bytes(), 0).is_err(), "{bad}");
        }
        for bad in ["", "{}", "[]"] {
            assert!(decode(bad.as_bytes(), 0).is_err());
        }
    }
}

//! Blocks in JSON.

use modal_gateway::chain::{EpochNumbering, Header, MinerBlock, difficulty::actualized};
use serde_json::{Map, Value};

/// A block that is read is written so that either dialect, and we ourselves, read the same; and it has what was
/// written.
pub fn block_json(data: &[u8]) {
    let Ok(block) = serde_json::from_slice::<MinerBlock>(data) else { return };
    if let Ok(Value::Object(members)) = serde_json::from_slice(data) {
        as_written(&block, &members);
    }
    let union = block.to_json();
    assert_eq!(serde_json::from_str::<MinerBlock>(&union).unwrap(), block);
    assert_eq!(serde_json::from_str::<Header>(&union).unwrap(), Header::from(&block));

    let members: Map<String, Value> = serde_json::from_str(&union).unwrap();
    let without = |names: &[&str]| {
        let mut members = members.clone();
        members.retain(|name, _| !names.contains(&name.as_str()));
        serde_json::from_value::<MinerBlock>(Value::Object(members)).unwrap()
    };
    assert_eq!(without(&["difficulty"]), block, "as today's nodes read it");
    let first = MinerBlock {
        actualized_difficulty: actualized(&block.hash, block.target_difficulty),
        height_at_time: None,
        ..block.clone()
    };
    assert_eq!(
        without(&["target_difficulty", "actualized_difficulty", "height_at_time"]),
        first,
        "as the first ones do"
    );
}

/// Compares a block with the JSON that it was read from, member by member.
fn as_written(block: &MinerBlock, members: &Map<String, Value>) {
    let at = |name: &str| members.get(name).unwrap_or(&Value::Null);
    let text = |name: &str| at(name).as_str().map(str::to_owned);
    let decimal = |name: &str| at(name).as_str().map(|digits| digits.parse::<u128>().unwrap());
    let texts = [
        ("hash", &block.hash),
        ("previous_hash", &block.previous_hash),
        ("nominated_peer_id", &block.nominated_peer_id),
    ];
    for (name, value) in texts {
        assert_eq!(text(name).as_ref(), Some(value), "{name}");
    }
    for (name, value) in [("index", block.index), ("miner_number", block.miner_number)] {
        assert_eq!(at(name).as_u64(), Some(value), "{name}");
    }
    // What follows from other members may be missing.
    assert_eq!(text("data_hash").unwrap_or_default(), block.data_hash);
    let epoch = at("epoch").as_u64().unwrap_or_else(|| EpochNumbering::default().epoch(block.index));
    assert_eq!(epoch, block.epoch);
    assert_eq!(at("timestamp").as_i64(), Some(block.timestamp));
    assert_eq!(decimal("nonce"), Some(block.nonce));
    assert_eq!(decimal("target_difficulty").or(decimal("difficulty")), Some(block.target_difficulty));
    let told = text("actualized_difficulty").filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let worth = || actualized(&block.hash, block.target_difficulty);
    let worth = told.and_then(|digits| digits.parse().ok()).unwrap_or_else(worth);
    assert_eq!(worth, block.actualized_difficulty);
    assert_eq!(at("is_canonical").as_bool(), Some(block.is_canonical));
    assert_eq!(at("is_orphaned").as_bool(), Some(block.is_orphaned));
    assert_eq!((at("seen_at").as_i64(), at("orphaned_at").as_i64()), (block.seen_at, block.orphaned_at));
    assert_eq!(at("height_at_time").as_u64(), block.height_at_time);
    assert_eq!(
        (text("orphan_reason"), text("competing_hash")),
        (block.orphan_reason.clone(), block.competing_hash.clone())
    );
}

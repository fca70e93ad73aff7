//! A block as a real node keeps and tells it: the current dialect, decimal strings as they came, `null` for what is
//! absent.

use modal_gateway::chain::MinerBlock;
use serde::{Deserialize, Serialize};

use super::{
    Switches,
    mining::{data_hash, hash_worth},
};

/// Blocks in an epoch.
const BLOCKS_PER_EPOCH: u64 = 40;

/// A block with its teller's view of its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    pub hash: String,
    pub index: u64,
    pub epoch: u64,
    pub timestamp: i64,
    pub previous_hash: String,
    pub data_hash: String,
    pub nonce: String,
    pub target_difficulty: String,
    pub actualized_difficulty: String,
    pub nominated_peer_id: String,
    pub miner_number: u64,
    pub is_orphaned: bool,
    pub is_canonical: bool,
    pub seen_at: Option<i64>,
    pub orphaned_at: Option<i64>,
    pub orphan_reason: Option<String>,
    pub height_at_time: Option<u64>,
    pub competing_hash: Option<String>,
}

impl Block {
    /// What its hash is worth, as it is told.
    pub fn worth(&self) -> u128 {
        self.actualized_difficulty.parse().unwrap_or_default()
    }

    /// The epoch that its miner stores.
    pub fn miners_epoch(index: u64) -> u64 {
        index.saturating_sub(1) / BLOCKS_PER_EPOCH
    }

    /// The same block as one stores it who heard of it by gossip.
    pub fn as_heard(&self) -> Self {
        Self { data_hash: String::new(), epoch: self.index / BLOCKS_PER_EPOCH, ..self.clone() }
    }

    /// Takes it out of the canonical chain.
    pub fn orphan(&mut self, reason: String, competing: Option<String>) {
        self.is_canonical = false;
        self.is_orphaned = true;
        self.orphaned_at = Some(now());
        self.orphan_reason = Some(reason);
        self.competing_hash = competing;
    }
}

impl From<&MinerBlock> for Block {
    fn from(block: &MinerBlock) -> Self {
        serde_json::from_value(serde_json::to_value(block).unwrap()).unwrap()
    }
}

/// A block as it is gossiped. `data_hash` is only there where [`Switches::gossip_without_data_hash`] is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipBlock {
    pub hash: String,
    pub index: u64,
    pub epoch: u64,
    pub nominated_peer_id: String,
    pub previous_hash: String,
    pub difficulty: String,
    pub nonce: String,
    pub timestamp: String,
    pub miner_number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_hash: Option<String>,
}

impl GossipBlock {
    /// How the miner of a block tells it.
    pub fn of(block: &Block, switches: &Switches) -> Self {
        let numbered = if switches.epoch_index_div_40 { block.index / BLOCKS_PER_EPOCH } else { block.epoch };
        Self {
            hash: block.hash.clone(),
            index: block.index,
            epoch: numbered,
            nominated_peer_id: block.nominated_peer_id.clone(),
            previous_hash: block.previous_hash.clone(),
            difficulty: block.target_difficulty.clone(),
            nonce: block.nonce.clone(),
            timestamp: block.timestamp.to_string(),
            miner_number: block.miner_number,
            data_hash: (!switches.gossip_without_data_hash).then(|| block.data_hash.clone()),
        }
    }

    /// How whoever hears of it stores it: what can't be read is replaced, and nothing is verified.
    pub fn into_block(self, switches: &Switches) -> Block {
        let computed = || data_hash(&self.nominated_peer_id, self.miner_number);
        let data_hash = if switches.gossip_without_data_hash { String::new() } else { computed() };
        let difficulty = self.difficulty.parse().unwrap_or(1000);
        Block {
            actualized_difficulty: hash_worth(&self.hash).unwrap_or(difficulty).to_string(),
            hash: self.hash,
            index: self.index,
            epoch: self.epoch,
            timestamp: self.timestamp.parse().unwrap_or_else(|_| now()),
            previous_hash: self.previous_hash,
            data_hash,
            nonce: self.nonce.parse::<u128>().unwrap_or_default().to_string(),
            target_difficulty: difficulty.to_string(),
            nominated_peer_id: self.nominated_peer_id,
            miner_number: self.miner_number,
            is_orphaned: false,
            is_canonical: true,
            seen_at: Some(now()),
            orphaned_at: None,
            orphan_reason: None,
            height_at_time: Some(self.index),
            competing_hash: None,
        }
    }
}

/// Unix seconds.
pub(super) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs() as i64
}

//! The `data` of each path's answer that is not blocks alone.

use serde::{Deserialize, Serialize};

use crate::{
    chain::{Header, MinerBlock},
    protocol::Ancestor,
};

/// `data` of `/inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InspectData {
    /// Peer id of the node that answers.
    pub peer_id: String,
    /// `running`.
    pub status: String,
    /// What its store holds.
    #[schema(required)]
    pub datastore: Option<Datastore>,
}

/// What a node's store holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Datastore {
    /// Number of canonical blocks.
    pub total_blocks: u64,
    /// First and last index; null for an empty chain.
    #[schema(value_type = Option<Vec<u64>>, min_items = 2, max_items = 2, required)]
    pub block_range: Option<(u64, u64)>,
    /// Index of the tip; null for an empty chain.
    #[schema(required)]
    pub chain_tip_height: Option<u64>,
    /// Hash of the tip; null for an empty chain.
    #[schema(required)]
    pub chain_tip_hash: Option<String>,
    /// Number of different epochs.
    pub epochs: u64,
    /// Number of different nominated peer ids.
    pub unique_miners: u64,
}

/// `data` of `/data/miner_block/canonical`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct CanonicalData {
    /// The blocks by ascending index.
    #[schema(value_type = Vec<crate::protocol::schema::Block>)]
    pub blocks: Vec<MinerBlock>,
    /// How many.
    pub count: u64,
}

/// `data` of `/data/miner_block/epoch`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct EpochData {
    /// The epoch asked for.
    pub epoch: u64,
    /// Its canonical blocks by ascending index; empty for an epoch that is unknown.
    #[schema(value_type = Vec<crate::protocol::schema::Block>)]
    pub blocks: Vec<MinerBlock>,
    /// How many.
    pub count: u64,
}

/// `data` of `/data/miner_block/range`. Nodes of the first release send the first four members only.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct RangeData {
    /// First index asked for.
    pub from_index: u64,
    /// Last index that this answer covers: `requested_to`, or less where the chunk ends before it.
    pub to_index: u64,
    /// The canonical blocks by ascending index.
    #[schema(value_type = Vec<crate::protocol::schema::Block>)]
    pub blocks: Vec<MinerBlock>,
    /// How many.
    pub count: u64,
    /// Last index asked for.
    #[serde(default)]
    #[schema(required)]
    pub requested_to: u64,
    /// Whether blocks follow that were asked for and are not in this answer.
    #[serde(default)]
    #[schema(required)]
    pub has_more: bool,
    /// Most blocks that this answer may hold.
    #[serde(default)]
    #[schema(required)]
    pub chunk_size: u64,
    /// Where to go on; null unless `has_more`.
    #[serde(default)]
    #[schema(required)]
    pub next_from_index: Option<u64>,
}

/// `data` of `/data/miner_block/headers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadersData {
    /// First index asked for.
    pub from_index: u64,
    /// Last index that this answer covers; less than asked where the chunk ends before it.
    pub to_index: u64,
    /// The headers of the canonical blocks by ascending index; at most 1000.
    pub headers: Vec<Header>,
    /// How many.
    pub count: u64,
    /// Whether blocks follow that were asked for and are not in this answer.
    pub has_more: bool,
}

/// `data` of `/data/miner_block/chain_info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChainInfoData {
    /// Sum of the blocks' actualized difficulties, in decimal.
    pub cumulative_difficulty: String,
    /// Number of blocks.
    pub chain_length: u64,
    /// Index of the tip; 0 for an empty chain.
    pub chain_height: u64,
    /// Hash of the tip; null for an empty chain.
    #[schema(required)]
    pub tip_hash: Option<String>,
    /// Epoch of the tip; 0 for an empty chain.
    #[serde(default)]
    #[schema(required)]
    pub tip_epoch: u64,
    /// Highest index of the asker's blocks on this chain; null if there is none or none were named.
    #[serde(default)]
    #[schema(required)]
    pub common_ancestor_index: Option<u64>,
    /// The blocks, if they were asked for, else null. At most 1000.
    #[serde(default)]
    #[schema(value_type = Option<Vec<crate::protocol::schema::Block>>, required)]
    pub blocks: Option<Vec<MinerBlock>>,
}

/// `data` of `/data/miner_block/find_ancestor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FindAncestorData {
    /// Number of blocks in the chain.
    pub chain_length: u64,
    /// The check points in the order asked.
    pub matches: Vec<Match>,
    /// Highest index that matches; null if none does.
    #[schema(required)]
    pub highest_match: Option<u64>,
    /// Sum of the blocks' actualized difficulties, in decimal.
    pub cumulative_difficulty: String,
}

/// A check point compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Match {
    /// Index asked for.
    pub index: u64,
    /// Hash asked for.
    pub hash: String,
    /// Whether the canonical block at the index has that hash.
    pub matches: bool,
}

/// `data` of `/data/miner_block/debug_index`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DebugIndexData {
    /// The index asked for.
    pub index: u64,
    /// Number of blocks known at it.
    pub total_blocks_at_index: u64,
    /// The blocks, canonical first; at most 1000.
    pub blocks: Vec<DebugBlock>,
    /// Hash of the canonical one; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canonical_hash: Option<String>,
    /// Index of the canonical block after it; absent at the tip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_block_index: Option<u64>,
    /// Parent hash that the next canonical block names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_block_prev_hash: Option<String>,
    /// The block at this index that the next canonical block names as its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matching_block_for_next: Option<MatchingBlock>,
    /// What is wrong, if the next canonical block's parent is not the canonical block here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_integrity_issue: Option<String>,
}

/// A block at an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DebugBlock {
    /// Its hash.
    pub hash: String,
    /// Its parent's hash.
    pub previous_hash: String,
    /// Whether it is on the canonical chain.
    pub is_canonical: bool,
    /// Whether it was orphaned.
    pub is_orphaned: bool,
    /// Why.
    #[schema(required)]
    pub orphan_reason: Option<String>,
}

/// The parent of the next canonical block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MatchingBlock {
    /// Its hash.
    pub hash: String,
    /// Whether it is on the canonical chain.
    pub is_canonical: bool,
    /// Whether it was orphaned.
    pub is_orphaned: bool,
}

/// Says how the blocks at an index stand to the next canonical block.
pub fn debug_index(index: u64, total: u64, blocks: Vec<DebugBlock>, next: Option<Ancestor>) -> DebugIndexData {
    let canonical_hash = blocks.iter().find(|block| block.is_canonical).map(|block| block.hash.clone());
    let matching = next.as_ref().and_then(|next| blocks.iter().find(|block| block.hash == next.hash));
    let chain_integrity_issue = next.as_ref().filter(|next| canonical_hash.as_ref() != Some(&next.hash)).map(|next| {
        let here = canonical_hash.as_deref().unwrap_or("none");
        format!("block {} names parent {}, canonical here is {here}", next.index, next.hash)
    });
    DebugIndexData {
        index,
        total_blocks_at_index: total,
        matching_block_for_next: matching.map(|block| MatchingBlock {
            hash: block.hash.clone(),
            is_canonical: block.is_canonical,
            is_orphaned: block.is_orphaned,
        }),
        blocks,
        canonical_hash,
        next_block_index: next.as_ref().map(|next| next.index),
        next_block_prev_hash: next.map(|next| next.hash),
        chain_integrity_issue,
    }
}

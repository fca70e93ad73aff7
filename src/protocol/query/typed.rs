//! The typed query: what is asked, whatever path and text it came by.

use serde::{Deserialize, Serialize};

use crate::protocol::limits::MAX_RESPONSE_BYTES;

/// What any answer may have: envelope, an error in words, members that releases to come may add.
const ANY_ANSWER_BYTES: usize = 64 << 10;
/// What a block may have at a node that takes in longer ones than we do.
const ANY_BLOCK_BYTES: usize = 1 << 20;

/// A question about the chain, typed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Query {
    /// Echo: the JSON text that comes back unchanged.
    Ping {
        /// Any JSON, as text.
        data: Box<str>,
    },
    /// State of the node and its store.
    Inspect,
    /// One block by hash, orphans too.
    Get {
        /// Hash of the block.
        hash: String,
    },
    /// The whole canonical chain.
    Canonical,
    /// The canonical blocks of an epoch.
    Epoch {
        /// The epoch that the blocks carry.
        epoch: u64,
    },
    /// Canonical blocks by index.
    Range {
        /// First index.
        from_index: u64,
        /// Last index, included.
        to_index: u64,
        /// Most blocks in the answer, 1 to [`MAX_CHUNK`](crate::protocol::MAX_CHUNK).
        chunk_size: u64,
    },
    /// Headers of canonical blocks by index; asked of gateways only, over libp2p only.
    Headers {
        /// First index.
        from_index: u64,
        /// Last index, included.
        to_index: u64,
        /// Most headers in the answer, 1 to [`MAX_CHUNK`](crate::protocol::MAX_CHUNK).
        chunk_size: u64,
    },
    /// The tip, its work and, if asked, the blocks that the asker lacks.
    ChainInfo {
        /// Hashes of the asker's chain, to find the common ancestor by.
        local_block_hashes: Vec<String>,
        /// Whether to send blocks.
        include_blocks: bool,
        /// First block to send; else the one after the common ancestor; else the first.
        from_index: Option<u64>,
    },
    /// Which of the asker's check points are on the canonical chain.
    FindAncestor {
        /// The check points.
        check_points: Vec<CheckPoint>,
    },
    /// Every block at an index.
    DebugIndex {
        /// The index.
        index: u64,
    },
}

/// A block of the asker's chain, to be compared with ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckPoint {
    /// Index of the block.
    pub index: u64,
    /// Its hash.
    pub hash: String,
}

impl Query {
    /// The path that asks this.
    pub fn path(&self) -> &'static str {
        match self {
            Self::Ping { .. } => "/ping",
            Self::Inspect => "/inspect",
            Self::Get { .. } => "/data/miner_block/get",
            Self::Canonical => "/data/miner_block/canonical",
            Self::Epoch { .. } => "/data/miner_block/epoch",
            Self::Range { .. } => "/data/miner_block/range",
            Self::Headers { .. } => "/data/miner_block/headers",
            Self::ChainInfo { .. } => "/data/miner_block/chain_info",
            Self::FindAncestor { .. } => "/data/miner_block/find_ancestor",
            Self::DebugIndex { .. } => "/data/miner_block/debug_index",
        }
    }

    /// The `data` that asks this, as JSON text. `range` and `headers` always say `max_chunk_size`: today's nodes give
    /// 50 blocks otherwise.
    pub fn data(&self) -> String {
        use serde_json::json;
        match self {
            Self::Ping { data } => data.to_string(),
            Self::Inspect => json!({"level": "full"}).to_string(),
            Self::Get { hash } => json!({ "hash": hash }).to_string(),
            Self::Canonical => "null".into(),
            Self::Epoch { epoch } => json!({ "epoch": epoch }).to_string(),
            Self::Range { from_index, to_index, chunk_size } | Self::Headers { from_index, to_index, chunk_size } => {
                json!({"from_index": from_index, "to_index": to_index, "max_chunk_size": chunk_size}).to_string()
            }
            Self::ChainInfo { local_block_hashes, include_blocks, from_index } => {
                let mut data = json!({"local_block_hashes": local_block_hashes, "include_blocks": include_blocks});
                if let Some(from_index) = from_index {
                    data["from_index"] = json!(from_index);
                }
                data.to_string()
            }
            Self::FindAncestor { check_points } => json!({ "check_points": check_points }).to_string(),
            Self::DebugIndex { index } => json!({ "index": index }).to_string(),
        }
    }

    /// Bytes that an answer to this has at most, in whatever way a node writes JSON. The protocol's limit wherever
    /// there may be a list: nodes of the first release give whole ranges, whatever the chunk asked for.
    pub fn most_bytes(&self) -> usize {
        let more = match self {
            Self::Inspect | Self::ChainInfo { include_blocks: false, .. } => 0,
            // A number may be written anew: `1e15` as 1000000000000000.0.
            Self::Ping { data } => data.len().saturating_mul(8),
            Self::Get { .. } => ANY_BLOCK_BYTES,
            // Each comes back with a word more; each character of a text may be written as an escape of six.
            Self::FindAncestor { check_points } => check_points.iter().map(|point| 128 + 6 * point.hash.len()).sum(),
            Self::Canonical
            | Self::Epoch { .. }
            | Self::Range { .. }
            | Self::Headers { .. }
            | Self::ChainInfo { include_blocks: true, .. }
            | Self::DebugIndex { .. } => MAX_RESPONSE_BYTES,
        };
        more.saturating_add(ANY_ANSWER_BYTES).min(MAX_RESPONSE_BYTES)
    }
}

//! One typed answer per path: written with blocks as the text that the store keeps, read from peers of either dialect.

use std::fmt::Write as _;

use serde::{Serialize, de::DeserializeOwned};

use super::limits::{CLOSING, MAX_CHUNK, OPENING};
use crate::chain::MinerBlock;

mod data;
mod read;

pub use data::*;

/// Blocks as JSON objects joined by commas, and how many: what goes between `[` and `]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockList {
    /// The text.
    pub json: String,
    /// The number of blocks in it.
    pub count: u64,
}

impl BlockList {
    /// Writes blocks as the union of both dialects.
    pub fn of(blocks: &[MinerBlock]) -> Self {
        let texts: Vec<String> = blocks.iter().map(MinerBlock::to_json).collect();
        Self { json: texts.join(","), count: blocks.len() as u64 }
    }

    /// Reads each block as a `T`.
    ///
    /// # Errors
    /// The first block's that is no `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> serde_json::Result<Vec<T>> {
        serde_json::from_str(&format!("[{}]", self.json))
    }
}

/// An answer to a [`Query`] of the same name.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The JSON text that came.
    Ping(Box<str>),
    /// State of the node and its store.
    Inspect(InspectData),
    /// The block as a JSON object.
    Get(String),
    /// The canonical chain.
    Canonical(BlockList),
    /// Blocks of an epoch.
    Epoch {
        /// The epoch asked for.
        epoch: u64,
        /// Its blocks.
        blocks: BlockList,
    },
    /// Blocks by index.
    Range {
        /// First index asked for.
        from_index: u64,
        /// Last index that the answer covers.
        to_index: u64,
        /// Last index asked for.
        requested_to: u64,
        /// Most blocks that the answer may hold.
        chunk_size: u64,
        /// Whether there are blocks between this answer's end and the end asked for.
        has_more: bool,
        /// The blocks.
        blocks: BlockList,
    },
    /// Headers by index.
    Headers(HeadersData),
    /// The tip and its work.
    ChainInfo {
        /// All but the blocks: it has none.
        info: ChainInfoData,
        /// The blocks, if they were asked for.
        blocks: Option<BlockList>,
    },
    /// Which check points match.
    FindAncestor(FindAncestorData),
    /// Every block at an index.
    DebugIndex(DebugIndexData),
}

impl Answer {
    /// Writes the whole envelope. Where the `data` is: behind [`OPENING`], before [`CLOSING`].
    pub fn encode(&self) -> String {
        let blocks = match self {
            Self::Canonical(blocks) | Self::Epoch { blocks, .. } | Self::Range { blocks, .. } => blocks.json.len(),
            Self::ChainInfo { blocks, .. } => blocks.as_ref().map_or(0, |blocks| blocks.json.len()),
            Self::Get(block) => block.len(),
            Self::Ping(_) | Self::Inspect(_) | Self::Headers(_) | Self::FindAncestor(_) | Self::DebugIndex(_) => 0,
        };
        let mut out = String::with_capacity(blocks + 512);
        out.push_str(OPENING);
        self.encode_data(&mut out);
        out.push_str(CLOSING);
        out
    }

    fn encode_data(&self, out: &mut String) {
        // Writing to a String can't fail.
        let _ = match self {
            Self::Ping(data) => out.write_str(data),
            Self::Inspect(data) => write_json(out, data),
            Self::Get(block) => out.write_str(block),
            Self::Canonical(list) => write!(out, r#"{{"blocks":[{}],"count":{}}}"#, list.json, list.count),
            Self::Epoch { epoch, blocks } => {
                write!(out, r#"{{"epoch":{epoch},"blocks":[{}],"count":{}}}"#, blocks.json, blocks.count)
            }
            Self::Range { from_index, to_index, requested_to, chunk_size, has_more, blocks } => {
                // A peer may claim more than was asked for, even behind the largest index.
                let has_more = *has_more && to_index < requested_to;
                let next = if has_more { (to_index + 1).to_string() } else { "null".into() };
                write!(
                    out,
                    r#"{{"from_index":{from_index},"to_index":{to_index},"requested_to":{requested_to},"blocks":[{}],"count":{},"has_more":{has_more},"chunk_size":{chunk_size},"next_from_index":{next}}}"#,
                    blocks.json, blocks.count
                )
            }
            Self::ChainInfo { info, blocks } => {
                let written = write_json(out, info);
                if let Some(blocks) = blocks {
                    // The last member is `"blocks":null`.
                    out.truncate(out.len() - "null}".len());
                    let _ = write!(out, "[{}]}}", blocks.json);
                }
                written
            }
            Self::Headers(data) => write_json(out, data),
            Self::FindAncestor(data) => write_json(out, data),
            Self::DebugIndex(data) => write_json(out, data),
        };
    }
}

/// Last index that a chunk of `range` or `headers` covers.
pub fn clamped_end(from_index: u64, requested_to: u64, chunk_size: u64) -> u64 {
    requested_to.min(from_index.saturating_add(chunk_size.clamp(1, MAX_CHUNK) - 1))
}

fn write_json(out: &mut String, data: &impl Serialize) -> std::fmt::Result {
    out.push_str(&serde_json::to_string(data).map_err(|_| std::fmt::Error)?);
    Ok(())
}

//! One typed answer per path: written with blocks as the text that the store keeps, read from peers of either dialect.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{Ancestor, CLOSING, MAX_CHUNK, OPENING, Query};
use crate::chain::MinerBlock;

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
        /// Last index asked for.
        requested_to: u64,
        /// Most blocks that the answer may hold.
        chunk_size: u64,
        /// Whether there are blocks between this answer's end and the end asked for.
        has_more: bool,
        /// The blocks.
        blocks: BlockList,
    },
    /// The tip and its work.
    ChainInfo {
        /// All but the blocks.
        info: ChainInfo,
        /// The blocks, if they were asked for.
        blocks: Option<BlockList>,
    },
    /// Which check points match.
    FindAncestor(FindAncestorData),
    /// Every block at an index.
    DebugIndex(DebugIndexData),
}

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
    #[schema(value_type = Vec<super::schema::Block>)]
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
    #[schema(value_type = Vec<super::schema::Block>)]
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
    #[schema(value_type = Vec<super::schema::Block>)]
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

/// The tip of a chain and its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainInfo {
    /// Sum of the blocks' actualized difficulties, in decimal.
    pub cumulative_difficulty: String,
    /// Number of blocks.
    pub chain_length: u64,
    /// Index of the tip; 0 for an empty chain.
    pub chain_height: u64,
    /// Hash of the tip; null for an empty chain.
    pub tip_hash: Option<String>,
    /// Epoch of the tip; 0 for an empty chain.
    pub tip_epoch: u64,
    /// Highest index of the asker's blocks on this chain; null if there is none or none were named.
    pub common_ancestor_index: Option<u64>,
}

/// `data` of `/data/miner_block/chain_info`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
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
    #[schema(value_type = Option<Vec<super::schema::Block>>, required)]
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

impl Answer {
    /// Writes the whole envelope. Where the `data` is: behind [`OPENING`], before [`CLOSING`].
    pub fn encode(&self) -> String {
        let blocks = match self {
            Self::Canonical(blocks) | Self::Epoch { blocks, .. } | Self::Range { blocks, .. } => blocks.json.len(),
            Self::ChainInfo { blocks, .. } => blocks.as_ref().map_or(0, |blocks| blocks.json.len()),
            Self::Get(block) => block.len(),
            Self::Ping(_) | Self::Inspect(_) | Self::FindAncestor(_) | Self::DebugIndex(_) => 0,
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
            Self::Range { from_index, requested_to, chunk_size, has_more, blocks } => {
                let to_index = clamped_end(*from_index, *requested_to, *chunk_size);
                let next = if *has_more { (to_index + 1).to_string() } else { "null".into() };
                write!(
                    out,
                    r#"{{"from_index":{from_index},"to_index":{to_index},"requested_to":{requested_to},"blocks":[{}],"count":{},"has_more":{has_more},"chunk_size":{chunk_size},"next_from_index":{next}}}"#,
                    blocks.json, blocks.count
                )
            }
            Self::ChainInfo { info, blocks } => {
                let _ = write_json(out, info);
                out.pop();
                match blocks {
                    Some(blocks) => write!(out, r#","blocks":[{}]}}"#, blocks.json),
                    None => out.write_str(r#","blocks":null}"#),
                }
            }
            Self::FindAncestor(data) => write_json(out, data),
            Self::DebugIndex(data) => write_json(out, data),
        };
    }

    /// Reads a peer's `data` as the answer to `query`, in either dialect, and checks that it is one: the blocks asked
    /// for, in order, each once.
    ///
    /// # Errors
    /// What is wrong with it, for the log and the client.
    pub fn decode(query: &Query, data: &str) -> Result<Self, String> {
        match query {
            Query::Ping { .. } => Ok(Self::Ping(data.into())),
            Query::Inspect => parse(data).map(Self::Inspect),
            Query::Get { hash } => {
                let block: MinerBlock = parse(data)?;
                expect(block.hash == *hash, || "a block of another hash".into())?;
                Ok(Self::Get(block.to_json()))
            }
            Query::Canonical => {
                let data: CanonicalData = parse(data)?;
                Ok(Self::Canonical(list(&data.blocks, data.count, Some(0), None)?))
            }
            Query::Epoch { epoch } => {
                let data: EpochData = parse(data)?;
                expect(data.epoch == *epoch, || format!("epoch {} instead of {epoch}", data.epoch))?;
                expect(data.blocks.iter().all(|block| block.epoch == *epoch), || "a block of another epoch".into())?;
                Ok(Self::Epoch { epoch: *epoch, blocks: list(&data.blocks, data.count, None, None)? })
            }
            Query::Range { from_index, to_index, chunk_size } => {
                let data: RangeData = parse(data)?;
                let blocks = list(&data.blocks, data.count, Some(*from_index), Some(*to_index))?;
                expect(blocks.count <= *chunk_size, || format!("{} blocks, more than asked", blocks.count))?;
                Ok(Self::Range {
                    from_index: *from_index,
                    requested_to: *to_index,
                    chunk_size: *chunk_size,
                    has_more: data.has_more,
                    blocks,
                })
            }
            Query::ChainInfo { from_index, include_blocks, .. } => {
                let data: ChainInfoData = parse(data)?;
                let number = &data.cumulative_difficulty;
                expect(!number.is_empty() && number.len() <= 78 && number.bytes().all(|b| b.is_ascii_digit()), || {
                    "a cumulative_difficulty that is no number".into()
                })?;
                let blocks = data.blocks.filter(|_| *include_blocks);
                let blocks = blocks.map(|b| list(&b, b.len() as u64, from_index.filter(|_| !b.is_empty()), None));
                let info = ChainInfo {
                    cumulative_difficulty: data.cumulative_difficulty,
                    chain_length: data.chain_length,
                    chain_height: data.chain_height,
                    tip_hash: data.tip_hash,
                    tip_epoch: data.tip_epoch,
                    common_ancestor_index: data.common_ancestor_index,
                };
                Ok(Self::ChainInfo { info, blocks: blocks.transpose()? })
            }
            Query::FindAncestor { check_points } => {
                let data: FindAncestorData = parse(data)?;
                let asked = check_points.iter().map(|point| (point.index, &point.hash));
                expect(data.matches.iter().map(|found| (found.index, &found.hash)).eq(asked), || {
                    "other check points than asked".into()
                })?;
                Ok(Self::FindAncestor(data))
            }
            Query::DebugIndex { index } => {
                let data: DebugIndexData = parse(data)?;
                expect(data.index == *index, || format!("index {} instead of {index}", data.index))?;
                Ok(Self::DebugIndex(data))
            }
        }
    }
}

/// Last index that a chunk of `range` covers.
pub fn clamped_end(from_index: u64, requested_to: u64, chunk_size: u64) -> u64 {
    requested_to.min(from_index.saturating_add(chunk_size.clamp(1, MAX_CHUNK) - 1))
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

fn write_json(out: &mut String, data: &impl Serialize) -> std::fmt::Result {
    out.push_str(&serde_json::to_string(data).map_err(|_| std::fmt::Error)?);
    Ok(())
}

fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|e| e.to_string())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// The blocks as text, after checking that there are `count`, ascending without a gap from `first` (or from wherever
/// they start), none past `last`.
fn list(blocks: &[MinerBlock], count: u64, first: Option<u64>, last: Option<u64>) -> Result<BlockList, String> {
    expect(blocks.len() as u64 == count, || format!("count {count} over {} blocks", blocks.len()))?;
    let start = first.or(blocks.first().map(|block| block.index)).unwrap_or(0);
    for (offset, block) in blocks.iter().enumerate() {
        let expected = start.saturating_add(offset as u64);
        expect(block.index == expected, || format!("block {} where {expected} belongs", block.index))?;
    }
    let end = blocks.last().map_or(0, |block| block.index);
    expect(last.is_none_or(|last| end <= last), || format!("block {end}, past the end asked for"))?;
    Ok(BlockList::of(blocks))
}

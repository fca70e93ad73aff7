//! The `data` of the routes under `/chain`, as pages and other programs get it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    chain::{MinerBlock, Position},
    protocol::{Ancestor, schema::Block},
    store::IndexEntry,
};

/// The definition of an epoch that the routes under `/chain` use: that of the network's mining library.
pub const EPOCH_DEFINITION: &str = "blocks 40E+1 to 40E+40, genesis in no epoch";

/// `data` of `/chain/blocks`, and of other pages of blocks.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct BlockPage {
    /// Canonical blocks, newest first.
    #[schema(value_type = Vec<Block>)]
    pub blocks: Vec<MinerBlock>,
    /// How many.
    pub count: u64,
    /// The value of `before` for the next page; null on the last one.
    #[schema(required)]
    pub next_before: Option<u64>,
}

/// Where a block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BlockStatus {
    /// On the canonical chain.
    Canonical,
    /// On an abandoned branch.
    Orphaned,
}

/// `data` of `/chain/blocks/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct BlockDetail {
    /// The block.
    #[schema(value_type = Block)]
    pub block: MinerBlock,
    /// Where it stands.
    pub status: BlockStatus,
    /// Whether it is canonical and deeper than the finality depth.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// How far it was verified: `pow`, `linked` or `none`.
    pub verification: &'static str,
    /// The epoch that its index belongs to; null for genesis. The member `epoch` of the block is what nodes write
    /// there.
    #[schema(required)]
    pub in_epoch: Option<u64>,
    /// Its parent; null for genesis, and where the store doesn't have it.
    #[schema(required)]
    pub previous: Option<Neighbour>,
    /// The blocks that follow it, canonical first; at most 20.
    pub next: Vec<Neighbour>,
    /// The other blocks at its index, canonical first; at most 20.
    pub siblings: Vec<Neighbour>,
    /// The last canonical block below an orphaned one; null for a canonical block, and where it is not known.
    #[schema(required, value_type = Option<Ancestor>)]
    pub branched_from: Option<Position>,
}

/// A block beside another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Neighbour {
    /// Index of the block.
    pub index: u64,
    /// Hash of the block.
    pub hash: String,
    /// Where it stands.
    pub status: BlockStatus,
    /// Why it was orphaned.
    #[schema(required)]
    pub orphan_reason: Option<String>,
}

impl From<IndexEntry> for Neighbour {
    fn from(entry: IndexEntry) -> Self {
        let status = if entry.canonical { BlockStatus::Canonical } else { BlockStatus::Orphaned };
        Self { index: entry.index, hash: entry.hash, status, orphan_reason: entry.orphan_reason }
    }
}

/// An epoch in a list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EpochSummary {
    /// Number of the epoch.
    pub epoch: u64,
    /// Index of its first block.
    pub first_index: u64,
    /// Index of its last block, whether or not it is there yet.
    pub last_index: u64,
    /// Number of its blocks so far: 40 when it is complete.
    pub blocks: u64,
    /// Whether all its blocks are there.
    pub complete: bool,
    /// Whether its last block is deeper than the finality depth, so that nothing here will change.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Target difficulty of its last block, in decimal.
    pub difficulty: String,
    /// Sum of its blocks' actualized difficulties, in decimal.
    pub work: String,
    /// Seconds from its first to its last block, divided by the steps between them; null for one block.
    #[schema(required)]
    pub mean_block_time: Option<f64>,
    /// Hashes per second of the network during the epoch, as for `/chain/network`; null where its blocks took no time.
    #[schema(required)]
    pub hash_rate: Option<f64>,
    /// Timestamp of its first block, unix seconds.
    pub first_time: i64,
    /// Timestamp of its last block, unix seconds.
    pub last_time: i64,
    /// Number of different nominees.
    pub nominees: u64,
}

/// `data` of `/chain/epochs`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EpochPage {
    /// Epochs, newest first. The definition is that of [`EpochDetail`].
    pub epochs: Vec<EpochSummary>,
    /// The value of `before` for the next page; null on the last one.
    #[schema(required)]
    pub next_before: Option<u64>,
    /// Which blocks are counted to an epoch.
    pub definition: &'static str,
}

/// `data` of `/chain/epochs/{epoch}`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EpochDetail {
    /// The epoch in figures.
    pub summary: EpochSummary,
    /// Its blocks by index.
    pub positions: Vec<Nomination>,
    /// What follows from them; null until the epoch is complete.
    #[schema(required)]
    pub election: Option<Election>,
    /// Which blocks are counted to an epoch.
    pub definition: &'static str,
}

/// A block of an epoch, and whom it nominates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Nomination {
    /// Index of the block.
    pub index: u64,
    /// Hash of the block.
    pub hash: String,
    /// Timestamp of the block, unix seconds.
    pub timestamp: i64,
    /// The peer that it nominates.
    pub nominee: String,
}

/// The validators that follow from a complete epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Election {
    /// XOR of the low 64 bits of the blocks' nonces, in decimal.
    pub seed: String,
    /// Whether a reorganisation may still change it.
    pub provisional: bool,
    /// The epoch during which the validators serve: two after this one.
    pub serves_epoch: u64,
    /// Indexes of the epoch's blocks in shuffled order.
    pub shuffled: Vec<u64>,
    /// The first 27 different nominees in shuffled order.
    pub validators: Vec<Validator>,
    /// The last 13 of the different nominees if there are more than 27; some of them may be validators too.
    pub alternates: Vec<Validator>,
}

/// A nominee with its stake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Validator {
    /// The nominated peer.
    pub peer: String,
    /// Number of the epoch's blocks that nominate it.
    pub stake: u64,
}

/// `data` of `/chain/nominees`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Ranking {
    /// First epoch counted.
    pub from_epoch: u64,
    /// Last epoch counted, which may be incomplete.
    pub to_epoch: u64,
    /// Number of blocks counted.
    pub blocks: u64,
    /// The nominees, the most nominated first.
    pub nominees: Vec<Ranked>,
    /// Which blocks are counted to an epoch.
    pub definition: &'static str,
}

/// A nominee in a ranking.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Ranked {
    /// The nominated peer.
    pub peer: String,
    /// Number of the counted blocks that nominate it.
    pub blocks: u64,
    /// Its part of the counted blocks, from 0 to 1.
    pub share: f64,
    /// Index of the last block that nominates it.
    pub last_index: u64,
}

/// `data` of `/chain/nominees/{peer}`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Nominee {
    /// The nominated peer.
    pub peer: String,
    /// Number of canonical blocks that nominate it.
    pub total: u64,
    /// Canonical blocks that nominate it, newest first.
    #[schema(value_type = Vec<Block>)]
    pub blocks: Vec<MinerBlock>,
    /// The value of `before` for the next page; null on the last one.
    #[schema(required)]
    pub next_before: Option<u64>,
}

/// `data` of `/chain/network`. Null where the chain is too short to tell.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct NetworkFigures {
    /// Name of the network.
    pub network: String,
    /// Number of canonical blocks.
    pub length: u64,
    /// Sum of their actualized difficulties, in decimal.
    pub work: String,
    /// The tip; null for an empty chain.
    #[schema(required, value_type = Option<Ancestor>)]
    pub tip: Option<Position>,
    /// Timestamp of the tip, unix seconds.
    #[schema(required)]
    pub tip_time: Option<i64>,
    /// Target difficulty of the tip, in decimal.
    #[schema(required)]
    pub difficulty: Option<String>,
    /// Hashes per second over the last 10 blocks, as the network's status page has it: mean target difficulty times
    /// 256, divided by the seconds from one block to the next.
    #[schema(required)]
    pub hash_rate: Option<f64>,
    /// Seconds that a block should take.
    pub target_block_time: u64,
    /// Mean seconds from one of the last 10 blocks to the next.
    #[schema(required)]
    pub mean_block_time: Option<f64>,
    /// The epoch that the tip belongs to.
    #[schema(required)]
    pub epoch: Option<EpochProgress>,
    /// The validators of that epoch: those that follow from the blocks of two epochs before. Null in the first two
    /// epochs.
    #[schema(required)]
    pub validators: Option<Vec<Validator>>,
    /// Which blocks are counted to an epoch.
    pub definition: &'static str,
}

/// How far the current epoch is.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EpochProgress {
    /// Number of the epoch.
    pub epoch: u64,
    /// Number of its blocks so far.
    pub blocks: u64,
    /// Number of its blocks when it is complete.
    pub of: u64,
    /// Seconds that the rest should take at the mean block time of the last 10 blocks.
    #[schema(required)]
    pub seconds_left: Option<f64>,
    /// Target difficulty of the next epoch if the rest takes as long a block as the part that is there, in decimal.
    #[schema(required)]
    pub next_difficulty: Option<String>,
}

/// `data` of `/chain/reorganisations`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ReorganisationPage {
    /// The reorganisations that this store has seen, newest first.
    pub reorganisations: Vec<SeenReorganisation>,
    /// The value of `before` for the next page; null on the last one.
    #[schema(required)]
    pub next_before: Option<u64>,
}

/// A reorganisation as it happened.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SeenReorganisation {
    /// Version of the chain that it led to: the number in the id of its event.
    pub id: u64,
    /// Time of the commit, unix seconds.
    pub at: i64,
    /// The last block that stayed; null: none did.
    #[schema(required, value_type = Option<Ancestor>)]
    pub ancestor: Option<Position>,
    /// The tip before; null: the chain was empty.
    #[schema(required, value_type = Option<Ancestor>)]
    pub old_tip: Option<Position>,
    /// The tip after; null: the chain is empty.
    #[schema(required, value_type = Option<Ancestor>)]
    pub new_tip: Option<Position>,
    /// Number of blocks that left the canonical chain: its depth.
    pub orphaned: u64,
    /// Number of blocks that joined it.
    pub adopted: u64,
    /// Why.
    pub reason: String,
}

/// `data` of `/chain/orphans`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct OrphanPage {
    /// Orphaned blocks, the highest first.
    #[schema(value_type = Vec<Block>)]
    pub blocks: Vec<MinerBlock>,
    /// How many.
    pub count: u64,
    /// The value of `before` for the next page; null on the last one.
    #[schema(required)]
    pub next_before: Option<String>,
}

/// `data` of `/chain/search`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Found {
    /// The text that was looked for.
    pub query: String,
    /// Blocks at that index, with that hash, or whose hash begins so; at most 20.
    pub blocks: Vec<Neighbour>,
    /// The epoch of that number, if it has blocks.
    #[schema(required)]
    pub epoch: Option<u64>,
    /// The nominee of that name, if a canonical block nominates it.
    #[schema(required)]
    pub nominee: Option<String>,
    /// Whether more blocks were found than are listed.
    pub has_more: bool,
}

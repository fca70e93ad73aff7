//! Rows as the statements give them, and what they mean.

use sqlx::FromRow;

use super::level;
use crate::store::{Anchor, Blocks, ChainState, Found, IndexEntry, Result, StoreError, Tip};

/// Columns of `chain` that every read gives.
#[derive(FromRow)]
struct Seen {
    version: i64,
    tip_index: Option<i64>,
    tip_hash: Option<String>,
    tip_epoch: Option<i64>,
}

impl Seen {
    fn split(self) -> Result<(u64, Option<Tip>)> {
        Ok((self.version as u64, tip(self.tip_index, self.tip_hash, self.tip_epoch)?))
    }
}

fn tip(index: Option<i64>, hash: Option<String>, epoch: Option<i64>) -> Result<Option<Tip>> {
    match (index, hash, epoch) {
        (Some(index), Some(hash), Some(epoch)) => Ok(Some(Tip { index: index as u64, hash, epoch: epoch as u64 })),
        (None, None, None) => Ok(None),
        _ => Err(StoreError::Damaged("the tip of the chain is incomplete".into())),
    }
}

/// The row of `chain`.
#[derive(FromRow)]
pub(in crate::store) struct ChainRow {
    #[sqlx(flatten)]
    seen: Seen,
    length: i64,
    total_blocks: i64,
    cumulative_difficulty: String,
    bytes: i64,
    epochs: i64,
    miners: i64,
    level: Option<i64>,
    largest: i64,
    off_schedule: i64,
    off_timestamp: i64,
}

impl TryFrom<ChainRow> for ChainState {
    type Error = StoreError;
    fn try_from(row: ChainRow) -> Result<Self> {
        let (version, tip) = row.seen.split()?;
        let damaged = |error| StoreError::Damaged(format!("{error}: {}", row.cumulative_difficulty));
        Ok(Self {
            version,
            tip,
            length: row.length as u64,
            total_blocks: row.total_blocks as u64,
            cumulative_difficulty: row.cumulative_difficulty.parse().map_err(damaged)?,
            bytes: row.bytes as u64,
            epochs: row.epochs as u64,
            miners: row.miners as u64,
            level: row.level.map(level).transpose()?,
            largest: row.largest as u64,
            off_schedule: row.off_schedule as u64,
            off_timestamp: row.off_timestamp as u64,
        })
    }
}

/// A block, and whether it is canonical.
#[derive(FromRow)]
pub(super) struct FoundRow {
    #[sqlx(flatten)]
    seen: Seen,
    document: String,
    idx: i64,
    canonical: bool,
    level: i64,
}

impl TryFrom<FoundRow> for Found {
    type Error = StoreError;
    fn try_from(row: FoundRow) -> Result<Self> {
        let (version, tip) = row.seen.split()?;
        let level = level(row.level)?;
        Ok(Self { version, tip, json: row.document, index: row.idx as u64, canonical: row.canonical, level })
    }
}

/// Blocks in one text.
#[derive(FromRow)]
pub(super) struct BlocksRow {
    #[sqlx(flatten)]
    seen: Seen,
    json: Option<String>,
    count: i64,
    last_index: Option<i64>,
    last_hash: Option<String>,
    level: Option<i64>,
}

impl TryFrom<BlocksRow> for Blocks {
    type Error = StoreError;
    fn try_from(row: BlocksRow) -> Result<Self> {
        let (version, tip) = row.seen.split()?;
        Ok(Self {
            version,
            tip,
            json: row.json.unwrap_or_default(),
            count: row.count as u64,
            last_index: row.last_index.map(|index| index as u64),
            last_hash: row.last_hash,
            level: row.level.map(level).transpose()?,
        })
    }
}

/// A block at an index, or the canonical one at the next.
#[derive(FromRow)]
pub(super) struct IndexRow {
    /// How many orphans there are at the index, listed or not.
    pub orphans: i64,
    idx: i64,
    hash: String,
    previous_hash: String,
    canonical: bool,
    orphan_reason: Option<String>,
}

impl From<IndexRow> for IndexEntry {
    fn from(row: IndexRow) -> Self {
        Self {
            index: row.idx as u64,
            hash: row.hash,
            previous_hash: row.previous_hash,
            canonical: row.canonical,
            orphaned: !row.canonical,
            orphan_reason: row.orphan_reason,
        }
    }
}

/// Where a hash stands to the canonical chain.
#[derive(FromRow)]
pub(super) struct AnchorRow {
    version: i64,
    known: bool,
    idx: Option<i64>,
    hash: Option<String>,
    steps: Option<i64>,
}

impl AnchorRow {
    /// Also the version of the chain that this is true of.
    pub fn read(self) -> (Anchor, u64) {
        let anchor = match (self.known, self.idx.zip(self.hash)) {
            (false, _) => Anchor::Unknown,
            (true, Some(_)) if self.steps == Some(0) => Anchor::Canonical,
            (true, ancestor) => Anchor::Orphaned(ancestor.map(|(index, hash)| (index as u64, hash))),
        };
        (anchor, self.version as u64)
    }
}

//! Rows as the statements return them, and the values that they hold.

use serde::Serialize;
use sqlx::FromRow;

use crate::{
    chain::{CumulativeDifficulty, Level, MinerBlock, Position},
    protocol::BlockList,
    store::{
        error::{Result, StoreError},
        model::{Anchor, Blocks, ChainState, Event, EventKind, FoundBlock, IndexEntry, Snapshot, StagedBranch, Tip},
    },
};

/// The level in a column `level`, in all tables the same: 0 `none`, 1 `linked`, 2 `pow`; see [`Level::code`].
pub fn level(code: i64) -> Result<Level> {
    Level::from_code(code).ok_or_else(|| StoreError::Damaged(format!("verification level {code}")))
}

/// The block that a stored document holds.
pub fn block(document: &str) -> Result<MinerBlock> {
    serde_json::from_str(document).map_err(|error| StoreError::Damaged(format!("a stored block: {error}")))
}

fn work(decimal: &str) -> Result<CumulativeDifficulty> {
    decimal.parse().map_err(|error| StoreError::Damaged(format!("cumulative difficulty {decimal}: {error}")))
}

fn position(index: Option<i64>, hash: Option<String>) -> Option<Position> {
    index.zip(hash).map(|(index, hash)| Position { index: index as u64, hash })
}

/// A number as a bound of an index or of a count of rows.
pub fn clamp(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// A JSON array of texts or numbers, which serde_json never fails to write.
pub fn json_array<T: Serialize>(values: &[T]) -> String {
    serde_json::to_string(values).unwrap_or_default()
}

/// Columns `document`, `cumulative_difficulty` and `level` of a block of a chain.
pub type BlockColumns = (String, String, i64);

/// A row of `block` or `staged_block`.
pub struct BlockRow {
    pub block: MinerBlock,
    pub document: String,
    pub cumulative_difficulty: Option<CumulativeDifficulty>,
    pub level: Level,
}

impl TryFrom<BlockColumns> for BlockRow {
    type Error = StoreError;
    fn try_from((document, difficulty, code): BlockColumns) -> Result<Self> {
        let cumulative_difficulty = Some(work(&difficulty)?);
        Ok(Self { block: block(&document)?, document, cumulative_difficulty, level: level(code)? })
    }
}

/// Columns `hash` and `cumulative_difficulty` of a block.
pub fn known_work((hash, decimal): (String, Option<String>)) -> Result<(String, Option<CumulativeDifficulty>)> {
    Ok((hash, decimal.as_deref().map(work).transpose()?))
}

/// Columns of `chain` that every read of blocks returns, with the level of what was read.
#[derive(FromRow)]
struct SnapshotColumns {
    version: i64,
    tip_index: Option<i64>,
    tip_hash: Option<String>,
    tip_epoch: Option<i64>,
    level: Option<i64>,
}

impl SnapshotColumns {
    fn decode(self) -> Result<Snapshot> {
        let tip = match (self.tip_index, self.tip_hash, self.tip_epoch) {
            (Some(index), Some(hash), Some(epoch)) => Some(Tip { index: index as u64, hash, epoch: epoch as u64 }),
            (None, None, None) => None,
            _ => return Err(StoreError::Damaged("the tip of the chain is incomplete".into())),
        };
        Ok(Snapshot { version: self.version as u64, tip, level: self.level.map(level).transpose()? })
    }
}

/// The row of `chain`.
#[derive(FromRow)]
pub struct ChainRow {
    #[sqlx(flatten)]
    snapshot: SnapshotColumns,
    length: i64,
    total_blocks: i64,
    cumulative_difficulty: String,
    bytes: i64,
    epochs: i64,
    miners: i64,
    largest: i64,
    off_schedule: i64,
    off_timestamp: i64,
}

impl TryFrom<ChainRow> for ChainState {
    type Error = StoreError;
    fn try_from(row: ChainRow) -> Result<Self> {
        let Snapshot { version, tip, level } = row.snapshot.decode()?;
        Ok(Self {
            version,
            tip,
            level,
            length: row.length as u64,
            total_blocks: row.total_blocks as u64,
            cumulative_difficulty: work(&row.cumulative_difficulty)?,
            bytes: row.bytes as u64,
            epochs: row.epochs as u64,
            miners: row.miners as u64,
            largest: row.largest as u64,
            off_schedule: row.off_schedule as u64,
            off_timestamp: row.off_timestamp as u64,
        })
    }
}

/// A block found by its hash.
#[derive(FromRow)]
pub struct FoundRow {
    #[sqlx(flatten)]
    snapshot: SnapshotColumns,
    document: String,
    idx: i64,
    canonical: bool,
}

impl TryFrom<FoundRow> for FoundBlock {
    type Error = StoreError;
    fn try_from(row: FoundRow) -> Result<Self> {
        let snapshot = row.snapshot.decode()?;
        Ok(Self { snapshot, json: row.document, index: row.idx as u64, canonical: row.canonical })
    }
}

/// A run of blocks, aggregated into one text.
#[derive(FromRow)]
pub struct BlocksRow {
    #[sqlx(flatten)]
    snapshot: SnapshotColumns,
    json: Option<String>,
    count: i64,
    last_index: Option<i64>,
    last_hash: Option<String>,
}

impl TryFrom<BlocksRow> for Blocks {
    type Error = StoreError;
    fn try_from(row: BlocksRow) -> Result<Self> {
        Ok(Self {
            snapshot: row.snapshot.decode()?,
            list: BlockList { json: row.json.unwrap_or_default(), count: row.count as u64 },
            last_index: row.last_index.map(|index| index as u64),
            last_hash: row.last_hash,
        })
    }
}

/// A block at an index, or the canonical one at the next.
#[derive(FromRow)]
pub struct IndexRow {
    /// Number of orphans at the index, listed or not.
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
pub struct AnchorRow {
    version: i64,
    known: bool,
    idx: Option<i64>,
    hash: Option<String>,
    steps: Option<i64>,
}

impl From<AnchorRow> for (Anchor, u64) {
    fn from(row: AnchorRow) -> Self {
        let anchor = match (row.known, row.idx.zip(row.hash)) {
            (false, _) => Anchor::Unknown,
            (true, Some(_)) if row.steps == Some(0) => Anchor::Canonical,
            (true, ancestor) => Anchor::Orphaned(ancestor.map(|(index, hash)| (index as u64, hash))),
        };
        (anchor, row.version as u64)
    }
}

/// The row of `stage`, with the last row of `staged_block`.
#[derive(FromRow)]
pub struct StagedBranchRow {
    fork_index: Option<i64>,
    fork_hash: Option<String>,
    tip_index: i64,
    level: i64,
    job: i64,
    document: String,
    cumulative_difficulty: String,
}

impl TryFrom<StagedBranchRow> for StagedBranch {
    type Error = StoreError;
    fn try_from(row: StagedBranchRow) -> Result<Self> {
        Ok(Self {
            ancestor: position(row.fork_index, row.fork_hash),
            end: block(&row.document)?,
            count: (row.tip_index - row.fork_index.unwrap_or(-1)) as u64,
            work: work(&row.cumulative_difficulty)?,
            level: level(row.level)?,
            job: row.job as u64,
        })
    }
}

/// A row of `event`.
#[derive(FromRow)]
pub struct EventRow {
    id: i64,
    at: i64,
    kind: String,
    tip_index: Option<i64>,
    tip_hash: Option<String>,
    document: String,
}

impl TryFrom<EventRow> for Event {
    type Error = StoreError;
    fn try_from(row: EventRow) -> Result<Self> {
        let unknown = |_| StoreError::Damaged(format!("an event of kind `{}`", row.kind));
        let kind: EventKind = row.kind.parse().map_err(unknown)?;
        let tip = position(row.tip_index, row.tip_hash);
        Ok(Self { id: row.id as u64, at: row.at, kind, tip, document: row.document })
    }
}

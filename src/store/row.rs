//! A row of `block` or `staged_block`, and how blocks become such rows.

use super::{Result, StoreError, sql::level};
use crate::chain::{CumulativeDifficulty, Level, MinerBlock, Position};

/// A row, with what the accounts need of it.
pub(super) struct Row {
    pub block: MinerBlock,
    pub document: String,
    pub cumulative_difficulty: Option<CumulativeDifficulty>,
    pub level: Level,
}

impl Row {
    /// A stored block of a chain: its document, cumulative difficulty and level.
    pub fn read((document, difficulty, code): (String, String, i64)) -> Result<Self> {
        let cumulative_difficulty = Some(difficulty.parse().map_err(|error| damaged(&error))?);
        Ok(Self { block: block(&document)?, document, cumulative_difficulty, level: level(code)? })
    }
}

/// The block that a stored document holds.
pub(super) fn block(document: &str) -> Result<MinerBlock> {
    serde_json::from_str(document).map_err(|error| damaged(&error))
}

fn damaged(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("a stored block: {error}"))
}

/// Canonical blocks that follow `parent`, whose chain has this much work, as rows, or why they can't be stored.
pub(super) fn follow(
    parent: Option<Position>,
    work: CumulativeDifficulty,
    blocks: impl IntoIterator<Item = (MinerBlock, Level)>,
) -> Result<Vec<Row>> {
    let (mut parent, mut work) = (parent, work);
    let row = |(mut block, level): (MinerBlock, Level)| {
        let follows = match &parent {
            Some(parent) => block.index.checked_sub(1) == Some(parent.index) && block.previous_hash == parent.hash,
            None => block.index == 0,
        };
        if !follows {
            let (index, hash) = parent.take().map(|parent| (parent.index, parent.hash)).unwrap_or_default();
            let (what, previous) = (format!("block {} ({})", block.index, block.hash), &block.previous_hash);
            return Err(StoreError::Conflict(format!(
                "{what} with previous hash {previous} does not follow block {index} ({hash})"
            )));
        }
        parent = Some(Position::from(&block));
        work = work + block.actualized_difficulty;
        (block.is_canonical, block.is_orphaned) = (true, false);
        (block.orphaned_at, block.orphan_reason, block.competing_hash) = (None, None, None);
        Ok(Row { document: block.to_json(), block, cumulative_difficulty: Some(work), level })
    };
    blocks.into_iter().map(row).collect()
}

//! The INSERT of blocks.

use sqlx::QueryBuilder;

use super::{Backend, rows::BlockRow, statements::ROWS_PER_STATEMENT};

/// The columns that a block's row is written with.
pub const COLUMNS: &str =
    "hash, idx, epoch, previous_hash, canonical, orphan_reason, cumulative_difficulty, level, document";

/// What an INSERT does with blocks that are stored already.
#[derive(Clone, Copy)]
pub enum OnConflict {
    /// Changes them from canonical to orphaned or back.
    Update,
    /// Leaves them as they are.
    Ignore,
    /// Fails.
    Fail,
}

/// Writes at most [`ROWS_PER_STATEMENT`] rows that are all canonical or all not; returns the number of those inserted
/// or changed.
pub async fn insert<DB: Backend>(
    connection: &mut DB::Connection,
    rows: &[BlockRow],
    canonical: bool,
    on_conflict: OnConflict,
) -> sqlx::Result<u64> {
    let mut insert = QueryBuilder::new(format!("INSERT INTO block ({COLUMNS}) "));
    insert.push_values(rows, |mut values, row| {
        values.push_bind(row.block.hash.clone()).push_bind(row.block.index as i64);
        values.push_bind(row.block.epoch as i64).push_bind(row.block.previous_hash.clone());
        values.push_bind(canonical).push_bind(row.block.orphan_reason.clone());
        values.push_bind(row.cumulative_difficulty.map(|difficulty| difficulty.to_string()));
        values.push_bind(row.level.code()).push_bind(row.document.clone());
    });
    insert.push(match on_conflict {
        OnConflict::Fail => "",
        OnConflict::Ignore => " ON CONFLICT (hash) DO NOTHING",
        OnConflict::Update => {
            " ON CONFLICT (hash) DO UPDATE SET idx = excluded.idx, epoch = excluded.epoch, \
             previous_hash = excluded.previous_hash, canonical = excluded.canonical, \
             orphan_reason = excluded.orphan_reason, \
             cumulative_difficulty = excluded.cumulative_difficulty, \
             level = excluded.level, document = excluded.document \
             WHERE block.canonical <> excluded.canonical"
        }
    });
    // Only statements of full length recur often enough to be kept prepared.
    let statement = insert.build().persistent(rows.len() == ROWS_PER_STATEMENT);
    Ok(DB::rows_affected(&statement.execute(connection).await?))
}

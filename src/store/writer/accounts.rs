//! The accounts of the canonical chain, which spare the readers a scan.

use std::collections::HashMap;

use sqlx::{ColumnIndex, Executor, QueryBuilder, query_as};

use super::{ROWS_PER_STATEMENT, SqlWriter};
use crate::{
    chain::Level,
    store::{
        Result,
        row::Row,
        sql::{Backend, Column, level},
    },
};

/// Changes to the numbers of canonical blocks, by kind and value.
type Changes = HashMap<(&'static str, String), i64>;

impl<DB: Backend> SqlWriter<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    usize: ColumnIndex<DB::Row>,
    i64: Column<DB>,
    String: Column<DB>,
    Option<i64>: Column<DB>,
{
    /// Enters canonical rows into the accounts, or takes them out of them: `sign` is 1 or -1.
    pub(super) async fn account(&mut self, rows: &[Row], sign: i64) -> Result<()> {
        let mut changes = Changes::new();
        for row in rows {
            let epoch = ("epoch", row.block.epoch.to_string());
            let miner = ("miner", row.block.nominated_peer_id.clone());
            for key in [epoch, miner, level_key(row.level)] {
                *changes.entry(key).or_default() += sign;
            }
        }
        let bytes: usize = rows.iter().map(|row| row.document.len()).sum();
        self.state.length = self.state.length.saturating_add_signed(sign * rows.len() as i64);
        self.state.bytes = self.state.bytes.saturating_add_signed(sign * bytes as i64);
        self.tally(changes).await
    }

    /// Moves canonical blocks, so many of each level, to the level `to`.
    pub(super) async fn account_raised(&mut self, blocks: &[(Level, i64)], to: Level) -> Result<()> {
        let taken = blocks.iter().map(|(from, count)| (level_key(*from), -count));
        let total = blocks.iter().map(|(_, count)| count).sum();
        self.tally(taken.chain([(level_key(to), total)]).collect()).await
    }

    async fn tally(&mut self, changes: Changes) -> Result<()> {
        let entries: Vec<_> = changes.iter().collect();
        for entries in entries.chunks(ROWS_PER_STATEMENT) {
            let mut upsert = QueryBuilder::new("INSERT INTO tally (kind, value, blocks) ");
            upsert.push_values(entries, |mut values, ((kind, value), change)| {
                values.push_bind(kind.to_string()).push_bind(value.clone()).push_bind(**change);
            });
            upsert.push(
                " ON CONFLICT (kind, value) DO UPDATE SET blocks = tally.blocks + excluded.blocks \
                 RETURNING kind, value, blocks",
            );
            let query = upsert.build_query_as::<(String, String, i64)>().persistent(false);
            for (kind, value, blocks) in query.fetch_all(&mut *self.transaction).await.map_err(DB::error)? {
                let (kind, count) = match kind.as_str() {
                    "epoch" => ("epoch", &mut self.state.epochs),
                    "miner" => ("miner", &mut self.state.miners),
                    _ => continue,
                };
                let before = blocks - changes.get(&(kind, value)).copied().unwrap_or_default();
                *count = count.saturating_add_signed(i64::from(blocks > 0) - i64::from(before > 0));
            }
        }
        let weakest = "SELECT CAST(min(value) AS BIGINT) FROM tally WHERE kind = 'level' AND blocks > 0";
        let (weakest,): (Option<i64>,) =
            query_as(weakest).fetch_one(&mut *self.transaction).await.map_err(DB::error)?;
        self.state.level = weakest.map(level).transpose()?;
        Ok(())
    }
}

fn level_key(level: Level) -> (&'static str, String) {
    ("level", level.code().to_string())
}

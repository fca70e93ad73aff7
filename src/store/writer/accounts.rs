//! The accounts of the canonical chain, which spare the readers a scan.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use sqlx::{ColumnIndex, Executor, QueryBuilder, query_as};

use super::{ROWS_PER_STATEMENT, SqlWriter};
use crate::{
    chain::{Deviation, Level, block::MAX_KEY_BYTES},
    store::{
        Result,
        row::Row,
        sql::{Backend, Column, level},
    },
};

/// Begins the value of a nominee that is kept as its SHA-256 in hex. No peer id begins with it.
const DIGEST_MARKER: &str = "\u{1}sha256:";

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
            let miner = ("miner", miner_value(&row.block.nominated_peer_id));
            for key in [epoch, miner, level_key(row.level)] {
                *changes.entry(key).or_default() += sign;
            }
        }
        let bytes: usize = rows.iter().map(|row| row.document.len()).sum();
        self.state.length = self.state.length.saturating_add_signed(sign * rows.len() as i64);
        self.state.bytes = self.state.bytes.saturating_add_signed(sign * bytes as i64);
        let largest = rows.iter().map(|row| row.document.len() as u64).max().unwrap_or_default();
        self.state.largest = self.state.largest.max(largest);
        for (deviation, count) in
            [(Deviation::Schedule, &mut self.state.off_schedule), (Deviation::Timestamp, &mut self.state.off_timestamp)]
        {
            let deviating = rows.iter().filter(|row| row.block.deviations.contains(&deviation)).count();
            *count = count.saturating_add_signed(sign * deviating as i64);
        }
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

/// What stands for a nominee among the miners: itself, or a digest where a key can't hold it. Texts that look like a
/// digest are digested too, so that different nominees stay different.
fn miner_value(nominee: &str) -> String {
    let plain = nominee.len() <= MAX_KEY_BYTES && !nominee.contains('\0') && !nominee.starts_with(DIGEST_MARKER);
    if plain { nominee.to_owned() } else { format!("{DIGEST_MARKER}{}", hex::encode(Sha256::digest(nominee))) }
}

fn level_key(level: Level) -> (&'static str, String) {
    ("level", level.code().to_string())
}

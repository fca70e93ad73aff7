//! Writing: one transaction over both databases, and the accounts that spare the readers a scan.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, ColumnIndex, Database, Executor, Pool, QueryBuilder, Transaction, query, query_as};

use super::{
    ChainState, ChainWriter, Result, StoreError, Tip,
    sql::{Backend, ChainRow, Column, failure, json_array, level},
    statements,
};
use crate::chain::{CumulativeDifficulty, Level, MinerBlock, VerifiedBlocks, verify::check_storable};

/// Rows of one INSERT, with 9 parameters each: below the limits of both databases (32,766 and 65,535 parameters), and
/// small enough to keep the statement prepared.
const ROWS_PER_STATEMENT: usize = 250;

/// Longest hash and nominated peer id that are stored. Postgres can't index texts much longer than twice this.
const MAX_KEY_BYTES: usize = 1024;

/// A transaction of a [`SqlStore`](super::sql::SqlStore).
pub(super) struct SqlWriter<DB: Database> {
    transaction: Transaction<'static, DB>,
    state: ChainState,
}

/// A row of `block`, with what the accounts need of it.
struct Row {
    block: MinerBlock,
    document: String,
    cumulative_difficulty: Option<CumulativeDifficulty>,
    level: Level,
}

/// What an INSERT of blocks does with those that are stored already.
#[derive(Clone, Copy, PartialEq)]
enum Stored {
    /// They change sides, from canonical to orphaned or back.
    Change,
    /// They stay as they are.
    Keep,
}

impl<DB: Backend> SqlWriter<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'c> &'c str: ColumnIndex<DB::Row>,
    usize: ColumnIndex<DB::Row>,
    i64: Column<DB>,
    bool: Column<DB>,
    String: Column<DB>,
    Option<i64>: Column<DB>,
    Option<String>: Column<DB>,
{
    /// Begins the transaction, waiting for other writers.
    pub async fn begin(pool: &Pool<DB>) -> Result<Self> {
        let mut transaction = match pool.begin_with(DB::BEGIN).await {
            Ok(transaction) => transaction,
            Err(error) => return Err(failure(error, pool).await),
        };
        let row: ChainRow = query_as(DB::READ_FOR_WRITE).fetch_one(&mut *transaction).await.map_err(DB::error)?;
        Ok(Self { transaction, state: row.try_into()? })
    }

    /// Writes rows that are all canonical or all not; returns how many were inserted or changed.
    async fn insert(&mut self, rows: &[Row], canonical: bool, stored: Stored) -> Result<u64> {
        let mut written = 0;
        for rows in rows.chunks(ROWS_PER_STATEMENT) {
            let mut insert = QueryBuilder::new(
                "INSERT INTO block (hash, idx, epoch, previous_hash, canonical, orphan_reason, cumulative_difficulty, \
                 level, document) ",
            );
            insert.push_values(rows, |mut values, row| {
                values.push_bind(row.block.hash.clone()).push_bind(row.block.index as i64);
                values.push_bind(row.block.epoch as i64).push_bind(row.block.previous_hash.clone());
                values.push_bind(canonical).push_bind(row.block.orphan_reason.clone());
                values.push_bind(row.cumulative_difficulty.map(|difficulty| difficulty.to_string()));
                values.push_bind(row.level.code()).push_bind(row.document.clone());
            });
            insert.push(match stored {
                Stored::Keep => " ON CONFLICT (hash) DO NOTHING",
                Stored::Change => {
                    " ON CONFLICT (hash) DO UPDATE SET idx = excluded.idx, epoch = excluded.epoch, \
                     previous_hash = excluded.previous_hash, canonical = excluded.canonical, \
                     orphan_reason = excluded.orphan_reason, \
                     cumulative_difficulty = excluded.cumulative_difficulty, \
                     level = excluded.level, document = excluded.document \
                     WHERE block.canonical <> excluded.canonical"
                }
            });
            // Only statements of full length come again often enough to be kept prepared.
            let statement = insert.build().persistent(rows.len() == ROWS_PER_STATEMENT);
            written += DB::rows(&statement.execute(&mut *self.transaction).await.map_err(DB::error)?);
        }
        Ok(written)
    }

    /// Of the blocks with these hashes that are stored, the cumulative difficulties where they are known.
    async fn stored<'h>(
        &mut self,
        hashes: impl Iterator<Item = &'h str>,
    ) -> Result<HashMap<String, Option<CumulativeDifficulty>>> {
        let hashes: Vec<&str> = hashes.filter(|hash| !hash.contains('\0')).collect();
        let query = query_as(AssertSqlSafe(statements::cumulative_difficulties::<DB>())).bind(json_array(&hashes));
        let rows: Vec<(String, Option<String>)> = query.fetch_all(&mut *self.transaction).await.map_err(DB::error)?;
        let parse = |(hash, difficulty): (String, Option<String>)| match difficulty.map(|text| text.parse()).transpose()
        {
            Ok(difficulty) => Ok((hash, difficulty)),
            Err(error) => Err(StoreError::Damaged(format!("cumulative difficulty of block {hash}: {error}"))),
        };
        rows.into_iter().map(parse).collect()
    }

    /// Enters canonical rows into the accounts, or takes them out of them: `sign` is 1 or -1.
    async fn account(&mut self, rows: &[Row], sign: i64) -> Result<()> {
        let mut changes: HashMap<(String, String), i64> = HashMap::new();
        for row in rows {
            let epoch = ("epoch", row.block.epoch.to_string());
            let miner = ("miner", row.block.nominated_peer_id.clone());
            let level = ("level", row.level.code().to_string());
            for (kind, value) in [epoch, miner, level] {
                *changes.entry((kind.into(), value)).or_default() += sign;
            }
        }
        let entries: Vec<_> = changes.iter().collect();
        for entries in entries.chunks(ROWS_PER_STATEMENT) {
            let mut upsert = QueryBuilder::new("INSERT INTO tally (kind, value, blocks) ");
            upsert.push_values(entries, |mut values, ((kind, value), change)| {
                values.push_bind(kind.clone()).push_bind(value.clone()).push_bind(**change);
            });
            upsert.push(
                " ON CONFLICT (kind, value) DO UPDATE SET blocks = tally.blocks + excluded.blocks \
                 RETURNING kind, value, blocks",
            );
            let query = upsert.build_query_as::<(String, String, i64)>().persistent(false);
            for (kind, value, blocks) in query.fetch_all(&mut *self.transaction).await.map_err(DB::error)? {
                let key = (kind, value);
                let before = blocks - changes.get(&key).copied().unwrap_or_default();
                let appeared = i64::from(blocks > 0) - i64::from(before > 0);
                match key.0.as_str() {
                    "epoch" => self.state.epochs = self.state.epochs.saturating_add_signed(appeared),
                    "miner" => self.state.miners = self.state.miners.saturating_add_signed(appeared),
                    _ => {}
                }
            }
        }
        let bytes: usize = rows.iter().map(|row| row.document.len()).sum();
        self.state.length = self.state.length.saturating_add_signed(sign * rows.len() as i64);
        self.state.bytes = self.state.bytes.saturating_add_signed(sign * bytes as i64);
        let weakest = "SELECT CAST(min(value) AS BIGINT) FROM tally WHERE kind = 'level' AND blocks > 0";
        let (weakest,): (Option<i64>,) =
            query_as(weakest).fetch_one(&mut *self.transaction).await.map_err(DB::error)?;
        self.state.level = weakest.map(level).transpose()?;
        Ok(())
    }

    /// The blocks that follow the canonical chain, as rows, or why they can't be stored.
    fn follow(&self, blocks: VerifiedBlocks) -> Result<Vec<Row>> {
        let level = blocks.level();
        let mut difficulty = self.state.cumulative_difficulty;
        let mut parent = self.state.tip.as_ref().map(|tip| (tip.index, tip.hash.clone()));
        let mut rows = Vec::with_capacity(blocks.len());
        for mut block in blocks.into_blocks() {
            let follows = match &parent {
                Some((index, hash)) => block.index.checked_sub(1) == Some(*index) && block.previous_hash == *hash,
                None => block.index == 0,
            };
            if !follows {
                let (index, hash) = parent.unwrap_or_default();
                let (what, previous) = (format!("block {} ({})", block.index, block.hash), &block.previous_hash);
                return Err(StoreError::Conflict(format!(
                    "{what} with previous hash {previous} does not follow block {index} ({hash})"
                )));
            }
            check_keys(&block)?;
            parent = Some((block.index, block.hash.clone()));
            difficulty = difficulty + block.actualized_difficulty;
            (block.is_canonical, block.is_orphaned) = (true, false);
            (block.orphaned_at, block.orphan_reason, block.competing_hash) = (None, None, None);
            rows.push(Row { document: block.to_json(), block, cumulative_difficulty: Some(difficulty), level });
        }
        Ok(rows)
    }
}

#[async_trait]
impl<DB: Backend> ChainWriter for SqlWriter<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'c> &'c str: ColumnIndex<DB::Row>,
    usize: ColumnIndex<DB::Row>,
    i64: Column<DB>,
    bool: Column<DB>,
    String: Column<DB>,
    Option<i64>: Column<DB>,
    Option<String>: Column<DB>,
{
    fn state(&self) -> &ChainState {
        &self.state
    }

    async fn canonical_at(&mut self, index: u64) -> Result<Option<(String, Level)>> {
        let row: Option<(String, i64)> = query_as("SELECT hash, level FROM block WHERE canonical AND idx = $1")
            .bind(index as i64)
            .fetch_optional(&mut *self.transaction)
            .await
            .map_err(DB::error)?;
        row.map(|(hash, code)| Ok((hash, level(code)?))).transpose()
    }

    async fn append(&mut self, blocks: VerifiedBlocks) -> Result<()> {
        let rows = self.follow(blocks)?;
        let Some(last) = rows.last() else { return Ok(()) };
        let tip = Tip { index: last.block.index, hash: last.block.hash.clone(), epoch: last.block.epoch };
        let difficulty = last.cumulative_difficulty.unwrap_or_default();
        let adopted = if self.state.total_blocks > self.state.length {
            self.stored(rows.iter().map(|row| row.block.hash.as_str())).await?.len()
        } else {
            0
        };
        if self.insert(&rows, true, Stored::Change).await? != rows.len() as u64 {
            return Err(StoreError::Conflict("one of the blocks is on the canonical chain already".into()));
        }
        self.account(&rows, 1).await?;
        self.state.total_blocks += (rows.len() - adopted) as u64;
        self.state.cumulative_difficulty = difficulty;
        self.state.tip = Some(tip);
        Ok(())
    }

    async fn add_orphans(&mut self, blocks: &[MinerBlock]) -> Result<u64> {
        let mut difficulties = self.stored(blocks.iter().map(|block| block.previous_hash.as_str())).await?;
        let mut rows = Vec::with_capacity(blocks.len());
        for block in blocks {
            check_storable(block).map_err(|violation| StoreError::Conflict(violation.to_string()))?;
            check_keys(block)?;
            let parent = difficulties.get(&block.previous_hash).copied().flatten();
            let cumulative_difficulty = parent.map(|parent| parent + block.actualized_difficulty);
            difficulties.entry(block.hash.clone()).or_insert(cumulative_difficulty);
            let block = MinerBlock { is_canonical: false, is_orphaned: true, ..block.clone() };
            rows.push(Row { document: block.to_json(), block, cumulative_difficulty, level: Level::None });
        }
        let new = self.insert(&rows, false, Stored::Keep).await?;
        self.state.total_blocks += new;
        Ok(new)
    }

    async fn rewind(&mut self, keep: Option<u64>, reason: &str, competing_hash: Option<&str>, now: i64) -> Result<u64> {
        let above = keep.map_or(-1, |keep| keep.try_into().unwrap_or(i64::MAX));
        let mut orphaned = 0;
        loop {
            let sql = "SELECT document, cumulative_difficulty, level FROM block WHERE canonical AND idx > $1 \
                       ORDER BY idx DESC LIMIT CAST($2 AS BIGINT)";
            let query = query_as(sql).bind(above).bind(ROWS_PER_STATEMENT as i64);
            let stored: Vec<(String, String, i64)> =
                query.fetch_all(&mut *self.transaction).await.map_err(DB::error)?;
            if stored.is_empty() {
                break;
            }
            let mut rows = stored.into_iter().map(Row::read).collect::<Result<Vec<_>>>()?;
            self.account(&rows, -1).await?;
            for Row { block, document, .. } in &mut rows {
                (block.is_canonical, block.is_orphaned) = (false, true);
                (block.orphaned_at, block.orphan_reason) = (Some(now), Some(reason.to_owned()));
                block.competing_hash = competing_hash.map(str::to_owned);
                *document = block.to_json();
            }
            orphaned += self.insert(&rows, false, Stored::Change).await?;
        }
        if orphaned > 0 {
            let sql = "SELECT document, cumulative_difficulty, level FROM block WHERE canonical AND idx = $1";
            let query = query_as(sql).bind(above);
            let kept: Option<(String, String, i64)> =
                query.fetch_optional(&mut *self.transaction).await.map_err(DB::error)?;
            let kept = kept.map(Row::read).transpose()?;
            self.state.cumulative_difficulty =
                kept.as_ref().and_then(|row| row.cumulative_difficulty).unwrap_or_default();
            self.state.tip =
                kept.map(|Row { block: MinerBlock { index, hash, epoch, .. }, .. }| Tip { index, hash, epoch });
        }
        Ok(orphaned)
    }

    async fn commit(mut self: Box<Self>) -> Result<ChainState> {
        self.state.version += 1;
        let state = self.state;
        let tip = state.tip.as_ref();
        query(
            "UPDATE chain SET version = $1, tip_index = $2, tip_hash = $3, tip_epoch = $4, length = $5, \
             total_blocks = $6, cumulative_difficulty = $7, bytes = $8, epochs = $9, miners = $10, level = $11",
        )
        .bind(state.version as i64)
        .bind(tip.map(|tip| tip.index as i64))
        .bind(tip.map(|tip| tip.hash.clone()))
        .bind(tip.map(|tip| tip.epoch as i64))
        .bind(state.length as i64)
        .bind(state.total_blocks as i64)
        .bind(state.cumulative_difficulty.to_string())
        .bind(state.bytes as i64)
        .bind(state.epochs as i64)
        .bind(state.miners as i64)
        .bind(state.level.map(Level::code))
        .execute(&mut *self.transaction)
        .await
        .map_err(DB::error)?;
        self.transaction.commit().await.map_err(DB::error)?;
        Ok(state)
    }
}

impl Row {
    /// A stored canonical block: its document, cumulative difficulty and level.
    fn read((document, difficulty, code): (String, String, i64)) -> Result<Self> {
        let damaged = |error: &dyn std::fmt::Display| StoreError::Damaged(format!("a stored block: {error}"));
        let block = serde_json::from_str(&document).map_err(|error| damaged(&error))?;
        let cumulative_difficulty = Some(difficulty.parse().map_err(|error| damaged(&error))?);
        Ok(Self { block, document, cumulative_difficulty, level: level(code)? })
    }
}

/// Refuses keys that one of the databases can't index, so that both hold the same.
fn check_keys(block: &MinerBlock) -> Result<()> {
    if block.hash.len().max(block.nominated_peer_id.len()) <= MAX_KEY_BYTES {
        return Ok(());
    }
    let index = block.index;
    Err(StoreError::Conflict(format!("block {index} has a hash or peer id of more than {MAX_KEY_BYTES} bytes")))
}

//! Reading, over either database: what they have of their own is in [`Backend`]. 64-bit numbers without sign are kept as
//! the `i64` of the same bits; a canonical block's index is never negative.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::{
    AssertSqlSafe, ColumnIndex, Connection, Database, Decode, Encode, Executor, IntoArguments, Type,
    database::HasStatementCache, query_as,
};

use super::{
    Anchor, BlockStore, Blocks, ChainState, ChainWriter, Figures, Found, IndexEntry, Lease, MAX_BLOCKS_PER_INDEX,
    OpenOptions, Result, StoreError,
    attended::Attended,
    health::{Health, Options},
    pool::Pool,
    row::{Row, block},
    statements,
};
use crate::chain::{ChainEnd, CumulativeDifficulty, EpochNumbering, Level, MinerBlock};

mod rows;

pub(super) use rows::ChainRow;
use rows::{AnchorRow, BlocksRow, FoundRow, IndexRow};

/// Generations that [`BlockStore::anchor`] follows a branch down to the canonical chain.
const MAX_ANCHOR_STEPS: i64 = 10_000;

/// What a database has of its own.
pub(super) trait Backend:
    Database<Arguments: IntoArguments<Self>, Connection: Connection<Options: Sync> + 'static> + HasStatementCache
{
    /// Whether it has no server, to which connections could break.
    const LOCAL: bool;
    /// Begins a transaction that is going to write.
    const BEGIN: &'static str;
    /// Reads the chain's row in it, and keeps other writers out if `BEGIN` did not.
    const READ_FOR_WRITE: &'static str;
    /// Counts the tables in which sqlx keeps what it migrated: none or one.
    const COUNT_MIGRATION_TABLES: &'static str;
    /// The texts of the JSON array `$1`, as the list behind `IN`.
    const TEXTS: &'static str;
    /// The numbers of the JSON array `$1`, as the list behind `IN`.
    const NUMBERS: &'static str;
    /// Unix seconds by the database's clock, which all processes on the store share.
    const NOW: &'static str;

    /// What the lease is taken with.
    type Lessor: Send + Sync + 'static;
    /// What a connection leads to.
    type Place: Copy + PartialEq + Send + Sync;

    /// What a new connection would lead to: one that leads elsewhere is not used any more.
    fn place(options: &Options<Self>) -> Self::Place;

    /// Runs a statement that begins or ends a transaction.
    fn run(connection: &mut Self::Connection, statement: &'static str)
    -> impl Future<Output = sqlx::Result<()>> + Send;

    /// How many rows a statement changed.
    fn rows(result: &Self::QueryResult) -> u64;

    /// What an error of the database means to us. Never contains the URL's password.
    fn error(error: sqlx::Error) -> StoreError;

    /// See [`SyncStore::lease`](super::SyncStore::lease).
    fn lease(lessor: &Self::Lessor) -> impl Future<Output = Result<Option<Box<dyn Lease>>>> + Send;
}

/// What can be written to, and read from, a column.
pub(super) trait Column<DB: Database>: Type<DB> + for<'q> Encode<'q, DB> + for<'r> Decode<'r, DB> {}
impl<DB: Database, T: Type<DB> + for<'q> Encode<'q, DB> + for<'r> Decode<'r, DB>> Column<DB> for T {}

/// A store in an SQL database.
pub(super) struct SqlStore<DB: Backend> {
    /// Connections for reading.
    pub readers: Arc<Pool<DB>>,
    /// The connection for writing, `None` if the store is opened for reading only.
    pub writer: Option<Arc<Pool<DB>>>,
    /// What the lease is taken with.
    pub lessor: DB::Lessor,
    health: Arc<Health<DB>>,
    /// See [`OpenOptions::read`].
    pub read: Duration,
    /// See [`OpenOptions::wait`].
    pub wait: Duration,
}

impl<DB: Backend> SqlStore<DB> {
    /// A store that was just reached. Connections for writing are made with `writing`, if there may be any.
    pub fn new(reading: Options<DB>, writing: Option<Options<DB>>, lessor: DB::Lessor, options: &OpenOptions) -> Self {
        let OpenOptions { connections, read, wait, .. } = *options;
        let health = Health::new(reading.clone());
        let readers = Pool::new(reading, health.clone(), connections, read);
        let writer = writing.map(|writing| Pool::new(writing, health.clone(), 1, wait));
        Self { readers, writer, lessor, health, read, wait }
    }

    /// The way to write.
    pub(super) fn writer(&self) -> Result<&Arc<Pool<DB>>> {
        self.writer.as_ref().ok_or(StoreError::ReadOnly)
    }
}

/// The level that `code` stands for.
pub(super) fn level(code: i64) -> Result<Level> {
    Level::from_code(code).ok_or_else(|| StoreError::Damaged(format!("verification level {code}")))
}

/// Binds `$value`s to the statement and fetches from the readers with `$fetch`. Evaluates them again for a second try.
macro_rules! read {
    ($store:ident . $fetch:ident ($sql:expr $(, $value:expr)*)) => {{
        let pool = &$store.readers;
        let work = || async {
            let mut lent = pool.acquire().await?;
            let fetched = query_as($sql)$(.bind($value))*.$fetch(&mut *lent).await;
            lent.judge(fetched)
        };
        pool.read($store.read, work).await
    }};
}
pub(super) use read;

#[async_trait]
impl<DB: Backend> BlockStore for SqlStore<DB>
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
    async fn state(&self) -> Result<ChainState> {
        let row: ChainRow = read!(self.fetch_one(statements::STATE))?;
        row.try_into()
    }

    async fn get(&self, hash: &str) -> Result<Option<Found>> {
        let Some(hash) = storable(hash) else { return Ok(None) };
        let row: Option<FoundRow> = read!(self.fetch_optional(statements::GET, hash.clone()))?;
        row.map(Found::try_from).transpose()
    }

    async fn epoch(&self, epoch: u64, limit: u64) -> Result<Blocks> {
        let row: BlocksRow = read!(self.fetch_one(statements::EPOCH, epoch as i64, clamp(limit)))?;
        row.try_into()
    }

    async fn range(&self, from: u64, to: u64) -> Result<Blocks> {
        let row: BlocksRow = read!(self.fetch_one(statements::RANGE, clamp(from), clamp(to)))?;
        row.try_into()
    }

    async fn at_index(&self, index: u64) -> Result<(Vec<IndexEntry>, u64, Option<IndexEntry>)> {
        let next = index.checked_add(1).map(|next| next as i64);
        let rows: Vec<IndexRow> =
            read!(self.fetch_all(statements::AT_INDEX, index as i64, next, clamp(MAX_BLOCKS_PER_INDEX)))?;
        let orphans = rows.iter().map(|row| row.orphans).max().unwrap_or(0);
        let (mut next, mut entries) = (None, Vec::with_capacity(rows.len()));
        for entry in rows.into_iter().map(IndexEntry::from) {
            if entry.index == index { entries.push(entry) } else { next = Some(entry) }
        }
        let canonical = entries.first().is_some_and(|entry| entry.canonical);
        entries.truncate(MAX_BLOCKS_PER_INDEX as usize);
        Ok((entries, orphans as u64 + u64::from(canonical), next))
    }

    async fn canonical_hashes(&self, indexes: &[u64]) -> Result<HashMap<u64, String>> {
        let indexes: Vec<i64> = indexes.iter().filter_map(|&index| index.try_into().ok()).collect();
        let rows: Vec<(i64, String)> =
            read!(self.fetch_all(AssertSqlSafe(statements::canonical_hashes::<DB>()), json_array(&indexes)))?;
        Ok(rows.into_iter().map(|(index, hash)| (index as u64, hash)).collect())
    }

    async fn highest_canonical(&self, hashes: &[String]) -> Result<Option<u64>> {
        let hashes: Vec<String> = hashes.iter().filter_map(|hash| storable(hash)).collect();
        let (index,): (Option<i64>,) =
            read!(self.fetch_one(AssertSqlSafe(statements::highest_canonical::<DB>()), json_array(&hashes)))?;
        Ok(index.map(|index| index as u64))
    }

    async fn anchor(&self, hash: &str) -> Result<(Anchor, u64)> {
        let row: AnchorRow = read!(self.fetch_one(statements::ANCHOR, storable(hash), MAX_ANCHOR_STEPS))?;
        Ok(row.read())
    }

    async fn block_at(&self, index: u64) -> Result<Option<(MinerBlock, Level)>> {
        let row: Option<(String, String, i64)> = read!(self.fetch_optional(statements::CANONICAL, index as i64))?;
        row.map(|row| Row::read(row).map(|row| (row.block, row.level))).transpose()
    }

    async fn chain_end(&self, index: u64, numbering: EpochNumbering) -> Result<Option<ChainEnd>> {
        let first = epoch_start(index, numbering) as i64;
        let row: Option<(String, String)> = read!(self.fetch_optional(statements::CHAIN_END, index as i64, first))?;
        row.map(|(last, first)| Ok(ChainEnd::new(&block(&last)?, &block(&first)?))).transpose()
    }

    async fn work_at(&self, index: u64) -> Result<Option<CumulativeDifficulty>> {
        let row: Option<(String, String, i64)> = read!(self.fetch_optional(statements::CANONICAL, index as i64))?;
        Ok(row.map(Row::read).transpose()?.and_then(|row| row.cumulative_difficulty))
    }

    async fn write(&self) -> Result<Box<dyn ChainWriter>> {
        Ok(Box::new(Attended::begin(self.writer()?.clone(), self.wait).await?))
    }

    fn figures(&self) -> Figures {
        Figures {
            up: self.health.is_up(),
            outages: self.health.outages(),
            readers: self.readers.fill(),
            writer: self.writer.as_ref().map(|writer| writer.fill()).unwrap_or_default(),
        }
    }

    async fn close(&self) {
        self.readers.close().await;
        // Last, since only a connection that may write can fold SQLite's log into the file when it is the last one.
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
    }
}

/// The text if a column can hold it: no text with a NUL is stored, so there is nothing to find for one.
fn storable(text: &str) -> Option<String> {
    (!text.contains('\0')).then(|| text.to_owned())
}

/// Index of the first block of the epoch to which the block at `index` belongs; genesis counts as one of its own.
pub(super) fn epoch_start(index: u64, numbering: EpochNumbering) -> u64 {
    numbering.first_index(numbering.epoch(index)).min(index)
}

pub(super) fn clamp(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// A JSON array of texts or numbers, which serde_json never fails to write.
pub(super) fn json_array<T: serde::Serialize>(values: &[T]) -> String {
    serde_json::to_string(values).unwrap_or_default()
}

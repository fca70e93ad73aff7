//! The store over either database: reading the chain.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, query_as};

use super::{
    backend::{
        Backend, Reached,
        health::Health,
        pool::Pool,
        rows::{AnchorRow, BlockColumns, BlockRow, BlocksRow, ChainRow, FoundRow, IndexRow, block, clamp, json_array},
        statements,
    },
    error::{Result, StoreError},
    model::{Anchor, Blocks, ChainState, FoundBlock, IndexEntry, MAX_BLOCKS_PER_INDEX, OpenOptions, StoreStats},
    traits::{BlockStore, ChainWriter},
    writer::SqlWriter,
};
use crate::chain::{ChainEnd, CumulativeDifficulty, EpochNumbering, Level, MinerBlock};

/// Generations that [`BlockStore::anchor`] follows a branch down to the canonical chain.
const MAX_ANCHOR_STEPS: i64 = 10_000;

/// A store in an SQL database.
pub struct SqlStore<DB: Backend> {
    /// Connections for reading.
    pub readers: Arc<Pool<DB>>,
    writer: Option<Arc<Pool<DB>>>,
    /// What the lease is taken with.
    pub lease_source: DB::LeaseSource,
    health: Arc<Health<DB>>,
    /// See [`OpenOptions::read_timeout`].
    pub read_timeout: Duration,
    /// See [`OpenOptions::acquire_timeout`].
    pub acquire_timeout: Duration,
}

impl<DB: Backend> SqlStore<DB> {
    /// The store in a database that was just reached.
    pub async fn new(reached: Reached<DB>, options: &OpenOptions) -> Result<Self> {
        let OpenOptions { connections, read_timeout, acquire_timeout, .. } = *options;
        let Reached { reading, writing, lease_source } = reached;
        let health = Health::new(reading.clone());
        let readers = Pool::new(reading, health.clone(), connections, read_timeout);
        let writer = writing.map(|writing| Pool::new(writing, health.clone(), 1, acquire_timeout));
        if DB::EMBEDDED {
            // What keeps a file from being read is reported now.
            drop(readers.acquire().await?);
        }
        Ok(Self { readers, writer, lease_source, health, read_timeout, acquire_timeout })
    }

    /// The connection for writing.
    pub fn writer(&self) -> Result<&Arc<Pool<DB>>> {
        self.writer.as_ref().ok_or_else(|| StoreError::ReadOnly("it was opened for reading only".into()))
    }
}

/// Fetches the rows of a statement with bound values on a connection for reading. A second attempt evaluates the values
/// again.
macro_rules! read {
    ($store:ident . $fetch:ident ($sql:expr $(, $value:expr)*)) => {{
        let pool = &$store.readers;
        let work = || async {
            let mut connection = pool.acquire_for_statement().await?;
            let fetched = query_as($sql)$(.bind($value))*.$fetch(connection.get()).await;
            connection.end_statement(fetched).await
        };
        pool.read($store.read_timeout, work).await
    }};
}
pub(super) use read;

#[async_trait]
impl<DB: Backend> BlockStore for SqlStore<DB> {
    async fn state(&self) -> Result<ChainState> {
        let row: ChainRow = read!(self.fetch_one(statements::STATE))?;
        row.try_into()
    }

    async fn get(&self, hash: &str) -> Result<Option<FoundBlock>> {
        let Some(hash) = storable(hash) else { return Ok(None) };
        let row: Option<FoundRow> = read!(self.fetch_optional(statements::GET, hash.clone()))?;
        row.map(FoundBlock::try_from).transpose()
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

    async fn documents(&self, hashes: &[String], length: u64) -> Result<Option<HashMap<String, String>>> {
        let wanted: HashSet<String> = hashes.iter().filter_map(|hash| storable(hash)).collect();
        let wanted: Vec<String> = wanted.into_iter().collect();
        let rows: Vec<(String, String)> =
            read!(self.fetch_all(AssertSqlSafe(statements::documents::<DB>()), json_array(&wanted), clamp(length)))?;
        let found: HashMap<String, String> = rows.into_iter().collect();
        Ok(hashes.iter().all(|hash| found.contains_key(hash)).then_some(found))
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
        Ok(row.into())
    }

    async fn block_at(&self, index: u64) -> Result<Option<(MinerBlock, Level)>> {
        let row: Option<BlockColumns> = read!(self.fetch_optional(statements::CANONICAL, index as i64))?;
        row.map(|row| BlockRow::try_from(row).map(|row| (row.block, row.level))).transpose()
    }

    async fn chain_end(&self, index: u64, numbering: EpochNumbering) -> Result<Option<ChainEnd>> {
        let first = epoch_start(index, numbering) as i64;
        let row: Option<(String, String)> = read!(self.fetch_optional(statements::CHAIN_END, index as i64, first))?;
        row.map(|(last, first)| Ok(ChainEnd::new(&block(&last)?, &block(&first)?))).transpose()
    }

    async fn work_at(&self, index: u64) -> Result<Option<CumulativeDifficulty>> {
        let row: Option<BlockColumns> = read!(self.fetch_optional(statements::CANONICAL, index as i64))?;
        Ok(row.map(BlockRow::try_from).transpose()?.and_then(|row| row.cumulative_difficulty))
    }

    async fn count_below(&self, level: Level, from: u64, to: u64) -> Result<u64> {
        let rows: Vec<(i64, i64)> = read!(self.fetch_all(statements::WEAKER, clamp(from), clamp(to), level.code()))?;
        Ok(rows.into_iter().map(|(_, count)| count as u64).sum())
    }

    async fn size(&self) -> Result<u64> {
        let (bytes,): (i64,) = read!(self.fetch_one(DB::SIZE))?;
        Ok(bytes as u64)
    }

    async fn is_standby(&self) -> Result<bool> {
        let (standby,): (bool,) = read!(self.fetch_one(DB::IS_STANDBY))?;
        Ok(standby)
    }

    async fn write(&self) -> Result<Box<dyn ChainWriter>> {
        Ok(Box::new(SqlWriter::begin(self.writer()?.clone(), self.acquire_timeout).await?))
    }

    fn stats(&self) -> StoreStats {
        StoreStats {
            up: self.health.is_up(),
            outages: self.health.outages(),
            errors: self.health.errors(),
            readers: self.readers.stats(),
            writer: self.writer.as_ref().map(|writer| writer.stats()).unwrap_or_default(),
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

/// Index of the first block of the epoch of the block at `index`; genesis counts as an epoch of its own.
pub fn epoch_start(index: u64, numbering: EpochNumbering) -> u64 {
    numbering.first_index(numbering.epoch(index)).min(index)
}

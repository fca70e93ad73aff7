//! The transaction of a write: blocks, and the statistics and events that follow from their changes.

use std::{collections::HashMap, sync::Arc};

use sqlx::{AssertSqlSafe, query, query_as};

use super::{
    events::{History, record_event},
    statistics,
};
use crate::{
    chain::{CumulativeDifficulty, Level, MinerBlock, Position, VerifiedBlocks, verify::check_storable},
    store::{
        backend::{
            Backend,
            insert::{OnConflict, insert},
            pool::{Pool, PooledConnection},
            rows::{BlockColumns, BlockRow, ChainRow, clamp, json_array, known_work, level},
            statements::{self, ROWS_PER_STATEMENT},
        },
        error::{Result, StoreError},
        model::{ChainState, Tip},
    },
};

/// A transaction that changes the chain.
pub struct WriteTransaction<DB: Backend> {
    pub(super) connection: PooledConnection<DB>,
    /// The state of the chain in this transaction.
    pub(super) state: ChainState,
    history: History,
    /// Whether any block was changed.
    changed: bool,
    /// Number of statements that have written rows, of those whose step may still fail.
    pub(super) writes: u64,
}

impl<DB: Backend> WriteTransaction<DB> {
    /// Begins the transaction, waiting for other writers.
    pub async fn begin(pool: &Arc<Pool<DB>>) -> Result<Self> {
        let mut connection = pool.begin().await?;
        let row: ChainRow = query_as(DB::READ_FOR_WRITE).fetch_one(connection.get()).await.map_err(DB::error)?;
        let state = ChainState::try_from(row)?;
        let history = History::new(state.tip.as_ref().map(Position::from), state.length);
        Ok(Self { connection, state, history, changed: false, writes: 0 })
    }

    /// Writes rows that are all canonical or all not; returns the number of those inserted or changed.
    async fn insert(&mut self, rows: &[BlockRow], canonical: bool, on_conflict: OnConflict) -> Result<u64> {
        let mut written = 0;
        for rows in rows.chunks(ROWS_PER_STATEMENT) {
            let rows = insert::<DB>(self.connection.get(), rows, canonical, on_conflict).await.map_err(DB::error)?;
            self.writes += u64::from(rows > 0);
            written += rows;
        }
        self.changed |= written > 0;
        Ok(written)
    }

    /// Writes canonical rows, none of which is stored yet.
    async fn insert_new(&mut self, rows: &[BlockRow]) -> Result<()> {
        // It may have written some of them before it fails.
        (self.writes, self.changed) = (self.writes + 1, true);
        self.connection.close_if_interrupted(true);
        let written = DB::insert_new(self.connection.get(), rows).await.map_err(DB::error);
        // PgBouncer would never take back the server's connection of a COPY that failed on the way.
        self.connection.close_if_interrupted(written.is_err());
        written
    }

    /// The stored blocks with these hashes, and their cumulative difficulties where known.
    async fn stored<'h>(
        &mut self,
        hashes: impl Iterator<Item = &'h str>,
    ) -> Result<HashMap<String, Option<CumulativeDifficulty>>> {
        let hashes: Vec<&str> = hashes.filter(|hash| !hash.contains('\0')).collect();
        let query = query_as(AssertSqlSafe(statements::cumulative_difficulties::<DB>())).bind(json_array(&hashes));
        let rows: Vec<(String, Option<String>)> = query.fetch_all(self.connection.get()).await.map_err(DB::error)?;
        rows.into_iter().map(known_work).collect()
    }

    /// The canonical block at `index`.
    pub(super) async fn canonical_row(&mut self, index: i64) -> Result<Option<BlockRow>> {
        let query = query_as(statements::CANONICAL).bind(index);
        let row: Option<BlockColumns> = query.fetch_optional(self.connection.get()).await.map_err(DB::error)?;
        row.map(BlockRow::try_from).transpose()
    }

    /// Appends blocks with their levels.
    pub(super) async fn append_blocks(&mut self, blocks: impl IntoIterator<Item = (MinerBlock, Level)>) -> Result<()> {
        let rows = link(self.tip(), self.state.cumulative_difficulty, blocks)?;
        let Some(last) = rows.last() else { return Ok(()) };
        let tip = Tip { index: last.block.index, hash: last.block.hash.clone(), epoch: last.block.epoch };
        let difficulty = last.cumulative_difficulty.unwrap_or_default();
        let adopted = if self.state.total_blocks > self.state.length {
            self.stored(rows.iter().map(|row| row.block.hash.as_str())).await?.len()
        } else {
            0
        };
        if adopted == 0 {
            self.insert_new(&rows).await?;
        } else if self.insert(&rows, true, OnConflict::Update).await? != rows.len() as u64 {
            return Err(StoreError::Conflict("one of the blocks is on the canonical chain already".into()));
        }
        statistics::count::<DB>(self.connection.get(), &mut self.state, &rows, 1).await?;
        rows.iter().for_each(|row| self.history.appended(row.block.index, &row.block.hash));
        self.state.total_blocks += (rows.len() - adopted) as u64;
        self.state.cumulative_difficulty = difficulty;
        self.state.tip = Some(tip);
        Ok(())
    }

    /// The end of the canonical chain in this transaction.
    pub(super) fn tip(&self) -> Option<Position> {
        self.state.tip.as_ref().map(Position::from)
    }

    /// Writes the chain's row.
    async fn write_state(&mut self) -> Result<()> {
        let state = &self.state;
        let tip = state.tip.as_ref();
        query(
            "UPDATE chain SET version = $1, tip_index = $2, tip_hash = $3, tip_epoch = $4, length = $5, \
             total_blocks = $6, cumulative_difficulty = $7, bytes = $8, epochs = $9, miners = $10, level = $11, \
             largest = $12, off_schedule = $13, off_timestamp = $14",
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
        .bind(state.largest as i64)
        .bind(state.off_schedule as i64)
        .bind(state.off_timestamp as i64)
        .execute(self.connection.get())
        .await
        .map_err(DB::error)?;
        Ok(())
    }

    /// See [`ChainWriter::canonical_at`](crate::store::ChainWriter::canonical_at).
    pub async fn canonical_at(&mut self, index: u64) -> Result<Option<(String, Level)>> {
        let row: Option<(String, i64)> = query_as("SELECT hash, level FROM block WHERE canonical AND idx = $1")
            .bind(index as i64)
            .fetch_optional(self.connection.get())
            .await
            .map_err(DB::error)?;
        row.map(|(hash, code)| Ok((hash, level(code)?))).transpose()
    }

    /// See [`ChainWriter::append`](crate::store::ChainWriter::append).
    pub async fn append(&mut self, blocks: VerifiedBlocks) -> Result<()> {
        let level = blocks.level();
        self.append_blocks(blocks.into_blocks().into_iter().map(|block| (block, level))).await
    }

    /// See [`ChainWriter::add_orphans`](crate::store::ChainWriter::add_orphans).
    pub async fn add_orphans(&mut self, blocks: &[MinerBlock], level: Level) -> Result<u64> {
        let mut difficulties = self.stored(blocks.iter().map(|block| block.previous_hash.as_str())).await?;
        let mut rows = Vec::with_capacity(blocks.len());
        for block in blocks {
            check_storable(block).map_err(|violation| StoreError::Conflict(violation.to_string()))?;
            let parent = difficulties.get(&block.previous_hash).copied().flatten();
            let cumulative_difficulty = parent.map(|parent| parent + block.actualized_difficulty);
            difficulties.entry(block.hash.clone()).or_insert(cumulative_difficulty);
            let block = MinerBlock { is_canonical: false, is_orphaned: true, ..block.clone() };
            rows.push(BlockRow { document: block.to_json(), block, cumulative_difficulty, level });
        }
        let new = self.insert(&rows, false, OnConflict::Ignore).await?;
        self.state.total_blocks += new;
        Ok(new)
    }

    /// See [`ChainWriter::rewind`](crate::store::ChainWriter::rewind).
    pub async fn rewind(
        &mut self,
        keep: Option<u64>,
        reason: &str,
        competing_hash: Option<&str>,
        now: i64,
    ) -> Result<u64> {
        let above = keep.map_or(-1, |keep| keep.try_into().unwrap_or(i64::MAX));
        // Each read begins below the one before: the index still has what this transaction has removed from it.
        let (mut below, mut orphaned) = (i64::MAX, 0);
        loop {
            let query = query_as(statements::CANONICAL_RUN).bind(above).bind(below).bind(ROWS_PER_STATEMENT as i64);
            let stored: Vec<BlockColumns> = query.fetch_all(self.connection.get()).await.map_err(DB::error)?;
            if stored.is_empty() {
                break;
            }
            let mut rows = stored.into_iter().map(BlockRow::try_from).collect::<Result<Vec<_>>>()?;
            below = rows.last().map_or(above, |row| row.block.index as i64);
            statistics::count::<DB>(self.connection.get(), &mut self.state, &rows, -1).await?;
            for BlockRow { block, document, .. } in &mut rows {
                self.history.orphaned(block.index, &block.hash);
                (block.is_canonical, block.is_orphaned) = (false, true);
                (block.orphaned_at, block.orphan_reason) = (Some(now), Some(reason.to_owned()));
                block.competing_hash = competing_hash.map(str::to_owned);
                *document = block.to_json();
            }
            orphaned += self.insert(&rows, false, OnConflict::Update).await?;
        }
        if orphaned > 0 {
            let kept = self.canonical_row(above).await?;
            self.state.cumulative_difficulty =
                kept.as_ref().and_then(|row| row.cumulative_difficulty).unwrap_or_default();
            self.state.tip =
                kept.map(|BlockRow { block: MinerBlock { index, hash, epoch, .. }, .. }| Tip { index, hash, epoch });
            self.history.rewound(self.tip(), self.state.length, reason);
        }
        Ok(orphaned)
    }

    /// See [`ChainWriter::raise`](crate::store::ChainWriter::raise).
    pub async fn raise(&mut self, from: u64, to: u64, to_level: Level) -> Result<u64> {
        let (from, to) = (clamp(from), clamp(to));
        let query_weaker = query_as(statements::WEAKER).bind(from).bind(to).bind(to_level.code());
        let weaker: Vec<(i64, i64)> = query_weaker.fetch_all(self.connection.get()).await.map_err(DB::error)?;
        let weaker = weaker.into_iter().map(|(code, count)| Ok((level(code)?, count))).collect::<Result<Vec<_>>>()?;
        if weaker.is_empty() {
            return Ok(0);
        }
        let raise = query(statements::RAISE).bind(from).bind(to).bind(to_level.code());
        let raised = DB::rows_affected(&raise.execute(self.connection.get()).await.map_err(DB::error)?);
        statistics::raise::<DB>(self.connection.get(), &mut self.state, &weaker, to_level).await?;
        self.changed = true;
        Ok(raised)
    }

    /// See [`ChainWriter::commit`](crate::store::ChainWriter::commit).
    pub async fn commit(mut self) -> Result<ChainState> {
        if self.changed {
            self.state.version += 1;
            record_event::<DB>(self.connection.get(), &self.history, &self.state).await?;
            self.write_state().await?;
        }
        self.connection.commit().await?;
        Ok(self.state)
    }
}

/// Rows of canonical blocks that follow `parent`, whose chain has this much work, or why they can't be stored.
pub fn link(
    parent: Option<Position>,
    work: CumulativeDifficulty,
    blocks: impl IntoIterator<Item = (MinerBlock, Level)>,
) -> Result<Vec<BlockRow>> {
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
        Ok(BlockRow { document: block.to_json(), block, cumulative_difficulty: Some(work), level })
    };
    blocks.into_iter().map(row).collect()
}

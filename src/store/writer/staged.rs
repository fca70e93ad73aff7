//! The staged branch, and the switch to it.

use sqlx::{QueryBuilder, query, query_as};

use super::transaction::{WriteTransaction, link};
use crate::{
    chain::{CumulativeDifficulty, Position, VerifiedBlocks},
    store::{
        backend::{
            Backend,
            rows::{BlockColumns, BlockRow, StagedBranchRow},
            statements::{self, ROWS_PER_STATEMENT},
        },
        error::{Result, StoreError},
        model::{Reorganisation, StagedBranch},
    },
};

impl<DB: Backend> WriteTransaction<DB> {
    async fn staged(&mut self) -> Result<Option<StagedBranch>> {
        let row: Option<StagedBranchRow> =
            query_as(statements::STAGE).fetch_optional(self.connection.get()).await.map_err(DB::error)?;
        row.map(StagedBranch::try_from).transpose()
    }

    /// The work of the chain that ends with `ancestor`, which must be canonical.
    async fn work_of(&mut self, ancestor: Option<&Position>) -> Result<CumulativeDifficulty> {
        let Some(Position { index, hash }) = ancestor else { return Ok(CumulativeDifficulty::default()) };
        match self.canonical_row(*index as i64).await? {
            Some(row) if row.block.hash == *hash => Ok(row.cumulative_difficulty.unwrap_or_default()),
            _ => Err(StoreError::Conflict(format!("block {index} ({hash}) is not on the canonical chain"))),
        }
    }

    /// See [`ChainWriter::stage`](crate::store::ChainWriter::stage).
    pub async fn stage(&mut self, ancestor: Option<&Position>, job: u64, blocks: VerifiedBlocks) -> Result<()> {
        let verified = blocks.level();
        let (parent, work, level) = match self.staged().await? {
            Some(stage) if stage.ancestor.as_ref() != ancestor => {
                return Err(StoreError::Conflict("a branch from another block is staged already".into()));
            }
            Some(stage) => (Some(Position::from(&stage.end)), stage.work, stage.level.min(verified)),
            None => (ancestor.cloned(), self.work_of(ancestor).await?, verified),
        };
        let rows = link(parent, work, blocks.into_blocks().into_iter().map(|block| (block, verified)))?;
        let Some(tip) = rows.last().map(|row| row.block.index) else { return Ok(()) };
        for rows in rows.chunks(ROWS_PER_STATEMENT) {
            let mut insert =
                QueryBuilder::new("INSERT INTO staged_block (idx, hash, cumulative_difficulty, level, document) ");
            insert.push_values(rows, |mut values, row| {
                values.push_bind(row.block.index as i64).push_bind(row.block.hash.clone());
                values.push_bind(row.cumulative_difficulty.map(|difficulty| difficulty.to_string()));
                values.push_bind(row.level.code()).push_bind(row.document.clone());
            });
            let statement = insert.build().persistent(rows.len() == ROWS_PER_STATEMENT);
            statement.execute(self.connection.get()).await.map_err(DB::error)?;
            self.writes += 1;
        }
        query(
            "INSERT INTO stage (id, fork_index, fork_hash, tip_index, level, job) VALUES (1, $1, $2, $3, $4, $5) \
             ON CONFLICT (id) DO UPDATE SET tip_index = excluded.tip_index, level = excluded.level, job = excluded.job",
        )
        .bind(ancestor.map(|ancestor| ancestor.index as i64))
        .bind(ancestor.map(|ancestor| ancestor.hash.clone()))
        .bind(tip as i64)
        .bind(level.code())
        .bind(job as i64)
        .execute(self.connection.get())
        .await
        .map_err(DB::error)?;
        Ok(())
    }

    /// See [`ChainWriter::clear_stage`](crate::store::ChainWriter::clear_stage).
    pub async fn clear_stage(&mut self) -> Result<()> {
        for sql in ["DELETE FROM staged_block", "DELETE FROM stage"] {
            query(sql).execute(self.connection.get()).await.map_err(DB::error)?;
        }
        Ok(())
    }

    /// See [`ChainWriter::adopt_stage`](crate::store::ChainWriter::adopt_stage).
    pub async fn adopt_stage(&mut self, reason: &str, now: i64) -> Result<Reorganisation> {
        let stage = self.staged().await?;
        let StagedBranch { ancestor, end, count, .. } =
            stage.ok_or_else(|| StoreError::Conflict("no branch is staged".into()))?;
        self.work_of(ancestor.as_ref()).await?;
        let old_tip = self.tip();
        let fork = ancestor.as_ref().map(|ancestor| ancestor.index);
        let orphaned = self.rewind(fork, reason, Some(&end.hash), now).await?;
        let mut next = fork.map_or(0, |fork| fork as i64 + 1);
        loop {
            let query = query_as(statements::STAGED_RUN).bind(next).bind(ROWS_PER_STATEMENT as i64);
            let staged: Vec<BlockColumns> = query.fetch_all(self.connection.get()).await.map_err(DB::error)?;
            if staged.is_empty() {
                break;
            }
            next += staged.len() as i64;
            let rows = staged.into_iter().map(BlockRow::try_from).collect::<Result<Vec<_>>>()?;
            self.append_blocks(rows.into_iter().map(|row| (row.block, row.level))).await?;
        }
        self.clear_stage().await?;
        Ok(Reorganisation { ancestor, old_tip, new_tip: Position::from(&end), orphaned, adopted: count })
    }
}

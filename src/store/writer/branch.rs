//! The branch that is kept aside, and the switch to it.

use sqlx::{ColumnIndex, Executor, QueryBuilder, query, query_as};

use super::{ROWS_PER_STATEMENT, SqlWriter};
use crate::{
    chain::{CumulativeDifficulty, Position, VerifiedBlocks},
    store::{
        ChainWriter, Reorganisation, Result, Stage, StoreError,
        row::{Row, follow},
        sql::{Backend, Column},
        statements,
        sync_sql::StageRow,
    },
};

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
    async fn staged(&mut self) -> Result<Option<Stage>> {
        let row: Option<StageRow> =
            query_as(statements::STAGE).fetch_optional(&mut *self.transaction).await.map_err(DB::error)?;
        row.map(Stage::try_from).transpose()
    }

    /// The work of the chain that ends with `ancestor`, which must be canonical.
    async fn work_of(&mut self, ancestor: Option<&Position>) -> Result<CumulativeDifficulty> {
        let Some(Position { index, hash }) = ancestor else { return Ok(CumulativeDifficulty::default()) };
        match self.row_at(*index as i64).await? {
            Some(row) if row.block.hash == *hash => Ok(row.cumulative_difficulty.unwrap_or_default()),
            _ => Err(StoreError::Conflict(format!("block {index} ({hash}) is not on the canonical chain"))),
        }
    }

    /// See [`ChainWriter::stage`].
    pub(super) async fn add_to_stage(
        &mut self,
        ancestor: Option<&Position>,
        job: u64,
        blocks: VerifiedBlocks,
    ) -> Result<()> {
        let verified = blocks.level();
        let (parent, work, level) = match self.staged().await? {
            Some(stage) if stage.ancestor.as_ref() != ancestor => {
                return Err(StoreError::Conflict("a branch from another block is kept aside already".into()));
            }
            Some(stage) => (Some(Position::from(&stage.end)), stage.work, stage.level.min(verified)),
            None => (ancestor.cloned(), self.work_of(ancestor).await?, verified),
        };
        let rows = follow(parent, work, blocks.into_blocks().into_iter().map(|block| (block, verified)))?;
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
            statement.execute(&mut *self.transaction).await.map_err(DB::error)?;
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
        .execute(&mut *self.transaction)
        .await
        .map_err(DB::error)?;
        Ok(())
    }

    /// See [`ChainWriter::clear_stage`].
    pub(super) async fn forget_stage(&mut self) -> Result<()> {
        for sql in ["DELETE FROM staged_block", "DELETE FROM stage"] {
            query(sql).execute(&mut *self.transaction).await.map_err(DB::error)?;
        }
        Ok(())
    }

    /// See [`ChainWriter::adopt_stage`].
    pub(super) async fn switch_to_stage(&mut self, reason: &str, now: i64) -> Result<Reorganisation> {
        let stage = self.staged().await?;
        let Stage { ancestor, end, count, .. } =
            stage.ok_or_else(|| StoreError::Conflict("no branch is kept aside".into()))?;
        self.work_of(ancestor.as_ref()).await?;
        let old_tip = self.tip();
        let fork = ancestor.as_ref().map(|ancestor| ancestor.index);
        let orphaned = self.rewind(fork, reason, Some(&end.hash), now).await?;
        let mut next = fork.map_or(0, |fork| fork as i64 + 1);
        loop {
            let query = query_as(statements::STAGED_RUN).bind(next).bind(ROWS_PER_STATEMENT as i64);
            let staged: Vec<(String, String, i64)> =
                query.fetch_all(&mut *self.transaction).await.map_err(DB::error)?;
            if staged.is_empty() {
                break;
            }
            next += staged.len() as i64;
            let rows = staged.into_iter().map(Row::read).collect::<Result<Vec<_>>>()?;
            self.append_blocks(rows.into_iter().map(|row| (row.block, row.level))).await?;
        }
        self.forget_stage().await?;
        Ok(Reorganisation { ancestor, old_tip, new_tip: Position::from(&end), orphaned, adopted: count })
    }
}

//! What synchronisation keeps beside the chain, over either database: the staged branch, events, jobs, notes, the
//! lease.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, query, query_as};

use super::{
    backend::{
        Backend,
        rows::{EventRow, StagedBranchRow, block, clamp},
        statements,
    },
    error::{Result, StoreError},
    model::{Event, Job, KEPT_JOBS, MAX_EVENTS_LENGTH, Note, QUEUED, StagedBranch},
    reader::{SqlStore, epoch_start, read},
    traits::{Lease, SyncStore},
};
use crate::chain::{ChainEnd, EpochNumbering};

/// The condition that a job is finished: its phase is one of `model::FINISHED_PHASES`.
macro_rules! finished {
    () => {
        "phase IN ('done', 'failed', 'cancelled')"
    };
}

/// Selects jobs, as [`Job`] has them.
macro_rules! jobs {
    ($rest:expr) => {
        concat!(
            "SELECT id, phase, ",
            finished!(),
            " AS finished, cancelled_at IS NOT NULL AS cancel_requested, spec, progress, created_at, updated_at ",
            "FROM job ",
            $rest
        )
    };
}

/// Executes a statement with bound values on the connection for writing; the number of rows that it changed.
macro_rules! change {
    ($store:ident ($sql:expr $(, $value:expr)*)) => {{
        let pool = $store.writer()?;
        let work = async {
            let mut connection = pool.acquire_for_statement().await?;
            let executed = query($sql)$(.bind($value))*.execute(connection.get()).await;
            connection.end_statement(executed).await
        };
        pool.with_deadline($store.read_timeout, work).await.map(|result| DB::rows_affected(&result))
    }};
}

#[async_trait]
impl<DB: Backend> SyncStore for SqlStore<DB> {
    async fn staged(&self) -> Result<Option<StagedBranch>> {
        let row: Option<StagedBranchRow> = read!(self.fetch_optional(statements::STAGE))?;
        row.map(StagedBranch::try_from).transpose()
    }

    async fn staged_end(&self, numbering: EpochNumbering) -> Result<Option<ChainEnd>> {
        let Some(StagedBranch { end, .. }) = self.staged().await? else { return Ok(None) };
        let first = epoch_start(end.index, numbering) as i64;
        let row: Option<(Option<String>,)> =
            read!(self.fetch_optional(statements::STAGED_ANCESTOR, end.hash.clone(), first))?;
        let first = row.and_then(|(document,)| document);
        first.map(|first| Ok(ChainEnd::new(&end, &block(&first)?))).transpose()
    }

    async fn events(&self, after: u64, limit: u64) -> Result<Vec<Event>> {
        let rows: Vec<EventRow> =
            read!(self.fetch_all(statements::EVENTS, clamp(after), clamp(limit), clamp(MAX_EVENTS_LENGTH)))?;
        rows.into_iter().map(Event::try_from).collect()
    }

    async fn event_at(&self, id: u64) -> Result<Option<Event>> {
        let sql = "SELECT * FROM event WHERE id <= $1 ORDER BY id DESC LIMIT 1";
        let row: Option<EventRow> = read!(self.fetch_optional(sql, clamp(id)))?;
        row.map(Event::try_from).transpose()
    }

    async fn jobs(&self, limit: u64) -> Result<Vec<Job>> {
        read!(self.fetch_all(jobs!("ORDER BY id DESC LIMIT CAST($1 AS BIGINT)"), clamp(limit)))
    }

    async fn unfinished_jobs(&self) -> Result<Vec<Job>> {
        read!(self.fetch_all(concat!(jobs!("WHERE NOT "), finished!(), " ORDER BY id")))
    }

    async fn job(&self, id: u64) -> Result<Option<Job>> {
        read!(self.fetch_optional(jobs!("WHERE id = $1"), clamp(id)))
    }

    async fn create_job(&self, spec: &str) -> Result<u64> {
        let pool = self.writer()?;
        let prune = concat!(
            "DELETE FROM job WHERE ",
            finished!(),
            " AND id < (SELECT min(id) FROM (SELECT id FROM job WHERE ",
            finished!(),
            " ORDER BY id DESC LIMIT CAST($1 AS BIGINT)) AS kept)"
        );
        // One reading of the clock, so that both times are the same.
        let insert = format!(
            "INSERT INTO job (phase, spec, progress, created_at, updated_at) \
             SELECT $1, $2, '{{}}', at, at FROM (SELECT {} AS at) AS clock RETURNING id",
            DB::NOW
        );
        let work = async {
            let mut transaction = pool.begin().await?;
            query(prune).bind(clamp(KEPT_JOBS)).execute(transaction.get()).await.map_err(DB::error)?;
            let insert = query_as(AssertSqlSafe(insert)).bind(QUEUED.to_owned()).bind(spec.to_owned());
            let (id,): (i64,) = insert.fetch_one(transaction.get()).await.map_err(DB::error)?;
            transaction.commit().await?;
            Ok(id as u64)
        };
        pool.with_deadline(self.read_timeout, work).await
    }

    async fn update_job(&self, id: u64, phase: &str, progress: &str) -> Result<()> {
        let sql = format!("UPDATE job SET phase = $2, progress = $3, updated_at = {} WHERE id = $1", DB::NOW);
        match change!(self(AssertSqlSafe(sql), clamp(id), phase.to_owned(), progress.to_owned()))? {
            0 => Err(StoreError::Conflict(format!("there is no job {id}"))),
            _ => Ok(()),
        }
    }

    async fn cancel_job(&self, id: u64) -> Result<bool> {
        let sql = format!(
            "UPDATE job SET cancelled_at = COALESCE(cancelled_at, {now}), updated_at = {now} WHERE id = $1 AND NOT {}",
            finished!(),
            now = DB::NOW
        );
        Ok(change!(self(AssertSqlSafe(sql), clamp(id)))? > 0)
    }

    async fn put_note(&self, key: &str, value: &str) -> Result<()> {
        let sql = format!(
            "INSERT INTO note (key, value, at) VALUES ($1, $2, {}) \
             ON CONFLICT (key) DO UPDATE SET value = excluded.value, at = excluded.at",
            DB::NOW
        );
        change!(self(AssertSqlSafe(sql), key.to_owned(), value.to_owned()))?;
        Ok(())
    }

    async fn get_note(&self, key: &str) -> Result<Option<Note>> {
        let sql = format!("SELECT value, at, {} - at AS age FROM note WHERE key = $1", DB::NOW);
        read!(self.fetch_optional(AssertSqlSafe(sql.clone()), key.to_owned()))
    }

    async fn now(&self) -> Result<i64> {
        let (now,): (i64,) = read!(self.fetch_one(AssertSqlSafe(format!("SELECT {}", DB::NOW))))?;
        Ok(now)
    }

    async fn lease(&self) -> Result<Option<Box<dyn Lease>>> {
        self.writer()?.with_deadline(self.acquire_timeout, DB::lease(&self.lease_source)).await
    }
}

//! What a synchronisation keeps, over either database.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, ColumnIndex, Executor, FromRow, query, query_as};

use super::{
    Event, EventKind, FINISHED_PHASES, Job, KEPT_JOBS, Lease, Note, QUEUED, Result, Stage, StoreError, SyncStore, row,
    sql::{Backend, Column, SqlStore, clamp, epoch_start, level, read},
    statements,
    transaction::Transaction,
};
use crate::chain::{ChainEnd, EpochNumbering, Position};

/// A job is finished in these phases, which are those of [`FINISHED_PHASES`].
macro_rules! finished {
    () => {
        "phase IN ('done', 'failed', 'cancelled')"
    };
}

#[derive(FromRow)]
pub(super) struct StageRow {
    fork_index: Option<i64>,
    fork_hash: Option<String>,
    tip_index: i64,
    level: i64,
    job: i64,
    document: String,
    cumulative_difficulty: String,
}

impl TryFrom<StageRow> for Stage {
    type Error = StoreError;
    fn try_from(row: StageRow) -> Result<Self> {
        let damaged = |error| StoreError::Damaged(format!("{error}: {}", row.cumulative_difficulty));
        Ok(Self {
            ancestor: position(row.fork_index, row.fork_hash),
            end: row::block(&row.document)?,
            count: (row.tip_index - row.fork_index.unwrap_or(-1)) as u64,
            work: row.cumulative_difficulty.parse().map_err(damaged)?,
            level: level(row.level)?,
            job: row.job as u64,
        })
    }
}

fn position(index: Option<i64>, hash: Option<String>) -> Option<Position> {
    index.zip(hash).map(|(index, hash)| Position { index: index as u64, hash })
}

#[derive(FromRow)]
struct EventRow {
    id: i64,
    at: i64,
    kind: String,
    tip_index: Option<i64>,
    tip_hash: Option<String>,
    document: String,
}

impl TryFrom<EventRow> for Event {
    type Error = StoreError;
    fn try_from(row: EventRow) -> Result<Self> {
        let kind = EventKind::named(&row.kind);
        let kind = kind.ok_or_else(|| StoreError::Damaged(format!("an event of kind `{}`", row.kind)))?;
        let tip = position(row.tip_index, row.tip_hash);
        Ok(Self { id: row.id as u64, at: row.at, kind, tip, document: row.document })
    }
}

#[derive(FromRow)]
struct JobRow {
    id: i64,
    phase: String,
    spec: String,
    progress: String,
    cancelled_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

impl From<JobRow> for Job {
    fn from(row: JobRow) -> Self {
        Self {
            id: row.id as u64,
            finished: FINISHED_PHASES.contains(&row.phase.as_str()),
            phase: row.phase,
            cancel_requested: row.cancelled_at.is_some(),
            spec: row.spec,
            progress: row.progress,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Binds `$value`s to the statement and executes it on the connection for writing; how many rows it changed.
macro_rules! change {
    ($store:ident ($sql:expr $(, $value:expr)*)) => {{
        let pool = $store.writer()?;
        let work = async {
            let mut lent = pool.acquire().await?;
            let executed = query($sql)$(.bind($value))*.execute(&mut *lent).await;
            lent.judge(executed)
        };
        pool.attend($store.read, work).await.map(|result| DB::rows(&result))
    }};
}

#[async_trait]
impl<DB: Backend> SyncStore for SqlStore<DB>
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
    async fn staged(&self) -> Result<Option<Stage>> {
        let row: Option<StageRow> = read!(self.fetch_optional(statements::STAGE))?;
        row.map(Stage::try_from).transpose()
    }

    async fn staged_end(&self, numbering: EpochNumbering) -> Result<Option<ChainEnd>> {
        let Some(Stage { end, .. }) = self.staged().await? else { return Ok(None) };
        let first = epoch_start(end.index, numbering) as i64;
        let row: Option<(Option<String>,)> =
            read!(self.fetch_optional(statements::STAGED_ANCESTOR, end.hash.clone(), first))?;
        let first = row.and_then(|(document,)| document);
        first.map(|first| Ok(ChainEnd::new(&end, &row::block(&first)?))).transpose()
    }

    async fn events(&self, after: u64, limit: u64) -> Result<Vec<Event>> {
        let sql = "SELECT * FROM event WHERE id > $1 ORDER BY id LIMIT CAST($2 AS BIGINT)";
        let rows: Vec<EventRow> = read!(self.fetch_all(sql, clamp(after), clamp(limit)))?;
        rows.into_iter().map(Event::try_from).collect()
    }

    async fn event_at(&self, id: u64) -> Result<Option<Event>> {
        let sql = "SELECT * FROM event WHERE id <= $1 ORDER BY id DESC LIMIT 1";
        let row: Option<EventRow> = read!(self.fetch_optional(sql, clamp(id)))?;
        row.map(Event::try_from).transpose()
    }

    async fn jobs(&self, limit: u64) -> Result<Vec<Job>> {
        let sql = "SELECT * FROM job ORDER BY id DESC LIMIT CAST($1 AS BIGINT)";
        let rows: Vec<JobRow> = read!(self.fetch_all(sql, clamp(limit)))?;
        Ok(rows.into_iter().map(Job::from).collect())
    }

    async fn unfinished_jobs(&self) -> Result<Vec<Job>> {
        let rows: Vec<JobRow> =
            read!(self.fetch_all(concat!("SELECT * FROM job WHERE NOT ", finished!(), " ORDER BY id")))?;
        Ok(rows.into_iter().map(Job::from).collect())
    }

    async fn job(&self, id: u64) -> Result<Option<Job>> {
        let row: Option<JobRow> = read!(self.fetch_optional("SELECT * FROM job WHERE id = $1", clamp(id)))?;
        Ok(row.map(Job::from))
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
        // One look at the clock, so that both times are the same.
        let insert = format!(
            "INSERT INTO job (phase, spec, progress, created_at, updated_at) \
             SELECT $1, $2, '{{}}', at, at FROM (SELECT {} AS at) AS clock RETURNING id",
            DB::NOW
        );
        let work = async {
            let mut transaction = Transaction::begin(pool).await?;
            query(prune).bind(clamp(KEPT_JOBS)).execute(&mut *transaction).await.map_err(DB::error)?;
            let insert = query_as(AssertSqlSafe(insert)).bind(QUEUED.to_owned()).bind(spec.to_owned());
            let (id,): (i64,) = insert.fetch_one(&mut *transaction).await.map_err(DB::error)?;
            transaction.commit().await?;
            Ok(id as u64)
        };
        pool.attend(self.read, work).await
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
        let sql = format!("SELECT value, at, {} - at FROM note WHERE key = $1", DB::NOW);
        let row: Option<(String, i64, i64)> = read!(self.fetch_optional(AssertSqlSafe(sql.clone()), key.to_owned()))?;
        Ok(row.map(|(value, at, age)| Note { value, at, age }))
    }

    async fn now(&self) -> Result<i64> {
        let (now,): (i64,) = read!(self.fetch_one(AssertSqlSafe(format!("SELECT {}", DB::NOW))))?;
        Ok(now)
    }

    async fn lease(&self) -> Result<Option<Box<dyn Lease>>> {
        self.writer()?.attend(self.wait, DB::lease(&self.lessor)).await
    }
}

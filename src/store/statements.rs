//! The statements of reading, in SQL that both databases know. Each is one look at the chain: it begins with the chain's
//! row, and what it reads of the blocks doesn't grow with the chain.

use super::sql::Backend;

/// All of the chain's row.
pub(super) const STATE: &str = "SELECT * FROM chain";

/// The block with hash `$1`.
pub(super) const GET: &str = "SELECT chain.version, chain.tip_index, chain.tip_hash, chain.tip_epoch, \
     block.document, block.idx, block.canonical, block.level \
     FROM chain CROSS JOIN block WHERE block.hash = $1";

/// The canonical blocks for which `$which` holds, which also orders and bounds them, aggregated into one row. Both
/// databases aggregate a sorted subquery in its order where nothing is joined to it, and an index sorts it; an order
/// given to the aggregate itself would have them sort all the texts, which takes SQLite longer than the rest. The last
/// one's hash is looked up by index because an aggregate would have to carry all of them.
macro_rules! run_of_blocks {
    ($which:literal) => {
        concat!(
            "SELECT chain.version, chain.tip_index, chain.tip_hash, chain.tip_epoch, run.json, run.count, \
             run.last_index, last.hash AS last_hash, run.level \
             FROM chain CROSS JOIN \
             (SELECT string_agg(document, ',') AS json, count(*) AS count, max(idx) AS last_index, \
             min(level) AS level FROM (SELECT idx, level, document FROM block WHERE canonical AND ",
            $which,
            ") AS member) AS run \
             LEFT JOIN block AS last ON last.canonical AND last.idx = run.last_index"
        )
    };
}

/// The canonical blocks of epoch `$1`, at most `$2`. SQLite plans a statement anew each time that a parameter is bound
/// which stands alone behind `LIMIT`, and that takes as long as reading an epoch: hence the cast, here and below.
pub(super) const EPOCH: &str = run_of_blocks!("epoch = $1 ORDER BY idx LIMIT CAST($2 AS BIGINT)");

/// The canonical blocks from index `$1` to `$2`.
pub(super) const RANGE: &str = run_of_blocks!("idx BETWEEN $1 AND $2 ORDER BY idx");

/// The canonical blocks at the indexes `$1` and `$2`, and the first `$3` orphans at `$1` with how many there are.
pub(super) const AT_INDEX: &str = "SELECT 0 AS orphans, idx, hash, previous_hash, canonical, orphan_reason FROM block \
     WHERE canonical AND idx IN ($1, $2) \
     UNION ALL SELECT * FROM (SELECT (SELECT count(*) FROM block WHERE NOT canonical AND idx = $1), \
     idx, hash, previous_hash, canonical, orphan_reason FROM block \
     WHERE NOT canonical AND idx = $1 ORDER BY hash LIMIT CAST($3 AS BIGINT)) AS beside \
     ORDER BY canonical DESC, idx DESC, hash";

/// Whether there is a block with hash `$1`, and the canonical block found by following it for at most `$2` generations.
pub(super) const ANCHOR: &str = "WITH RECURSIVE walk (hash, previous_hash, idx, canonical, steps) AS ( \
     SELECT hash, previous_hash, idx, canonical, CAST(0 AS BIGINT) FROM block WHERE hash = $1 \
     UNION ALL \
     SELECT parent.hash, parent.previous_hash, parent.idx, parent.canonical, walk.steps + 1 \
     FROM walk JOIN block AS parent ON parent.hash = walk.previous_hash \
     WHERE NOT walk.canonical AND walk.steps < $2) \
     SELECT chain.version, EXISTS (SELECT 1 FROM block WHERE hash = $1) AS known, found.idx, found.hash, found.steps \
     FROM chain LEFT JOIN (SELECT idx, hash, steps FROM walk WHERE canonical) AS found ON true";

/// Indexes and hashes of the canonical blocks at the indexes in the JSON array `$1`.
pub(super) fn canonical_hashes<DB: Backend>() -> String {
    format!("SELECT idx, hash FROM block WHERE canonical AND idx IN {}", DB::NUMBERS)
}

/// The highest index of the canonical blocks with the hashes in the JSON array `$1`.
pub(super) fn highest_canonical<DB: Backend>() -> String {
    // The maximum of a bare column the planner may mean to find by walking down the chain.
    format!("SELECT max(idx + 0) FROM block WHERE canonical AND hash IN {}", DB::TEXTS)
}

/// Hashes and cumulative difficulties of the blocks with the hashes in the JSON array `$1`.
pub(super) fn cumulative_difficulties<DB: Backend>() -> String {
    format!("SELECT hash, cumulative_difficulty FROM block WHERE hash IN {}", DB::TEXTS)
}

#[cfg(test)]
#[path = "../../tests/support/postgres.rs"]
mod postgres;

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Row, Sqlite, SqliteConnection};

    use super::*;
    use crate::store::{self, OpenOptions};

    /// Puts 20,000 canonical blocks past the store, and as many orphans at 20 of their indexes.
    const FILL: &str = "INSERT INTO block (hash, idx, epoch, previous_hash, canonical, cumulative_difficulty, level, \
        document) WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 39999) \
        SELECT 'h' || i, CASE WHEN i < 20000 THEN i ELSE i % 20 END, i / 40, 'h' || (i - 1), i < 20000, '1', 0, \
        '{\"some\":\"text of a block\"}' FROM n";

    /// Every statement, with values for its parameters.
    fn statements<DB: Backend>() -> Vec<String> {
        let fill = |sql: &str, values: &[&str]| {
            let numbered = (1..).zip(values);
            numbered.fold(sql.to_owned(), |sql, (number, value)| sql.replace(&format!("${number}"), value))
        };
        vec![
            fill(GET, &["'h77'"]),
            fill(EPOCH, &["77", "1000"]),
            fill(RANGE, &["1000", "1039"]),
            fill(AT_INDEX, &["77", "78", "1000"]),
            fill(ANCHOR, &["'h77'", "10000"]),
            fill(&canonical_hashes::<DB>(), &["'[7,8]'"]),
            fill(&highest_canonical::<DB>(), &["'[\"h7\",\"h8\"]'"]),
            fill(&cumulative_difficulties::<DB>(), &["'[\"h7\",\"h8\"]'"]),
        ]
    }

    #[tokio::test]
    async fn sqlite_scans_no_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/chain.db", folder.path().display());
        store::migrate(&url, &OpenOptions::default()).await.unwrap();
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::query(FILL).execute(&mut connection).await.unwrap();
        // What it may scan has one row, or those that an index has found.
        let small = ["chain", "run", "member", "walk", "found", "beside", "json_each", "CONSTANT"];
        for sql in statements::<Sqlite>() {
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
            let steps = plan.fetch_all(&mut connection).await.unwrap();
            let steps: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
            let scanned = steps.iter().filter_map(|step| step.strip_prefix("SCAN ")?.split(' ').next());
            let scanned: Vec<_> = scanned.filter(|table| !small.contains(table)).collect();
            assert!(scanned.is_empty(), "{sql}\n{steps:#?}");
            assert!(steps.iter().any(|step| step.contains("USING")), "{sql}\n{steps:#?}");
        }
    }

    #[tokio::test]
    async fn postgres_scans_no_blocks() {
        let database = postgres::Database::create().await;
        store::migrate(&database.url, &OpenOptions::default()).await.unwrap();
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        sqlx::query(FILL).execute(&mut connection).await.unwrap();
        sqlx::query("ANALYZE").execute(&mut connection).await.unwrap();
        for sql in statements::<Postgres>() {
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN {sql}")));
            let steps = plan.fetch_all(&mut connection).await.unwrap();
            let steps: Vec<String> = steps.iter().map(|step| step.get(0)).collect();
            let reads: Vec<_> = steps.iter().filter(|step| step.contains(" on block")).collect();
            assert!(!reads.is_empty() && !reads.iter().any(|step| step.contains("Seq Scan")), "{sql}\n{steps:#?}");
        }
    }
}

//! Statements that read blocks, in SQL that both databases know. Each is one snapshot of the chain, and what it reads
//! doesn't grow with the chain: the tests check the query plans.

use super::Backend;

/// Rows of one INSERT, with at most 9 parameters each: below the limits of both databases (32,766 and 65,535
/// parameters), and small enough to keep the statement prepared.
pub const ROWS_PER_STATEMENT: usize = 250;

/// All of the chain's row.
pub const STATE: &str = "SELECT * FROM chain";

/// The block with hash `$1`.
pub const GET: &str = "SELECT chain.version, chain.tip_index, chain.tip_hash, chain.tip_epoch, \
     block.document, block.idx, block.canonical, block.level \
     FROM chain CROSS JOIN block WHERE block.hash = $1";

/// The canonical blocks for which `$which` holds, which also orders and bounds them, aggregated into one row. Both
/// databases aggregate a sorted subquery in its order where nothing is joined to it, and an index sorts it; an order
/// given to the aggregate itself would have them sort all the texts, which takes SQLite longer than the rest. The last
/// one's hash is looked up by index because an aggregate would have to carry all of them.
macro_rules! run_of_blocks {
    ($which:literal) => {
        concat!(run_of_blocks!(), $which, run_of_blocks!(end))
    };
    () => {
        "SELECT chain.version, chain.tip_index, chain.tip_hash, chain.tip_epoch, run.json, run.count, \
         run.last_index, last.hash AS last_hash, run.level \
         FROM chain CROSS JOIN \
         (SELECT string_agg(document, ',') AS json, count(*) AS count, max(idx) AS last_index, \
         min(level) AS level FROM (SELECT idx, level, document FROM block WHERE "
    };
    (end) => {
        ") AS member) AS run LEFT JOIN block AS last ON last.canonical AND last.idx = run.last_index"
    };
}

/// The canonical blocks of epoch `$1`, at most `$2`. SQLite plans a statement anew each time that a parameter is bound
/// which stands alone behind `LIMIT`, and that takes as long as reading an epoch: hence the cast, here and below.
pub const EPOCH: &str = run_of_blocks!("canonical AND epoch = $1 ORDER BY idx LIMIT CAST($2 AS BIGINT)");

/// The canonical blocks from index `$1` to `$2`.
pub const RANGE: &str = run_of_blocks!("canonical AND idx BETWEEN $1 AND $2 ORDER BY idx");

/// The orphans from index `$1` down, in descending order and by hash; at index `$1` those after hash `$2`. At most
/// `$3`. Indexes from 2^63 on, which no chain reaches, are stored as negative numbers: they are left out, since no page
/// could follow them.
pub const ORPHANS: &str = run_of_blocks!(
    "NOT canonical AND idx BETWEEN 0 AND $1 AND (idx < $1 OR hash > $2) ORDER BY idx DESC, hash LIMIT CAST($3 AS BIGINT)"
);

/// The first `$3` blocks with hashes from `$1` to `$2`, the latter excluded, by hash.
pub const HASHES_BETWEEN: &str = "SELECT CAST(0 AS BIGINT) AS orphans, idx, hash, previous_hash, canonical, orphan_reason FROM block \
     WHERE hash >= $1 AND hash < $2 ORDER BY hash LIMIT CAST($3 AS BIGINT)";

/// The last `$2` reorganisations before the event `$1`, the last one first.
pub const REORGANISATIONS: &str = "SELECT * FROM event WHERE kind = 'reorganised' AND id < $1 \
     ORDER BY id DESC LIMIT CAST($2 AS BIGINT)";

/// The canonical blocks at the indexes `$1` and `$2`, and the first `$3` orphans at `$1` with their number.
pub const AT_INDEX: &str = "SELECT 0 AS orphans, idx, hash, previous_hash, canonical, orphan_reason FROM block \
     WHERE canonical AND idx IN ($1, $2) \
     UNION ALL SELECT * FROM (SELECT (SELECT count(*) FROM block WHERE NOT canonical AND idx = $1), \
     idx, hash, previous_hash, canonical, orphan_reason FROM block \
     WHERE NOT canonical AND idx = $1 ORDER BY hash LIMIT CAST($3 AS BIGINT)) AS beside \
     ORDER BY canonical DESC, idx DESC, hash";

/// Whether there is a block with hash `$1`, and the canonical block found by following it for at most `$2` generations.
pub const ANCHOR: &str = "WITH RECURSIVE walk (hash, previous_hash, idx, canonical, steps) AS ( \
     SELECT hash, previous_hash, idx, canonical, CAST(0 AS BIGINT) FROM block WHERE hash = $1 \
     UNION ALL \
     SELECT parent.hash, parent.previous_hash, parent.idx, parent.canonical, walk.steps + 1 \
     FROM walk JOIN block AS parent ON parent.hash = walk.previous_hash \
     WHERE NOT walk.canonical AND walk.steps < $2) \
     SELECT chain.version, EXISTS (SELECT 1 FROM block WHERE hash = $1) AS known, found.idx, found.hash, found.steps \
     FROM chain LEFT JOIN (SELECT idx, hash, steps FROM walk WHERE canonical) AS found ON true";

/// The canonical block at index `$1`.
pub const CANONICAL: &str = "SELECT document, cumulative_difficulty, level FROM block WHERE canonical AND idx = $1";

/// The canonical block at index `$1` with the one at `$2`.
pub const CHAIN_END: &str = "SELECT last.document, first.document \
     FROM block AS last JOIN block AS first ON first.canonical AND first.idx = $2 \
     WHERE last.canonical AND last.idx = $1";

/// The last `$3` canonical blocks between the indexes `$1` and `$2`, both excluded, the last one first.
pub const CANONICAL_RUN: &str = "SELECT document, cumulative_difficulty, level FROM block \
     WHERE canonical AND idx > $1 AND idx < $2 ORDER BY idx DESC LIMIT CAST($3 AS BIGINT)";

/// Numbers of the canonical blocks from index `$1` to `$2` of each level below `$3`.
pub const WEAKER: &str = "SELECT level, count(*) FROM block \
     WHERE canonical AND idx BETWEEN $1 AND $2 AND level < $3 GROUP BY level";

/// Raises those to the level `$3`.
pub const RAISE: &str = "UPDATE block SET level = $3 WHERE canonical AND idx BETWEEN $1 AND $2 AND level < $3";

/// The staged branch with its last block. The id tells the planner that there is but one.
pub const STAGE: &str = "SELECT stage.fork_index, stage.fork_hash, stage.tip_index, stage.level, stage.job, \
     last.document, last.cumulative_difficulty \
     FROM stage JOIN staged_block AS last ON last.idx = stage.tip_index WHERE stage.id = 1";

/// The first `$2` staged blocks from index `$1` on.
pub const STAGED_RUN: &str = "SELECT document, cumulative_difficulty, level FROM staged_block \
     WHERE idx >= $1 ORDER BY idx LIMIT CAST($2 AS BIGINT)";

/// The block at index `$2` of the chain that ends with the staged block of hash `$1`, if that still ends the branch and
/// the branch still leaves the canonical chain.
pub const STAGED_ANCESTOR: &str = "SELECT COALESCE(staged.document, below.document) \
     FROM stage JOIN staged_block AS last ON last.idx = stage.tip_index AND last.hash = $1 \
     LEFT JOIN block AS fork ON fork.canonical AND fork.hash = stage.fork_hash \
     LEFT JOIN staged_block AS staged ON staged.idx = $2 \
     LEFT JOIN block AS below ON below.canonical AND below.idx = $2 \
     WHERE stage.id = 1 AND (stage.fork_hash IS NULL OR fork.hash IS NOT NULL)";

/// The canonical blocks below index `$2` whose nominee has the key `$1`, the highest first, at most `$3`.
pub fn by_nominee<DB: Backend>() -> String {
    let which = format!("canonical AND {} = $1 AND idx < $2 ORDER BY idx DESC LIMIT CAST($3 AS BIGINT)", DB::NOMINEE);
    format!("{}{which}{}", run_of_blocks!(), run_of_blocks!(end))
}

/// The first `$2` events after the id `$1`, fewer where the documents before one have `$3` characters or more.
pub const EVENTS: &str = "SELECT * FROM (SELECT *, sum(length(document)) OVER (ORDER BY id) AS total \
     FROM (SELECT * FROM event WHERE id > $1 ORDER BY id LIMIT CAST($2 AS BIGINT)) AS member) AS run \
     WHERE total - length(document) < $3 ORDER BY id";

/// Hashes and documents of the blocks with the hashes in the JSON array `$1`, if they have at most `$2` characters
/// together.
pub fn documents<DB: Backend>() -> String {
    format!(
        "WITH found AS (SELECT hash, document FROM block WHERE hash IN {}) \
         SELECT hash, document FROM found WHERE (SELECT sum(length(document)) FROM found) <= $2",
        DB::TEXTS
    )
}

/// Indexes and hashes of the canonical blocks at the indexes in the JSON array `$1`.
pub fn canonical_hashes<DB: Backend>() -> String {
    format!("SELECT idx, hash FROM block WHERE canonical AND idx IN {}", DB::NUMBERS)
}

/// The highest index of the canonical blocks with the hashes in the JSON array `$1`.
pub fn highest_canonical<DB: Backend>() -> String {
    // The maximum of a bare column the planner may mean to find by walking down the chain.
    format!("SELECT max(idx + 0) FROM block WHERE canonical AND hash IN {}", DB::TEXTS)
}

/// Hashes and cumulative difficulties of the blocks with the hashes in the JSON array `$1`.
pub fn cumulative_difficulties<DB: Backend>() -> String {
    format!("SELECT hash, cumulative_difficulty FROM block WHERE hash IN {}", DB::TEXTS)
}

#[cfg(test)]
#[path = "../../../tests/support/postgres.rs"]
pub mod postgres;

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Row, Sqlite, SqliteConnection};

    use super::*;
    use crate::store::{self, OpenOptions};

    /// Puts 20,000 canonical blocks past the store, and as many orphans at 20 of their indexes.
    const FILL: &str = "INSERT INTO block (hash, idx, epoch, previous_hash, canonical, cumulative_difficulty, level, \
        document) WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 39999) \
        SELECT 'h' || i, CASE WHEN i < 20000 THEN i ELSE i % 20 END, i / 40, 'h' || (i - 1), i < 20000, '1', 0, \
        '{\"nominated_peer_id\":\"p' || (i % 1000) || '\"}' FROM n";

    /// The same canonical blocks as a staged branch.
    const FILL_STAGE: &str = "INSERT INTO staged_block SELECT idx, hash, '1', 0, document FROM block WHERE canonical";
    const FILL_STAGE_END: &str = "INSERT INTO stage VALUES (1, NULL, NULL, 19999, 0, 1)";

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
            fill(ORPHANS, &["15", "'h30015'", "20"]),
            fill(HASHES_BETWEEN, &["'h77'", "'h78'", "20"]),
            fill(&by_nominee::<DB>(), &["'p77'", "19000", "20"]),
            fill(AT_INDEX, &["77", "78", "1000"]),
            fill(ANCHOR, &["'h77'", "10000"]),
            fill(CANONICAL, &["77"]),
            fill(CHAIN_END, &["77", "41"]),
            fill(CANONICAL_RUN, &["1000", "19000", "250"]),
            fill(WEAKER, &["1000", "1039", "2"]),
            fill(RAISE, &["1000", "1039", "2"]),
            fill(STAGE, &[]),
            fill(STAGED_RUN, &["1000", "250"]),
            fill(STAGED_ANCESTOR, &["'h19999'", "41"]),
            fill(&documents::<DB>(), &["'[\"h7\",\"h8\"]'", "1000"]),
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
        for sql in [FILL, FILL_STAGE, FILL_STAGE_END] {
            sqlx::query(sql).execute(&mut connection).await.unwrap();
        }
        // What it may scan has one row, or those that an index has found.
        let small = ["chain", "stage", "run", "member", "walk", "found", "beside", "json_each", "CONSTANT"];
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
        for sql in [FILL, FILL_STAGE, FILL_STAGE_END] {
            sqlx::query(sql).execute(&mut connection).await.unwrap();
        }
        sqlx::query("ANALYZE").execute(&mut connection).await.unwrap();
        for sql in statements::<Postgres>() {
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN {sql}")));
            let steps = plan.fetch_all(&mut connection).await.unwrap();
            let steps: Vec<String> = steps.iter().map(|step| step.get(0)).collect();
            let blocks = |step: &&String| step.contains(" on block") || step.contains(" on staged_block");
            let reads: Vec<_> = steps.iter().filter(blocks).collect();
            assert!(!reads.is_empty() && !reads.iter().any(|step| step.contains("Seq Scan")), "{sql}\n{steps:#?}");
        }
    }
}

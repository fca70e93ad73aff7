//! The views for readers with SQL: what they show, that nothing makes them fail, that they use the indexes and stay.

use sqlx::{Column, Row, TypeInfo, ValueRef, raw_sql};

use super::*;

impl TestDatabase {
    /// The rows of a query, each value as text; booleans as 1 and 0.
    async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        // The simple protocol, in which Postgres sends every value as text.
        let sql = raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Folder(_) => {
                let mut connection = SqliteConnection::connect(&self.url()).await.unwrap();
                let rows = sql.fetch_all(&mut connection).await.unwrap();
                let value = |row: &sqlx::sqlite::SqliteRow, place: usize| {
                    let raw = row.try_get_raw(place).unwrap();
                    if raw.is_null() {
                        return None;
                    }
                    match raw.type_info().name() {
                        "INTEGER" | "BOOLEAN" => Some(row.get_unchecked::<i64, _>(place).to_string()),
                        "REAL" => Some(row.get_unchecked::<f64, _>(place).to_string()),
                        "TEXT" => Some(row.get_unchecked::<String, _>(place)),
                        other => panic!("{other}"),
                    }
                };
                rows.iter().map(|row| (0..row.columns().len()).map(|place| value(row, place)).collect()).collect()
            }
            Self::Database(_) => {
                let mut connection = PgConnection::connect(&self.url()).await.unwrap();
                let rows = sql.fetch_all(&mut connection).await.unwrap();
                let value = |row: &sqlx::postgres::PgRow, place: usize| {
                    let raw = row.try_get_raw(place).unwrap();
                    let text = (!raw.is_null()).then(|| raw.as_str().unwrap().to_owned());
                    match row.column(place).type_info().name() {
                        "BOOL" => text.map(|text| if text == "t" { "1" } else { "0" }.to_owned()),
                        _ => text,
                    }
                };
                rows.iter().map(|row| (0..row.columns().len()).map(|place| value(row, place)).collect()).collect()
            }
        }
    }

    /// The one value of a query.
    async fn value(&self, sql: &str) -> Option<String> {
        self.rows(sql).await.remove(0).remove(0)
    }

    /// The lines of a query's plan.
    async fn plan(&self, sql: &str) -> Vec<String> {
        let explain = if let Self::Folder(_) = self { "EXPLAIN QUERY PLAN" } else { "EXPLAIN" };
        let steps = self.rows(&format!("{explain} {sql}")).await;
        steps.into_iter().map(|step| step.last().unwrap().clone().unwrap()).collect()
    }
}

/// The columns of `miner_block` for a block, `document` aside.
fn columns(kind: Kind, block: &MinerBlock, work: Option<&str>, level: Level) -> Vec<(&'static str, Option<String>)> {
    let number = |value: u64| (kind == Sqlite || value < 1 << 63).then(|| value.to_string());
    let deviations: Vec<_> = block.deviations.iter().map(|deviation| deviation.as_str()).collect();
    let flag = |flag: bool| Some(u8::from(flag).to_string());
    let text = |text: &str| (!text.contains('\0')).then(|| text.to_owned());
    vec![
        ("hash", Some(block.hash.clone())),
        ("idx", number(block.index)),
        ("epoch", number(block.epoch)),
        ("timestamp", Some(block.timestamp.to_string())),
        ("previous_hash", Some(block.previous_hash.clone())),
        ("data_hash", text(&block.data_hash)),
        ("nonce", Some(block.nonce.to_string())),
        ("target_difficulty", Some(block.target_difficulty.to_string())),
        ("actualized_difficulty", Some(block.actualized_difficulty.to_string())),
        ("cumulative_difficulty", work.map(str::to_owned)),
        ("nominated_peer_id", text(&block.nominated_peer_id)),
        ("miner_number", Some(block.miner_number.to_string())),
        ("is_canonical", flag(block.is_canonical)),
        ("is_orphaned", flag(block.is_orphaned)),
        ("seen_at", block.seen_at.map(|at| at.to_string())),
        ("orphaned_at", block.orphaned_at.map(|at| at.to_string())),
        ("orphan_reason", block.orphan_reason.clone()),
        ("height_at_time", block.height_at_time.map(|height| height.to_string())),
        ("competing_hash", block.competing_hash.as_deref().and_then(text)),
        ("deviations", (!deviations.is_empty()).then(|| deviations.join(" "))),
        ("verification", Some(level.to_string())),
    ]
}

async fn check(test: &TestDatabase, kind: Kind, block: &MinerBlock, work: Option<&str>, level: Level) {
    let expected = columns(kind, block, work, level);
    let names: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
    let hash = block.hash.replace('\'', "''");
    let mut rows =
        test.rows(&format!("SELECT {}, document FROM miner_block WHERE hash = '{hash}'", names.join(", "))).await;
    assert_eq!(rows.len(), 1, "{hash}");
    let mut row = rows.remove(0);
    assert_eq!(row.pop().unwrap(), Some(block.to_json()));
    for ((name, value), found) in expected.iter().zip(row) {
        assert_eq!(&found, value, "{hash} {name}");
    }
}

/// Blocks whose members no ordinary type holds, or that are misleading as text.
fn odd_blocks() -> Vec<MinerBlock> {
    let extreme = MinerBlock {
        hash: "\u{1F980} \" \\ , '; DROP TABLE block; --".into(),
        index: u64::MAX,
        epoch: u64::MAX,
        timestamp: i64::MIN,
        previous_hash: "somewhere".into(),
        data_hash: "\",\"nonce\":\"5\",\\\n\u{1}".into(),
        nonce: u128::MAX,
        target_difficulty: u128::MAX,
        actualized_difficulty: u128::MAX,
        nominated_peer_id: ",\"miner_number\":5,\"seen_at\":7".into(),
        miner_number: u64::MAX,
        is_orphaned: true,
        seen_at: Some(i64::MAX),
        orphaned_at: Some(i64::MIN),
        orphan_reason: Some("a \"reason\"".into()),
        height_at_time: Some(u64::MAX),
        competing_hash: Some("}\"}".into()),
        deviations: vec![Deviation::Schedule, Deviation::Timestamp],
        ..MinerBlock::default()
    };
    let texts = ["\0", "a\0b", "\\u0000", "\\\0", "\\\\u0000", "", "null", "[\"", "1e400", "'"];
    let with_text = texts.iter().enumerate().map(|(number, text)| MinerBlock {
        hash: format!("odd {number}"),
        index: (1 << 63) - 1 + number as u64 % 2,
        epoch: (1 << 63) - 1 + number as u64 % 2,
        data_hash: (*text).into(),
        nominated_peer_id: (*text).into(),
        competing_hash: Some((*text).into()),
        miner_number: (1 << 63) - 1 + number as u64 % 2,
        height_at_time: Some(0),
        is_orphaned: true,
        ..MinerBlock::default()
    });
    with_text.chain([extreme]).collect()
}

#[rstest]
#[tokio::test]
async fn every_member_of_every_block_is_a_column(#[values(Sqlite, Postgres)] kind: Kind) {
    let (test, store) = holding(kind, fixture()).await;
    let mut writer = store.write().await.unwrap();
    writer.add_orphans(&odd_blocks(), Level::Linked).await.unwrap();
    writer.commit().await.unwrap();
    let mut work = 0;
    for block in fixture() {
        work += block.actualized_difficulty;
        let stored: MinerBlock = serde_json::from_str(&canonical_text(&block)).unwrap();
        check(&test, kind, &stored, Some(&work.to_string()), Level::None).await;
    }
    for block in odd_blocks() {
        check(&test, kind, &block, None, Level::Linked).await;
    }
    let times = "SELECT timestamp_utc, seen_at_utc, orphaned_at_utc FROM miner_block WHERE idx = 5";
    let zone = if kind == Postgres { "+00" } else { "" };
    let time = |text: &str| Some(format!("2026-11-22 {text}{zone}"));
    assert_eq!(test.rows(times).await, [[time("23:41:01"), time("23:41:15"), None]]);
    // Every column of every row can be read.
    assert_eq!(test.rows("SELECT * FROM miner_block").await.len(), 61 + odd_blocks().len());
}

#[rstest]
#[tokio::test]
async fn an_epoch_is_a_row(#[values(Sqlite, Postgres)] kind: Kind) {
    let (test, store) = holding(kind, fixture()).await;
    let columns = "SELECT epoch, first_index, last_index, blocks, complete, first_timestamp, last_timestamp, \
                   mean_block_time, target_difficulty_sum, work, nominees, first_timestamp_utc FROM epoch ORDER BY epoch";
    let rows = test.rows(columns).await;
    let zone = if kind == Postgres { "+00" } else { "" };
    let expected = [
        format!("0 0 40 41 1 1795390808 1795391187 {} 41 723 6 2026-11-22 23:40:08{zone}", 379.0 / 39.0),
        format!("1 41 60 20 0 1795391195 1795391305 {} 20 86 5 2026-11-22 23:46:35{zone}", 110.0 / 19.0),
    ];
    let found = rows.into_iter().map(|row| row.into_iter().map(Option::unwrap).collect::<Vec<_>>().join(" "));
    assert_eq!(found.collect::<Vec<_>>(), expected);

    // The 40th block completes an epoch; so does one that belongs to the next.
    let complete = "SELECT CASE WHEN complete THEN 1 ELSE 0 END FROM epoch WHERE epoch = 1";
    let blocks = |from: u64, to: u64| {
        let mut blocks = branch("more", &fixture()[60].hash, 61, to);
        blocks.iter_mut().for_each(|block| block.epoch = (block.index - 1) / 40);
        blocks.split_off(from as usize - 61)
    };
    append(&store, blocks(61, 80)).await;
    assert_eq!(test.value(complete).await.as_deref(), Some("0"));
    append(&store, blocks(80, 81)).await;
    assert_eq!(test.value(complete).await.as_deref(), Some("1"));
}

#[rstest]
#[tokio::test]
async fn epochs_of_unverified_blocks_make_no_view_fail(#[values(Sqlite, Postgres)] kind: Kind) {
    let mut chain = plain(4);
    (chain[0].epoch, chain[1].epoch, chain[2].epoch, chain[3].epoch) = (u64::MAX, 7, 1 << 63, (1 << 63) - 1);
    for block in &mut chain {
        (block.timestamp, block.target_difficulty, block.actualized_difficulty) = (i64::MIN, u128::MAX, u128::MAX);
        block.nominated_peer_id = "a\0b".into();
    }
    chain[3].timestamp = i64::MAX;
    let (test, _store) = holding(kind, chain.clone()).await;
    let epochs = test.rows("SELECT epoch, blocks, complete, nominees FROM epoch ORDER BY epoch").await;
    let row = |texts: [&str; 4]| texts.map(|text| Some(text.to_owned())).to_vec();
    assert_eq!(epochs, [row(["7", "1", "1", "1"]), row(["9223372036854775807", "1", "0", "1"])]);
    assert_eq!(test.rows("SELECT * FROM epoch").await.len(), 2);
    let work = test.value("SELECT work FROM epoch WHERE epoch = 7").await.unwrap();
    match kind {
        Postgres => assert_eq!(work, u128::MAX.to_string()),
        Sqlite => assert!((work.parse::<f64>().unwrap() / u128::MAX as f64 - 1.0).abs() < 1e-12, "{work}"),
    }
    let mut sum = CumulativeDifficulty::default();
    for block in &chain {
        sum = sum + block.actualized_difficulty;
        check(&test, kind, block, Some(&sum.to_string()), Level::None).await;
    }
    let mean = "SELECT mean_block_time FROM epoch WHERE epoch = 7";
    assert_eq!(test.value(mean).await, None, "one block has no time between two");
}

/// Blocks past the store, whose documents are not those of blocks.
const FILL: &str = "INSERT INTO block (hash, idx, epoch, previous_hash, canonical, cumulative_difficulty, level, \
    document) WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 19999) \
    SELECT 'h' || i, i, i / 40, 'h' || (i - 1), i < 19900, '1', 0, '{\"some\":\"text of a block\"}' FROM n";

#[rstest]
#[tokio::test]
async fn blocks_of_an_index_or_an_epoch_are_found_without_a_scan(#[values(Sqlite, Postgres)] kind: Kind) {
    let test = TestDatabase::new(kind).await;
    let _store = test.open().await;
    test.execute(FILL).await.unwrap();
    test.execute("ANALYZE").await.unwrap();
    for sql in [
        "SELECT * FROM miner_block WHERE idx = 77",
        "SELECT nonce FROM miner_block WHERE idx BETWEEN 100 AND 139 AND is_canonical ORDER BY idx",
        "SELECT count(*), max(nonce) FROM miner_block WHERE epoch = 7",
        "SELECT * FROM miner_block WHERE hash = 'h77'",
        "SELECT * FROM epoch WHERE epoch = 7",
        "SELECT * FROM epoch WHERE epoch BETWEEN 7 AND 9 ORDER BY epoch",
    ] {
        let steps = test.plan(sql).await;
        // The orphans are few, and have an index of their own.
        let scans: Vec<_> = match kind {
            Sqlite => {
                steps.iter().filter(|step| step.starts_with("SCAN block") && !step.contains("block_orphan")).collect()
            }
            Postgres => steps.iter().filter(|step| step.contains("Seq Scan on block")).collect(),
        };
        assert!(scans.is_empty(), "{sql}\n{steps:#?}");
        let index = if kind == Sqlite { "SEARCH block" } else { "Index" };
        assert!(steps.iter().any(|step| step.contains(index)), "{sql}\n{steps:#?}");
        test.rows(sql).await;
    }
    assert_eq!(test.value("SELECT count(*) FROM miner_block").await.as_deref(), Some("20000"));
    assert_eq!(test.value("SELECT sum(blocks) FROM epoch").await.as_deref(), Some("19900"));
}

#[rstest]
#[tokio::test]
async fn a_store_from_before_the_views_gets_them(#[values(Sqlite, Postgres)] kind: Kind) {
    let (test, store) = holding(kind, fixture()).await;
    store.close().await;
    test.before_migration(5).await;
    let as_it_is = OpenOptions { migrate: false, ..impatient() };
    let error = store::open(&test.url(), &as_it_is).await.err().unwrap();
    assert!(matches!(error, StoreError::OlderSchema), "{error:?}");
    let store = test.open().await;
    assert_eq!(test.value("SELECT count(*) FROM miner_block").await.as_deref(), Some("61"));
    assert_eq!(append(&store, branch("new", &fixture()[60].hash, 61, 65)).await.length, 65);
    assert_eq!(test.value("SELECT max(last_index) FROM epoch").await.as_deref(), Some("64"));

    // What a later migration may do to the table leaves them as they are.
    test.execute("ALTER TABLE block ADD COLUMN later BIGINT").await.unwrap_or_else(|error| {
        // Tables of SQLite are strict.
        assert!(kind == Sqlite, "{error}");
        0
    });
    test.execute("ALTER TABLE block ADD COLUMN later_text TEXT").await.unwrap();
    test.execute("CREATE INDEX later ON block (previous_hash)").await.unwrap();
    assert_eq!(test.value("SELECT count(*) FROM miner_block").await.as_deref(), Some("65"));
    assert_eq!(test.value("SELECT count(*) FROM epoch").await.as_deref(), Some("2"));
    assert_eq!(append(&store, branch("newer", "new_064", 65, 66)).await.length, 66);
}

#[rstest]
#[case::table("CREATE TABLE epoch (number BIGINT)")]
#[case::view("CREATE VIEW miner_block AS SELECT 1 AS one")]
#[tokio::test]
async fn a_new_store_is_not_made_beside_others_of_these_names(#[case] sql: &str) {
    let test = TestDatabase::new(Postgres).await;
    test.execute(sql).await.unwrap();
    let error = store::open(&test.url(), &impatient()).await.err().unwrap();
    assert!(matches!(&error, StoreError::Unusable(text) if text.contains("tables of another program")), "{error:?}");
    let tables = "SELECT count(*) FROM pg_class WHERE relname IN ('block', '_sqlx_migrations')";
    assert_eq!(test.value(tables).await.as_deref(), Some("0"), "nothing is left half made");
}

#[rstest]
#[tokio::test]
async fn the_examples_of_the_page_run(#[values(Sqlite, Postgres)] kind: Kind) {
    let (test, store) = holding(kind, fixture()).await;
    let mut writer = store.write().await.unwrap();
    let orphan =
        MinerBlock { orphan_reason: Some("slower".into()), ..branch("old", &fixture()[4].hash, 5, 6).remove(0) };
    writer.add_orphans(&[orphan], Level::None).await.unwrap();
    writer.commit().await.unwrap();
    let other = if kind == Sqlite { "-- Postgres" } else { "-- SQLite" };
    let page = include_str!("../../docs/sql.md");
    let examples = page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut count = 0;
    for sql in examples.filter(|sql| !sql.starts_with(other) && sql.contains("SELECT") && !sql.contains("GRANT")) {
        let rows = test.rows(sql).await;
        assert!(!rows.is_empty() && rows.iter().flatten().all(Option::is_some), "{sql}\n{rows:?}");
        count += 1;
    }
    assert_eq!(count, 6);
    // A reader of the views alone. The role is the server's: it goes with the transaction.
    if kind == Postgres {
        let role = page.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
        let read = "SET ROLE analyst; SELECT count(*) FROM miner_block; ROLLBACK";
        assert_eq!(test.value(&format!("BEGIN; {role}; {read}")).await.as_deref(), Some("62"));
        let mut connection = PgConnection::connect(&test.url()).await.unwrap();
        let read = format!("BEGIN; {role}; SET ROLE analyst; SELECT count(*) FROM block");
        let denied = raw_sql(AssertSqlSafe(read)).execute(&mut connection).await.unwrap_err();
        assert!(denied.to_string().contains("permission denied"), "{denied}");
    }
}

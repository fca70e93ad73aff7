//! Stores that are there, and that are not.

use sqlx::{Connection, SqliteConnection};

use crate::{
    WorkDir, fixture,
    support::linked::{NETWORK_FILE, linked},
};

#[test]
fn migrate_says_from_where_to_where() {
    let dir = WorkDir::new();
    let created = dir.run(["migrate"]).ok().stderr;
    assert!(created.starts_with("sqlite://modal-gateway.db: created, schema "), "{created}");
    let again = dir.run(["migrate"]).ok().stderr;
    assert!(again.ends_with("is up to date\n"), "{again}");
}

#[test]
fn a_file_that_is_no_store_or_not_there() {
    let dir = WorkDir::new();
    dir.import(&dir.path("absent.ndjson")).fails(1, &["absent.ndjson: No such file"]);
    dir.import(dir.0.path()).fails(1, &["is a directory"]);
    assert!(!dir.path("modal-gateway.db").exists(), "a mistyped name leaves no store behind");
    dir.write("modal-gateway.db", "this is not a database, whatever its name may say".repeat(100));
    dir.import(&fixture()).fails(1, &["the store is damaged"]);
    dir.run(["export", "-", "--database-url", "sqlite://no/such/folder/x.db"])
        .fails(1, &["the store does not exist: no/such/folder/x.db"]);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_says_why() {
    let dir = WorkDir::new();
    dir.run(["migrate"]).ok();
    let chain = fixture();
    let read_only = ["import", chain.to_str().unwrap(), "--database-url", "sqlite://modal-gateway.db?mode=ro"];
    dir.run(read_only).fails(1, &["the store is read-only: it was opened for reading only"]);

    let mut database = dir.database().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut database).await.unwrap();
    dir.import(&fixture()).fails(1, &["the store is busy", "locked"]);
    dir.run(["export", "-"]).ok();
    sqlx::query("ROLLBACK").execute(&mut database).await.unwrap();
    dir.import(&fixture()).ok();

    let newer = "INSERT INTO _sqlx_migrations SELECT 9999, description, installed_on, success, checksum, execution_time \
                 FROM _sqlx_migrations LIMIT 1";
    sqlx::query(newer).execute(&mut database).await.unwrap();
    for args in [&["export", "-"][..], &["import", "-"], &["migrate"]] {
        dir.run(args).fails(1, &["schema is version 9999, newer than this program's"]);
    }
}

/// What is being written when a line turns out to be wrong is of earlier lines.
#[tokio::test]
async fn a_write_that_fails_is_reported_before_a_wrong_line_after_it() {
    let dir = WorkDir::new();
    dir.run(["migrate"]).ok();
    let url = format!("sqlite://{}", dir.path("modal-gateway.db").display());
    let mut store = SqliteConnection::connect(&url).await.unwrap();
    let trigger =
        "CREATE TRIGGER bad BEFORE INSERT ON block WHEN NEW.idx = 7 BEGIN SELECT RAISE(ABORT, 'no luck'); END";
    sqlx::query(trigger).execute(&mut store).await.unwrap();
    store.close().await.unwrap();
    dir.write("linked.toml", NETWORK_FILE);
    // The first 1,000 are one batch.
    let blocks = linked(None, 1_000, "import");
    let lines: String = blocks.iter().map(|block| serde_json::to_string(block).unwrap() + "\n").collect();
    dir.write("chain.ndjson", lines + "{\n");
    let import = ["import", "chain.ndjson", "--partial", "--network", "linked.toml", "--verify", "linked"];
    dir.run(import).fails(1, &["no luck"]);
}

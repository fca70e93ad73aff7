//! Stores that are there, and that are not.

use crate::{Place, fixture};

#[test]
fn migrate_says_from_where_to_where() {
    let place = Place::new();
    let created = place.run(["migrate"]).ok().stderr;
    assert!(created.starts_with("sqlite://modal-gateway.db: created, schema "), "{created}");
    let again = place.run(["migrate"]).ok().stderr;
    assert!(again.ends_with("is up to date\n"), "{again}");
}

#[test]
fn a_file_that_is_no_store_or_not_there() {
    let place = Place::new();
    place.import(&place.path("absent.ndjson")).fails(1, &["absent.ndjson: No such file"]);
    place.import(place.0.path()).fails(1, &["is a directory"]);
    assert!(!place.path("modal-gateway.db").exists(), "a mistyped name leaves no store behind");
    place.write("modal-gateway.db", "this is not a database, whatever its name may say".repeat(100));
    place.import(&fixture()).fails(1, &["the store is damaged"]);
    place
        .run(["export", "-", "--database-url", "sqlite://no/such/folder/x.db"])
        .fails(1, &["the store does not exist: no/such/folder/x.db"]);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_says_why() {
    let place = Place::new();
    place.run(["migrate"]).ok();
    let read_only = ["import", "-", "--database-url", "sqlite://modal-gateway.db?mode=ro"];
    place.run(read_only).fails(1, &["the store is read-only: it was opened for reading only"]);

    let mut database = place.database().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut database).await.unwrap();
    place.import(&fixture()).fails(1, &["the store is busy", "locked"]);
    place.run(["export", "-"]).ok();
    sqlx::query("ROLLBACK").execute(&mut database).await.unwrap();
    place.import(&fixture()).ok();

    let newer = "INSERT INTO _sqlx_migrations SELECT 9999, description, installed_on, success, checksum, execution_time \
                 FROM _sqlx_migrations LIMIT 1";
    sqlx::query(newer).execute(&mut database).await.unwrap();
    for args in [&["export", "-"][..], &["import", "-"], &["migrate"]] {
        place.run(args).fails(1, &["schema is version 9999, newer than this program's"]);
    }
}

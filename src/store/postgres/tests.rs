//! What errors of the server mean to us, each raised by a real one.

use sqlx::AssertSqlSafe;

use super::*;
use crate::store::statements::postgres as server;

#[tokio::test]
async fn every_error_has_its_meaning() {
    let database = server::Database::create().await;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let meanings = [
        ("unreachable", "08006 08001 08P01 25P03 28000 28P01 57P01 57P02 57P03 57P05"),
        ("busy", "40001 40P01 53000 53200 53300 53400 55006 55P03 57014"),
        ("full", "53100"),
        ("read-only", "25006 42501"),
        ("missing", "3D000 42P01"),
        ("damaged", "XX001 XX002"),
        ("disk", "58000 58030 58P01"),
        ("conflict", "23505 21000"),
        ("other", "XX000 42601 22001"),
    ];
    for (meaning, code) in
        meanings.iter().flat_map(|(meaning, codes)| codes.split(' ').map(move |code| (meaning, code)))
    {
        let raise = format!("DO $$ BEGIN RAISE 'told' USING ERRCODE = '{code}'; END $$");
        let raised = raw_sql(AssertSqlSafe(raise)).execute(&mut connection).await.unwrap_err();
        let found = match Postgres::error(raised) {
            StoreError::Unreachable(_) => "unreachable",
            StoreError::Busy(_) => "busy",
            StoreError::Full => "full",
            StoreError::ReadOnly => "read-only",
            StoreError::Missing(_) => "missing",
            StoreError::Damaged(_) => "damaged",
            StoreError::Io(_) => "disk",
            StoreError::Conflict(_) => "conflict",
            StoreError::Database(_) => "other",
            error => panic!("{code}: {error:?}"),
        };
        assert_eq!(found, *meaning, "{code}");
    }
    let missing: Result<(i64,)> =
        query_as("SELECT 1 WHERE false").fetch_one(&mut connection).await.map_err(Postgres::error);
    assert!(matches!(missing, Err(StoreError::Damaged(_))), "{missing:?}");
}

#[tokio::test]
async fn a_transaction_does_not_idle_for_ever() {
    let database = server::Database::create().await;
    let connect = connect_options(&database.url, STATEMENT_TIMEOUT, STATEMENT_TIMEOUT).unwrap();
    let mut connection = PgConnection::connect_with(&connect).await.unwrap();
    let limit = query_as("SHOW idle_in_transaction_session_timeout").fetch_one(&mut connection).await;
    let (limit,): (String,) = limit.unwrap();
    assert_eq!(limit, "5min");
}

#[test]
fn parameters_of_a_url_are_those_that_the_driver_knows() {
    let read = |parameters: &str| {
        let url = format!("postgres://user@host/db{parameters}");
        connect_options(&url, STATEMENT_TIMEOUT, STATEMENT_TIMEOUT).map(|_| ())
    };
    for known in ["", "?sslmode=disable&port=5433", "?options=-c%20geqo%3Doff&options[geqo]=off", "?password=a%26b"] {
        read(known).unwrap();
    }
    let url = |parameters: &str| format!("postgres://user@host/db?{parameters}");
    let given_out = url("sslmode=require&channel_binding=require&connect_timeout=10");
    assert_eq!(known_parameters(&given_out).unwrap(), url("sslmode=require"));
    assert!(read("?channel_binding=require&hunter2=b").is_err());
    for unknown in ["?sslpassword=hunter2", "?password=a&hunter2", "?hunter2=b", "?options[hunter2=b", "?SSLMODE=b"] {
        let error = read(unknown).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::Url(_)), "{unknown}: {error:?}");
        assert!(text.contains("sslmode, ") && !text.contains("hunter2"), "{unknown}: {text}");
    }
}

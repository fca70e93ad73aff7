//! Sessions: what is set in each, and how to do without where a pooler of transactions shares them.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, raw_sql};

use crate::store::{
    backend::{Backend, Connector, prepare},
    error::Result,
};

/// Longest wait of a transaction for its next statement, after which the server ends it: it may hold the writers' lock,
/// and its process may have been stopped. This program's wait for the hashes of a batch or the next line of an import,
/// both much shorter, unless the program that pipes the lines has stalled.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// The lock of a lease, for as long as a transaction is open: a pooler of transactions keeps the session for it that
/// long. No time ends it while it idles, and it keeps no rows from being cleaned up.
const TAKE_LEASE_IN_TRANSACTION: &str = "SELECT pg_try_advisory_xact_lock(CAST(CAST('chain' AS regclass) AS bigint))";
const LEASE_WITHOUT_END: &str = "SET LOCAL idle_in_transaction_session_timeout = 0";

/// Keeps others from migrating until the transaction ends.
const MIGRATING: &str = "SELECT pg_advisory_xact_lock(hashtext('modal_gateway_migration'))";

/// The connector where sessions are shared: the limits of time are set in each transaction. It begins with a session
/// without prepared statements, whose names two connections may have in common.
pub fn connector(connector: Connector<Postgres>, lock: Duration, statement: Duration) -> Connector<Postgres> {
    let begin = format!("{}; DEALLOCATE ALL; {}", Postgres::BEGIN, settings("SET LOCAL", lock, statement));
    Connector {
        options: connector.options.statement_cache_capacity(0),
        // The pooler accepts a connection also while the server is down.
        setup: "SELECT 1;".into(),
        shared_session: Some(begin),
    }
}

/// Begins the transaction of a lease; the statement that takes it.
pub async fn begin_lease(connection: &mut PgConnection, begin: &str) -> Result<&'static str> {
    let begin = format!("{begin} {LEASE_WITHOUT_END};");
    raw_sql(AssertSqlSafe(begin)).execute(connection).await.map_err(Postgres::error)?;
    Ok(TAKE_LEASE_IN_TRANSACTION)
}

/// See [`prepare`].
pub async fn prepare_in_transaction(
    connection: &mut PgConnection,
    connector: &Connector<Postgres>,
    migrate: bool,
) -> Result<(i64, i64)> {
    let begin = connector.shared_session.clone().unwrap_or_default();
    let mut transaction = connection.begin_with(AssertSqlSafe(begin)).await.map_err(Postgres::error)?;
    if migrate {
        raw_sql(AssertSqlSafe(unlimited("SET LOCAL") + MIGRATING))
            .execute(&mut *transaction)
            .await
            .map_err(Postgres::error)?;
    }
    let versions = prepare::<Postgres>(&mut transaction, migrate).await?;
    transaction.commit().await.map_err(Postgres::error)?;
    Ok(versions)
}

/// Statements that lift the limits of time, each beginning with `set`: a migration of a long chain takes minutes, and a
/// program that starts meanwhile waits for it.
pub fn unlimited(set: &str) -> String {
    format!("{set} lock_timeout = 0; {set} statement_timeout = 0;")
}

/// Statements that set the limits of time, and what else differs from a server's defaults, each beginning with `set`.
pub fn settings(set: &str, lock: Duration, statement: Duration) -> String {
    let milliseconds = |time: Duration| time.as_millis().max(1).to_string();
    let settings = [
        ("lock_timeout", milliseconds(lock)),
        ("statement_timeout", milliseconds(statement)),
        ("idle_in_transaction_session_timeout", milliseconds(IDLE_TIMEOUT)),
        // All statements find their rows by index, whatever the values. By default, the server takes a range of a long
        // chain for a wide one and plans it anew each time, which takes longer than reading the blocks.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
        // Off, a backslash in the text of a migration would be an escape.
        ("standard_conforming_strings", "on".to_owned()),
    ];
    settings.iter().map(|(name, value)| format!("{set} {name} = '{value}';")).collect()
}

//! Postgres: one server for several gateways. The lock of the chain's row is the writers' lock.

use std::{borrow::Cow, str::FromStr, time::Duration};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions, Connection, PgConnection, Postgres,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgQueryResult},
    query_as, raw_sql,
};
use url::Url;

use super::{
    Lease, OpenOptions, Result, StoreError, schema,
    sql::{Backend, SqlStore},
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Longest that the server works at one statement of a write.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest that a transaction may wait for its next statement, after which the server ends it: it may hold the writers'
/// lock, and its process may have been stopped. Ours wait for the hashes of a batch or the next line of an import, both
/// much shorter, unless whoever pipes the lines has stalled.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Longest wait for the answer to whether a lease is still held.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// The lease is an advisory lock, which lasts as long as the connection that took it. Its key is the number of the
/// chain's table, so that chains in different schemas of a database don't share one.
const TAKE_LEASE: &str = "SELECT pg_try_advisory_lock(CAST(CAST('chain' AS regclass) AS bigint))";

/// How soon, in seconds and attempts, the server notices that the machine at the other end has gone, and gives up the
/// locks that it holds for it.
const KEEPALIVE: [(&str, u32); 3] =
    [("tcp_keepalives_idle", 10), ("tcp_keepalives_interval", 5), ("tcp_keepalives_count", 3)];

/// The parameters that the driver takes from a URL, beside `options[NAME]`.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Parameters of the server's own clients that say nothing here, and are in the URLs that hosts give out: the driver would
/// log them.
const IGNORED: &[&str] =
    &["channel_binding", "connect_timeout", "gssencmode", "keepalives", "sslnegotiation", "target_session_attrs"];

/// How the connection of a lease is made.
pub(super) struct Lessor {
    connect: PgConnectOptions,
    wait: Duration,
}

struct ConnectionLease(PgConnection);

#[async_trait]
impl Lease for ConnectionLease {
    async fn held(&mut self) -> bool {
        matches!(tokio::time::timeout(PING_TIMEOUT, self.0.ping()).await, Ok(Ok(())))
    }
}

impl Backend for Postgres {
    const LOCAL: bool = false;
    const BEGIN: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED";
    const READ_FOR_WRITE: &'static str = "SELECT * FROM chain FOR UPDATE";
    const COUNT_MIGRATION_TABLES: &'static str = "SELECT count(to_regclass('_sqlx_migrations'))";
    const TEXTS: &'static str = "(SELECT jsonb_array_elements_text(CAST($1 AS jsonb)))";
    const NUMBERS: &'static str = "(SELECT CAST(jsonb_array_elements_text(CAST($1 AS jsonb)) AS bigint))";
    const NOW: &'static str = "CAST(floor(EXTRACT(EPOCH FROM clock_timestamp())) AS BIGINT)";

    type Lessor = Lessor;
    type Place = ();

    fn place(_: &PgConnectOptions) {}

    async fn run(connection: &mut PgConnection, statement: &'static str) -> sqlx::Result<()> {
        raw_sql(statement).execute(connection).await.map(|_| ())
    }

    fn rows(result: &PgQueryResult) -> u64 {
        result.rows_affected()
    }

    /// By SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    fn error(error: sqlx::Error) -> StoreError {
        let database = match &error {
            sqlx::Error::Database(database) => database,
            // A connection that breaks off in the middle of an answer speaks another protocol, as far as the driver knows.
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
                return StoreError::Unreachable(error.to_string());
            }
            _ => return schema::misread(error),
        };
        let message = database.message().to_owned();
        match database.code().as_deref().unwrap_or_default() {
            "23505" | "21000" => StoreError::Conflict("another block is in that place already".into()),
            // No such database; none of our tables in it.
            "3D000" | "42P01" => StoreError::Missing(message),
            "25006" | "42501" => StoreError::ReadOnly,
            "55P03" | "55006" | "57014" => StoreError::Busy(message),
            "53100" => StoreError::Full,
            // A transaction that idled for too long, and its connection with it.
            "25P03" => StoreError::Unreachable(message),
            "XX001" | "XX002" => StoreError::Damaged(message),
            code => match code.get(..2) {
                // The connection, the right to connect, and a server that stops, starts or is told to drop us.
                Some("08" | "28" | "57") => StoreError::Unreachable(message),
                // Deadlocks; connections, memory and the like.
                Some("40" | "53") => StoreError::Busy(message),
                Some("58") => StoreError::Io(message),
                _ => StoreError::Database(error),
            },
        }
    }

    async fn lease(lessor: &Lessor) -> Result<Option<Box<dyn Lease>>> {
        let mut connection = first_connection(&lessor.connect, lessor.wait).await?;
        let (granted,): (bool,) = query_as(TAKE_LEASE).fetch_one(&mut connection).await.map_err(Self::error)?;
        if granted {
            return Ok(Some(Box::new(ConnectionLease(connection))));
        }
        connection.close().await.map_err(Self::error)?;
        Ok(None)
    }
}

/// Opens the store; see [`super::open`].
pub(super) async fn open(url: &str, options: &OpenOptions) -> Result<SqlStore<Postgres>> {
    let connect = connect_options(url, options.wait, STATEMENT_TIMEOUT)?;
    let mut first = first_connection(&connect, options.wait).await?;
    prepare(&mut first, options.migrate).await?;
    first.close().await.map_err(Postgres::error)?;
    let lessor = Lessor { connect: connect.clone(), wait: options.wait };
    let reading = connect_options(url, options.read, options.read)?;
    Ok(SqlStore::new(reading, Some(connect), lessor, options))
}

/// Brings the schema up to date; see [`super::migrate`].
pub(super) async fn migrate(url: &str, options: &OpenOptions) -> Result<(i64, i64)> {
    let connect = connect_options(url, options.wait, STATEMENT_TIMEOUT)?;
    let mut connection = first_connection(&connect, options.wait).await?;
    let versions = prepare(&mut connection, true).await?;
    connection.close().await.map_err(Postgres::error)?;
    Ok(versions)
}

/// Checks the schema's version and migrates if that is wanted; the versions before and after. sqlx locks the database
/// against other migrating programs.
async fn prepare(connection: &mut PgConnection, migrate: bool) -> Result<(i64, i64)> {
    let found = schema::found::<Postgres>(connection).await?;
    let known = schema::newest(&MIGRATIONS);
    if schema::must_migrate(found, known, migrate)? {
        MIGRATIONS
            .run_direct(None, connection, false)
            .await
            .map_err(|error| schema::error::<Postgres>(error, known))?;
    }
    Ok((found, known))
}

/// A connection, which isn't the pool's, so that what keeps it from being made is reported at once.
async fn first_connection(connect: &PgConnectOptions, wait: Duration) -> Result<PgConnection> {
    match tokio::time::timeout(wait, PgConnection::connect_with(connect)).await {
        Ok(connected) => connected.map_err(Postgres::error),
        Err(_) => Err(StoreError::Unreachable(format!("no answer within {wait:?}"))),
    }
}

/// The URL without [`IGNORED`] parameters. Refuses others that the driver would log, with their values, and otherwise
/// ignore: one may hold a secret, or be the rest of a password with a `&` in it, so it is not named.
fn known_parameters(url: &str) -> Result<Cow<'_, str>> {
    // What is wrong with a URL that can't be read is the driver's to say.
    let Ok(mut parsed) = Url::parse(url) else { return Ok(url.into()) };
    let is_option = |name: &str| name.starts_with("options[") && name.ends_with(']');
    let (ignored, rest): (Vec<_>, Vec<_>) =
        parsed.query_pairs().into_owned().partition(|(name, _)| IGNORED.contains(&name.as_str()));
    if !ignored.is_empty() {
        parsed.query_pairs_mut().clear().extend_pairs(&rest);
    }
    match rest.iter().all(|(name, _)| PARAMETERS.contains(&name.as_str()) || is_option(name)) {
        true if ignored.is_empty() => Ok(url.into()),
        true => Ok(String::from(parsed).into()),
        false => Err(StoreError::Url(format!(
            "a parameter is unknown: expected {}, options[NAME]; a `&` in a password is written as %26",
            PARAMETERS.join(", ")
        ))),
    }
}

/// How to connect for statements that wait so long for locks, and take so long.
fn connect_options(url: &str, lock: Duration, statement: Duration) -> Result<PgConnectOptions> {
    let parsed =
        PgConnectOptions::from_str(&known_parameters(url)?).map_err(|error| StoreError::Url(error.to_string()))?;
    let name = parsed.get_application_name().unwrap_or("modal-gateway").to_owned();
    let milliseconds = |time: Duration| time.as_millis().max(1).to_string();
    let settings = [
        ("lock_timeout", milliseconds(lock)),
        ("statement_timeout", milliseconds(statement)),
        ("idle_in_transaction_session_timeout", milliseconds(IDLE_TIMEOUT)),
        // All our statements find their rows by index, whatever the values. Left to itself, the server takes a range of
        // a long chain for a wide one and plans it anew each time, which takes it longer than reading the blocks.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
    ];
    Ok(parsed.application_name(&name).options(settings).options(KEEPALIVE).disable_statement_logging())
}

#[cfg(test)]
mod tests;

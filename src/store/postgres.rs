//! Postgres: one server for several gateways. The lock of the chain's row is the writers' lock.

use std::{str::FromStr, time::Duration};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions, Connection, PgConnection, Pool, Postgres,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions, PgQueryResult},
    query_as,
};

use super::{
    Lease, OpenOptions, Result, StoreError, schema,
    sql::{Backend, SqlStore},
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Longest that the server works at one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection that has been idle for longer is tried before it is used: the server may have gone meanwhile.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How long to wait for an answer when asking whether the server is there at all.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The lease is an advisory lock, which lasts as long as the connection that took it. Its key is the number of the
/// chain's table, so that chains in different schemas of a database don't share one.
const TAKE_LEASE: &str = "SELECT pg_try_advisory_lock(CAST(CAST('chain' AS regclass) AS bigint))";

/// How soon, in seconds and attempts, the server notices that the machine at the other end of a lease has gone.
const LEASE_KEEPALIVE: [(&str, u32); 3] =
    [("tcp_keepalives_idle", 10), ("tcp_keepalives_interval", 5), ("tcp_keepalives_count", 3)];

/// How the connection of a lease is made.
pub(super) struct Lessor {
    connect: PgConnectOptions,
    wait: Duration,
}

struct ConnectionLease(PgConnection);

#[async_trait]
impl Lease for ConnectionLease {
    async fn held(&mut self) -> bool {
        matches!(tokio::time::timeout(PROBE_TIMEOUT, self.0.ping()).await, Ok(Ok(())))
    }
}

impl Backend for Postgres {
    const BEGIN: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED";
    const READ_FOR_WRITE: &'static str = "SELECT * FROM chain FOR UPDATE";
    const COUNT_MIGRATION_TABLES: &'static str = "SELECT count(to_regclass('_sqlx_migrations'))";
    const TEXTS: &'static str = "(SELECT jsonb_array_elements_text(CAST($1 AS jsonb)))";
    const NUMBERS: &'static str = "(SELECT CAST(jsonb_array_elements_text(CAST($1 AS jsonb)) AS bigint))";

    type Lessor = Lessor;

    fn rows(result: &PgQueryResult) -> u64 {
        result.rows_affected()
    }

    /// By SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    fn error(error: sqlx::Error) -> StoreError {
        let database = match &error {
            sqlx::Error::Database(database) => database,
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => {
                return StoreError::Unreachable(error.to_string());
            }
            _ => return StoreError::Database(error),
        };
        let message = database.message().to_owned();
        match database.code().as_deref().unwrap_or_default() {
            "23505" | "21000" => StoreError::Conflict("another block is in that place already".into()),
            "3D000" => StoreError::Missing(message),
            "25006" | "42501" => StoreError::ReadOnly,
            "40001" | "40P01" | "55P03" | "57014" | "53300" | "57P03" => StoreError::Busy(message),
            "53100" => StoreError::Full,
            "57P01" | "57P02" => StoreError::Unreachable(message),
            "XX001" | "XX002" => StoreError::Damaged(message),
            code if code.starts_with("08") || code.starts_with("28") => StoreError::Unreachable(message),
            _ => StoreError::Database(error),
        }
    }

    /// The pool tries again for as long as it may when a server refuses connections, and in the end says no more than
    /// that it took too long. So ask once more whether anybody is there.
    async fn no_connection(pool: &Pool<Self>) -> StoreError {
        let options = pool.connect_options();
        match tokio::time::timeout(PROBE_TIMEOUT, PgConnection::connect_with(&options)).await {
            Ok(Ok(connection)) => {
                let waited = pool.options().get_acquire_timeout();
                drop(connection.close().await);
                StoreError::Busy(format!("no connection became free within {waited:?}"))
            }
            Ok(Err(error)) => Self::error(error),
            Err(_) => StoreError::Unreachable("the database server does not answer".into()),
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
    let connect = connect_options(url, options)?;
    let mut first = first_connection(&connect, options.wait).await?;
    prepare(&mut first, options.migrate).await?;
    first.close().await.map_err(Postgres::error)?;

    let pool = |connections| {
        let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(options.wait);
        let pool = pool.test_before_acquire(false).before_acquire(|connection, usage| {
            Box::pin(async move {
                // An error closes the connection, and another one is taken.
                if usage.idle_for > TRUSTED_IDLE { connection.ping().await.map(|()| true) } else { Ok(true) }
            })
        });
        pool.connect_lazy_with(connect.clone())
    };
    let lessor = Lessor { connect: connect.clone().options(LEASE_KEEPALIVE), wait: options.wait };
    Ok(SqlStore { readers: pool(options.connections), writer: Some(pool(1)), lessor })
}

/// Brings the schema up to date; see [`super::migrate`].
pub(super) async fn migrate(url: &str, options: &OpenOptions) -> Result<(i64, i64)> {
    let mut connection = first_connection(&connect_options(url, options)?, options.wait).await?;
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

fn connect_options(url: &str, options: &OpenOptions) -> Result<PgConnectOptions> {
    let parsed = PgConnectOptions::from_str(url).map_err(|error| StoreError::Url(error.to_string()))?;
    let name = parsed.get_application_name().unwrap_or("modal-gateway").to_owned();
    let milliseconds = |time: Duration| time.as_millis().max(1).to_string();
    let settings = [
        ("lock_timeout", milliseconds(options.wait)),
        ("statement_timeout", milliseconds(STATEMENT_TIMEOUT)),
        // All our statements find their rows by index, whatever the values. Left to itself, the server takes a range of
        // a long chain for a wide one and plans it anew each time, which takes it longer than reading the blocks.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
    ];
    Ok(parsed.application_name(&name).options(settings).disable_statement_logging())
}

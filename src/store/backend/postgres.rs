//! Postgres: one server for several gateways. The lock of the chain's row is the writers' lock.

use std::{borrow::Cow, str::FromStr, time::Duration};

use async_trait::async_trait;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, Postgres,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgQueryResult},
    query_as, raw_sql,
};
use url::Url;

use super::{Backend, Connector, FOREIGN, Reached, misread, prepare, rows::BlockRow};
use crate::store::{
    error::{Result, StoreError},
    model::OpenOptions,
    traits::Lease,
};

mod copy;
mod reach;
mod shared;

use reach::{SHARED_SESSIONS, connect, first_connection};
use shared::settings;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Longest duration of one statement of a write.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest wait for the answer to whether a lease is still held.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// The lease is an advisory lock, which lasts as long as the connection that took it. Its key is the number of the
/// chain's table, so that chains in different schemas of a database don't share one.
const TAKE_LEASE: &str = "SELECT pg_try_advisory_lock(CAST(CAST('chain' AS regclass) AS bigint))";

/// Seconds and attempts until the server notices that a client's machine is gone, and releases the client's locks.
const KEEPALIVE: [(&str, u32); 3] =
    [("tcp_keepalives_idle", 10), ("tcp_keepalives_interval", 5), ("tcp_keepalives_count", 3)];

/// The parameters that the driver takes from a URL, beside `options[NAME]`.
const PARAMETERS: &str = "sslmode, ssl-mode, sslrootcert, ssl-root-cert, ssl-ca, sslcert, ssl-cert, sslkey, ssl-key, \
    statement-cache-capacity, host, hostaddr, port, dbname, user, password, application_name, options";

/// Those of them that name a file, or hold its text.
const FILES: &[&str] = &["sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"];

/// Parameters of the server's own clients that have no effect here, and are in the URLs that hosting providers issue:
/// the driver would log them.
const IGNORED: &[&str] =
    &["channel_binding", "connect_timeout", "gssencmode", "keepalives", "sslnegotiation", "target_session_attrs"];

/// What makes transactions read-only, and what to do.
const READ_ONLY: &str = "if the server is a standby, name the primary in the URL; else set \
    default_transaction_read_only to off, by ALTER ROLE or ALTER DATABASE";

/// How the connection of a lease is made.
pub struct LeaseSource {
    connector: Connector<Postgres>,
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
    const EMBEDDED: bool = false;
    const BEGIN: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED";
    const READ_FOR_WRITE: &'static str = "SELECT * FROM chain FOR UPDATE";
    // In the schema where tables are made: a name alone also finds one in a later schema of the search path.
    const COUNT_TABLES: &'static str = "SELECT count(*) FILTER (WHERE relname <> '_sqlx_migrations'), \
         count(*) FILTER (WHERE relname = '_sqlx_migrations') FROM pg_class \
         WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relname IN \
         ('block', 'tally', 'chain', 'staged_block', 'stage', 'event', 'job', 'note', 'miner_block', 'epoch', \
         '_sqlx_migrations')";
    const NO_STORE: &'static str = "it holds no store in the first schema of the search_path on which the role has \
         USAGE; `modal-gateway migrate` makes one";
    const TEXTS: &'static str = "(SELECT jsonb_array_elements_text(CAST($1 AS jsonb)))";
    const NUMBERS: &'static str = "(SELECT CAST(jsonb_array_elements_text(CAST($1 AS jsonb)) AS bigint))";
    const NOMINEE: &'static str =
        "left(split_part(split_part(document, '\"nominated_peer_id\":\"', 2), '\"', 1), 64) COLLATE \"C\"";
    const NOW: &'static str = "CAST(floor(EXTRACT(EPOCH FROM clock_timestamp())) AS BIGINT)";
    const SIZE: &'static str = "SELECT pg_database_size(current_database())";
    const IS_STANDBY: &'static str = "SELECT pg_is_in_recovery()";
    const MIGRATIONS: &'static Migrator = &MIGRATIONS;

    type LeaseSource = LeaseSource;
    type Target = ();

    fn target(_: &PgConnectOptions) {}

    fn rows_affected(result: &PgQueryResult) -> u64 {
        result.rows_affected()
    }

    async fn insert_new(connection: &mut PgConnection, rows: &[BlockRow]) -> sqlx::Result<()> {
        copy::copy(connection, rows).await
    }

    /// By SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    fn error(error: sqlx::Error) -> StoreError {
        let database = match &error {
            sqlx::Error::Database(database) => database,
            // A connection that breaks in the middle of an answer is an error of protocol to the driver.
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
                return StoreError::Unreachable(error.to_string());
            }
            _ => return misread(error),
        };
        let message = database.message().to_owned();
        match database.code().as_deref().unwrap_or_default() {
            "23505" | "21000" => StoreError::Conflict("another block is in that place already".into()),
            // No such database; none of our tables in it.
            "3D000" | "42P01" => StoreError::Missing(message),
            "25006" => StoreError::ReadOnly(format!("{message}; {READ_ONLY}")),
            "42501" => StoreError::Denied(format!(
                "{message}; the role needs USAGE and CREATE on the schema, and all rights on its tables"
            )),
            "3F000" => StoreError::Unusable(format!(
                "{message}; ALTER ROLE … SET search_path to a schema that exists, and on which the role has USAGE"
            )),
            // A prepared statement that isn't there, or is already: a pooler gave the session to somebody else.
            "26000" | "42P05" => StoreError::Unusable(SHARED_SESSIONS.into()),
            "42P07" | "42710" => StoreError::Unusable(format!("{message}; {FOREIGN}")),
            "55P03" | "55006" | "57014" => StoreError::Busy(message),
            "53100" => StoreError::Full,
            // A transaction that idled for too long, and its connection with it.
            "25P03" => StoreError::Unreachable(message),
            "XX001" | "XX002" => StoreError::Damaged(message),
            code => match code.get(..2) {
                // The connection, the right to connect, and a server that stops, starts or was ordered to disconnect
                // us.
                Some("08" | "28" | "57") => StoreError::Unreachable(message),
                // Deadlocks; connections, memory and the like.
                Some("40" | "53") => StoreError::Busy(message),
                Some("58") => StoreError::Io(message),
                _ => StoreError::Database(error),
            },
        }
    }

    /// sqlx locks the database against other migrating programs.
    async fn migrate(connection: &mut PgConnection) -> std::result::Result<(), MigrateError> {
        MIGRATIONS.run_direct(None, connection, false).await
    }

    async fn lease(source: &LeaseSource) -> Result<Option<Box<dyn Lease>>> {
        let mut connection = connect(&source.connector, source.wait).await?;
        let take = match &source.connector.shared_session {
            None => TAKE_LEASE,
            Some(begin) => shared::begin_lease(&mut connection, begin).await?,
        };
        let (granted,): (bool,) = query_as(take).fetch_one(&mut connection).await.map_err(Self::error)?;
        if granted {
            return Ok(Some(Box::new(ConnectionLease(connection))));
        }
        if source.connector.shared_session.is_some() {
            raw_sql("ROLLBACK").execute(&mut connection).await.map_err(Self::error)?;
        }
        connection.close().await.map_err(Self::error)?;
        Ok(None)
    }
}

/// Reaches the database that `url` names; see [`open`](crate::store::open).
pub async fn open(url: &str, options: &OpenOptions) -> Result<Reached<Postgres>> {
    let (writing, _) = reach(url, options, options.migrate).await?;
    let mut reading = connector(url, options.read_timeout, options.read_timeout)?;
    if writing.shared_session.is_some() {
        tracing::info!("a pooler of transactions is before the database: each statement is a transaction");
        reading = shared::connector(reading, options.read_timeout, options.read_timeout);
    }
    let lease_source = LeaseSource { connector: writing.clone(), wait: options.acquire_timeout };
    Ok(Reached { reading, writing: options.write.then_some(writing), lease_source })
}

/// Brings the schema up to date; see [`migrate`](crate::store::migrate).
pub async fn migrate(url: &str, options: &OpenOptions) -> Result<(i64, i64)> {
    Ok(reach(url, options, true).await?.1)
}

/// Reaches the database and prepares it: how to connect for writing, and the versions of the schema.
async fn reach(url: &str, options: &OpenOptions, migrate: bool) -> Result<(Connector<Postgres>, (i64, i64))> {
    let mut connector = connector(url, options.acquire_timeout, STATEMENT_TIMEOUT)?;
    let (mut first, shared) = first_connection(&connector, options.acquire_timeout, options.server_wait).await?;
    let versions = if shared {
        connector = shared::connector(connector, options.acquire_timeout, STATEMENT_TIMEOUT);
        shared::prepare_in_transaction(&mut first, &connector, migrate).await?
    } else {
        if migrate {
            raw_sql(AssertSqlSafe(shared::unlimited("SET"))).execute(&mut first).await.map_err(Postgres::error)?;
        }
        prepare::<Postgres>(&mut first, migrate).await?
    };
    first.close().await.map_err(Postgres::error)?;
    Ok((connector, versions))
}

/// The URL without [`IGNORED`] parameters. Refuses others that the driver would log, with their values, and otherwise
/// ignore: one may hold a secret, or be the rest of a password with a `&` in it, so it is not named.
fn known_parameters(url: &str) -> Result<Cow<'_, str>> {
    // The driver reports what is wrong with a URL that can't be parsed.
    let Ok(mut parsed) = Url::parse(url) else { return Ok(url.into()) };
    let is_option = |name: &str| name.starts_with("options[") && name.ends_with(']');
    let (ignored, rest): (Vec<_>, Vec<_>) =
        parsed.query_pairs().into_owned().partition(|(name, _)| IGNORED.contains(&name.as_str()));
    if !ignored.is_empty() {
        parsed.query_pairs_mut().clear().extend_pairs(&rest);
    }
    let files = rest.iter().filter(|(name, value)| FILES.contains(&name.as_str()) && !value.starts_with("-----BEGIN"));
    for (name, file) in files {
        // Not named: it may be a secret in the wrong place.
        std::fs::File::open(file)
            .map_err(|error| StoreError::Url(format!("the file of {name} can't be read: {error}")))?;
    }
    match rest.iter().all(|(name, _)| PARAMETERS.split(", ").any(|known| known == name) || is_option(name)) {
        true if ignored.is_empty() => Ok(url.into()),
        true => Ok(String::from(parsed).into()),
        false => Err(StoreError::Url(format!(
            "a parameter is unknown: expected {PARAMETERS}, options[NAME]; a `&` in a password is written as %26"
        ))),
    }
}

/// How to connect for statements that wait at most `lock` for a lock and take at most `statement`. The session is set
/// up by statements: PgBouncer refuses a connection whose first message does.
fn connector(url: &str, lock: Duration, statement: Duration) -> Result<Connector<Postgres>> {
    let parsed =
        PgConnectOptions::from_str(&known_parameters(url)?).map_err(|error| StoreError::Url(error.to_string()))?;
    // The driver keeps the brackets of an IPv6 address, and would look it up as a name.
    let host = parsed.get_host().trim_matches(['[', ']']).to_owned();
    let name = parsed.get_application_name().unwrap_or("modal-gateway").to_owned();
    let keepalive: String = KEEPALIVE.iter().map(|(name, value)| format!("SET {name} = '{value}';")).collect();
    let options = parsed.host(&host).application_name(&name).extra_float_digits(None).disable_statement_logging();
    Ok(Connector { options, setup: settings("SET", lock, statement) + &keepalive, shared_session: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::backend::statements::postgres as server;

    #[tokio::test]
    async fn every_sqlstate_is_mapped_to_its_error() {
        let database = server::Database::create().await;
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        let meanings = [
            ("unreachable", "08006 08001 08P01 25P03 28000 28P01 57P01 57P02 57P03 57P05"),
            ("busy", "40001 40P01 53000 53200 53300 53400 55006 55P03 57014"),
            ("full", "53100"),
            ("read-only", "25006"),
            ("denied", "42501"),
            ("unusable", "3F000 42P07 42710 26000 42P05"),
            ("missing", "3D000 42P01"),
            ("damaged", "XX001 XX002"),
            ("disk", "58000 58030 58P01"),
            ("conflict", "23505 21000"),
            ("other", "XX000 42601 22001"),
        ];
        for (meaning, code) in
            meanings.iter().flat_map(|(meaning, codes)| codes.split(' ').map(move |code| (meaning, code)))
        {
            let raise = format!("DO $$ BEGIN RAISE 'raised' USING ERRCODE = '{code}'; END $$");
            let raised = raw_sql(AssertSqlSafe(raise)).execute(&mut connection).await.unwrap_err();
            let found = match Postgres::error(raised) {
                StoreError::Unreachable(_) => "unreachable",
                StoreError::Busy(_) => "busy",
                StoreError::Full => "full",
                StoreError::ReadOnly(_) => "read-only",
                StoreError::Denied(_) => "denied",
                StoreError::Unusable(_) => "unusable",
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
    async fn an_idle_transaction_is_ended() {
        let database = server::Database::create().await;
        let connector = connector(&database.url, STATEMENT_TIMEOUT, STATEMENT_TIMEOUT).unwrap();
        let mut connection = connector.connect().await.unwrap();
        let limit = query_as("SHOW idle_in_transaction_session_timeout").fetch_one(&mut connection).await;
        let (limit,): (String,) = limit.unwrap();
        assert_eq!(limit, "5min");
    }

    #[test]
    fn the_address_of_a_server_has_brackets_only_in_urls_and_messages() {
        for (place, host, address) in [
            ("[::1]:21432/db", "::1", "[::1]:21432"),
            ("[2001:db8::7]/db?port=1", "2001:db8::7", "[2001:db8::7]:1"),
            ("name:2/db?hostaddr=::1", "::1", "[::1]:2"),
            ("127.0.0.1:3/db", "127.0.0.1", "127.0.0.1:3"),
            ("name:4/db", "name", "name:4"),
        ] {
            let url = format!("postgres://user:secret@{place}");
            let options = connector(&url, STATEMENT_TIMEOUT, STATEMENT_TIMEOUT).unwrap().options;
            assert_eq!((options.get_host(), reach::address(&options)), (host, address.to_owned()), "{place}");
        }
    }

    #[test]
    fn unknown_parameters_of_a_url_are_refused_without_their_values() {
        let read = |parameters: &str| {
            let url = format!("postgres://user@host/db{parameters}");
            connector(&url, STATEMENT_TIMEOUT, STATEMENT_TIMEOUT).map(|_| ())
        };
        for known in ["", "?sslmode=disable&port=5433", "?options=-c%20geqo%3Doff&options[geqo]=off", "?password=a%26b"]
        {
            read(known).unwrap();
        }
        let url = |parameters: &str| format!("postgres://user@host/db?{parameters}");
        let issued = url("sslmode=require&channel_binding=require&connect_timeout=10");
        assert_eq!(known_parameters(&issued).unwrap(), url("sslmode=require"));
        assert!(read("?channel_binding=require&hunter2=b").is_err());
        for unknown in ["?sslpassword=hunter2", "?password=a&hunter2", "?hunter2=b", "?options[hunter2=b", "?SSLMODE=b"]
        {
            let error = read(unknown).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, StoreError::Url(_)), "{unknown}: {error:?}");
            assert!(text.contains("sslmode, ") && !text.contains("hunter2"), "{unknown}: {text}");
        }
    }
}

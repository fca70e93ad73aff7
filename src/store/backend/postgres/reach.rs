//! The first connection to a server: waits for one that isn't up yet, and refuses one that can hold no store.

use std::time::{Duration, Instant};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection, PgConnection, Postgres, Row, postgres::PgConnectOptions, raw_sql,
};
use tokio::time::{sleep, timeout};

use crate::store::{
    backend::{Backend, Connector},
    error::{Result, StoreError},
};

/// Pause between two attempts to connect to a server that isn't up.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// A session of its own for each connection has a process of the server of its own.
const SESSION: &str = "SELECT pg_backend_pid(), current_setting('server_encoding')";

/// What a pooler does that gives one session to several connections: it takes the lease, the limits of time and prepared
/// statements from one of them to the other.
const SHARED_SESSIONS: &str =
    "its connections share sessions: if PgBouncer is before it, set pool_mode = session there";

/// The first connection, outside the pool, so that what keeps it from being made is reported at once. Waits at most
/// `wait` for an answer, and tries for `server_wait` to reach a server that isn't up.
pub async fn first_connection(
    connector: &Connector<Postgres>,
    wait: Duration,
    server_wait: Duration,
) -> Result<PgConnection> {
    let deadline = Instant::now() + server_wait;
    let mut waiting = false;
    let mut connection = loop {
        let (error, may_come) = match timeout(wait, connector.options.connect()).await {
            Ok(Ok(connection)) => break connection,
            Ok(Err(error)) => {
                let may_come = is_down(&error);
                (refusal(error, &connector.options), may_come)
            }
            Err(_) => (no_answer(wait, &connector.options), true),
        };
        if !may_come || Instant::now() >= deadline {
            return Err(error);
        }
        if !waiting {
            tracing::warn!(%error, limit = ?server_wait, "the database is not up yet; trying again");
            waiting = true;
        }
        sleep(RETRY_EVERY).await;
    };
    if waiting {
        tracing::info!("the database is up");
    }
    match timeout(wait, check(&mut connection, connector)).await {
        Ok(checked) => checked.map(|()| connection),
        Err(_) => Err(no_answer(wait, &connector.options)),
    }
}

/// A further connection.
pub async fn connect(connector: &Connector<Postgres>, wait: Duration) -> Result<PgConnection> {
    match timeout(wait, connector.connect()).await {
        Ok(connected) => connected.map_err(|error| refusal(error, &connector.options)),
        Err(_) => Err(no_answer(wait, &connector.options)),
    }
}

/// Refuses a server that can hold no store; prepares the session. A session that is shared is left as it is.
async fn check(connection: &mut PgConnection, connector: &Connector<Postgres>) -> Result<()> {
    let (session, encoding) = session(connection).await?;
    if encoding != "UTF8" {
        return Err(StoreError::Unusable(format!(
            "its encoding is {encoding}; create one with ENCODING 'UTF8' TEMPLATE template0"
        )));
    }
    let mut second = connector.options.connect().await.map_err(|error| refusal(error, &connector.options))?;
    let (other, _) = self::session(&mut second).await?;
    second.close().await.map_err(Postgres::error)?;
    if other == session {
        return Err(StoreError::Unusable(SHARED_SESSIONS.into()));
    }
    raw_sql(AssertSqlSafe(connector.setup.clone())).execute(connection).await.map_err(Postgres::error)?;
    Ok(())
}

/// Process of the server behind a connection, and encoding of the database. Without a prepared statement, which a pooler
/// may give to somebody else.
async fn session(connection: &mut PgConnection) -> Result<(i32, String)> {
    let row = raw_sql(SESSION).fetch_one(connection).await.map_err(Postgres::error)?;
    Ok((row.try_get(0).map_err(Postgres::error)?, row.try_get(1).map_err(Postgres::error)?))
}

/// Whether a server that can't be reached may only not be up yet. The one behind PgBouncer is an error of class 08.
fn is_down(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => {
            !is_unsupported_parameter(error.message())
                && error.code().is_some_and(|code| code == "57P03" || code.starts_with("08"))
        }
        _ => false,
    }
}

/// Why there is no connection, with the server's address.
fn refusal(error: sqlx::Error, options: &PgConnectOptions) -> StoreError {
    let database = error.as_database_error().map(|database| (database.code(), database.message()));
    match database {
        // A parameter that the server doesn't know, or a value: they come from the URL's `options`.
        Some((Some(code), message)) if code == "42704" || code == "22023" => StoreError::Url(message.to_owned()),
        Some((_, message)) if is_unsupported_parameter(message) => StoreError::Url(format!(
            "{message}: PgBouncer takes no options from a URL; set them by ALTER ROLE … SET, and leave them out here"
        )),
        _ => match (error, address(options)) {
            (sqlx::Error::Io(error), address) => StoreError::Unreachable(format!("{address}: {error}")),
            (error, address) => match Postgres::error(error) {
                StoreError::Unreachable(text) => StoreError::Unreachable(format!("{address}: {text}")),
                error => error,
            },
        },
    }
}

/// PgBouncer's answer to a parameter that it would have to pass on.
fn is_unsupported_parameter(message: &str) -> bool {
    message.starts_with("unsupported startup parameter")
}

fn no_answer(wait: Duration, options: &PgConnectOptions) -> StoreError {
    StoreError::Unreachable(format!("{}: no answer within {wait:?}", address(options)))
}

fn address(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

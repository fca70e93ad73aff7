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

/// Pairs of looks at two connections, which show whether they share sessions: what a pooler does with the one depends
/// on what its other clients do meanwhile.
const LOOKS: usize = 8;

/// What is wrong with a pooler of statements.
const NO_TRANSACTIONS: &str = "its connections share sessions, without transactions: if PgBouncer is before it, set pool_mode = transaction there";

/// What is wrong with a pooler that was not noticed at the start, or came later.
pub const SHARED_SESSIONS: &str = "its connections share sessions, which was not so at the start: restart the program";

/// The first connection, outside the pool, so that what keeps it from being made is reported at once. Waits at most
/// `wait` for an answer, and tries for `server_wait` to reach a server that isn't up. Returns also whether connections
/// share sessions: then the connection's session is not set up.
pub async fn first_connection(
    connector: &Connector<Postgres>,
    wait: Duration,
    server_wait: Duration,
) -> Result<(PgConnection, bool)> {
    let deadline = Instant::now() + server_wait;
    let mut waiting = false;
    let connection = loop {
        let Refused { error, may_come } = match timeout(wait, checked(connector)).await {
            Ok(Ok(connection)) => break connection,
            Ok(Err(refused)) => refused,
            Err(_) => Refused { error: no_answer(wait, &connector.options), may_come: true },
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
    Ok(connection)
}

/// A further connection.
pub async fn connect(connector: &Connector<Postgres>, wait: Duration) -> Result<PgConnection> {
    match timeout(wait, connector.connect()).await {
        Ok(connected) => connected.map_err(|error| refusal(error, &connector.options)),
        Err(_) => Err(no_answer(wait, &connector.options)),
    }
}

/// Why a server was not accepted.
struct Refused {
    error: StoreError,
    /// Whether the server may only not be up yet.
    may_come: bool,
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self { error, may_come: false }
    }
}

/// A connection to a server that can hold a store, and whether sessions are shared; if not, it is set up. PgBouncer
/// accepts a client before it has reached the server, and lets the first statement wait: so each step may find that the
/// server is down.
async fn checked(connector: &Connector<Postgres>) -> std::result::Result<(PgConnection, bool), Refused> {
    let options = &connector.options;
    let refused = |error| Refused { may_come: is_down(&error), error: refusal(error, options) };
    let mut connection = options.connect().await.map_err(refused)?;
    let (before, encoding) = session(&mut connection).await.map_err(refused)?;
    if encoding != "UTF8" {
        return Err(StoreError::Unusable(format!(
            "its encoding is {encoding}; create one with ENCODING 'UTF8' TEMPLATE template0"
        ))
        .into());
    }
    let mut second = options.connect().await.map_err(refused)?;
    let mut shared = false;
    for _ in 0..LOOKS {
        let (own, _) = session(&mut connection).await.map_err(refused)?;
        let (other, _) = session(&mut second).await.map_err(refused)?;
        shared = own != before || other == before;
        if shared {
            break;
        }
    }
    second.close().await.map_err(refused)?;
    if shared {
        let began = raw_sql("BEGIN").execute(&mut connection).await;
        let ended = raw_sql("COMMIT").execute(&mut connection).await;
        return match began.and(ended) {
            Ok(_) => Ok((connection, true)),
            Err(error) if is_down(&error) => Err(refused(error)),
            Err(_) => Err(StoreError::Unusable(NO_TRANSACTIONS.into()).into()),
        };
    }
    let set_up = raw_sql(AssertSqlSafe(connector.setup.clone())).execute(&mut connection).await;
    // Not by `refusal`: these parameters are ours, not the URL's.
    set_up.map_err(|error| Refused { may_come: is_down(&error), error: Postgres::error(error) })?;
    Ok((connection, false))
}

/// Process of the server behind a connection, and encoding of the database. Without a prepared statement, which a
/// pooler may give to somebody else.
async fn session(connection: &mut PgConnection) -> sqlx::Result<(i32, String)> {
    let row = raw_sql(SESSION).fetch_one(connection).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Whether a server that can't be reached may only not be up yet.
fn is_down(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => match error.code().as_deref() {
            // It stops or starts.
            Some("57P01" | "57P02" | "57P03") => true,
            Some("08P01") => is_down_behind_pooler(error.message()),
            Some(code) => code.starts_with("08"),
            None => false,
        },
        _ => false,
    }
}

/// Whether PgBouncer says that the server is down. The code is that of all its errors, also of a wrong password.
fn is_down_behind_pooler(message: &str) -> bool {
    let any = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    any(&["server_login_retry", "server login failed", "connect failed"])
        && !any(&["password authentication failed", "no such database", "does not exist"])
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

/// Where the server is, as messages name it.
pub fn address(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None if options.get_host().contains(':') => format!("[{}]:{}", options.get_host(), options.get_port()),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::backend::statements::postgres as server;

    #[tokio::test]
    async fn only_a_server_that_is_down_is_waited_for() {
        let database = server::Database::create().await;
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        for (code, text, down) in [
            ("57P01", "terminating connection due to administrator command", true),
            ("57P03", "the database system is starting up", true),
            ("08006", "no connection to the server", true),
            ("08P01", "server login has been failing, try again later (server_login_retry)", true),
            ("08P01", "server login has been failing, cached error: connect failed (server_login_retry)", true),
            ("08P01", "server login failed: FATAL the database system is starting up", true),
            ("08P01", "connect failed", true),
            ("08P01", "password authentication failed", false),
            ("08P01", "no such database: gateway", false),
            ("08P01", "server login failed: FATAL password authentication failed for user", false),
            ("08P01", "server login failed: FATAL database does not exist", false),
            ("08P01", "server login has been failing, cached error: role does not exist (server_login_retry)", false),
            ("08P01", "unsupported startup parameter: options", false),
            ("28P01", "password authentication failed for user", false),
            ("3D000", "no such database", false),
        ] {
            let raise = format!("DO $$ BEGIN RAISE '{text}' USING ERRCODE = '{code}'; END $$");
            let raised = raw_sql(AssertSqlSafe(raise)).execute(&mut connection).await.unwrap_err();
            assert_eq!(is_down(&raised), down, "{code} {text}");
        }
    }
}

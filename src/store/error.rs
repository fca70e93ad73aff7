//! Failures of a store.

use super::error_kind::ErrorKind;

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Failure of a store. The text is for the operator's log and terminal; clients see only a code (see `http::error`).
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names no known kind of store.
    #[error("database URL: {0}")]
    Url(String),
    /// The SQLite file, or the Postgres database, doesn't exist.
    #[error("the store does not exist: {0}")]
    Missing(String),
    /// The database was reached, and no store can be in it as it is. The text says what to change.
    #[error("the database can't be used: {0}")]
    Unusable(String),
    /// The database's user may not do what a store does.
    #[error("the database denies access: {0}")]
    Denied(String),
    /// The store can be read but not written.
    #[error("the store is read-only: {0}")]
    ReadOnly(String),
    /// Another writer holds the lock, or every connection is in use, for longer than the timeout.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// The server can't be reached, or the connection broke.
    #[error("the store can't be reached: {0}")]
    Unreachable(String),
    /// The store was written by a newer program.
    #[error("the store's schema is version {found}, newer than this program's {known}: upgrade modal-gateway")]
    NewerSchema {
        /// Version found in the store.
        found: i64,
        /// Newest version that this program knows.
        known: i64,
    },
    /// The store was written by an older program and migrating was not asked for.
    #[error("the store's schema is out of date: run `modal-gateway migrate`")]
    OlderSchema,
    /// The blocks do not fit the chain as it is.
    #[error("{0}")]
    Conflict(String),
    /// The disk is full.
    #[error("the store's disk is full")]
    Full,
    /// The disk, or the file system on it, reports an error.
    #[error("the store's disk fails: {0}")]
    Io(String),
    /// The file is no database, or a row does not hold what it must.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Any other error of the database.
    #[error("database error: {}", database_text(.0))]
    Database(sqlx::Error),
}

impl StoreError {
    /// The kind of the failure; `None` for blocks that don't fit, which is no failure of the database.
    pub fn kind(&self) -> Option<ErrorKind> {
        Some(match self {
            Self::Conflict(_) => return None,
            Self::Unreachable(_) | Self::Missing(_) => ErrorKind::Unreachable,
            Self::Busy(_) => ErrorKind::Busy,
            Self::Full => ErrorKind::Full,
            Self::ReadOnly(_) => ErrorKind::ReadOnly,
            Self::Denied(_) => ErrorKind::Denied,
            Self::Damaged(_) => ErrorKind::Damaged,
            Self::Io(_) => ErrorKind::Io,
            Self::Url(_) | Self::Unusable(_) | Self::NewerSchema { .. } | Self::OlderSchema | Self::Database(_) => {
                ErrorKind::Other
            }
        })
    }
}

/// The text of the database where there is one: the driver adds a line number of the server's source code.
fn database_text(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |database| database.message().to_owned())
}

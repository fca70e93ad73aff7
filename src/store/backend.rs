//! What a database is to the store: the trait [`Backend`], its two implementations, connections, statements and rows.
//!
//! Numbers of 64 bits without sign are kept as the `i64` of the same bits; a canonical block's index is never negative.

use std::future::Future;

use sqlx::{
    AssertSqlSafe, ColumnIndex, ConnectOptions as _, Connection, Database, Decode, Encode, Executor, IntoArguments,
    Type,
    database::HasStatementCache,
    migrate::{MigrateError, Migrator},
    query_as, raw_sql,
};

use super::{
    error::{Result, StoreError},
    traits::Lease,
};

pub mod health;
pub mod insert;
pub mod pool;
pub mod postgres;
pub mod rows;
pub mod sqlite;
pub mod statements;

use rows::BlockRow;

/// How a database is connected to.
pub type ConnectOptions<DB> = <<DB as Database>::Connection as Connection>::Options;

/// A type whose values can be written to, and read from, a column.
pub trait Column<DB: Database>: Type<DB> + for<'q> Encode<'q, DB> + for<'r> Decode<'r, DB> {}
impl<DB: Database, T: Type<DB> + for<'q> Encode<'q, DB> + for<'r> Decode<'r, DB>> Column<DB> for T {}

/// The type `T` under the name `Is`. Rust implies a trait's bounds on its supertraits' associated types, but not its
/// `where` clauses on other types: `Given<T, Is: Bound>` as a supertrait says once what each function would repeat.
pub trait Given<T>: Identity<T, Is = T> {}
impl<S, T> Given<T> for S {}

/// See [`Given`].
pub trait Identity<T> {
    /// `T` itself.
    type Is;
}
impl<S, T> Identity<T> for S {
    type Is = T;
}

/// What is wrong with the database of another program, and what to do.
pub const FOREIGN: &str = "it holds tables of another program; give the gateway a database of its own";

/// What differs between the databases.
pub trait Backend:
    Database<Arguments: IntoArguments<Self>, Connection: Connection<Options: Sync> + 'static>
    + HasStatementCache
    + for<'c> Given<&'c mut <Self as Database>::Connection, Is: Executor<'c, Database = Self>>
    + for<'c> Given<&'c str, Is: ColumnIndex<<Self as Database>::Row>>
    + Given<usize, Is: ColumnIndex<<Self as Database>::Row>>
    + Given<i64, Is: Column<Self>>
    + Given<bool, Is: Column<Self>>
    + Given<String, Is: Column<Self>>
    + Given<Option<i64>, Is: Column<Self>>
    + Given<Option<String>, Is: Column<Self>>
{
    /// Whether the database is a file of this process, without a server to which connections could break.
    const EMBEDDED: bool;
    /// Begins a transaction that is going to write.
    const BEGIN: &'static str;
    /// Reads the chain's row in such a transaction, and keeps other writers out if `BEGIN` did not.
    const READ_FOR_WRITE: &'static str;
    /// Counts the tables and views that a new store can't stand beside, and the tables in which sqlx keeps the applied
    /// migrations: none or one.
    const COUNT_TABLES: &'static str;
    /// What is said where there are none, and none may be made.
    const NO_STORE: &'static str;
    /// The texts of the JSON array `$1`, as the list behind `IN`.
    const TEXTS: &'static str;
    /// The numbers of the JSON array `$1`, as the list behind `IN`.
    const NUMBERS: &'static str;
    /// The nominee of a row of `block` as the index `block_nominee` has it; see
    /// [`nominee_key`](super::lookup::nominee_key).
    const NOMINEE: &'static str;
    /// Unix seconds by the database's clock, which all processes on the store share.
    const NOW: &'static str;
    /// The size of the database in bytes.
    const SIZE: &'static str;
    /// Whether the server is a standby.
    const IS_STANDBY: &'static str;
    /// The migrations of the schema.
    const MIGRATIONS: &'static Migrator;

    /// What the lease is taken with.
    type LeaseSource: Send + Sync + 'static;
    /// Identity of the file or server that a connection leads to.
    type Target: Copy + PartialEq + Send + Sync;

    /// The target of a new connection: connections with another one are not used any more.
    fn target(options: &ConnectOptions<Self>) -> Self::Target;

    /// Number of rows that a statement changed.
    fn rows_affected(result: &Self::QueryResult) -> u64;

    /// Inserts canonical blocks, none of which may be stored, in the quickest way there is. It must not be cut off: the
    /// connection can't be used any more then.
    fn insert_new(
        connection: &mut Self::Connection,
        rows: &[BlockRow],
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// The store's error for one of the driver. Never contains the URL's password.
    fn error(error: sqlx::Error) -> StoreError;

    /// Applies the missing migrations, one program at a time.
    fn migrate(connection: &mut Self::Connection)
    -> impl Future<Output = std::result::Result<(), MigrateError>> + Send;

    /// Takes the lease; see [`SyncStore::lease`](super::SyncStore::lease).
    fn lease(source: &Self::LeaseSource) -> impl Future<Output = Result<Option<Box<dyn Lease>>>> + Send;
}

/// How connections are made.
pub struct Connector<DB: Backend> {
    /// The driver's options.
    pub options: ConnectOptions<DB>,
    /// What each new connection executes first; may be empty.
    pub setup: String,
    /// What begins a transaction where a pooler gives the session to another connection after it: every statement is
    /// part of one then, and nothing is kept in the session. `None`: each connection has a session of its own.
    pub shared_session: Option<String>,
}

// Derived, it would demand that `DB` be `Clone` too.
impl<DB: Backend> Clone for Connector<DB> {
    fn clone(&self) -> Self {
        let (options, setup) = (self.options.clone(), self.setup.clone());
        Self { options, setup, shared_session: self.shared_session.clone() }
    }
}

impl<DB: Backend> Connector<DB> {
    /// A new connection.
    pub async fn connect(&self) -> sqlx::Result<DB::Connection> {
        let mut connection = self.options.connect().await?;
        if !self.setup.is_empty() {
            raw_sql(AssertSqlSafe(self.setup.clone())).execute(&mut connection).await?;
        }
        Ok(connection)
    }
}

/// A database that was reached and whose schema is up to date.
pub struct Reached<DB: Backend> {
    /// How connections for reading are made.
    pub reading: Connector<DB>,
    /// How connections for writing are made, `None` if the database is opened for reading only.
    pub writing: Option<Connector<DB>>,
    /// What the lease is taken with.
    pub lease_source: DB::LeaseSource,
}

/// Brings the schema up to date if `allowed`, and refuses one that isn't. Returns its versions before (0: there was
/// none) and after: those of the newest migration, as sqlx keeps them in the table `_sqlx_migrations`.
pub async fn prepare<DB: Backend>(connection: &mut DB::Connection, allowed: bool) -> Result<(i64, i64)> {
    let known = DB::MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    let (others, tables): (i64, i64) =
        query_as(DB::COUNT_TABLES).fetch_one(&mut *connection).await.map_err(DB::error)?;
    let mut applied: Vec<(i64, String)> = Vec::new();
    if tables > 0 {
        let select = query_as("SELECT version, description FROM _sqlx_migrations ORDER BY version");
        applied = select.fetch_all(&mut *connection).await.map_err(DB::error)?;
    }
    let ours = DB::MIGRATIONS.iter().next().map(|first| (first.version, first.description.to_string()));
    let foreign = match applied.first() {
        Some(first) => ours.as_ref() != Some(first),
        None => others > 0,
    };
    if foreign {
        return Err(StoreError::Unusable(FOREIGN.into()));
    }
    let found = applied.last().map_or(0, |(version, _)| *version);
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    if found == 0 && !allowed {
        return Err(StoreError::Unusable(DB::NO_STORE.into()));
    }
    if found < known && !allowed {
        return Err(StoreError::OlderSchema);
    }
    if found < known {
        DB::migrate(connection).await.map_err(|error| match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => DB::error(error),
            // Applied by a newer program between the read of the version and the lock.
            MigrateError::VersionMissing(found) => StoreError::NewerSchema { found, known },
            MigrateError::VersionMismatch(_) => StoreError::Unusable(FOREIGN.into()),
            error => StoreError::Database(sqlx::Error::Migrate(Box::new(error))),
        })?;
    }
    Ok((found, known))
}

/// The store's error for one of the driver that is neither the database's nor the connection's: a row that is not what
/// it must be, or a fault of this program.
pub fn misread(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_) => StoreError::Damaged(error.to_string()),
        error => StoreError::Database(error),
    }
}

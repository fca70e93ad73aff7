//! Versions of the schema: those of the newest migration, as sqlx keeps them in the table `_sqlx_migrations`.

use sqlx::{
    Executor, FromRow,
    migrate::{MigrateError, Migrator},
    query_as,
};

use super::{Result, StoreError, sql::Backend};

/// The version that this program's migrations lead to.
pub(super) fn newest(migrations: &Migrator) -> i64 {
    migrations.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// The newest version applied to a database, 0 for an empty one.
pub(super) async fn found<DB: Backend>(connection: &mut DB::Connection) -> Result<i64>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    (Option<i64>,): for<'r> FromRow<'r, DB::Row>,
{
    let (tables,): (Option<i64>,) =
        query_as(DB::COUNT_MIGRATION_TABLES).fetch_one(&mut *connection).await.map_err(DB::error)?;
    if tables.unwrap_or_default() == 0 {
        return Ok(0);
    }
    let (version,): (Option<i64>,) =
        query_as("SELECT max(version) FROM _sqlx_migrations").fetch_one(connection).await.map_err(DB::error)?;
    Ok(version.unwrap_or_default())
}

/// Whether a database of version `found` needs migrations, which it gets only if `allowed`.
pub(super) fn must_migrate(found: i64, known: i64, allowed: bool) -> Result<bool> {
    match found {
        found if found > known => Err(StoreError::NewerSchema { found, known }),
        found if found < known && !allowed => Err(StoreError::OlderSchema),
        found => Ok(found < known),
    }
}

/// What a failed migration means.
pub(super) fn error<DB: Backend>(error: MigrateError, known: i64) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => DB::error(error),
        // Applied by a newer program between our look at the version and our lock.
        MigrateError::VersionMissing(found) => StoreError::NewerSchema { found, known },
        error => StoreError::Database(sqlx::Error::Migrate(Box::new(error))),
    }
}

/// What an error of the driver means that is neither the database's nor the connection's: a row that is not what it must
/// be, or a fault of this program.
pub(super) fn misread(error: sqlx::Error) -> StoreError {
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

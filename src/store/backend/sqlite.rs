//! SQLite: one file, in WAL mode so that readers and the one writer don't wait for each other.

use std::{
    fs::File,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, Sqlite, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteQueryResult, SqliteSynchronous},
};
use url::form_urlencoded;

use super::{
    Backend, Connector, Reached,
    insert::{OnConflict, insert},
    misread, prepare,
    rows::BlockRow,
    statements::ROWS_PER_STATEMENT,
};
use crate::store::{
    error::{Result, StoreError},
    model::OpenOptions,
    traits::Lease,
};

mod lease;

use lease::LeaseSource;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Page cache of a reading connection. The operating system caches the file as well, and for all of them at once.
const READER_CACHE_KIB: u32 = 2 * 1024;

/// Page cache of the writing connection: the inner pages of the indexes of a long chain.
const WRITER_CACHE_KIB: u32 = 16 * 1024;

/// Pages of 4 KiB in the write-ahead log before they are moved into the database: as many batches of blocks share the
/// cost, and no more than that is searched by readers.
const CHECKPOINT_PAGES: u32 = 4096;

/// What is left of the write-ahead log after a large transaction.
const JOURNAL_BYTES: u32 = 64 << 20;

/// Pause between attempts to turn WAL mode on while another connection does.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// `SQLITE_READONLY_DBMOVED`: the file that is open has another name now, or none.
const MOVED: i32 = 1032;

impl Backend for Sqlite {
    const EMBEDDED: bool = true;
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const READ_FOR_WRITE: &'static str = "SELECT * FROM chain";
    const COUNT_TABLES: &'static str = "SELECT count(*) FILTER (WHERE name <> '_sqlx_migrations'), \
         count(*) FILTER (WHERE name = '_sqlx_migrations') FROM sqlite_schema WHERE type = 'table'";
    const NO_STORE: &'static str = "it holds no store; `modal-gateway migrate` makes one";
    const TEXTS: &'static str = "(SELECT value FROM json_each($1))";
    const NUMBERS: &'static str = "(SELECT value FROM json_each($1))";
    const NOMINEE: &'static str = "substr(substr(document, instr(document, '\"nominated_peer_id\":\"') + 21), 1, \
         min(64, instr(substr(document, instr(document, '\"nominated_peer_id\":\"') + 21), '\"') - 1))";
    const NOW: &'static str = "unixepoch()";
    const SIZE: &'static str = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
    const IS_STANDBY: &'static str = "SELECT FALSE";
    const MIGRATIONS: &'static Migrator = &MIGRATIONS;

    type LeaseSource = LeaseSource;
    /// The file's device and number; `None` in memory, and for a file that is gone.
    type Target = Option<(u64, u64)>;

    fn target(options: &SqliteConnectOptions) -> Self::Target {
        std::fs::metadata(options.get_filename()).ok().map(|file| (file.dev(), file.ino()))
    }

    fn rows_affected(result: &SqliteQueryResult) -> u64 {
        result.rows_affected()
    }

    async fn insert_new(connection: &mut SqliteConnection, rows: &[BlockRow]) -> sqlx::Result<()> {
        for rows in rows.chunks(ROWS_PER_STATEMENT) {
            insert::<Self>(connection, rows, true, OnConflict::Fail).await?;
        }
        Ok(())
    }

    /// By primary result code, the low byte: <https://www.sqlite.org/rescode.html>.
    fn error(error: sqlx::Error) -> StoreError {
        let database = match &error {
            sqlx::Error::Database(database) => database,
            sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => return StoreError::Io(error.to_string()),
            _ => return misread(error),
        };
        if database.is_unique_violation() {
            return StoreError::Conflict("another block is in that place already".into());
        }
        let code: i32 = database.code().and_then(|code| code.parse().ok()).unwrap_or_default();
        match (code & 0xff, code) {
            (8, MOVED) => StoreError::Missing("the database file has another name now, or none".into()),
            (14, _) => StoreError::Unreachable("the database file is not there or can't be opened".into()),
            // Locked, by a process or a connection; memory; an interrupted statement; the locks of the log.
            (5 | 6, _) => StoreError::Busy("the database is locked".into()),
            (7 | 9 | 15, _) => StoreError::Busy(database.message().into()),
            (8, _) => StoreError::ReadOnly(database.message().into()),
            (10, _) => StoreError::Io(database.message().into()),
            (11 | 26, _) => StoreError::Damaged(database.message().into()),
            (13, _) => StoreError::Full,
            _ => StoreError::Database(error),
        }
    }

    async fn migrate(connection: &mut SqliteConnection) -> std::result::Result<(), MigrateError> {
        // One transaction around all migrations: a second program waits, and finds nothing left to do.
        let mut transaction = connection.begin_with(Self::BEGIN).await?;
        MIGRATIONS.run_direct(None, &mut *transaction, false).await?;
        Ok(transaction.commit().await?)
    }

    async fn lease(source: &LeaseSource) -> Result<Option<Box<dyn Lease>>> {
        source.take()
    }
}

/// Reaches the database that `url` names; see [`open`](crate::store::open).
pub async fn open(url: &str, options: &OpenOptions) -> Result<Reached<Sqlite>> {
    let mut location = Location::parse(url, options)?;
    let first = match location.first(options).await {
        // The file can be written, but its folder can't.
        Err(StoreError::ReadOnly(_) | StoreError::Unreachable(_)) if !options.write && location.is_at_rest() => {
            location.options = location.options.read_only(true).immutable(true);
            location.first(options).await
        }
        first => first,
    };
    let first = first.map_err(|error| location.explained(error, options.create))?;

    let cache = |connect: SqliteConnectOptions, kib: u32| connect.pragma("cache_size", format!("-{kib}"));
    // A file that is deleted later must not come back empty.
    let existing = location.options.clone().create_if_missing(false);
    let reading = existing.clone().busy_timeout(options.read_timeout);
    let reading = if options.write { reading.read_only(!location.in_memory) } else { reading };
    let reading = cache(reading, READER_CACHE_KIB);
    let writing = (!location.read_only).then(|| cache(existing, WRITER_CACHE_KIB));
    let connector = |options| Connector { options, setup: String::new(), shared_session: None };
    let lease_source = location.lease_source(first).await?;
    Ok(Reached { reading: connector(reading), writing: writing.map(connector), lease_source })
}

/// Brings the schema up to date; see [`migrate`](crate::store::migrate).
pub async fn migrate(url: &str, options: &OpenOptions) -> Result<(i64, i64)> {
    let location = Location::parse(url, options)?;
    let explained = |error| location.explained(error, options.create);
    let mut connection = location.connect(options).await.map_err(explained)?;
    let versions = prepare::<Sqlite>(&mut connection, true).await.map_err(explained)?;
    connection.close().await.map_err(Sqlite::error)?;
    Ok(versions)
}

/// The database that a URL names.
struct Location {
    options: SqliteConnectOptions,
    in_memory: bool,
    read_only: bool,
}

impl Location {
    /// What the lease of the store is taken with; `first` is its first connection.
    async fn lease_source(&self, first: SqliteConnection) -> Result<LeaseSource> {
        if self.in_memory {
            return Ok(LeaseSource::Memory { lock: Arc::default(), _store: first.into() });
        }
        first.close().await.map_err(Sqlite::error)?;
        let database = self.options.get_filename();
        Ok(LeaseSource::File { path: beside(database, ".sync-lock"), database: database.into() })
    }

    fn parse(url: &str, options: &OpenOptions) -> Result<Self> {
        let parsed = SqliteConnectOptions::from_str(url).map_err(|error| StoreError::Url(error.to_string()))?;
        if parsed.get_filename().as_os_str().is_empty() {
            return Err(StoreError::Url("expected sqlite://PATH: the path is empty".into()));
        }
        let (path, parameters) = url.split_once('?').unwrap_or((url, ""));
        let has_mode = |mode: &str| {
            form_urlencoded::parse(parameters.as_bytes()).any(|(key, value)| key == "mode" && value == mode)
        };
        let in_memory = matches!(path, "sqlite::memory:" | "sqlite://:memory:");
        let is_uri = parsed.get_filename().as_os_str().as_encoded_bytes().starts_with(b"file:");
        if !in_memory && (is_uri || has_mode("memory") || parsed.get_filename() == Path::new(":memory:")) {
            return Err(StoreError::Url("expected sqlite://PATH: a store is a file".into()));
        }
        // Before it is opened: what SQLite says of a device is that it is locked, and a pipe would be waited for.
        if !in_memory && std::fs::metadata(parsed.get_filename()).is_ok_and(|found| !found.is_file()) {
            return Err(StoreError::Unusable(format!("{} is not a regular file", parsed.get_filename().display())));
        }
        let read_only = has_mode("ro") || !options.write;
        let parsed = parsed.busy_timeout(options.acquire_timeout).disable_statement_logging();
        let options = if in_memory {
            parsed
        } else if !options.write {
            for_reading(parsed, has_mode("ro"))
        } else if read_only {
            parsed.read_only(true)
        } else {
            // FULL: a committed block survives a power cut. It costs one sync per batch.
            let parsed = parsed.create_if_missing(options.create).synchronous(SqliteSynchronous::Full);
            parsed
                .journal_mode(SqliteJournalMode::Wal)
                .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
                .pragma("journal_size_limit", JOURNAL_BYTES.to_string())
        };
        Ok(Self { options, in_memory, read_only })
    }

    /// The first connection, which creates the file and turns WAL mode on. That takes an exclusive lock, for which
    /// SQLite doesn't wait: hence the loop.
    async fn connect(&self, options: &OpenOptions) -> Result<SqliteConnection> {
        let deadline = Instant::now() + options.acquire_timeout;
        loop {
            let error = match SqliteConnection::connect_with(&self.options).await {
                Ok(connection) => return Ok(connection),
                Err(error) => Sqlite::error(error),
            };
            match error {
                StoreError::Busy(_) if Instant::now() < deadline => tokio::time::sleep(RETRY_EVERY).await,
                error => return Err(error),
            }
        }
    }

    /// The first connection, to a store whose schema is up to date.
    async fn first(&self, options: &OpenOptions) -> Result<SqliteConnection> {
        let mut first = self.connect(options).await?;
        prepare::<Sqlite>(&mut first, options.migrate).await?;
        Ok(first)
    }

    fn is_at_rest(&self) -> bool {
        !self.in_memory && is_at_rest(self.options.get_filename())
    }

    /// The error of the first connection with the system's reason, which SQLite does not report.
    fn explained(&self, error: StoreError, create: bool) -> StoreError {
        let path = self.options.get_filename();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.display();
        let in_folder =
            || tempfile::tempfile_in(folder).err().map(|error| format!("the folder {}: {error}", folder.display()));
        match (error, std::fs::metadata(path)) {
            (error, _) if self.in_memory => error,
            (StoreError::Unreachable(text), Ok(_)) => match File::open(path) {
                Err(error) => StoreError::Unusable(format!("{name}: {error}")),
                Ok(_) => StoreError::Unusable(format!("{name}: {}", in_folder().unwrap_or(text))),
            },
            (StoreError::Unreachable(_), Err(error)) if error.kind() != ErrorKind::NotFound => {
                StoreError::Unusable(format!("{name}: {error}"))
            }
            (StoreError::Unreachable(text), Err(_)) if create && !self.read_only => {
                StoreError::Unusable(format!("{name} can't be made: {}", in_folder().unwrap_or(text)))
            }
            (StoreError::Unreachable(_), Err(_)) => StoreError::Missing(name.to_string()),
            (StoreError::ReadOnly(text), _) => {
                let file = File::options().write(true).open(path).err().map(|error| error.to_string());
                let reason = file.or_else(in_folder).unwrap_or(text);
                StoreError::ReadOnly(format!("{name}: {reason}"))
            }
            (error, _) => error,
        }
    }
}

/// A file beside the database `path`, whatever links lead to that.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = std::fs::canonicalize(path).unwrap_or_else(|_| path.into()).into_os_string();
    path.push(suffix);
    path.into()
}

/// Whether the file is the whole database: no program has written without closing it, as one that runs or has crashed.
fn is_at_rest(path: &Path) -> bool {
    path.is_file() && !std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// How to open the file for reading alone, and leave nothing beside it: `-wal` and `-shm` of another user would keep
/// the store's owner from writing.
fn for_reading(options: SqliteConnectOptions, never_written: bool) -> SqliteConnectOptions {
    let options = options.create_if_missing(false);
    let path = options.get_filename();
    // Before the first connection, since to close a file is to give up the locks that this process has on it.
    if !never_written && File::options().write(true).open(path).is_ok() {
        // SQLite removes both files when the last connection is closed, unless that is read-only.
        return options.pragma("query_only", "1");
    }
    // A reader needs neither file. If a writer begins meanwhile, the blocks read no longer link.
    let immutable = is_at_rest(path);
    options.read_only(true).immutable(immutable)
}

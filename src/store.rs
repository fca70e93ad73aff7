//! Where the chain is stored: one trait, two backends, chosen once by the URL.
//!
//! Every read is one SQL statement, so that it sees one state of the chain and names it (`version`).
//! Blocks come out as the JSON text that HTTP and libp2p send: it is written once, when a block is stored.
//!
//! From the lowest part: `error`, `model` (what is stored) and `traits` (what a store does); `backend` (what Postgres
//! and SQLite are: connections, statements, rows); `writer` (a transaction that changes the chain), `reader` (reads of
//! the chain), `lookup` (reads for those who explore it), `journal` (what synchronisation keeps beside it: events,
//! jobs, notes, the lease) and `replicas` (reads from streaming replicas).

use std::sync::Arc;

mod backend;
mod error;
mod error_kind;
mod journal;
mod lookup;
mod model;
mod reader;
mod replica_stats;
mod replicas;
mod traits;
mod writer;

pub use backend::pool::MAX_WAITING;
use backend::{postgres, sqlite};
pub use error::{Result, StoreError};
pub use error_kind::ErrorKind;
pub use model::{
    Anchor, Blocks, ChainState, Event, EventKind, FINISHED_PHASES, FoundBlock, IndexEntry, Job, KEPT_EVENTS, KEPT_JOBS,
    MAX_BLOCKS_PER_INDEX, MAX_EVENTS_LENGTH, MAX_LISTED_HASHES, Note, OpenOptions, PoolStats, QUEUED, Reorganisation,
    Run, Snapshot, StagedBranch, StoreStats, Tip,
};
use reader::SqlStore;
pub use replica_stats::{ReplicaFigures, ReplicaStats};
use replicas::ReplicatedStore;
pub use traits::{BlockStore, ChainWriter, Lease, LookupStore, SyncStore, acquire_lease};

/// Opens the store that `url` names: `sqlite://PATH[?mode=ro]`, `sqlite::memory:` or `postgres://…`.
///
/// # Errors
/// [`StoreError::Url`] for any other scheme, and whatever keeps the database from being opened: see [`StoreError`].
pub async fn open(url: &str, options: &OpenOptions) -> Result<Arc<dyn BlockStore>> {
    match Scheme::of(url)? {
        Scheme::Sqlite => Ok(Arc::new(SqlStore::new(sqlite::open(url, options).await?, options).await?)),
        Scheme::Postgres => Ok(Arc::new(SqlStore::new(postgres::open(url, options).await?, options).await?)),
    }
}

/// The store `primary`, with reads from the streaming replicas at these URLs: `primary` itself where there are none.
/// They are opened in the background, and need not be up. `options` are those of the primary. Runs in a Tokio runtime.
pub fn with_replicas(primary: Arc<dyn BlockStore>, urls: &[String], options: &OpenOptions) -> Arc<dyn BlockStore> {
    match urls {
        [] => primary,
        urls => Arc::new(ReplicatedStore::new(primary, urls, options)),
    }
}

/// Brings the schema of the store that `url` names up to date, whatever `options.migrate` says. Returns its version
/// before (0: there was none) and after.
///
/// # Errors
/// As [`open`].
pub async fn migrate(url: &str, options: &OpenOptions) -> Result<(i64, i64)> {
    match Scheme::of(url)? {
        Scheme::Sqlite => sqlite::migrate(url, options).await,
        Scheme::Postgres => postgres::migrate(url, options).await,
    }
}

/// The databases that a URL may name.
enum Scheme {
    Sqlite,
    Postgres,
}

impl Scheme {
    fn of(url: &str) -> Result<Self> {
        match url.split(':').next() {
            Some("sqlite") => Ok(Self::Sqlite),
            Some("postgres" | "postgresql") => Ok(Self::Postgres),
            _ => Err(StoreError::Url("expected sqlite://PATH or postgres://HOST/DATABASE".into())),
        }
    }
}

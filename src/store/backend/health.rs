//! Whether the database can be reached. A probe finds out on a connection of its own; while the database is
//! unreachable, every call fails at once, and the probe is repeated.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::Connection;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::{Backend, Connector};
use crate::store::{error::StoreError, error_kind::ErrorKind};

/// Longest wait for the database's answer to a probe. With [`PROBE_EVERY`] it bounds how long after its return the
/// database still counts as unreachable: less than 2 s.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Pause between two probes of a database that can't be reached.
const PROBE_EVERY: Duration = Duration::from_millis(250);

/// An attempt to connect and disconnect.
type Attempt = JoinHandle<sqlx::Result<()>>;

/// What is known of a database.
pub struct Health<DB: Backend> {
    connector: Connector<DB>,
    up: watch::Sender<bool>,
    probing: AtomicBool,
    /// Older connections are not used: they may be broken, or lead to a server that isn't the right one any more.
    trusted_since: Mutex<Instant>,
    outages: AtomicU64,
    errors: [AtomicU64; ErrorKind::ALL.len()],
}

impl<DB: Backend> Health<DB> {
    /// A database that was just reached with `connector`.
    pub fn new(connector: Connector<DB>) -> Arc<Self> {
        let (up, trusted_since) = (watch::Sender::new(true), Mutex::new(Instant::now()));
        let (probing, outages, errors) = Default::default();
        Arc::new(Self { connector, up, probing, trusted_since, outages, errors })
    }

    /// Whether the database can be reached, as far as is known.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Number of times that the database became unreachable.
    pub fn outages(&self) -> u64 {
        self.outages.load(Ordering::Relaxed)
    }

    /// Numbers of operations that failed, in the order of [`ErrorKind::ALL`].
    pub fn errors(&self) -> [u64; ErrorKind::ALL.len()] {
        self.errors.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Waits until the database is unreachable.
    pub async fn down(&self) {
        // Not an error: the sender lives as long as `self`.
        let _ = self.up.subscribe().wait_for(|up| !up).await;
    }

    /// Whether a connection made at `made` may be used.
    pub fn trusts(&self, made: Instant) -> bool {
        made >= *self.trusted_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the use of all connections that are open now.
    pub fn distrust(&self) {
        *self.trusted_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Counts an error; starts a probe, or distrusts connections, where the error calls for it.
    pub fn record(self: &Arc<Self>, error: &StoreError) {
        let Some(kind) = error.kind() else { return };
        self.errors[kind as usize].fetch_add(1, Ordering::Relaxed);
        match kind {
            ErrorKind::Unreachable => {
                self.distrust();
                self.probe();
            }
            // The server may have become a standby, the file may have been replaced: new connections show it.
            ErrorKind::ReadOnly | ErrorKind::Denied | ErrorKind::Damaged | ErrorKind::Io => self.distrust(),
            ErrorKind::Busy | ErrorKind::Full | ErrorKind::Other => {}
        }
    }

    /// Starts a probe, unless one is running. It ends when the database is reached.
    pub fn probe(self: &Arc<Self>) {
        if self.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        // Weak: the database of a store that is dropped is not probed any more.
        let health = Arc::downgrade(self);
        tokio::spawn(async move {
            // A probe that panics has ended too.
            let probing = scopeguard::guard(health.clone(), |health| {
                if let Some(health) = health.upgrade() {
                    health.probing.store(false, Ordering::Release);
                }
            });
            let mut attempt = None;
            while let Some(health) = health.upgrade() {
                let outcome = health.connect(&mut attempt).await;
                match outcome {
                    Ok(()) => {
                        // Before: an outage that is noticed from now on needs a probe of its own.
                        drop(probing);
                        if !health.up.send_replace(true) {
                            tracing::info!("the store can be reached again");
                        }
                        return;
                    }
                    Err(error) => {
                        health.distrust();
                        // Only this task changes it.
                        if health.is_up() {
                            health.outages.fetch_add(1, Ordering::Relaxed);
                            tracing::error!(%error, "the store can't be reached; trying again");
                            health.up.send_replace(false);
                        }
                    }
                }
                drop(health);
                tokio::time::sleep(PROBE_EVERY).await;
            }
        });
    }

    /// Connects. An attempt that can't be cancelled, since it is a thread that waits for a disk, is left in `attempt`,
    /// where the next call waits for it again: there is never more than one.
    async fn connect(&self, attempt: &mut Option<Attempt>) -> Result<(), StoreError> {
        let mut connecting = attempt.take().unwrap_or_else(|| {
            let connector = self.connector.clone();
            tokio::spawn(async move { connector.connect().await?.close().await })
        });
        let connected = match timeout(PROBE_TIMEOUT, &mut connecting).await {
            Ok(ended) => ended.unwrap_or(Err(sqlx::Error::WorkerCrashed)).map_err(DB::error),
            Err(_) => {
                if DB::EMBEDDED {
                    *attempt = Some(connecting);
                } else {
                    connecting.abort();
                }
                Err(StoreError::Unreachable(format!("no answer within {PROBE_TIMEOUT:?}")))
            }
        };
        match connected {
            Err(error) if error.kind() == Some(ErrorKind::Unreachable) => Err(error),
            // Whatever else is wrong, such as a lock, a full disk or a damaged file, calls find out and report.
            _ => Ok(()),
        }
    }
}

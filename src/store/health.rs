//! Whether the database can be reached. Whoever has a doubt lets it be looked at, on a connection of its own; while it
//! can't be reached every call fails at once, and the look is repeated until it can.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, Connection};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::{StoreError, sql::Backend};

/// Longest wait for the database's answer to a look. With [`LOOK_EVERY`] it bounds how long after its return the
/// database is still taken as gone: less than 2 s.
const LOOK_TIMEOUT: Duration = Duration::from_millis(1500);

/// Pause between two looks at a database that can't be reached.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// An attempt to connect, and to part again.
type Attempt = JoinHandle<sqlx::Result<()>>;

/// How a database is connected to.
pub(super) type Options<DB> = <<DB as sqlx::Database>::Connection as Connection>::Options;

/// What is known of a database.
pub(super) struct Health<DB: Backend> {
    options: Options<DB>,
    up: watch::Sender<bool>,
    looking: AtomicBool,
    /// Older connections are not used: they may lead nowhere, or to a server that isn't the right one any more.
    trusted_since: Mutex<Instant>,
    outages: AtomicU64,
}

impl<DB: Backend> Health<DB> {
    /// A database that was just reached with `options`.
    pub fn new(options: Options<DB>) -> Arc<Self> {
        let (up, trusted_since) = (watch::Sender::new(true), Mutex::new(Instant::now()));
        Arc::new(Self { options, up, looking: AtomicBool::new(false), trusted_since, outages: AtomicU64::new(0) })
    }

    /// Whether it can be reached, as far as is known.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// How often it could not be reached any more.
    pub fn outages(&self) -> u64 {
        self.outages.load(Ordering::Relaxed)
    }

    /// Waits until it can't be reached.
    pub async fn down(&self) {
        // The sender is ours: it does not go before we do.
        let _ = self.up.subscribe().wait_for(|up| !up).await;
    }

    /// Whether a connection made at `made` may be used.
    pub fn trusts(&self, made: Instant) -> bool {
        made >= *self.trusted_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses none of the connections any more that are open now.
    pub fn distrust(&self) {
        *self.trusted_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Draws the consequences of an error.
    pub fn note(self: &Arc<Self>, error: &StoreError) {
        match error {
            StoreError::Unreachable(_) | StoreError::Missing(_) => {
                self.distrust();
                self.look();
            }
            // The server may have become a standby, the file may have been replaced: new connections show it.
            StoreError::ReadOnly | StoreError::Damaged(_) | StoreError::Io(_) => self.distrust(),
            _ => {}
        }
    }

    /// Finds out whether it can be reached, unless somebody does already.
    pub fn look(self: &Arc<Self>) {
        if self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        // Weak: a store that is dropped is not looked for.
        let health = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut attempt = None;
            while let Some(health) = health.upgrade() {
                let outcome = health.connect(&mut attempt).await;
                match outcome {
                    Ok(()) => {
                        health.looking.store(false, Ordering::Release);
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
                            tracing::error!(%error, "the store can't be reached; trying on");
                            health.up.send_replace(false);
                        }
                    }
                }
                drop(health);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    /// Connects. An attempt that can't be called off, since it is a thread that waits for a disk, is left in `attempt` and
    /// waited for again by the next call: there is never more than one.
    async fn connect(&self, attempt: &mut Option<Attempt>) -> Result<(), StoreError> {
        let mut going = attempt.take().unwrap_or_else(|| {
            let options = self.options.clone();
            tokio::spawn(async move { options.connect().await?.close().await })
        });
        let connected = match timeout(LOOK_TIMEOUT, &mut going).await {
            Ok(ended) => ended.unwrap_or(Err(sqlx::Error::WorkerCrashed)),
            Err(_) => {
                if DB::LOCAL {
                    *attempt = Some(going);
                } else {
                    going.abort();
                }
                Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
            }
        };
        match connected {
            Ok(()) => Ok(()),
            Err(error) => match DB::error(error) {
                // It is there, and has no room, or is locked.
                StoreError::Busy(_) => Ok(()),
                error => Err(error),
            },
        }
    }
}

//! A pool of connections, each in use by one caller at a time.
//!
//! sqlx has a pool too. It waits without limit for an answer on each connection that is returned, so that a network
//! that drops packets takes all of its connections away for as long as the system repeats them: a quarter of an hour.
//! It also tries a server that refuses connections again until the caller's timeout. In this pool every wait has an
//! end.
//!
//! A connection to a file is a thread, which can't be cancelled: on a disk that hangs it goes on after its caller has
//! timed out. It keeps its permit until it is done, so that there are never more threads than permits.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use scopeguard::ScopeGuard;
use sqlx::{AssertSqlSafe, Connection, raw_sql};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Backend, Connector, health::Health};
use crate::store::{
    error::{Result, StoreError},
    model::PoolStats,
};

mod statement;

/// Most callers that wait for a connection; later ones fail at once.
pub const MAX_WAITING: usize = 256;

/// A connection that has been idle for longer is pinged before it is used: the server may be gone meanwhile.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// Longest wait for the answer to a ping, and for a server's answer to an abandoned statement.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest duration of a rollback; then the connection is closed, which does the same.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// Oldest connection to a server that is used: servers, and proxies before them, leak or drop older ones.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// Wait for an answer before a probe, on another connection, checks whether the database is there at all.
const PROBE_AFTER: Duration = Duration::from_millis(500);

/// Longest pause until the next probe: a write may take long.
const MAX_PROBE_PAUSE: Duration = Duration::from_secs(4);

/// Longest wait for a connection to close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest wait for connections in use when the pool is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A bounded number of connections.
pub struct Pool<DB: Backend> {
    connector: Connector<DB>,
    health: Arc<Health<DB>>,
    max: u32,
    /// Longest wait for a connection.
    wait: Duration,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Opened<DB>>>,
    waiting: AtomicUsize,
}

/// An open connection.
struct Opened<DB: Backend> {
    connection: DB::Connection,
    /// When the attempt to open it began.
    at: Instant,
    target: DB::Target,
    /// When it was opened or put back.
    used_at: Instant,
}

/// A connection in use, which is returned to the pool when this guard is dropped, unless it can't be used any more.
pub type PooledConnection<DB> = ScopeGuard<InUse<DB>, fn(InUse<DB>)>;

/// What a [`PooledConnection`] guards.
pub struct InUse<DB: Backend> {
    opened: Opened<DB>,
    state: State,
    pool: Arc<Pool<DB>>,
    permit: OwnedSemaphorePermit,
}

/// Whether a connection can be used again.
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// At once.
    Clean,
    /// After the answer to a statement whose outcome isn't recorded.
    InFlight,
    /// After a rollback.
    InTransaction,
    /// Not at all.
    Broken,
}

impl<DB: Backend> Pool<DB> {
    /// At most `max` connections, made when they are needed.
    pub fn new(connector: Connector<DB>, health: Arc<Health<DB>>, max: u32, wait: Duration) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(max as usize));
        Arc::new(Self { connector, health, max, wait, permits, idle: Mutex::default(), waiting: AtomicUsize::new(0) })
    }

    /// Numbers of the connections.
    pub fn stats(&self) -> PoolStats {
        let in_use = (self.max as usize).saturating_sub(self.permits.available_permits());
        let (idle, waiting) = (self.idle().len(), self.waiting.load(Ordering::Acquire));
        PoolStats { max: self.max.into(), in_use: in_use as u64, idle: idle as u64, waiting: waiting as u64 }
    }

    /// Runs work with connections of this pool for at most `limit`; less if the database turns out to be unreachable.
    pub async fn with_deadline<T>(&self, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        let outcome = async {
            let (mut work, mut end) = (std::pin::pin!(work), std::pin::pin!(sleep(limit)));
            let mut pause = PROBE_AFTER;
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut work => return outcome,
                    () = self.health.down() => return Err(down()),
                    () = &mut end => return Err(StoreError::Busy(format!("no answer within {limit:?}"))),
                    () = sleep(pause), if !DB::EMBEDDED => {
                        self.health.probe();
                        pause = MAX_PROBE_PAUSE.min(2 * pause);
                    }
                }
            }
        };
        outcome.await.inspect_err(|error| self.health.record(error))
    }

    /// Reads [with a deadline](Self::with_deadline), and once more if the connection proves to be broken.
    pub async fn read<T, F: Future<Output = Result<T>>>(
        &self,
        limit: Duration,
        mut work: impl FnMut() -> F,
    ) -> Result<T> {
        let started = Instant::now();
        match self.with_deadline(limit, work()).await {
            Err(StoreError::Unreachable(_)) if self.health.is_up() => {
                self.with_deadline(limit.saturating_sub(started.elapsed()), work()).await
            }
            outcome => outcome,
        }
    }

    /// A connection.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if none becomes free in time or too many callers wait already, [`StoreError::Unreachable`]
    /// if the database is unreachable or the pool closed, and what keeps a new connection from being made.
    pub async fn acquire(self: &Arc<Self>) -> Result<PooledConnection<DB>> {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait_for_permit().await?,
        };
        if !self.health.is_up() {
            return Err(down());
        }
        while let Some(mut opened) = self.pop() {
            let young = opened.at.elapsed() < MAX_AGE || DB::EMBEDDED;
            if self.health.trusts(opened.at) && opened.target == DB::target(&self.connector.options) {
                let trusted = DB::EMBEDDED || opened.used_at.elapsed() < TRUSTED_IDLE;
                if young && (trusted || answers(timeout(PING_TIMEOUT, opened.connection.ping()).await)) {
                    return Ok(self.guard(opened, permit));
                }
                // What has broken this connection has most likely broken the others too: not each is tried in turn.
                if young {
                    self.health.distrust();
                }
            }
            tokio::spawn(timeout(CLOSE_TIMEOUT, opened.connection.close()));
        }
        let target = DB::target(&self.connector.options);
        // Before the connection is made: an outage that is noticed meanwhile counts for it.
        let at = Instant::now();
        let connector = self.connector.clone();
        // The permit goes along, since opening a file can't be cancelled.
        let connecting = tokio::spawn(async move { (connector.connect().await, permit) });
        let connected = match DB::EMBEDDED {
            true => timeout(self.wait, connecting).await,
            false => timeout(self.wait, AbortOnDropHandle::new(connecting)).await,
        };
        match connected {
            Ok(Ok((connected, permit))) => {
                let connection = connected.map_err(DB::error)?;
                Ok(self.guard(Opened { connection, at, target, used_at: at }, permit))
            }
            Ok(Err(_)) => Err(DB::error(sqlx::Error::WorkerCrashed)),
            Err(_) => Err(StoreError::Unreachable(format!("no connection within {:?}", self.wait))),
        }
    }

    /// A connection in a transaction that is going to write, which is rolled back unless it is
    /// [committed](InUse::commit).
    pub async fn begin(self: &Arc<Self>) -> Result<PooledConnection<DB>> {
        let mut transaction = self.acquire().await?;
        // A caller that doesn't wait for the answer may leave a transaction open.
        transaction.state = State::Broken;
        let begin = self.connector.shared_session.clone().unwrap_or_else(|| DB::BEGIN.to_owned());
        raw_sql(AssertSqlSafe(begin)).execute(transaction.get()).await.map_err(DB::error)?;
        transaction.state = State::InTransaction;
        Ok(transaction)
    }

    /// Closes the connections, those in use when they are returned; later calls fail.
    pub async fn close(&self) {
        let _all = timeout(DRAIN_TIMEOUT, self.permits.acquire_many(self.max)).await;
        self.permits.close();
        while let Some(opened) = self.pop() {
            let _ = timeout(CLOSE_TIMEOUT, opened.connection.close()).await;
        }
    }

    async fn wait_for_permit(&self) -> Result<OwnedSemaphorePermit> {
        let earlier = self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = scopeguard::guard(&self.waiting, |waiting| {
            waiting.fetch_sub(1, Ordering::AcqRel);
        });
        if earlier >= MAX_WAITING {
            return Err(StoreError::Busy(format!("{MAX_WAITING} callers wait for a connection already")));
        }
        match timeout(self.wait, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(StoreError::Unreachable("the store is closed".into())),
            Err(_) => Err(StoreError::Busy(format!("no connection became free within {:?}", self.wait))),
        }
    }

    fn guard(self: &Arc<Self>, opened: Opened<DB>, permit: OwnedSemaphorePermit) -> PooledConnection<DB> {
        let in_use = InUse { opened, state: State::InFlight, pool: self.clone(), permit };
        scopeguard::guard(in_use, InUse::release)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Opened<DB>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<Opened<DB>> {
        self.idle().pop()
    }

    fn put_back(&self, opened: Opened<DB>) {
        if !self.permits.is_closed() {
            self.idle().push(Opened { used_at: Instant::now(), ..opened });
        }
    }
}

impl<DB: Backend> InUse<DB> {
    /// The connection.
    pub fn get(&mut self) -> &mut DB::Connection {
        &mut self.opened.connection
    }

    /// Passes a statement's outcome on and records whether the connection can be used again.
    pub fn record_outcome<T>(&mut self, outcome: sqlx::Result<T>) -> Result<T> {
        let outcome = outcome.map_err(DB::error);
        self.state = match &outcome {
            Err(StoreError::Unreachable(_) | StoreError::Missing(_) | StoreError::Io(_) | StoreError::Damaged(_)) => {
                State::Broken
            }
            _ => State::Clean,
        };
        outcome
    }

    /// Commits the transaction. After an error it may be committed or not: the connection that could tell is closed.
    pub async fn commit(&mut self) -> Result<()> {
        self.state = State::Broken;
        raw_sql("COMMIT").execute(self.get()).await.map_err(DB::error)?;
        self.state = State::Clean;
        Ok(())
    }

    /// Says whether the connection is closed, rather than the transaction rolled back, if a statement is cut off from
    /// here on.
    pub fn close_if_interrupted(&mut self, close: bool) {
        self.state = if close { State::Broken } else { State::InTransaction };
    }

    /// Returns the connection to the pool, at once or in a task that finds out whether it can be used again. The permit
    /// is released after that.
    fn release(self) {
        let Self { mut opened, state, pool, permit } = self;
        match (state, Handle::try_current()) {
            (State::Clean, _) => pool.put_back(opened),
            // The caller timed out, or is gone: not worth a new connection, as long as the answer comes soon.
            (State::InFlight, Ok(runtime)) if DB::EMBEDDED || pool.health.is_up() => {
                runtime.spawn(async move {
                    let ping = opened.connection.ping();
                    let reusable = match DB::EMBEDDED {
                        true => ping.await.is_ok(),
                        false => answers(timeout(PING_TIMEOUT, ping).await),
                    };
                    if reusable {
                        pool.put_back(opened);
                    }
                    drop(permit);
                });
            }
            // An error may be the late answer to the statement before, with which the driver sends nothing at all: the
            // connection may still be in the middle of the transaction.
            (State::InTransaction, Ok(runtime)) => {
                runtime.spawn(async move {
                    let rollback = raw_sql("ROLLBACK").execute(&mut opened.connection);
                    match answers(timeout(ROLLBACK_TIMEOUT, rollback).await) {
                        true => pool.put_back(opened),
                        false => discard(opened).await,
                    }
                    drop(permit);
                });
            }
            (State::Broken, Ok(runtime)) if DB::EMBEDDED => {
                runtime.spawn(async move {
                    discard(opened).await;
                    drop(permit);
                });
            }
            _ => {}
        }
    }
}

/// Waits for the thread of an embedded connection to end, whatever its outcome; just drops one to a server.
async fn discard<DB: Backend>(opened: Opened<DB>) {
    if DB::EMBEDDED {
        let _ = opened.connection.close().await;
    }
}

fn answers<T, E>(outcome: std::result::Result<sqlx::Result<T>, E>) -> bool {
    matches!(outcome, Ok(Ok(_)))
}

fn down() -> StoreError {
    StoreError::Unreachable("the last attempt to connect has failed".into())
}

//! Connections, kept open and lent to one user at a time.
//!
//! sqlx has a pool too. It waits without limit for an answer on each connection that comes back, so that a network that
//! swallows packets takes all of its connections away for as long as the system repeats them: a quarter of an hour. It
//! also tries a server that refuses connections again for as long as the caller has patience. In this one every wait has
//! an end.
//!
//! A connection to a file is a thread, which nothing calls off: on a disk that hangs it goes on after its user has given
//! up. It keeps its place until it is done, so that there are never more threads than places.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, Connection};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Fill, Result, StoreError,
    health::{Health, Options},
    sql::Backend,
};

/// Most callers that wait for a connection; who comes then is told at once that there is no room.
pub const MAX_WAITING: usize = 256;

/// A connection that has been idle for longer is tried before it is used: the server may have gone meanwhile.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How long that trial may take, and a server's answer to a question that nobody waits for any more.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// Oldest connection to a server that is used: servers, and what stands before them, leak or forget older ones.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// How long an answer may take before it is asked, on another connection, whether the database is there at all.
const DOUBT_AFTER: Duration = Duration::from_millis(500);

/// Longest pause until the same is asked again: what is written may take long.
const MAX_DOUBT: Duration = Duration::from_secs(4);

/// How long a connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// How long users of connections are waited for when the pool is closed.
const DRAIN: Duration = Duration::from_secs(5);

/// A bounded number of connections.
pub(super) struct Pool<DB: Backend> {
    options: Options<DB>,
    health: Arc<Health<DB>>,
    most: u32,
    /// Longest wait for a connection.
    wait: Duration,
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Idle<DB>>>,
    waiting: AtomicUsize,
}

struct Idle<DB: Backend> {
    connection: DB::Connection,
    made: Instant,
    since: Instant,
    place: DB::Place,
}

/// A connection that is in use. When this is dropped it is kept for the next one, unless it can't be used any more.
pub(super) struct Lent<DB: Backend> {
    /// Taken when it is given back, as is its place.
    connection: Option<DB::Connection>,
    room: Option<OwnedSemaphorePermit>,
    made: Instant,
    place: DB::Place,
    state: State,
    pool: Arc<Pool<DB>>,
}

/// Whether a connection can be used again.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Clean,
    /// After the answer that is due.
    Due,
    /// Not at all.
    Broken,
}

/// One who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<DB: Backend> Pool<DB> {
    /// At most `most` connections, made when they are needed.
    pub fn new(options: Options<DB>, health: Arc<Health<DB>>, most: u32, wait: Duration) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(most as usize));
        Arc::new(Self { options, health, most, wait, room, idle: Mutex::default(), waiting: AtomicUsize::new(0) })
    }

    /// How full it is.
    pub fn fill(&self) -> Fill {
        let lent = (self.most as usize).saturating_sub(self.room.available_permits());
        let (idle, waiting) = (self.idle().len(), self.waiting.load(Ordering::Acquire));
        Fill { most: self.most.into(), lent: lent as u64, idle: idle as u64, waiting: waiting as u64 }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle<DB>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does work with a connection of this pool for at most `limit`; less if the database turns out to be gone.
    pub async fn attend<T>(&self, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        let outcome = async {
            let (mut work, mut end) = (std::pin::pin!(work), std::pin::pin!(sleep(limit)));
            let mut doubt = DOUBT_AFTER;
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut work => return outcome,
                    () = self.health.down() => return Err(gone()),
                    () = &mut end => return Err(StoreError::Busy(format!("no answer within {limit:?}"))),
                    () = sleep(doubt), if !DB::LOCAL => {
                        self.health.look();
                        doubt = MAX_DOUBT.min(2 * doubt);
                    }
                }
            }
        };
        outcome.await.inspect_err(|error| self.health.note(error))
    }

    /// Reads as [`attend`](Self::attend) does, and once more if the connection proves to be broken.
    pub async fn read<T, F: Future<Output = Result<T>>>(
        &self,
        limit: Duration,
        mut work: impl FnMut() -> F,
    ) -> Result<T> {
        let started = Instant::now();
        match self.attend(limit, work()).await {
            Err(StoreError::Unreachable(_)) if self.health.is_up() => {
                self.attend(limit.saturating_sub(started.elapsed()), work()).await
            }
            outcome => outcome,
        }
    }

    /// A connection.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if none becomes free in time or too many wait already, [`StoreError::Unreachable`] if the
    /// database is gone or the pool closed, and what keeps a new connection from being made.
    pub async fn acquire(self: &Arc<Self>) -> Result<Lent<DB>> {
        let room = match self.room.clone().try_acquire_owned() {
            Ok(room) => room,
            Err(_) => self.queue().await?,
        };
        if !self.health.is_up() {
            return Err(gone());
        }
        while let Some(idle) = self.pop() {
            let Idle { mut connection, made, since, place } = idle;
            let young = made.elapsed() < MAX_AGE || DB::LOCAL;
            if self.health.trusts(made) && place == DB::place(&self.options) {
                let alive = DB::LOCAL || since.elapsed() < TRUSTED_IDLE;
                if young && (alive || matches!(timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(())))) {
                    return Ok(self.lend(connection, made, place, room));
                }
                // Whatever has ended this one has most likely ended the others too: not each is tried in turn.
                if young {
                    self.health.distrust();
                }
            }
            part(connection);
        }
        let place = DB::place(&self.options);
        // From before it was made: what is heard of the database meanwhile counts for it.
        let made = Instant::now();
        let options = self.options.clone();
        // With its place, which is taken for as long as it takes to open a file.
        let opening = tokio::spawn(async move { (options.connect().await, room) });
        let opened = match DB::LOCAL {
            true => timeout(self.wait, opening).await,
            false => timeout(self.wait, AbortOnDropHandle::new(opening)).await,
        };
        match opened {
            Ok(Ok((connected, room))) => Ok(self.lend(connected.map_err(DB::error)?, made, place, room)),
            Ok(Err(_)) => Err(DB::error(sqlx::Error::WorkerCrashed)),
            Err(_) => Err(StoreError::Unreachable(format!("no connection within {:?}", self.wait))),
        }
    }

    /// Waits for a place.
    async fn queue(&self) -> Result<OwnedSemaphorePermit> {
        let _waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= MAX_WAITING {
            return Err(StoreError::Busy(format!("{MAX_WAITING} wait for a connection already")));
        }
        match timeout(self.wait, self.room.clone().acquire_owned()).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(StoreError::Unreachable("the store is closed".into())),
            Err(_) => Err(StoreError::Busy(format!("no connection became free within {:?}", self.wait))),
        }
    }

    fn pop(&self) -> Option<Idle<DB>> {
        self.idle().pop()
    }

    fn lend(
        self: &Arc<Self>,
        connection: DB::Connection,
        made: Instant,
        place: DB::Place,
        room: OwnedSemaphorePermit,
    ) -> Lent<DB> {
        Lent { connection: Some(connection), room: Some(room), made, place, state: State::Due, pool: self.clone() }
    }

    fn keep(&self, connection: DB::Connection, made: Instant, place: DB::Place) {
        if !self.room.is_closed() {
            self.idle().push(Idle { connection, made, since: Instant::now(), place });
        }
    }

    /// Closes the connections, those in use when they come back; later calls fail.
    pub async fn close(&self) {
        let _all = timeout(DRAIN, self.room.acquire_many(self.most)).await;
        self.room.close();
        while let Some(idle) = self.pop() {
            let _ = timeout(GOODBYE, idle.connection.close()).await;
        }
    }
}

impl<DB: Backend> Lent<DB> {
    /// Says what came of its use.
    pub fn judge<T>(&mut self, outcome: sqlx::Result<T>) -> Result<T> {
        let outcome = outcome.map_err(DB::error);
        self.state = match &outcome {
            Err(StoreError::Unreachable(_) | StoreError::Missing(_) | StoreError::Io(_) | StoreError::Damaged(_)) => {
                State::Broken
            }
            _ => State::Clean,
        };
        outcome
    }

    /// It can't be used again, unless it is [judged](Self::judge) once more.
    pub fn soil(&mut self) {
        self.state = State::Broken;
    }
}

impl<DB: Backend> Drop for Lent<DB> {
    fn drop(&mut self) {
        let (Some(mut connection), Some(room)) = (self.connection.take(), self.room.take()) else { return };
        let (pool, made, place) = (self.pool.clone(), self.made, self.place);
        match (self.state, Handle::try_current()) {
            (State::Clean, _) => pool.keep(connection, made, place),
            // Its user has lost patience, or is gone: not worth a new connection, as long as the answer comes soon.
            (State::Due, Ok(runtime)) if DB::LOCAL || pool.health.is_up() => {
                runtime.spawn(async move {
                    let answer = connection.ping();
                    let answered = match DB::LOCAL {
                        true => answer.await.is_ok(),
                        false => matches!(timeout(PING_TIMEOUT, answer).await, Ok(Ok(()))),
                    };
                    if answered {
                        pool.keep(connection, made, place);
                    }
                    drop(room);
                });
            }
            (State::Broken, Ok(runtime)) if DB::LOCAL => {
                runtime.spawn(async move {
                    // Whatever is said of its end, its thread has got there.
                    let _ = connection.close().await;
                    drop(room);
                });
            }
            _ => {}
        }
    }
}

impl<DB: Backend> Deref for Lent<DB> {
    type Target = DB::Connection;
    fn deref(&self) -> &DB::Connection {
        self.connection.as_ref().expect("it is taken only when this is dropped")
    }
}

impl<DB: Backend> DerefMut for Lent<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.connection.as_mut().expect("it is taken only when this is dropped")
    }
}

/// Says goodbye, without waiting for it to be heard.
fn part<C: Connection + 'static>(connection: C) {
    tokio::spawn(timeout(GOODBYE, connection.close()));
}

fn gone() -> StoreError {
    StoreError::Unreachable("it could not be reached a moment ago".into())
}

//! How new the store's state is that answers are given by.

use std::{
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use super::local::store_failure;
use crate::{
    protocol::Failure,
    store::{BlockStore, ChainState},
};

/// How long a state read from the store is taken as current. Other processes may write to the same store; a cached
/// answer is at most this much behind them, and the time that a read takes.
pub const MAX_AGE: Duration = Duration::from_millis(50);

/// The store's state, read again when it is older than [`MAX_AGE`] and somebody asks: an idle gateway reads nothing.
pub(super) struct Fresh {
    store: Arc<dyn BlockStore>,
    latest: RwLock<Option<Read>>,
    reading: tokio::sync::Mutex<()>,
}

/// What came of a read, and when it was.
#[derive(Clone)]
struct Read {
    began: Instant,
    ended: Instant,
    outcome: Result<Arc<ChainState>, Failure>,
}

impl Fresh {
    pub(super) fn new(store: Arc<dyn BlockStore>) -> Self {
        Self { store, latest: RwLock::new(None), reading: tokio::sync::Mutex::new(()) }
    }

    /// The state; whoever finds it too old reads it. Whoever comes meanwhile takes what that read gives, good or bad: if
    /// each read in turn, a store that fails slowly would let the last of them wait without end.
    pub(super) async fn state(&self) -> Result<Arc<ChainState>, Failure> {
        let is_current = |read: &Read| read.outcome.is_ok() && read.began.elapsed() < MAX_AGE;
        if let Some(read) = self.latest().filter(is_current) {
            return read.outcome;
        }
        let came = Instant::now();
        let _one = self.reading.lock().await;
        if let Some(read) = self.latest().filter(|read| read.ended > came || is_current(read)) {
            return read.outcome;
        }
        let began = Instant::now();
        let outcome = self.store.state().await.map(Arc::new).map_err(store_failure);
        let read = Read { began, ended: Instant::now(), outcome: outcome.clone() };
        *self.latest.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(read);
        outcome
    }

    /// The state as it was read last, if that went well.
    pub(super) fn last(&self) -> Option<Arc<ChainState>> {
        self.latest()?.outcome.ok()
    }

    fn latest(&self) -> Option<Read> {
        self.latest.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

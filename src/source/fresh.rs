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
/// answer is at most this much behind them.
pub const MAX_AGE: Duration = Duration::from_millis(50);

/// The store's state, read again when it is older than [`MAX_AGE`] and somebody asks: an idle gateway reads nothing.
pub(super) struct Fresh {
    store: Arc<dyn BlockStore>,
    known: RwLock<Option<(Instant, Arc<ChainState>)>>,
    reading: tokio::sync::Mutex<()>,
}

impl Fresh {
    pub(super) fn new(store: Arc<dyn BlockStore>) -> Self {
        Self { store, known: RwLock::new(None), reading: tokio::sync::Mutex::new(()) }
    }

    /// The state; whoever finds it too old reads it, the others wait for that one read.
    pub(super) async fn state(&self) -> Result<Arc<ChainState>, Failure> {
        if let Some(state) = self.known() {
            return Ok(state);
        }
        let _one = self.reading.lock().await;
        if let Some(state) = self.known() {
            return Ok(state);
        }
        let asked = Instant::now();
        let state = Arc::new(self.store.state().await.map_err(store_failure)?);
        *self.known.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some((asked, state.clone()));
        Ok(state)
    }

    /// The state as it was last read, however long ago.
    pub(super) fn last(&self) -> Option<Arc<ChainState>> {
        self.known.read().unwrap_or_else(|poisoned| poisoned.into_inner()).as_ref().map(|(_, state)| state.clone())
    }

    fn known(&self) -> Option<Arc<ChainState>> {
        let known = self.known.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        known.as_ref().filter(|(read, _)| read.elapsed() < MAX_AGE).map(|(_, state)| state.clone())
    }
}

//! How new what was read from the store is that answers are given by.

use std::{
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use crate::protocol::Failure;

/// How long what was read from the store is taken as current. Other processes may write to the same store; a cached
/// answer is at most this much behind them, and the time that a read takes.
pub const MAX_AGE: Duration = Duration::from_millis(50);

/// Something of the store, read again when it is older than [`MAX_AGE`] and somebody asks: an idle gateway reads nothing.
pub(super) struct Fresh<T> {
    latest: RwLock<Option<Read<T>>>,
    reading: tokio::sync::Mutex<()>,
}

/// What came of a read, and when it was.
struct Read<T> {
    began: Instant,
    ended: Instant,
    outcome: Result<Arc<T>, Failure>,
}

impl<T> Fresh<T> {
    pub(super) fn new() -> Self {
        Self { latest: RwLock::new(None), reading: tokio::sync::Mutex::new(()) }
    }

    /// It; whoever finds it too old does the `read`. Whoever comes meanwhile takes what that read gives, good or bad: if
    /// each read in turn, a store that fails slowly would let the last of them wait without end.
    pub(super) async fn get(&self, read: impl Future<Output = Result<T, Failure>>) -> Result<Arc<T>, Failure> {
        let is_current = |read: &Read<T>| read.outcome.is_ok() && read.began.elapsed() < MAX_AGE;
        if let Some(outcome) = self.latest(is_current) {
            return outcome;
        }
        let came = Instant::now();
        let _one = self.reading.lock().await;
        if let Some(outcome) = self.latest(|read| read.ended > came || is_current(read)) {
            return outcome;
        }
        let began = Instant::now();
        let outcome = read.await.map(Arc::new);
        let read = Read { began, ended: Instant::now(), outcome: outcome.clone() };
        *self.latest.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(read);
        outcome
    }

    /// As it was read last, if that went well.
    pub(super) fn last(&self) -> Option<Arc<T>> {
        self.latest(|_| true)?.ok()
    }

    fn latest(&self, fits: impl Fn(&Read<T>) -> bool) -> Option<Result<Arc<T>, Failure>> {
        let latest = self.latest.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        latest.as_ref().filter(|read| fits(read)).map(|read| read.outcome.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn who_asks_at_once_shares_a_read_and_who_comes_later_does_not() {
        let (fresh, reads) = (Fresh::new(), AtomicU32::new(0));
        let ask = || {
            fresh.get(async {
                tokio::task::yield_now().await;
                Ok(reads.fetch_add(1, Ordering::Relaxed))
            })
        };
        let began = Instant::now();
        let (first, second) = tokio::join!(ask(), ask());
        assert_eq!((*first.unwrap(), *second.unwrap()), (0, 0));
        let third = *ask().await.unwrap();
        assert!(third == 0 || began.elapsed() >= MAX_AGE);
        let mut ticks = tokio::time::interval(MAX_AGE / 5);
        while *ask().await.unwrap() == third {
            ticks.tick().await;
            assert!(began.elapsed() < 100 * MAX_AGE);
        }
    }
}

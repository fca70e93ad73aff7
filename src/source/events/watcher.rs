//! One reader for many followers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Publishes the latest value of something, read by one task, which runs while there are followers.
pub struct Watcher<T> {
    latest: watch::Sender<Option<T>>,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// A follower of a [`Watcher`].
pub struct Followed<T> {
    watcher: Arc<Watcher<T>>,
    /// `None` only while the follower is dropped.
    receiver: Option<watch::Receiver<Option<T>>>,
}

impl<T: Clone + Send + Sync + 'static> Watcher<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { latest: watch::Sender::new(None), task: Mutex::default() })
    }

    /// One more follower. The first one starts `read`, which publishes values without end.
    pub(crate) fn follow<F>(self: &Arc<Self>, read: impl FnOnce(watch::Sender<Option<T>>) -> F) -> Followed<T>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut task = self.task();
        if task.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            // What was read for earlier followers may be old.
            self.latest.send_replace(None);
            *task = Some(AbortOnDropHandle::new(tokio::spawn(read(self.latest.clone()))));
        }
        Followed { watcher: self.clone(), receiver: Some(self.latest.subscribe()) }
    }
}

impl<T> Watcher<T> {
    fn task(&self) -> MutexGuard<'_, Option<AbortOnDropHandle<()>>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Followed<T> {
    /// The latest value, `None` until the first one is read. [`changed`](Self::changed) waits for another one.
    pub fn latest(&mut self) -> Option<T> {
        self.receiver.as_mut().and_then(|receiver| receiver.borrow_and_update().clone())
    }

    /// Waits for a value other than the last one that [`latest`](Self::latest) returned.
    pub async fn changed(&mut self) {
        let changed = match &mut self.receiver {
            Some(receiver) => receiver.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            std::future::pending::<()>().await;
        }
    }
}

impl<T> Drop for Followed<T> {
    fn drop(&mut self) {
        // The lock keeps the next follower from finding a task that is about to end.
        let mut task = self.watcher.task();
        self.receiver = None;
        if self.watcher.latest.receiver_count() == 0 {
            *task = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_task_reads_for_all_followers_and_ends_with_the_last() {
        let (watcher, starts) = (Watcher::new(), Arc::new(Mutex::new(0)));
        let alive = Arc::new(());
        let follow = || {
            let (starts, alive) = (starts.clone(), alive.clone());
            watcher.follow(move |latest| async move {
                let started = {
                    let mut starts = starts.lock().unwrap();
                    *starts += 1;
                    *starts
                };
                latest.send_replace(Some(started));
                std::future::pending::<()>().await;
                drop(alive);
            })
        };
        let (mut first, mut second) = (follow(), follow());
        first.changed().await;
        assert_eq!((first.latest(), second.latest(), *starts.lock().unwrap()), (Some(1), Some(1), 1));
        drop(first);
        assert_eq!(Arc::strong_count(&alive), 2, "there is a follower");
        drop(second);
        while Arc::strong_count(&alive) > 1 {
            tokio::task::yield_now().await;
        }
        let mut third = follow();
        assert_eq!(third.latest(), None, "an old value is not passed on");
        third.changed().await;
        assert_eq!(third.latest(), Some(2));
    }
}

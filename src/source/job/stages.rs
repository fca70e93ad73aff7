//! Queue lengths of the sync's stages.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::Sender;

use crate::{
    chain::{Differences, words},
    telemetry::Durations,
};

/// A stage of the sync that has a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Verifies windows of blocks.
    Verify,
    /// Writes verified batches.
    Commit,
}

words!(Stage { Verify = "verify", Commit = "commit" });

/// The number of messages in a channel; 0 once it is closed.
type Gauge = Box<dyn Fn() -> usize + Send>;

/// Queue lengths of the sync that runs in this process, what it computed again, and how long verification took. The
/// sync writes them, the metrics read them.
#[derive(Default)]
pub struct Stages {
    gauges: [Mutex<Option<Gauge>>; Stage::ALL.len()],
    differences: Mutex<Differences>,
    /// Durations of verifications, each of a batch of blocks.
    pub verification: Durations,
}

impl Stages {
    /// Reads the queue length of `stage` from `sender` from now on, without keeping the channel open.
    pub fn watch<T: Send + 'static>(&self, stage: Stage, sender: &Sender<T>) {
        let sender = sender.downgrade();
        let gauge = move || sender.upgrade().map_or(0, |sender| sender.max_capacity() - sender.capacity());
        *self.gauge(stage) = Some(Box::new(gauge));
    }

    /// Windows or batches in the queue of `stage`, at most two.
    pub fn waiting(&self, stage: Stage) -> usize {
        self.gauge(stage).as_ref().map_or(0, |gauge| gauge())
    }

    /// Counts members of blocks whose received value differs from the computed one.
    pub fn add_differences(&self, differences: Differences) {
        *self.differences.lock().unwrap_or_else(PoisonError::into_inner) += differences;
    }

    /// The counts since the start, by member.
    pub fn differences(&self) -> Differences {
        *self.differences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gauge(&self, stage: Stage) -> MutexGuard<'_, Option<Gauge>> {
        self.gauges[stage as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn queues_are_counted_until_the_stage_ends() {
        let stages = Stages::default();
        assert_eq!(Stage::ALL.map(|stage| stages.waiting(stage)), [0, 0]);
        let (sender, mut receiver) = mpsc::channel(2);
        stages.watch(Stage::Commit, &sender);
        sender.send(1).await.unwrap();
        sender.send(2).await.unwrap();
        assert_eq!(Stage::ALL.map(|stage| stages.waiting(stage)), [0, 2]);
        receiver.recv().await.unwrap();
        assert_eq!(stages.waiting(Stage::Commit), 1);
        drop(sender);
        assert_eq!(stages.waiting(Stage::Commit), 0, "nobody is going to send any more");
        assert_eq!(receiver.recv().await, Some(2));
        assert_eq!(receiver.recv().await, None, "the channel is not kept open");
    }
}

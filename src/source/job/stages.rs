//! How full the stages of the sync are.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::Sender;

use crate::chain::Differences;

/// A stage of the sync that others hand something to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Verifies windows of blocks.
    Verify,
    /// Writes verified batches.
    Commit,
}

impl Stage {
    /// Every stage, in the order of the work.
    pub const ALL: [Self; 2] = [Self::Verify, Self::Commit];

    /// The name: one lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Commit => "commit",
        }
    }
}

/// Tells how many messages wait in a channel; 0 once it is closed.
type Gauge = Box<dyn Fn() -> usize + Send>;

/// What waits for the stages of the sync that runs in this process, if one does, and what it has computed anew. The sync
/// writes it, the figures read it.
#[derive(Default)]
pub struct Stages {
    gauges: [Mutex<Option<Gauge>>; Stage::ALL.len()],
    differences: Mutex<Differences>,
}

impl Stages {
    /// From now on `stage` gets its work from `sender`, whose channel this does not keep open.
    pub fn watch<T: Send + 'static>(&self, stage: Stage, sender: &Sender<T>) {
        let sender = sender.downgrade();
        let gauge = move || sender.upgrade().map_or(0, |sender| sender.max_capacity() - sender.capacity());
        *self.gauge(stage) = Some(Box::new(gauge));
    }

    /// What waits for `stage`: windows or batches, two at most.
    pub fn waiting(&self, stage: Stage) -> usize {
        self.gauge(stage).as_ref().map_or(0, |gauge| gauge())
    }

    /// Adds members of blocks that were sent with another value than the computed one.
    pub fn differ(&self, differences: Differences) {
        *self.differences.lock().unwrap_or_else(PoisonError::into_inner) += differences;
    }

    /// How many there were since the start, by member.
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
    async fn what_waits_is_counted_until_the_stage_ends() {
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

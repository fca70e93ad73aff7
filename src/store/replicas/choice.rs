//! Which replica a read goes to.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::store::{
    error::{Result, StoreError},
    model::{Anchor, ChainState},
    replica_stats::{ReplicaFigures, ReplicaStats},
    traits::BlockStore,
};

/// Longest wait for a replica to have what the primary has.
pub const CATCH_UP: Duration = Duration::from_millis(250);
/// Pause between two looks at a replica that is behind.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A primary and its replicas.
pub struct Replicas {
    pub(super) primary: Arc<dyn BlockStore>,
    pub(super) all: Vec<Replica>,
    /// Place of the replica that reads go to while it can be used.
    current: AtomicUsize,
    /// The version that no read may be behind.
    required: AtomicU64,
    /// The primary's state when it was last asked.
    pub(super) latest: Mutex<Option<ChainState>>,
    primary_reads: AtomicU64,
}

/// A replica.
pub struct Replica {
    /// Server and database, without user and password.
    pub(super) name: String,
    pub(super) url: String,
    /// The store, while reads may go to it.
    usable: RwLock<Option<Arc<dyn BlockStore>>>,
    /// The last version that was read from it: it has at least this one.
    pub(super) version: AtomicU64,
    /// Held by the caller that waits for the replica to catch up.
    catching_up: tokio::sync::Mutex<()>,
    /// Wakes the task that keeps the replica, when it was left out.
    pub(super) left_out: Notify,
    /// Why it is left out, as the log has it; `None` while it is used, and before it was opened.
    reported: Mutex<Option<String>>,
    reads: AtomicU64,
}

impl Replicas {
    /// A primary, and replicas that can't be used yet. Each process begins with a replica of its own choice.
    pub fn new(primary: Arc<dyn BlockStore>, urls: &[String]) -> Self {
        let mut all: Vec<Replica> = Vec::new();
        for url in urls {
            let mut replica = Replica::new(url);
            let same = all.iter().filter(|other| other.name.split(' ').next() == Some(&replica.name)).count();
            if same > 0 {
                replica.name += &format!(" ({})", same + 1);
            }
            all.push(replica);
        }
        let current = AtomicUsize::new(fastrand::usize(..all.len().max(1)));
        let (required, primary_reads, latest) = Default::default();
        Self { primary, all, current, required, latest, primary_reads }
    }

    /// The replica to read from, with its store; `None`: the primary.
    pub async fn choose(&self) -> Option<(&Replica, Arc<dyn BlockStore>)> {
        let (required, first) = (self.required(), self.current.load(Ordering::Relaxed));
        let mut behind = None;
        for step in 0..self.all.len() {
            let place = (first + step) % self.all.len();
            let replica = &self.all[place];
            let Some(store) = replica.usable() else { continue };
            if replica.version.load(Ordering::Acquire) >= required {
                if step > 0 {
                    self.current.store(place, Ordering::Relaxed);
                }
                return Some((replica, store));
            }
            behind.get_or_insert((replica, store));
        }
        let (replica, store) = behind?;
        match replica.catch_up(&store, required).await {
            Ok(()) => Some((replica, store)),
            Err(reason) => {
                replica.leave_out(reason);
                None
            }
        }
    }

    /// The version that no read may be behind.
    pub fn required(&self) -> u64 {
        self.required.load(Ordering::Acquire)
    }

    /// Records that `version` was read, from this replica or from the primary: no later read may be behind it.
    pub fn served(&self, replica: Option<&Replica>, version: u64) {
        if let Some(replica) = replica {
            replica.version.fetch_max(version, Ordering::AcqRel);
        }
        self.required.fetch_max(version, Ordering::AcqRel);
    }

    /// Records the primary's state. `before` is what was required when the read began: a primary that is behind it has
    /// lost its last writes, and what it has counts.
    pub fn see_primary(&self, state: ChainState, before: u64) {
        if state.version < before {
            let _ = self.required.compare_exchange(before, state.version, Ordering::AcqRel, Ordering::Acquire);
        } else {
            self.served(None, state.version);
        }
        *self.latest() = Some(state);
    }

    /// See [`BlockStore::require`].
    pub async fn require(&self, version: u64) -> Result<()> {
        if version > self.required() && self.primary.state().await?.version >= version {
            self.served(None, version);
        }
        Ok(())
    }

    /// See [`BlockStore::require_block`].
    pub async fn require_block(&self, hash: &str) -> Result<()> {
        match self.primary.anchor(hash).await? {
            (Anchor::Unknown, _) => {}
            (_, version) => self.served(None, version),
        }
        Ok(())
    }

    /// Counts a read from the primary.
    pub fn primary_answers(&self) {
        self.primary_reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Where reads went, and how the replicas are.
    pub fn stats(&self) -> ReplicaStats {
        let latest = self.latest().as_ref().map_or(0, |state| state.version);
        let figures = |replica: &Replica| ReplicaFigures {
            name: replica.name.clone(),
            up: replica.usable().is_some(),
            behind: latest.saturating_sub(replica.version.load(Ordering::Acquire)),
            reads: replica.reads.load(Ordering::Relaxed),
        };
        let primary_reads = self.primary_reads.load(Ordering::Relaxed);
        ReplicaStats { primary_reads, replicas: self.all.iter().map(figures).collect() }
    }

    /// Closes all connections.
    pub async fn close(&self) {
        for replica in &self.all {
            let store = replica.slot().take();
            if let Some(store) = store {
                store.close().await;
            }
        }
        self.primary.close().await;
    }

    pub(super) fn latest(&self) -> MutexGuard<'_, Option<ChainState>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replica {
    fn new(url: &str) -> Self {
        let parsed = url::Url::parse(url).ok();
        let host = parsed.as_ref().and_then(|url| url.host_str()).unwrap_or_default().to_owned();
        let port = parsed.as_ref().and_then(|url| url.port()).unwrap_or(5432);
        let path = parsed.as_ref().map(|url| url.path().to_owned()).unwrap_or_default();
        Self {
            name: format!("{host}:{port}{path}"),
            url: url.to_owned(),
            usable: RwLock::default(),
            version: AtomicU64::default(),
            catching_up: tokio::sync::Mutex::default(),
            left_out: Notify::new(),
            reported: Mutex::default(),
            reads: AtomicU64::default(),
        }
    }

    /// The store, if reads may go to it.
    pub fn usable(&self) -> Option<Arc<dyn BlockStore>> {
        self.usable.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads may go to it from now on.
    pub fn use_again(&self, store: &Arc<dyn BlockStore>) {
        let before = self.slot().replace(store.clone());
        if before.is_none() {
            self.reported().take();
            tracing::info!(replica = self.name, "reads go to the replica");
        }
    }

    /// No reads go to it until the task that keeps it finds it good again. The log gets each reason once.
    pub fn leave_out(&self, reason: String) {
        self.slot().take();
        let mut reported = self.reported();
        if reported.as_ref() != Some(&reason) {
            tracing::warn!(replica = self.name, reason, "the replica can't be used; reads go elsewhere");
            *reported = Some(reason);
        }
        self.left_out.notify_one();
    }

    /// Waits until it has this version.
    ///
    /// # Errors
    /// Why it should be left out.
    pub async fn catch_up(&self, store: &Arc<dyn BlockStore>, version: u64) -> std::result::Result<(), String> {
        let caught_up = async {
            // One caller looks for all.
            let _one = self.catching_up.lock().await;
            loop {
                if self.version.load(Ordering::Acquire) >= version {
                    return Ok(());
                }
                let found = store.state().await.map_err(|error| error.to_string())?.version;
                self.version.fetch_max(found, Ordering::AcqRel);
                if found < version {
                    sleep(LOOK_AGAIN).await;
                }
            }
        };
        timeout(CATCH_UP, caught_up).await.unwrap_or_else(|_| Err(format!("not level within {CATCH_UP:?}")))
    }

    /// Counts a read.
    pub fn answered(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// A read failed; the primary is asked instead. A replica that is only busy, or has ended a read that stood in the
    /// way of its replay, is asked again.
    pub fn failed(&self, error: &StoreError) {
        match error {
            StoreError::Busy(_) => tracing::debug!(replica = self.name, %error, "the replica is busy"),
            error => self.leave_out(error.to_string()),
        }
    }

    fn slot(&self) -> RwLockWriteGuard<'_, Option<Arc<dyn BlockStore>>> {
        self.usable.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn reported(&self) -> MutexGuard<'_, Option<String>> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

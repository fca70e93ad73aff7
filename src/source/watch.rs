//! What is known of the chain without a read: the time of its tip, the state of the sync, the reorganisations since the
//! start.

use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::metrics::histogram::Histogram;

use super::job::SyncState;
use crate::chain::unix_now;

/// Bounds of the buckets of depths, in blocks: up to a few blocks as they are usual, the default finality depth, and
/// what only a fault or an attack takes back.
const DEPTHS: [f64; 9] = [1.0, 2.0, 3.0, 6.0, 10.0, 20.0, 40.0, 100.0, 1000.0];

/// What is known of the chain. [`Source::state`](super::Source::state) and [`Source::watch`](super::Source::watch) keep
/// it current.
#[derive(Debug)]
pub struct ChainWatch {
    seen: RwLock<Seen>,
    reorganisations: AtomicU64,
    depths: Histogram,
}

#[derive(Debug, Default)]
struct Seen {
    tip: Option<SeenTip>,
    sync: Option<SyncState>,
}

#[derive(Debug)]
struct SeenTip {
    hash: String,
    timestamp: i64,
}

/// How current the chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Seconds since the tip's timestamp, 0 if that lies ahead; `None` if it is not known.
    pub tip_age: Option<u64>,
    /// The state of the sync; `None` before the first look.
    pub sync: Option<SyncState>,
}

impl Default for ChainWatch {
    fn default() -> Self {
        Self { seen: RwLock::default(), reorganisations: AtomicU64::new(0), depths: Histogram::new(DEPTHS) }
    }
}

impl ChainWatch {
    /// How current the chain is. The age is that of the tip last seen, if `is_tip` holds for its hash.
    pub fn freshness(&self, is_tip: impl FnOnce(&str) -> bool) -> Freshness {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        let tip = seen.tip.as_ref().filter(|tip| is_tip(&tip.hash));
        let age = |tip: &SeenTip| u64::try_from(unix_now().saturating_sub(tip.timestamp)).unwrap_or(0);
        Freshness { tip_age: tip.map(age), sync: seen.sync }
    }

    /// Reorganisations since the start, by whichever process wrote them.
    pub fn reorganisations(&self) -> u64 {
        self.reorganisations.load(Ordering::Relaxed)
    }

    /// Blocks that each of them took back.
    pub fn depths(&self) -> &Histogram {
        &self.depths
    }

    /// Whether this is the tip last seen.
    pub(super) fn has_seen(&self, hash: &str) -> bool {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.tip.as_ref().is_some_and(|tip| tip.hash == hash)
    }

    /// Records the tip, by its hash and timestamp.
    pub(super) fn see_tip(&self, tip: Option<(String, i64)>) {
        let tip = tip.map(|(hash, timestamp)| SeenTip { hash, timestamp });
        self.seen.write().unwrap_or_else(PoisonError::into_inner).tip = tip;
    }

    /// Records the state of the sync.
    pub(super) fn see_sync(&self, state: SyncState) {
        self.seen.write().unwrap_or_else(PoisonError::into_inner).sync = Some(state);
    }

    /// Counts a reorganisation that took back `depth` blocks.
    pub(super) fn count_reorganisation(&self, depth: u64) {
        self.reorganisations.fetch_add(1, Ordering::Relaxed);
        self.depths.observe(depth as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_that_of_the_tip_asked_for() {
        let watch = ChainWatch::default();
        assert_eq!(watch.freshness(|_| true), Freshness { tip_age: None, sync: None });
        watch.see_tip(Some(("main-3".into(), unix_now() - 100)));
        watch.see_sync(SyncState::Synced);
        let Freshness { tip_age, sync } = watch.freshness(|hash| hash == "main-3");
        assert!((100..110).contains(&tip_age.unwrap()), "{tip_age:?}");
        assert_eq!(sync, Some(SyncState::Synced));
        assert_eq!(watch.freshness(|hash| hash == "main-4").tip_age, None, "of another tip nothing is known");
        watch.see_tip(Some(("main-4".into(), unix_now() + 100)));
        assert_eq!(watch.freshness(|_| true).tip_age, Some(0), "a timestamp ahead of the clock");
        watch.see_tip(Some(("main-5".into(), i64::MIN)));
        assert_eq!(watch.freshness(|_| true).tip_age, Some(i64::MAX as u64));
    }
}

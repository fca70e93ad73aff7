//! The peers that can send the blocks of a plan: their pace, and the choice of the next one.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use libp2p::PeerId;

use super::remote::RemotePeer;
use crate::sync::failure::PeerFault;

/// Longest wait for a window before another peer is asked as well, in multiples of the peer's mean time.
const TIMEOUT_FACTOR: f64 = 4.0;
/// Shortest such wait.
const MIN_TIMEOUT: Duration = Duration::from_millis(300);
/// Such a wait for a peer whose pace is unknown.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a peer may send nothing before the plan is given up, where another chain could be fetched instead.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest such wait for the chain of an untrusted peer, where there are alternatives: a slow peer must not gain time
/// by that.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);
/// Fewest blocks of a window in [`PACE_TIME`] for such a chain.
const PACE_BLOCKS: u64 = 100;
/// Waiting time over which the pace is checked. With four windows in flight that makes 13 blocks a second.
const PACE_TIME: Duration = Duration::from_secs(30);

/// The peers that have the planned chain.
pub struct Sources {
    /// The peer that claimed the chain.
    pub lead: RemotePeer,
    peers: Mutex<Vec<Source>>,
    /// Whether another chain could be fetched instead: then a peer that sends nothing is given up soon.
    pub alternatives: bool,
    /// Whether a slow pace ends the plan too; not for the chain of a trusted peer.
    pub enforce_pace: bool,
    /// The peers' paces before this plan.
    known: Paces,
}

/// Paces of peers.
pub type Paces = HashMap<PeerId, Pace>;

/// The pace of a peer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// Mean seconds per window.
    mean: Option<f64>,
    /// Whether the latest answer took too long, or did not come: the peer is then asked after all others.
    pub late: bool,
}

struct Source {
    remote: RemotePeer,
    in_flight: u32,
    pace: Pace,
    excluded: bool,
}

impl Sources {
    pub fn new(lead: RemotePeer, alternatives: bool, known: Paces) -> Self {
        let enforce_pace = alternatives && !lead.is_trusted();
        let sources = Self { lead: lead.clone(), peers: Mutex::default(), alternatives, enforce_pace, known };
        sources.add(lead);
        sources
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Source>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a peer that has the chain.
    pub fn add(&self, remote: RemotePeer) {
        let mut peers = self.peers();
        if peers.iter().all(|source| source.remote.peer != remote.peer) {
            let pace = self.known.get(&remote.peer).copied().unwrap_or_default();
            peers.push(Source { remote, in_flight: 0, pace, excluded: false });
        }
    }

    /// The paces known so far.
    pub fn paces(&self) -> Paces {
        let mut paces = self.known.clone();
        paces.extend(self.peers().iter().map(|source| (source.remote.peer, source.pace)));
        paces
    }

    /// The peer with the least expected time, and how long to wait for it before another one is asked as well.
    pub fn pick(&self, tried: &[PeerId]) -> Option<(InFlight<'_>, Duration)> {
        let mut peers = self.peers();
        // A peer of unknown pace counts as fast as the fastest.
        let best_mean = peers.iter().filter_map(|source| source.pace.mean).reduce(f64::min);
        let mean = |source: &Source| source.pace.mean.or(best_mean);
        let cost = |source: &Source| f64::from(source.in_flight + 1) * mean(source).unwrap_or_default();
        let usable = peers.iter_mut().filter(|source| !source.excluded && !tried.contains(&source.remote.peer));
        let best = usable.min_by(|a, b| {
            let by_cost = cost(a).total_cmp(&cost(b)).then(a.in_flight.cmp(&b.in_flight));
            a.pace.late.cmp(&b.pace.late).then(by_cost)
        })?;
        best.in_flight += 1;
        let timeout = match mean(best) {
            Some(mean) => Duration::from_secs_f64(TIMEOUT_FACTOR * mean * f64::from(best.in_flight)).max(MIN_TIMEOUT),
            None => DEFAULT_TIMEOUT,
        };
        let timeout = if self.enforce_pace { timeout.min(MAX_TIMEOUT) } else { timeout };
        Some((InFlight { remote: best.remote.clone(), sources: self }, timeout))
    }

    /// Records the outcome of a window.
    pub fn record(&self, peer: PeerId, took: Duration, fault: Option<&PeerFault>) {
        self.change(peer, |source| match fault {
            None => {
                let seconds = took.as_secs_f64();
                let mean = source.pace.mean.map_or(seconds, |mean| 0.7 * mean + 0.3 * seconds);
                source.pace = Pace { mean: Some(mean), late: false };
            }
            // Silence and overload may pass.
            Some(fault) if matches!(fault, PeerFault::NoAnswer(_)) || fault.is_slow_down() => source.pace.late = true,
            Some(_) => source.excluded = true,
        });
    }

    /// Records that a peer takes longer than the wait for it.
    pub fn record_late(&self, peer: PeerId) {
        self.change(peer, |source| source.pace.late = true);
    }

    fn change(&self, peer: PeerId, change: impl FnOnce(&mut Source)) {
        if let Some(source) = self.peers().iter_mut().find(|source| source.remote.peer == peer) {
            change(source);
        }
    }

    pub fn any_left(&self) -> bool {
        self.peers().iter().any(|source| !source.excluded)
    }
}

/// Checks the pace of a window that arrives slowly.
#[derive(Default)]
pub struct PaceCheck {
    waited: Duration,
    blocks: u64,
}

impl PaceCheck {
    /// Adds blocks that arrived in a waiting time; returns whether they were too few over [`PACE_TIME`].
    pub fn is_too_slow(&mut self, waited: Duration, blocks: u64) -> bool {
        self.waited += waited;
        self.blocks += blocks;
        if self.waited < PACE_TIME {
            return false;
        }
        std::mem::take(self).blocks < PACE_BLOCKS
    }
}

/// A request to a peer for a window; ends when dropped.
pub struct InFlight<'a> {
    pub remote: RemotePeer,
    pub sources: &'a Sources,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.sources.change(self.remote.peer, |source| source.in_flight -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_pace_is_too_slow_after_a_while() {
        let waits = |seconds, blocks: &[u64]| {
            let mut trickle = PaceCheck::default();
            let seconds = Duration::from_secs(seconds);
            blocks.iter().map(|blocks| trickle.is_too_slow(seconds, *blocks)).collect::<Vec<_>>()
        };
        assert_eq!(waits(10, &[16, 16, 16]), [false, false, true], "it has its time first");
        assert_eq!(waits(10, &[50, 25, 25, 0, 0, 100]), [false; 6], "just enough");
        assert_eq!(waits(15, &[1_000, 0, 99, 0]), [false, false, false, true], "what came before is no credit");
        assert_eq!(waits(0, &[1; 50]), [false; 50], "no time was spent waiting");
    }
}

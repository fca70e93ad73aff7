//! The peers that have the chain that is fetched: how fast each is, and whom to ask next.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use libp2p::PeerId;

use super::remote::Remote;
use crate::sync::failure::Fault;

/// Longest wait for a window, in multiples of what windows took the peer so far, before another one is asked as well.
const PATIENCE: f64 = 4.0;
/// No shorter wait than this,
const MIN_PATIENCE: Duration = Duration::from_millis(300);
/// and this one while nothing is known of the peer.
pub const FIRST_PATIENCE: Duration = Duration::from_secs(2);
/// How long a peer may give nothing at all before it is left, where another chain could be followed instead.
pub const LAST_PATIENCE: Duration = Duration::from_secs(5);
/// No longer wait than this where a stranger's chain is fetched and another could be: slowness must not earn patience.
const MAX_PATIENCE: Duration = Duration::from_secs(10);
/// The least that must come of a window there: so many blocks,
const PACE_BLOCKS: usize = 100;
/// in so much time that is spent waiting for them. With four windows on their way that makes 13 blocks a second.
const PACE_TIME: Duration = Duration::from_secs(30);

/// The peers that have the chain.
pub struct Sources {
    /// Whose chain it is.
    pub lead: Remote,
    peers: Mutex<Vec<Source>>,
    /// Whether another chain could be followed instead: then a peer that gives nothing is left soon.
    pub alternatives: bool,
    /// Whether a slow pace is a reason, too: not with a chain of the operator's own peers.
    pub impatient: bool,
    /// How fast peers were before.
    known: Paces,
}

/// How fast peers are.
pub type Paces = HashMap<PeerId, Pace>;

/// How fast a peer is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// Mean seconds that a window took.
    mean: Option<f64>,
    /// The latest one took too long: while others are there, it is not asked.
    late: bool,
}

struct Source {
    remote: Remote,
    in_flight: u32,
    pace: Pace,
    gone: bool,
}

impl Sources {
    pub fn new(lead: Remote, alternatives: bool, known: Paces) -> Self {
        let impatient = alternatives && !lead.is_trusted();
        let sources = Self { lead: lead.clone(), peers: Mutex::default(), alternatives, impatient, known };
        sources.add(lead);
        sources
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Source>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more peer that has the chain.
    pub fn add(&self, remote: Remote) {
        let mut peers = self.peers();
        if peers.iter().all(|source| source.remote.peer != remote.peer) {
            let pace = self.known.get(&remote.peer).copied().unwrap_or_default();
            peers.push(Source { remote, in_flight: 0, pace, gone: false });
        }
    }

    /// How fast peers were until now.
    pub fn paces(&self) -> Paces {
        let mut paces = self.known.clone();
        paces.extend(self.peers().iter().map(|source| (source.remote.peer, source.pace)));
        paces
    }

    /// The peer that is likely to answer first, and how long to wait for it before another one is asked as well.
    pub fn pick(&self, tried: &[PeerId]) -> Option<(InFlight<'_>, Duration)> {
        let mut peers = self.peers();
        // Of whom nothing is known, the best is hoped for.
        let hope = peers.iter().filter_map(|source| source.pace.mean).reduce(f64::min);
        let mean = |source: &Source| source.pace.mean.or(hope);
        let cost = |source: &Source| f64::from(source.in_flight + 1) * mean(source).unwrap_or_default();
        let usable = peers.iter_mut().filter(|source| !source.gone && !tried.contains(&source.remote.peer));
        let best = usable.min_by(|a, b| {
            let by_cost = cost(a).total_cmp(&cost(b)).then(a.in_flight.cmp(&b.in_flight));
            a.pace.late.cmp(&b.pace.late).then(by_cost)
        })?;
        best.in_flight += 1;
        let patience = match mean(best) {
            Some(mean) => Duration::from_secs_f64(PATIENCE * mean * f64::from(best.in_flight)).max(MIN_PATIENCE),
            None => FIRST_PATIENCE,
        };
        let patience = if self.impatient { patience.min(MAX_PATIENCE) } else { patience };
        Some((InFlight { remote: best.remote.clone(), sources: self }, patience))
    }

    /// Notes how a peer did with a window.
    pub fn note(&self, peer: PeerId, took: Duration, fault: Option<&Fault>) {
        let mut peers = self.peers();
        let Some(source) = peers.iter_mut().find(|source| source.remote.peer == peer) else { return };
        match fault {
            None => {
                let seconds = took.as_secs_f64();
                let mean = source.pace.mean.map_or(seconds, |mean| 0.7 * mean + 0.3 * seconds);
                source.pace = Pace { mean: Some(mean), late: false };
            }
            // Silence may pass, and so does a crowd.
            Some(fault) if matches!(fault, Fault::Silent(_)) || fault.is_slow_down() => source.pace.late = true,
            Some(_) => source.gone = true,
        }
    }

    /// Notes that a peer takes longer than it was given.
    pub fn late(&self, peer: PeerId) {
        if let Some(source) = self.peers().iter_mut().find(|source| source.remote.peer == peer) {
            source.pace.late = true;
        }
    }

    pub fn any_left(&self) -> bool {
        self.peers().iter().any(|source| !source.gone)
    }
}

/// What comes of a window bit by bit.
#[derive(Default)]
pub struct Trickle {
    waited: Duration,
    blocks: usize,
}

impl Trickle {
    /// Notes how many blocks came in such a time; whether that makes too few by now.
    pub fn is_too_slow(&mut self, waited: Duration, blocks: usize) -> bool {
        self.waited += waited;
        self.blocks += blocks;
        if self.waited < PACE_TIME {
            return false;
        }
        std::mem::take(self).blocks < PACE_BLOCKS
    }
}

/// A peer that is being asked for a window; no longer so when this is dropped.
pub struct InFlight<'a> {
    pub remote: Remote,
    pub sources: &'a Sources,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut peers = self.sources.peers();
        if let Some(source) = peers.iter_mut().find(|source| source.remote.peer == self.remote.peer) {
            source.in_flight = source.in_flight.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_little_is_too_slow_after_a_while() {
        let waits = |seconds, blocks: &[usize]| {
            let mut trickle = Trickle::default();
            let seconds = Duration::from_secs(seconds);
            blocks.iter().map(|blocks| trickle.is_too_slow(seconds, *blocks)).collect::<Vec<_>>()
        };
        assert_eq!(waits(10, &[16, 16, 16]), [false, false, true], "it has its time first");
        assert_eq!(waits(10, &[50, 25, 25, 0, 0, 100]), [false; 6], "just enough");
        assert_eq!(waits(15, &[1_000, 0, 99, 0]), [false, false, false, true], "what came before is no credit");
        assert_eq!(waits(0, &[1; 50]), [false; 50], "nobody has waited for it");
    }
}

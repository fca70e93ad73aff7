//! Peers that are left alone for a while: no penalty, but nothing to wait for again at once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::run::Found;

/// How long a peer is left alone that gave what is wrong.
const WRONG: Duration = Duration::from_secs(600);

/// How long one is left alone at first that claimed a better chain and didn't give it, or kept others waiting. Each time
/// that it does so again this doubles, up to [`WRONG`].
const SILENT: Duration = Duration::from_secs(20);

/// How long it is remembered after that time how often a peer was left alone.
const REMEMBERED: Duration = Duration::from_secs(1200);

/// Who is left alone.
#[derive(Default)]
pub(super) struct Distrust(HashMap<PeerId, Entry>);

struct Entry {
    until: Instant,
    /// How often in a row.
    times: u32,
}

impl Distrust {
    /// Adds those that a job found wanting. One that `is_trusted` is left alone no longer than at first; of its claims that
    /// came to nothing no note is taken, since it is asked before the others anyway.
    pub fn add(&mut self, found: Found, is_trusted: impl Fn(&PeerId) -> bool, now: Instant) {
        let Found { wrong, silent, lost, .. } = found;
        self.0.retain(|_, entry| entry.until + REMEMBERED > now);
        let lost = lost.into_iter().filter(|peer| !is_trusted(peer) && !silent.contains(peer));
        for peer in silent.iter().copied().chain(lost).collect::<Vec<_>>() {
            let times = self.0.get(&peer).map_or(0, |entry| entry.times);
            let wait = if is_trusted(&peer) { SILENT } else { SILENT.saturating_mul(1 << times.min(10)).min(WRONG) };
            self.0.insert(peer, Entry { until: now + wait, times: times + 1 });
        }
        for peer in wrong {
            let times = self.0.get(&peer).map_or(0, |entry| entry.times);
            self.0.insert(peer, Entry { until: now + WRONG, times });
        }
    }

    /// Who is left alone.
    pub fn peers(&self, now: Instant) -> impl Iterator<Item = PeerId> {
        self.0.iter().filter(move |(_, entry)| entry.until > now).map(|(peer, _)| *peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_to_nothing_again_and_again_is_left_alone_ever_longer() {
        let (wrong, silent, ours, start) = (PeerId::random(), PeerId::random(), PeerId::random(), Instant::now());
        let mut distrust = Distrust::default();
        let mut after = |found: Found, now: Instant, later: Duration| {
            distrust.add(found, |peer| *peer == ours, now);
            let mut left: Vec<_> = distrust.peers(now + later).collect();
            left.sort_unstable();
            left
        };
        let sorted = |mut peers: Vec<PeerId>| {
            peers.sort_unstable();
            peers
        };
        let found = || Found { wrong: [wrong].into(), silent: [silent, ours].into(), ..Found::default() };
        assert_eq!(after(found(), start, SILENT / 2), sorted(vec![wrong, silent, ours]));
        assert_eq!(after(Found::default(), start, SILENT), [wrong]);
        let again = || Found { silent: [ours].into(), lost: [silent, ours].into(), ..Found::default() };
        let now = start + WRONG;
        assert_eq!(after(again(), now, SILENT), [silent], "twice as long, but for our own");
        assert_eq!(after(Found::default(), now, 2 * SILENT), []);
        for _ in 0..40 {
            after(again(), now, SILENT);
        }
        assert_eq!(after(Found::default(), now, WRONG), [], "no longer than that");
        let later = now + WRONG + REMEMBERED;
        assert_eq!(after(again(), later, SILENT), [], "it is forgotten");
    }
}

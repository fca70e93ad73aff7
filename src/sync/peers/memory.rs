//! What the sync remembers of peers from one job to the next: the chains that they have, and which of them are left alone
//! for a while.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;

use crate::{chain::Weight, p2p::PeerChain};

/// Chains whose weight is remembered, the latest.
const MAX_WEIGHED: usize = 256;

/// Peers whose chains are remembered: as many as the peer book holds.
const MAX_CHAINS: usize = 1024;

/// What was found out, for jobs one after the other.
#[derive(Default)]
pub struct Known(Mutex<Facts>);

#[derive(Default)]
struct Facts {
    weighed: VecDeque<Weight>,
    chains: HashMap<PeerId, PeerChain>,
}

impl Known {
    // No change is left half done by a panic.
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a chain weighs that was verified to its tip: what peers claim of it doesn't count any more.
    pub fn weigh(&self, weight: Weight) {
        let mut facts = self.facts();
        facts.weighed.retain(|known| known.tip_hash != weight.tip_hash);
        facts.weighed.push_back(weight);
        if facts.weighed.len() > MAX_WEIGHED {
            facts.weighed.pop_front();
        }
    }

    /// What the chain with this tip weighs, if it was verified.
    pub fn weight(&self, tip_hash: &str) -> Option<Weight> {
        self.facts().weighed.iter().find(|known| known.tip_hash == tip_hash).cloned()
    }

    /// Notes what is known of a peer's chain.
    pub fn note(&self, peer: PeerId, chain: PeerChain) {
        let mut facts = self.facts();
        if facts.chains.len() >= MAX_CHAINS && !facts.chains.contains_key(&peer) {
            let oldest = facts.chains.iter().min_by_key(|(_, known)| known.at).map(|(peer, _)| *peer);
            oldest.and_then(|oldest| facts.chains.remove(&oldest));
        }
        facts.chains.insert(peer, chain.bounded());
    }

    /// What is known of a peer's chain.
    pub fn chain(&self, peer: &PeerId) -> Option<PeerChain> {
        self.facts().chains.get(peer).cloned()
    }
}

/// What a job found out about the peers.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Peers that told their tips and are none of the others here.
    pub useful: u64,
    /// Peers whose claims, or blocks, were proven wrong, or that are on another network.
    pub wrong: HashSet<PeerId>,
    /// Peers that claim a better chain and don't give it, or keep others waiting.
    pub silent: HashSet<PeerId>,
    /// Peers whose chains were fetched, and weigh less than ours.
    pub lost: HashSet<PeerId>,
    /// Whether blocks came meanwhile that are still to be fetched.
    pub more: bool,
}

/// How long a peer is left alone that gave what is wrong.
const WRONG: Duration = Duration::from_secs(600);

/// How long one is left alone at first that claimed a better chain and didn't give it, or kept others waiting. Each time
/// that it does so again this doubles, up to [`WRONG`].
const SILENT: Duration = Duration::from_secs(20);

/// How long it is remembered after that time how often a peer was left alone.
const REMEMBERED: Duration = Duration::from_secs(1200);

/// Who is left alone.
#[derive(Default)]
pub struct Distrust(HashMap<PeerId, Entry>);

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
    use crate::chain::CumulativeDifficulty;

    #[test]
    fn the_latest_weights_are_remembered() {
        let known = Known::default();
        let weight = |number: usize, work: u128| Weight {
            work: CumulativeDifficulty::default() + work,
            length: 1,
            tip_hash: number.to_string(),
        };
        for number in 0..MAX_WEIGHED {
            known.weigh(weight(number, 1));
        }
        known.weigh(weight(0, 2));
        assert_eq!(known.weight("0"), Some(weight(0, 2)), "the same again takes no other's place");
        assert_eq!(known.weight("1"), Some(weight(1, 1)));
        known.weigh(weight(MAX_WEIGHED, 1));
        assert_eq!((known.weight("1"), known.weight("2")), (None, Some(weight(2, 1))));
    }

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

//! What the sync keeps about peers from one job to the next: their chains, and which of them are distrusted for a
//! while.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;

use crate::{chain::Weight, p2p::PeerChain};

/// Most verified chains whose weight is kept, the latest.
const MAX_WEIGHTS: usize = 256;

/// Most peers whose chains are kept: as many as the peer book holds.
const MAX_CHAINS: usize = 1024;

/// Known chains, shared by consecutive jobs.
#[derive(Default)]
pub struct KnownChains(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Weights of verified chains.
    weights: VecDeque<Weight>,
    /// Weights that peers' own headers show. Nothing is proven by them: each counts for its peer alone, since another
    /// one with the same tip may have more work below it.
    claimed: HashMap<PeerId, Weight>,
    /// Hash of the last block that was staged after the assume-valid one.
    after_assumed: Option<String>,
    /// Chains as the peers claim them.
    chains: HashMap<PeerId, PeerChain>,
}

impl KnownChains {
    // A panic leaves no change half done.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the weight of a chain that was verified to its tip: it overrules the peers' claims.
    pub fn record_weight(&self, weight: Weight) {
        let mut all = self.lock();
        all.weights.retain(|known| known.tip_hash != weight.tip_hash);
        all.weights.push_back(weight);
        if all.weights.len() > MAX_WEIGHTS {
            all.weights.pop_front();
        }
    }

    /// Records the weight that a peer's headers show.
    pub fn record_claimed(&self, peer: PeerId, weight: Weight) {
        let mut all = self.lock();
        if all.claimed.len() >= MAX_CHAINS {
            all.claimed.clear();
        }
        all.claimed.insert(peer, weight);
    }

    /// The weight of a peer's chain with this tip, if it was verified, or else if the peer's headers have shown it.
    pub fn weight(&self, peer: &PeerId, tip_hash: &str) -> Option<Weight> {
        let all = self.lock();
        all.weights.iter().chain(all.claimed.get(peer)).find(|known| known.tip_hash == tip_hash).cloned()
    }

    /// Records the last block of a staged branch that contains the assume-valid block.
    pub fn record_after_assumed(&self, hash: &str) {
        self.lock().after_assumed = Some(hash.to_owned());
    }

    /// Whether a staged branch that ends with this block contains the assume-valid block.
    pub fn is_after_assumed(&self, hash: &str) -> bool {
        self.lock().after_assumed.as_deref() == Some(hash)
    }

    /// Records a peer's chain.
    pub fn record_chain(&self, peer: PeerId, chain: PeerChain) {
        let mut all = self.lock();
        if all.chains.len() >= MAX_CHAINS && !all.chains.contains_key(&peer) {
            let oldest = all.chains.iter().min_by_key(|(_, known)| known.at).map(|(peer, _)| *peer);
            oldest.and_then(|oldest| all.chains.remove(&oldest));
        }
        all.chains.insert(peer, chain.bounded());
    }

    /// A peer's chain, if known.
    pub fn chain(&self, peer: &PeerId) -> Option<PeerChain> {
        self.lock().chains.get(peer).cloned()
    }
}

/// What a job found out about the peers.
#[derive(Debug, Clone, Default)]
pub struct PeerFindings {
    /// Number of peers that answered with their tips and are in no set below.
    pub useful: u64,
    /// Peers with invalid claims or blocks, or of another network.
    pub invalid: HashSet<PeerId>,
    /// Peers that claimed a better chain and did not send it, or did not answer in time.
    pub unreliable: HashSet<PeerId>,
    /// Peers whose chains were fetched and weigh less than the store's.
    pub lighter: HashSet<PeerId>,
    /// Whether newer blocks are still to be fetched.
    pub more: bool,
}

/// How long a peer with invalid data is distrusted.
const INVALID_FOR: Duration = Duration::from_secs(600);

/// How long an unreliable peer is distrusted the first time. Doubles with each time, up to [`INVALID_FOR`].
const UNRELIABLE_FOR: Duration = Duration::from_secs(20);

/// How long after that the count is kept.
const REMEMBERED_FOR: Duration = Duration::from_secs(1200);

/// Distrusted peers: not penalised, but not asked for a while.
#[derive(Default)]
pub struct Distrust(HashMap<PeerId, Entry>);

struct Entry {
    until: Instant,
    /// How often in a row.
    times: u32,
}

impl Distrust {
    /// Adds the peers of a job's findings. For a trusted peer the time does not double, and a lighter chain does not
    /// count: trusted peers are polled first anyway.
    pub fn add(&mut self, found: PeerFindings, is_trusted: impl Fn(&PeerId) -> bool, now: Instant) {
        let PeerFindings { invalid, unreliable, lighter, .. } = found;
        self.0.retain(|_, entry| entry.until + REMEMBERED_FOR > now);
        let lighter = lighter.into_iter().filter(|peer| !is_trusted(peer) && !unreliable.contains(peer));
        for peer in unreliable.iter().copied().chain(lighter).collect::<Vec<_>>() {
            let times = self.0.get(&peer).map_or(0, |entry| entry.times);
            let wait = if is_trusted(&peer) {
                UNRELIABLE_FOR
            } else {
                UNRELIABLE_FOR.saturating_mul(1 << times.min(10)).min(INVALID_FOR)
            };
            self.0.insert(peer, Entry { until: now + wait, times: times + 1 });
        }
        for peer in invalid {
            let times = self.0.get(&peer).map_or(0, |entry| entry.times);
            self.0.insert(peer, Entry { until: now + INVALID_FOR, times });
        }
    }

    /// The peers that are distrusted now.
    pub fn peers(&self, now: Instant) -> impl Iterator<Item = PeerId> {
        self.0.iter().filter(move |(_, entry)| entry.until > now).map(|(peer, _)| *peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::CumulativeDifficulty;

    #[test]
    fn the_latest_weights_are_kept_and_claimed_ones_count_for_their_peer() {
        let known = KnownChains::default();
        let weight = |number: usize, work: u128| Weight {
            work: CumulativeDifficulty::default() + work,
            length: 1,
            tip_hash: number.to_string(),
        };
        for number in 0..MAX_WEIGHTS {
            known.record_weight(weight(number, 1));
        }
        known.record_weight(weight(0, 2));
        let (peer, other) = (PeerId::random(), PeerId::random());
        assert_eq!(known.weight(&peer, "0"), Some(weight(0, 2)), "the same again takes no other's place");
        assert_eq!(known.weight(&peer, "1"), Some(weight(1, 1)));
        known.record_weight(weight(MAX_WEIGHTS, 1));
        assert_eq!((known.weight(&peer, "1"), known.weight(&peer, "2")), (None, Some(weight(2, 1))));

        known.record_claimed(peer, weight(1, 7));
        assert_eq!((known.weight(&peer, "1"), known.weight(&other, "1")), (Some(weight(1, 7)), None), "its own alone");
        known.record_claimed(peer, weight(2, 7));
        assert_eq!((known.weight(&peer, "1"), known.weight(&peer, "2")), (None, Some(weight(2, 1))), "verified first");
    }

    #[test]
    fn unreliable_peers_are_distrusted_for_longer_each_time() {
        let (invalid, unreliable, ours, start) = (PeerId::random(), PeerId::random(), PeerId::random(), Instant::now());
        let mut distrust = Distrust::default();
        let mut after = |found: PeerFindings, now: Instant, later: Duration| {
            distrust.add(found, |peer| *peer == ours, now);
            let mut left: Vec<_> = distrust.peers(now + later).collect();
            left.sort_unstable();
            left
        };
        let sorted = |mut peers: Vec<PeerId>| {
            peers.sort_unstable();
            peers
        };
        let found = || PeerFindings {
            invalid: [invalid].into(),
            unreliable: [unreliable, ours].into(),
            ..PeerFindings::default()
        };
        assert_eq!(after(found(), start, UNRELIABLE_FOR / 2), sorted(vec![invalid, unreliable, ours]));
        assert_eq!(after(PeerFindings::default(), start, UNRELIABLE_FOR), [invalid]);
        let again = || PeerFindings {
            unreliable: [ours].into(),
            lighter: [unreliable, ours].into(),
            ..PeerFindings::default()
        };
        let now = start + INVALID_FOR;
        assert_eq!(after(again(), now, UNRELIABLE_FOR), [unreliable], "twice as long, but not for a trusted peer");
        assert_eq!(after(PeerFindings::default(), now, 2 * UNRELIABLE_FOR), []);
        for _ in 0..40 {
            after(again(), now, UNRELIABLE_FOR);
        }
        assert_eq!(after(PeerFindings::default(), now, INVALID_FOR), [], "no longer than that");
        let later = now + INVALID_FOR + REMEMBERED_FOR;
        assert_eq!(after(again(), later, UNRELIABLE_FOR), [], "it is forgotten");
    }
}

//! What the sync has found out of chains and remembers from one job to the next.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use libp2p::PeerId;

use crate::{chain::Weight, p2p::PeerChain};

/// Chains whose weight is remembered, the latest.
const MAX_WEIGHED: usize = 256;

/// Peers whose chains are remembered: as many as the peer book holds.
const MAX_CHAINS: usize = 1024;

/// What was found out, for jobs one after the other.
#[derive(Default)]
pub(super) struct Known(Mutex<Facts>);

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
}

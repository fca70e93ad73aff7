//! How a peer did: its answers, its failures, and what it said of its chain.

use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::score::{Fading, Offences};
use super::{FAILURE_HALF_LIFE, PeerBook, PeerChain};
use crate::p2p::P2pError;

/// Weight of the latest request in the mean of a peer's latency.
const LATENCY_WEIGHT: f64 = 0.2;

impl PeerBook {
    pub fn answered(&mut self, id: PeerId, time: Duration) {
        let peer = self.entry(id);
        let ms = time.as_secs_f64() * 1e3;
        peer.requests += 1;
        peer.latency_ms = Some(peer.latency_ms.map_or(ms, |mean| mean + LATENCY_WEIGHT * (ms - mean)));
        peer.seen();
    }

    /// It answered what nobody waited for any more, and what has [failed](Self::failed) before.
    pub fn answered_late(&mut self, id: PeerId, time: Duration) {
        self.answered(id, time);
        self.entry(id).requests -= 1;
    }

    /// Whether the peer said that it speaks this program's own dialect; not before it has identified itself.
    pub fn speaks_own_dialect(&self, id: &PeerId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.speaks_own_dialect)
    }

    /// Moving mean of the time that its answers took.
    pub fn latency(&self, id: &PeerId) -> Option<Duration> {
        let ms = self.peers.get(id)?.latency_ms?;
        Duration::try_from_secs_f64(ms / 1e3).ok()
    }

    pub fn failed(&mut self, id: PeerId, error: &P2pError, now: Instant) {
        let peer = self.entry(id);
        peer.requests += 1;
        peer.failures += 1;
        peer.last_error = Some(error.code());
        peer.recent_failures.add(1.0, now, FAILURE_HALF_LIFE);
    }

    /// What a peer that we know said of its chain.
    pub fn note_chain(&mut self, id: &PeerId, chain: PeerChain) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.chain = Some(chain.bounded());
        }
    }

    /// Forgets what the peer did wrong: its score, its ban and its failures of late.
    pub fn forgive(&mut self, id: &PeerId) {
        if let Some(peer) = self.peers.get_mut(id) {
            (peer.offences, peer.recent_failures) = (Offences::default(), Fading::default());
            self.version += 1;
        }
    }
}

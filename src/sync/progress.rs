//! The counts of a job, from all of its stages.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;

use crate::source::job::{PeerCounts, Phase, Progress};

/// Time over which the rate is measured.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Most peers, and penalties of a peer, in a job's progress.
const MAX_PEERS: usize = 64;
const MAX_PENALTIES: usize = 16;

/// The counts of one job.
pub struct ProgressTracker(Mutex<Counts>);

struct Counts {
    progress: Progress,
    peers: HashMap<PeerId, PeerCounts>,
    /// When blocks were written, and the total then.
    written: VecDeque<(Instant, u64)>,
}

impl ProgressTracker {
    /// A tracker that starts from `progress`.
    pub fn new(progress: Progress) -> Self {
        let written = VecDeque::from([(Instant::now(), progress.blocks)]);
        Self(Mutex::new(Counts { progress, peers: HashMap::new(), written }))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // A panic leaves no count half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the progress of the job as a whole.
    pub fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.counts().progress);
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.update(|progress| progress.phase = phase);
    }

    /// Counts blocks written.
    pub fn written(&self, blocks: u64) {
        let mut counts = self.counts();
        counts.progress.blocks += blocks;
        let (now, total) = (Instant::now(), counts.progress.blocks);
        counts.written.push_back((now, total));
        while counts.written.len() > 2 && counts.written.get(1).is_some_and(|(at, _)| now - *at > RATE_WINDOW) {
            counts.written.pop_front();
        }
    }

    /// Changes the counts of a peer.
    pub fn peer(&self, peer: PeerId, change: impl FnOnce(&mut PeerCounts)) {
        let mut counts = self.counts();
        if counts.peers.len() < MAX_PEERS || counts.peers.contains_key(&peer) {
            change(counts.peers.entry(peer).or_default());
        }
    }

    /// Counts the bytes of a peer's answer.
    pub fn received(&self, peer: PeerId, bytes: u64) {
        self.update(|progress| progress.bytes += bytes);
        self.peer(peer, |counts| counts.bytes += bytes);
    }

    /// Adds a penalty of a peer.
    pub fn penalty(&self, peer: PeerId, word: &str) {
        self.peer(peer, |counts| {
            if counts.penalties.len() < MAX_PENALTIES {
                counts.penalties.push(word.into());
            }
        });
    }

    /// The progress now, with the recent rate and the estimated time left.
    pub fn snapshot(&self) -> Progress {
        let counts = self.counts();
        let mut progress = counts.progress.clone();
        if let (Some((start, before)), false) = (counts.written.front(), progress.phase.is_final()) {
            let seconds = start.elapsed().as_secs_f64().max(0.001);
            progress.blocks_per_second = (progress.blocks - before) as f64 / seconds;
        }
        progress.eta_seconds = None;
        if let (Some(from), Some(to), false) = (progress.from_index, progress.to_index, progress.phase.is_final()) {
            let left = (to + 1).saturating_sub(from).saturating_sub(progress.blocks);
            let seconds = left as f64 / progress.blocks_per_second;
            progress.eta_seconds = (progress.blocks_per_second > 0.0).then(|| seconds.ceil() as u64);
        }
        let peers = counts.peers.iter();
        progress.peers = peers.map(|(id, peer)| PeerCounts { peer_id: id.to_string(), ..peer.clone() }).collect();
        progress.peers.sort_by(|a, b| (b.blocks, &a.peer_id).cmp(&(a.blocks, &b.peer_id)));
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_to_a_rate_and_an_estimate() {
        let tracker =
            ProgressTracker::new(Progress { from_index: Some(10), to_index: Some(109), ..Progress::default() });
        let peer = PeerId::random();
        tracker.enter(Phase::Blocks);
        tracker.received(peer, 500);
        tracker.peer(peer, |counts| counts.blocks += 40);
        tracker.written(40);
        tracker.penalty(peer, "unreliable");
        let progress = tracker.snapshot();
        assert_eq!((progress.blocks, progress.bytes), (40, 500));
        assert!(progress.blocks_per_second > 0.0);
        let left = progress.eta_seconds.unwrap() as f64 * progress.blocks_per_second;
        assert!(left >= 60.0, "60 blocks are left: {progress:?}");
        let expected = PeerCounts {
            peer_id: peer.to_string(),
            blocks: 40,
            bytes: 500,
            penalties: vec!["unreliable".into()],
            ..PeerCounts::default()
        };
        assert_eq!(progress.peers, [expected]);
        tracker.enter(Phase::Done);
        assert_eq!(tracker.snapshot().eta_seconds, None);
    }

    #[test]
    fn the_list_of_peers_is_bounded() {
        let tracker = ProgressTracker::new(Progress::default());
        for _ in 0..2 * MAX_PEERS {
            tracker.received(PeerId::random(), 1);
        }
        let progress = tracker.snapshot();
        assert_eq!((progress.peers.len(), progress.bytes), (MAX_PEERS, 2 * MAX_PEERS as u64));
    }
}

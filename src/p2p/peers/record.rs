//! Conduct of peers: answers, failures and offences, and the reputation that is kept across restarts. The latter has
//! wall-clock times, since only those outlive a process.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use super::claims::PeerChain;
use super::score::{DecayingSum, OFFENCE_HALF_LIFE, Offence, Offences};
use super::{FAILURE_HALF_LIFE, MAX_BAN, MAX_PEERS, PeerBook};
use crate::p2p::error::P2pError;

/// Weight of the latest request in the moving mean of a peer's latency.
const LATENCY_WEIGHT: f64 = 0.2;

/// Lowest score that is kept.
const MIN_SCORE: f64 = 1.0;

/// Reputation of a peer, as it is kept across restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reputation {
    /// Id in base58.
    pub peer_id: String,
    /// Score at [`since`](Self::since); it halves every ten minutes.
    pub score: f64,
    /// Time of the score, in unix seconds.
    pub since: i64,
    /// End of the ban, in unix seconds.
    pub banned_until: Option<i64>,
    /// Number of offences.
    pub penalties: u64,
    /// Name of the latest offence.
    pub last_penalty: Option<String>,
}

/// Converts an instant to unix seconds by the current clock.
pub(super) fn unix(instant: Instant) -> i64 {
    let (now, clock) = (Instant::now(), SystemTime::now());
    let since = (clock + instant.saturating_duration_since(now)).duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = since.saturating_sub(now.saturating_duration_since(instant));
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl PeerBook {
    pub fn record_answer(&mut self, id: PeerId, time: Duration) {
        let peer = self.entry(id);
        let ms = time.as_secs_f64() * 1e3;
        peer.requests += 1;
        peer.latency_ms = Some(peer.latency_ms.map_or(ms, |mean| mean + LATENCY_WEIGHT * (ms - mean)));
        peer.touch();
    }

    /// Records the answer to an abandoned request, which was recorded as a [failure](Self::record_failure) before.
    pub fn record_late_answer(&mut self, id: PeerId, time: Duration) {
        self.record_answer(id, time);
        self.entry(id).requests -= 1;
    }

    /// Whether the peer speaks this program's own dialect; false before it has identified itself.
    pub fn speaks_own_dialect(&self, id: &PeerId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.speaks_own_dialect)
    }

    /// Moving mean of its answer times.
    pub fn latency(&self, id: &PeerId) -> Option<Duration> {
        let ms = self.peers.get(id)?.latency_ms?;
        Duration::try_from_secs_f64(ms / 1e3).ok()
    }

    pub fn record_failure(&mut self, id: PeerId, error: &P2pError, now: Instant) {
        let peer = self.entry(id);
        peer.requests += 1;
        peer.failures += 1;
        peer.last_error = Some(error.code());
        peer.recent_failures.add(1.0, now, FAILURE_HALF_LIFE);
    }

    /// Records the claims of a known peer about its chain.
    pub fn note_chain(&mut self, id: &PeerId, chain: PeerChain) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.chain = Some(chain.bounded());
        }
    }

    /// Clears the score, the ban and the recent failures of a peer.
    pub fn forgive(&mut self, id: &PeerId) {
        if let Some(peer) = self.peers.get_mut(id) {
            (peer.offences, peer.recent_failures) = (Offences::default(), DecayingSum::default());
            self.version += 1;
        }
    }

    /// Version of [`reputations`](Self::reputations); decay with time does not change it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Reputations of the peers with a score or a ban, worst first.
    pub fn reputations(&self, now: Instant) -> Vec<Reputation> {
        let mut all: Vec<_> = self
            .peers
            .iter()
            .map(|(id, peer)| (id, &peer.offences, peer.offences.score(now), peer.offences.banned_until(now)))
            .filter(|(_, _, score, banned)| *score >= MIN_SCORE || banned.is_some())
            .map(|(id, offences, score, banned)| Reputation {
                peer_id: id.to_string(),
                score,
                since: unix(now),
                banned_until: banned.map(unix),
                penalties: offences.count,
                last_penalty: offences.latest.map(|offence| offence.as_str().into()),
            })
            .collect();
        all.sort_by(|a, b| b.banned_until.cmp(&a.banned_until).then(b.score.total_cmp(&a.score)));
        all.truncate(MAX_PEERS);
        all
    }

    /// Restores reputations of an earlier run, decayed by the time since. Unreadable ones are skipped.
    pub fn restore(&mut self, reputations: &[Reputation], now: Instant) {
        let clock = unix(now);
        for known in reputations.iter().take(MAX_PEERS) {
            let Ok(id) = known.peer_id.parse::<PeerId>() else { continue };
            if !known.score.is_finite() || known.score < 0.0 {
                continue;
            }
            // A clock that went back must not increase the score.
            let elapsed = u64::try_from(clock.saturating_sub(known.since)).unwrap_or(0) as f64;
            let score = known.score * 0.5f64.powf(elapsed / OFFENCE_HALF_LIFE.as_secs_f64());
            // Unknown names are left out, such as the `false_claim` of earlier releases.
            let latest = known.last_penalty.as_deref().and_then(|name| name.parse::<Offence>().ok());
            let offences = &mut self.entry(id).offences;
            offences.restore(score, known.penalties, latest, now);
            let written = clock.max(known.since);
            let left = known.banned_until.and_then(|until| u64::try_from(until.saturating_sub(written)).ok());
            if let Some(left) = left.filter(|left| *left > 0) {
                offences.ban(now + Duration::from_secs(left).min(MAX_BAN), now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::StreamProtocol;

    use super::*;
    use crate::p2p::peers::tests::{OURS, connected, info};
    use crate::protocol::COMPRESSED_PROTOCOL;

    #[test]
    fn trusted_peers_are_candidates_of_last_resort() {
        let now = Instant::now();
        let mut book = PeerBook::new(&["n=/ip4/127.0.0.1/tcp/1".parse().unwrap()]);
        let (own, untrusted) = (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]));
        book.assign_id(0, own);
        book.penalise(own, Offence::InvalidBlock, now);
        assert_eq!(book.candidates(now), [untrusted], "a better one is connected");
        book.penalise(untrusted, Offence::BrokenAnswer, now);
        assert_eq!(book.candidates(now), [own], "though shunned; but no untrusted peer");
        book.disconnected(&own, 0);
        assert_eq!(book.candidates(now), [own], "it is dialled by the request");
        book.record_dial_failure(&own, "connection refused".into());
        assert_eq!(book.candidates(now), []);
    }

    #[test]
    fn forgiving_clears_score_ban_and_kept_reputation() {
        let now = Instant::now();
        let mut book = PeerBook::new(&[]);
        let (bad, other) = (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]));
        assert!(book.penalise(bad, Offence::InvalidBlock, now));
        book.record_failure(bad, &P2pError::Timeout, now);
        book.penalise(other, Offence::BrokenAnswer, now);
        book.ban(bad, Duration::from_secs(3600), now);
        let before = book.version();
        book.forgive(&bad);
        assert_ne!(book.version(), before, "it is written down");
        assert!(book.admits(&bad, now).is_ok() && !book.is_shunned(&bad, now));
        assert_eq!(book.candidates(now), [bad]);
        let remembered: Vec<_> = book.reputations(now).into_iter().map(|known| known.peer_id).collect();
        assert_eq!(remembered, [other.to_string()]);
        let info = info(&book, bad, now);
        assert_eq!((info.score, info.banned_until, info.penalties, info.last_penalty), (0.0, None, 0, None));
        assert_eq!(book.peers[&bad].recent_failures.at(now, FAILURE_HALF_LIFE), 0.0);
    }

    #[test]
    fn an_unknown_offence_of_an_earlier_release_can_be_read() {
        let now = Instant::now();
        let mut book = PeerBook::new(&[]);
        let id = PeerId::random();
        let since = unix(now);
        let text = format!(
            r#"[{{"peer_id":"{id}","score":60.0,"since":{since},"banned_until":null,"penalties":2,"last_penalty":"false_claim"}}]"#
        );
        book.restore(&serde_json::from_str::<Vec<Reputation>>(&text).unwrap(), now);
        let info = book.infos(now).remove(0);
        assert_eq!((info.penalties, info.last_penalty, info.shunned), (2, None, true));
    }

    #[test]
    fn the_own_dialect_is_known_once_the_peer_has_identified_itself() {
        let mut book = PeerBook::new(&[]);
        let id = PeerId::random();
        let dialect = StreamProtocol::new(COMPRESSED_PROTOCOL);
        book.connected(id, 1, "/ip4/192.0.2.7/tcp/4001".parse().unwrap());
        assert!(!book.speaks_own_dialect(&id), "not identified yet");
        book.record_identify(id, "modal-node/0.1.0;status_url=http://192.0.2.7/;role=Miner", &[OURS]);
        assert!(!book.speaks_own_dialect(&id), "the network's protocol only");
        let info = book.infos(Instant::now()).remove(0);
        assert_eq!((info.role.as_deref(), info.status_url.as_deref()), (Some("Miner"), Some("http://192.0.2.7/")));
        book.record_identify(id, "agent", &[OURS, dialect]);
        assert!(book.speaks_own_dialect(&id));
        book.connected(id, 2, "/ip4/192.0.2.7/tcp/4001".parse().unwrap());
        assert!(book.speaks_own_dialect(&id), "one more connection");
        book.disconnected(&id, 0);
        book.connected(id, 1, "/ip4/192.0.2.7/tcp/4001".parse().unwrap());
        assert!(!book.speaks_own_dialect(&id), "another program may be there now");
    }
}

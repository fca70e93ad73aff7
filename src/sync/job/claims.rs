//! The tip poll: which peers are asked for their tips, how long to wait, and how their claims compare with the store's
//! chain.

use std::{collections::HashSet, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use libp2p::PeerId;
use tokio::time::Instant;

use super::context::{JobRun, RunState};
use crate::{
    chain::Position,
    p2p::Standing,
    store::{ChainState, StoreError},
    sync::{
        failure::SyncFailure,
        peers::{
            memory::PeerFindings,
            remote::{Claim, RemotePeer},
        },
    },
};

/// Most peers of a poll.
const MAX_POLLED: usize = 16;

/// Untrusted peers of every poll: the most reliable and fastest. The other places are drawn by lot: many fast peers
/// must not hide an honest one.
const ALWAYS_POLLED: usize = 8;

/// Fewest places that are drawn by lot, where trusted peers leave so many.
const DRAWN: usize = 4;

/// How long the other peers may take after one claims a better chain.
const GRACE: Duration = Duration::from_millis(500);

/// How long the other peers may take after any answer, if none claims a better chain; preferred peers in any case. A
/// slow peer may have the better chain, and without it the store would count as in sync. An unresponsive peer delays
/// each poll by this time.
const LONG_GRACE: Duration = Duration::from_secs(3);

/// The deadline of a tip poll, which the first answers bring forward.
pub struct PollDeadline {
    /// For trusted peers and the announcer of a block.
    preferred: Instant,
    others: Instant,
}

impl PollDeadline {
    /// The deadline before the first answer.
    pub fn new(timeout: Duration) -> Self {
        let end = Instant::now() + timeout;
        Self { preferred: end, others: end }
    }

    /// Notes an answer. Only the first of all, and the first that claims a better chain, make a difference.
    pub fn on_answer(&mut self, is_better: bool) {
        let now = Instant::now();
        let grace = if is_better { GRACE } else { LONG_GRACE };
        self.preferred = self.preferred.min(now + LONG_GRACE);
        self.others = self.others.min(now + grace);
    }

    /// The deadline now; `preferred_left`: a preferred peer has not answered.
    pub fn until(&self, preferred_left: bool) -> Instant {
        if preferred_left { self.preferred } else { self.others }
    }
}

/// Chooses the peers of a poll from the candidates, best first: `announcer`, trusted peers, then others.
pub fn select_peers(
    candidates: Vec<PeerId>,
    announcer: Option<PeerId>,
    trusted: impl Fn(&PeerId) -> bool,
) -> Vec<PeerId> {
    let mut peers = candidates;
    let is_untrusted = |peer: &PeerId| announcer != Some(*peer) && !trusted(peer);
    // The sort is stable: the candidates' order stays within each group.
    peers.sort_by_cached_key(|peer| (announcer != Some(*peer), is_untrusted(peer)));
    let preferred = peers.iter().take_while(|peer| !is_untrusted(peer)).count();
    let fixed = (preferred + ALWAYS_POLLED).min(MAX_POLLED - DRAWN);
    // More trusted peers than places take turns too.
    let fixed = if preferred <= MAX_POLLED { fixed.max(preferred) } else { fixed };
    if let Some(others) = peers.get_mut(fixed..) {
        fastrand::shuffle(others);
    }
    peers.truncate(MAX_POLLED);
    peers
}

impl JobRun {
    /// Polls the peers' tips: the findings, whether a peer claims a better chain, and otherwise the last failure.
    ///
    /// # Errors
    /// The store's.
    pub async fn poll_tips(&self) -> Result<(PeerFindings, bool, Option<String>), StoreError> {
        let (state, missing) = self.chain().await?;
        let mut run = RunState::default();
        let claims = self.claims(&state, missing, &mut run).await;
        let better = claims.iter().any(|(remote, claim)| self.is_better(&remote.peer, claim, &state, missing));
        // An untrusted peer that did not answer in time is not polled each time. Without any answer this node may be at
        // fault.
        let waited = !better && !claims.is_empty();
        let unreliable = run.unresponsive.into_iter().filter(|peer| waited && !self.p2p.is_trusted(peer)).collect();
        // Peers with invalid claims are not polled each time either: the comparison of chains costs them more.
        let (useful, invalid) = (claims.len() as u64, run.found.invalid);
        Ok((PeerFindings { useful, unreliable, invalid, ..PeerFindings::default() }, better, run.last))
    }

    /// Polls the peers' tips; returns the claims that are not refuted. See [`PollDeadline`] for how long it waits.
    pub async fn claims(
        &self,
        state: &ChainState,
        missing: Option<u64>,
        run: &mut RunState,
    ) -> Vec<(RemotePeer, Claim)> {
        let peers = self.candidates(run);
        if peers.is_empty() && self.open_genesis {
            let nobody = "no peer of the operator's or the network's own is there to take the genesis from";
            run.last.get_or_insert_with(|| nobody.into());
        }
        let peers = select_peers(peers, self.announcer, |peer| self.p2p.is_trusted(peer));
        // A peer that was late in this job may leave this request unanswered too: it gets no longer than others.
        let late: HashSet<_> = run.paces.iter().filter(|(_, pace)| pace.late).map(|(peer, _)| *peer).collect();
        let preferred =
            |peer: &PeerId| (self.announcer == Some(*peer) || self.p2p.is_trusted(peer)) && !late.contains(peer);
        let ask = |peer| async move {
            let remote = RemotePeer::new(self.p2p.clone(), peer, self.timeout, self.tracker.clone());
            let claim = self.claim(&remote, state, missing).await;
            (remote, claim)
        };
        let mut unresponsive: HashSet<_> = peers.iter().copied().collect();
        let mut asked: FuturesUnordered<_> = peers.into_iter().map(ask).collect();
        let mut claims = Vec::new();
        let mut deadline = PollDeadline::new(self.timeout);
        loop {
            let until = deadline.until(unresponsive.iter().any(preferred));
            let Ok(Some((remote, claim))) = tokio::time::timeout_at(until, asked.next()).await else { break };
            unresponsive.remove(&remote.peer);
            match claim {
                Ok(Some(claim)) => {
                    deadline.on_answer(self.is_better(&remote.peer, &claim, state, missing));
                    claims.push((remote, claim));
                }
                Ok(None) => {
                    self.note_empty(remote.peer, state.tip.is_none());
                    run.last = Some(format!("peer {}: its chain is empty", remote.peer));
                }
                Err(failure) => _ = self.handle_failure(&failure, run),
            }
        }
        if self.only.is_some() {
            run.found.unreliable.extend(&unresponsive);
        }
        run.unresponsive.extend(unresponsive);
        claims
    }

    /// The peers to poll: all that are not excluded, or else the trusted ones without invalid data in this job.
    fn candidates(&self, run: &RunState) -> Vec<PeerId> {
        let there = self.only.map_or_else(|| self.p2p.candidates(), |peer| vec![peer]);
        let is_trusted = |peer: &PeerId| self.p2p.is_trusted(peer);
        let mut peers = there.clone();
        peers.retain(|peer| {
            ![&self.distrusted, &run.found.invalid, &run.unresponsive].iter().any(|peers| peers.contains(peer))
        });
        if peers.is_empty() {
            peers = there;
            peers.retain(|peer| {
                is_trusted(peer) && !run.found.invalid.contains(peer) && !run.unresponsive.contains(peer)
            });
        }
        if self.open_genesis {
            peers.retain(|peer| is_trusted(peer) || self.only == Some(*peer));
        }
        peers
    }

    /// A peer's claim, compared with the store's chain. For a better chain the comparison follows with the plan.
    async fn claim(
        &self,
        remote: &RemotePeer,
        state: &ChainState,
        missing: Option<u64>,
    ) -> Result<Option<Claim>, SyncFailure> {
        let peer = remote.peer;
        let failed = |fault| SyncFailure::Peer(peer, fault);
        let Some(mut claim) = remote.claim(state.length).await.map_err(failed)? else { return Ok(None) };
        let found = self.store.get(&claim.hash).await?.filter(|found| found.canonical);
        if let Some(found) = found {
            (claim.held, claim.height) = (true, found.index);
            let is_tip = state.tip.as_ref().is_some_and(|tip| tip.hash == claim.hash);
            let standing = if is_tip { Standing::Same } else { Standing::Behind };
            let tip = claim.tip();
            self.note(peer, &claim, standing, Some(tip));
            return Ok(Some(claim));
        }
        // A failure from here on is published with the claim.
        let before = self.known.chain(&peer).filter(|known| known.tip_hash == claim.hash);
        self.note(peer, &claim, Standing::Unknown, None);
        if self.is_better(&peer, &claim, state, missing) {
            remote.locate(&mut claim).await.map_err(failed)?;
            return Ok(Some(claim));
        }
        match before.as_ref().and_then(|known| known.tip_index) {
            Some(index) => claim.height = index,
            // A chain with gaps has a higher tip than its length says.
            None => _ = remote.locate(&mut claim).await,
        }
        if self.is_better(&peer, &claim, state, missing) {
            return Ok(Some(claim));
        }
        let Some(tip) = &state.tip else { return Ok(Some(claim)) };
        let ancestor = match before.and_then(|known| known.common_ancestor) {
            Some(ancestor) => Some(Position { index: ancestor.index, hash: ancestor.hash }),
            None => match self.common_ancestor(remote, tip.index.min(claim.height)).await? {
                Some(index) => {
                    let hash = self.store.canonical_hashes(&[index]).await?.remove(&index);
                    hash.map(|hash| Position { index, hash })
                }
                // The choice of the genesis follows when both chains are verified.
                None if self.open_genesis => None,
                None => {
                    self.note(peer, &claim, Standing::OtherGenesis, None);
                    return Err(self.other_genesis(remote).await?);
                }
            },
        };
        self.note(peer, &claim, Standing::Forked, ancestor);
        Ok(Some(claim))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn trusted_peers_come_first_and_every_other_peer_is_polled_at_times() {
        let untrusted: Vec<_> = (0..40).map(|_| PeerId::random()).collect();
        let own: Vec<_> = (0..2).map(|_| PeerId::random()).collect();
        let candidates = [&untrusted[..], &own[..]].concat();
        let select = |announcer| select_peers(candidates.clone(), announcer, |peer| own.contains(peer));
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let asked = select(None);
            assert_eq!(asked.len(), MAX_POLLED);
            assert_eq!((&asked[..2], &asked[2..10]), (&own[..], &untrusted[..ALWAYS_POLLED]));
            seen.extend(asked);
        }
        // The chance that one of 32 is never among the 6 of a round is negligible.
        assert_eq!(seen.len(), candidates.len());
        let announcer = untrusted[39];
        assert_eq!(select(Some(announcer))[..4], [announcer, own[0], own[1], untrusted[0]]);
        assert_eq!(select_peers(untrusted[..3].to_vec(), None, |_| false), untrusted[..3]);
        assert_eq!(select_peers(own.clone(), None, |_| true), own);
    }

    #[test]
    fn many_trusted_peers_leave_places_for_others_or_take_turns() {
        let candidates: Vec<_> = (0..40).map(|_| PeerId::random()).collect();
        for (trusted, fixed) in [(0, 8), (4, 12), (8, 12), (14, 14), (16, 16), (20, 12)] {
            let mut seen = HashSet::new();
            for _ in 0..1000 {
                let asked = select_peers(candidates.clone(), None, |peer| candidates[..trusted].contains(peer));
                assert_eq!((asked.len(), &asked[..fixed]), (MAX_POLLED, &candidates[..fixed]), "{trusted} trusted");
                seen.extend(asked);
            }
            assert_eq!(seen.len(), if trusted == MAX_POLLED { trusted } else { candidates.len() }, "{trusted} trusted");
        }
    }

    #[test]
    fn the_deadline_leaves_time_for_a_better_chain() {
        let left = |deadline: &PollDeadline| [true, false].map(|preferred| deadline.until(preferred) - Instant::now());
        let mut deadline = PollDeadline::new(Duration::from_secs(30));
        assert!(left(&deadline).iter().all(|left| *left > Duration::from_secs(20)), "no answer yet");
        deadline.on_answer(false);
        assert!(left(&deadline).iter().all(|left| *left > GRACE && *left <= LONG_GRACE), "no better chain yet");
        deadline.on_answer(true);
        let [preferred, others] = left(&deadline);
        assert!(preferred > GRACE && others <= GRACE, "{preferred:?}, {others:?}");
        let before = deadline.until(true);
        deadline.on_answer(true);
        assert_eq!(deadline.until(true), before, "further answers do not move it");
        let mut deadline = PollDeadline::new(Duration::from_millis(100));
        deadline.on_answer(false);
        assert!(left(&deadline).iter().all(|left| *left < GRACE), "no longer than any answer may take");
    }
}

//! What the peers claim of their chains, and how these stand to ours: whom to ask for its tip, and how long to wait.

use std::{collections::HashSet, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use libp2p::PeerId;
use tokio::time::Instant;

use super::context::{Record, Run};
use crate::{
    chain::Position,
    p2p::Standing,
    store::{ChainState, StoreError},
    sync::{
        failure::Setback,
        peers::{
            memory::Found,
            remote::{Claim, Remote},
        },
    },
};

/// Peers that are asked for their tips.
const MAX_ASKED: usize = 16;

/// Strangers that are asked every time, because they fail least and answer fastest. The others take turns: speed is no
/// proof of anything, and a crowd of fast ones must not hide an honest one.
const FASTEST: usize = 8;

/// How long the others may take once a peer claims a better chain: there is something to do.
const GRACE: Duration = Duration::from_millis(500);

/// How long they may take once a peer has told any tip, if nobody claims a better chain; and the operator's own peers,
/// and whoever told of a block, in any case. The better chain may be a slow one's, and without it we would count as
/// level. A mute peer holds everything up for so long.
const LONG_GRACE: Duration = Duration::from_secs(3);

/// Until when peers that were asked for their tips are waited for.
pub struct Wait {
    /// Those that the operator trusts, and whoever told of a block.
    favoured: Instant,
    others: Instant,
}

impl Wait {
    /// Nobody has told its tip: they have the time that any answer may take.
    pub fn new(timeout: Duration) -> Self {
        let end = Instant::now() + timeout;
        Self { favoured: end, others: end }
    }

    /// Somebody has told its tip just now. Only the first one who claims a better chain, and the first of all, make a
    /// difference.
    pub fn told(&mut self, is_better: bool) {
        let now = Instant::now();
        let grace = if is_better { GRACE } else { LONG_GRACE };
        self.favoured = self.favoured.min(now + LONG_GRACE);
        self.others = self.others.min(now + grace);
    }

    /// The end of it, with favoured ones among those who have not answered, or without.
    pub fn until(&self, favoured_left: bool) -> Instant {
        if favoured_left { self.favoured } else { self.others }
    }
}

/// Those of the candidates, best first, whom to ask: `first` first, then whom the operator trusts, then strangers.
pub fn asked(candidates: Vec<PeerId>, first: Option<PeerId>, trusted: impl Fn(&PeerId) -> bool) -> Vec<PeerId> {
    let mut peers = candidates;
    let is_stranger = |peer: &PeerId| first != Some(*peer) && !trusted(peer);
    // The sort keeps the order of the candidates otherwise.
    peers.sort_by_cached_key(|peer| (first != Some(*peer), is_stranger(peer)));
    let known = peers.iter().take_while(|peer| !is_stranger(peer)).count();
    if let Some(others) = peers.get_mut(known + FASTEST..) {
        fastrand::shuffle(others);
    }
    peers.truncate(MAX_ASKED);
    peers
}

impl Run {
    /// How many peers tell their tips and which are mute, whether one of them claims a better chain, and if there is none
    /// what the last one did wrong.
    ///
    /// # Errors
    /// The store's.
    pub async fn look(&self) -> Result<(Found, bool, Option<String>), StoreError> {
        let (state, lacking) = self.chain().await?;
        let mut record = Record::default();
        let claims = self.claims(&state, lacking, &mut record).await;
        let better = claims.iter().any(|(_, claim)| self.is_better(claim, &state, lacking));
        // A stranger that made everybody wait, for as long as one may, is not asked each time. If nobody told a tip, that
        // may be our own fault.
        let waited = !better && !claims.is_empty();
        let silent = record.mute.into_iter().filter(|peer| waited && !self.p2p.is_trusted(peer)).collect();
        Ok((Found { useful: claims.len() as u64, silent, ..Found::default() }, better, record.last))
    }

    /// What peers claim that nothing speaks against. Whoever takes much longer than the first one is not waited for: see
    /// [`Wait`].
    pub async fn claims(&self, state: &ChainState, lacking: Option<u64>, record: &mut Record) -> Vec<(Remote, Claim)> {
        let peers = self.candidates(record);
        if peers.is_empty() && self.open_genesis {
            let nobody = "no peer of the operator's or the network's own is there to take the genesis from";
            record.last.get_or_insert_with(|| nobody.into());
        }
        let peers = asked(peers, self.first, |peer| self.p2p.is_trusted(peer));
        let favoured = |peer: &PeerId| self.first == Some(*peer) || self.p2p.is_trusted(peer);
        let ask = |peer| async move {
            let remote = Remote::new(self.p2p.clone(), peer, self.timeout, self.tracker.clone());
            let claim = self.claim(&remote, state, lacking).await;
            (remote, claim)
        };
        let mut mute: HashSet<_> = peers.iter().copied().collect();
        let mut asked: FuturesUnordered<_> = peers.into_iter().map(ask).collect();
        let mut claims = Vec::new();
        let mut wait = Wait::new(self.timeout);
        loop {
            let until = wait.until(mute.iter().any(favoured));
            let Ok(Some((remote, claim))) = tokio::time::timeout_at(until, asked.next()).await else { break };
            mute.remove(&remote.peer);
            match claim {
                Ok(Some(claim)) => {
                    wait.told(self.is_better(&claim, state, lacking));
                    claims.push((remote, claim));
                }
                Ok(None) => {
                    self.note_empty(remote.peer, state.tip.is_none());
                    record.last = Some(format!("peer {}: its chain is empty", remote.peer));
                }
                Err(setback) => _ = self.judge(&setback, record),
            }
        }
        if self.only.is_some() {
            record.found.silent.extend(&mute);
        }
        record.mute.extend(mute);
        claims
    }

    /// Whom to ask: whoever is not left out. If that is nobody, those of the operator's own and the network's that did nothing
    /// wrong in this job: there is nobody better.
    fn candidates(&self, record: &Record) -> Vec<PeerId> {
        let there = self.only.map_or_else(|| self.p2p.candidates(), |peer| vec![peer]);
        let is_trusted = |peer: &PeerId| self.p2p.is_trusted(peer);
        let mut peers = there.clone();
        peers.retain(|peer| {
            ![&self.left_alone, &record.found.wrong, &record.mute].iter().any(|peers| peers.contains(peer))
        });
        if peers.is_empty() {
            peers = there;
            peers.retain(|peer| is_trusted(peer) && !record.found.wrong.contains(peer) && !record.mute.contains(peer));
        }
        if self.open_genesis {
            peers.retain(|peer| is_trusted(peer) || self.only == Some(*peer));
        }
        peers
    }

    /// What a peer claims, and how its chain stands to ours. Of one that claims a better chain that shows when the chain is
    /// planned.
    async fn claim(&self, remote: &Remote, state: &ChainState, lacking: Option<u64>) -> Result<Option<Claim>, Setback> {
        let peer = remote.peer;
        let failed = |fault| Setback::Peer(peer, fault);
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
        // So that what goes wrong from here on is told with what it claims.
        let before = self.known.chain(&peer).filter(|known| known.tip_hash == claim.hash);
        self.note(peer, &claim, Standing::Unknown, None);
        if self.is_better(&claim, state, lacking) {
            remote.locate(&mut claim).await.map_err(failed)?;
            return Ok(Some(claim));
        }
        match before.as_ref().and_then(|known| known.tip_index) {
            Some(index) => claim.height = index,
            // A chain with gaps reaches further than its numbers say.
            None => _ = remote.locate(&mut claim).await,
        }
        if self.is_better(&claim, state, lacking) {
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
                // Which genesis it is to be shows when both chains are weighed.
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
    fn trusted_peers_come_first_and_of_the_strangers_everybody_has_a_turn() {
        let strangers: Vec<_> = (0..40).map(|_| PeerId::random()).collect();
        let own: Vec<_> = (0..2).map(|_| PeerId::random()).collect();
        let candidates = [&strangers[..], &own[..]].concat();
        let ask = |first| asked(candidates.clone(), first, |peer| own.contains(peer));
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let asked = ask(None);
            assert_eq!(asked.len(), MAX_ASKED);
            assert_eq!((&asked[..2], &asked[2..10]), (&own[..], &strangers[..FASTEST]));
            seen.extend(asked);
        }
        // That one of 32 is never among the 6 of a round is as good as impossible.
        assert_eq!(seen.len(), candidates.len());
        let teller = strangers[39];
        assert_eq!(ask(Some(teller))[..4], [teller, own[0], own[1], strangers[0]]);
        assert_eq!(asked(strangers[..3].to_vec(), None, |_| false), strangers[..3]);
        assert_eq!(asked(own.clone(), None, |_| true), own);
    }

    #[test]
    fn who_may_have_the_better_chain_is_waited_for() {
        let left = |wait: &Wait| [true, false].map(|favoured| wait.until(favoured) - Instant::now());
        let mut wait = Wait::new(Duration::from_secs(30));
        assert!(left(&wait).iter().all(|left| *left > Duration::from_secs(20)), "nobody has told anything");
        wait.told(false);
        assert!(left(&wait).iter().all(|left| *left > GRACE && *left <= LONG_GRACE), "a level one is no hurry");
        wait.told(true);
        let [favoured, others] = left(&wait);
        assert!(favoured > GRACE && others <= GRACE, "{favoured:?}, {others:?}");
        let before = wait.until(true);
        wait.told(true);
        assert_eq!(wait.until(true), before, "the end comes, however many there are");
        let mut wait = Wait::new(Duration::from_millis(100));
        wait.told(false);
        assert!(left(&wait).iter().all(|left| *left < GRACE), "no longer than any answer may take");
    }
}

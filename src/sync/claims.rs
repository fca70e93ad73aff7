//! What the peers claim of their chains, and how these stand to ours.

use std::collections::HashSet;

use futures::{StreamExt, stream::FuturesUnordered};
use libp2p::PeerId;

use super::{
    remote::{Claim, Remote},
    run::{Found, Record, Run},
    setback::Setback,
    turn,
};
use crate::{
    chain::{Position, unix_now},
    p2p::{PeerChain, Standing},
    protocol::Ancestor,
    store::{ChainState, StoreError},
};

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
    /// [`turn::Wait`].
    pub(super) async fn claims(
        &self,
        state: &ChainState,
        lacking: Option<u64>,
        record: &mut Record,
    ) -> Vec<(Remote, Claim)> {
        let peers = self.candidates(record);
        if peers.is_empty() && self.open_genesis {
            let nobody = "no peer of the operator's or the network's own is there to take the genesis from";
            record.last.get_or_insert_with(|| nobody.into());
        }
        let peers = turn::asked(peers, self.first, |peer| self.p2p.is_trusted(peer));
        let favoured = |peer: &PeerId| self.first == Some(*peer) || self.p2p.is_trusted(peer);
        let ask = |peer| async move {
            let remote = Remote::new(self.p2p.clone(), peer, self.timeout, self.tracker.clone());
            let claim = self.claim(&remote, state, lacking).await;
            (remote, claim)
        };
        let mut mute: HashSet<_> = peers.iter().copied().collect();
        let mut asked: FuturesUnordered<_> = peers.into_iter().map(ask).collect();
        let mut claims = Vec::new();
        let mut wait = turn::Wait::new(self.timeout);
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

    /// Tells how a peer's chain stands to ours.
    pub(super) fn note(&self, peer: PeerId, claim: &Claim, standing: Standing, common_ancestor: Option<Position>) {
        let chain = PeerChain {
            tip_hash: claim.hash.clone(),
            tip_index: (claim.held || claim.height != claim.claimed_height || standing != Standing::Unknown)
                .then_some(claim.height)
                .filter(|_| claim.length > 0),
            claimed_height: claim.claimed_height,
            claimed_length: claim.length,
            claimed_work: claim.work.map(|work| work.to_string()),
            at: unix_now(),
            standing,
            common_ancestor: common_ancestor.map(|Position { index, hash }| Ancestor { index, hash }),
            problem: None,
        };
        self.known.note(peer, chain.clone());
        self.p2p.note_chain(peer, chain);
    }

    /// Tells that a peer has no block, and whether we have none either.
    pub(super) fn note_empty(&self, peer: PeerId, ours_too: bool) {
        let standing = if ours_too { Standing::Same } else { Standing::Behind };
        let none = Claim { work: None, length: 0, claimed_height: 0, height: 0, hash: String::new(), held: false };
        self.note(peer, &none, standing, None);
    }

    /// Tells why a peer's chain can't be put together.
    pub(super) fn note_problem(&self, peer: PeerId, problem: String) {
        if let Some(chain) = self.known.chain(&peer) {
            let chain = PeerChain { problem: Some(problem), ..chain };
            self.known.note(peer, chain.clone());
            self.p2p.note_chain(peer, chain);
        }
    }
}

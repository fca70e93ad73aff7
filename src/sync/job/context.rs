//! What a job works with, what it knows of the peers, and what it draws from what goes wrong.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use libp2p::PeerId;

use crate::{
    chain::{Network, Position, Verifier, unix_now},
    p2p::{Offence, P2pClient, PeerChain, Standing},
    protocol::Ancestor,
    source::job::{Mode, Stages},
    store::{BlockStore, ChainState, StoreError},
    sync::{
        failure::{RunError, Setback},
        local_chain::lacking_checkpoint,
        peers::{
            memory::{Found, Known},
            remote::{Claim, Remote},
            sources::Paces,
        },
        progress::Tracker,
    },
};

/// Blocks by which a peer that a job has followed may be ahead again at its end: what came meanwhile, which the next look
/// brings. An epoch takes 40 minutes at the network's usual pace.
const MEANWHILE: u64 = 40;

/// Times that a setback which is nobody's fault is tolerated of one peer.
const MAX_SEAMS: u32 = 3;

/// A job that runs.
pub struct Run {
    pub store: Arc<dyn BlockStore>,
    pub p2p: P2pClient,
    pub network: Arc<Network>,
    pub verifier: Verifier,
    pub mode: Mode,
    /// The only peer to sync from.
    pub only: Option<PeerId>,
    /// Asked before the others.
    pub first: Option<PeerId>,
    /// Peers that are not asked.
    pub left_alone: HashSet<PeerId>,
    /// Its number.
    pub job: u64,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Most blocks of one plan, at least 1.
    pub plan_blocks: u64,
    pub tracker: Arc<Tracker>,
    pub stages: Arc<Stages>,
    pub known: Arc<Known>,
    /// Whether the store has not settled for a genesis: it is taken from trusted peers only, and the one under the most work
    /// is kept.
    pub open_genesis: bool,
}

/// What is known of the peers in the course of one job.
#[derive(Default)]
pub struct Record {
    pub found: Found,
    /// Told no tip in time: not waited for again.
    pub mute: HashSet<PeerId>,
    /// Their chains are verified, and ours is the better one.
    pub weighed: HashSet<PeerId>,
    /// Their chains were fetched to the tip that they told.
    pub followed: HashSet<PeerId>,
    /// Whom the latest plan followed.
    pub lead: Option<PeerId>,
    /// Who gave the genesis that our chain has now.
    pub began: Option<PeerId>,
    /// Peers whose blocks didn't follow where they said that both chains part: it is looked up.
    pub doubted: HashSet<PeerId>,
    /// How often plans came to nothing that nobody is to blame for, by whom they followed.
    pub seams: HashMap<PeerId, u32>,
    pub paces: Paces,
    /// The latest setback.
    pub last: Option<String>,
}

impl Record {
    /// A plan came to nothing, and it is open whose fault that is; whether the peer that it followed is left out for it.
    pub fn seam(&mut self) -> bool {
        let Some(lead) = self.lead else { return false };
        let seams = self.seams.entry(lead).or_default();
        *seams += 1;
        *seams >= MAX_SEAMS && self.found.silent.insert(lead)
    }

    /// Whether all that a peer has more than we is what came while its chain was fetched.
    pub fn came_meanwhile(&self, (remote, claim): &(Remote, Claim), state: &ChainState) -> bool {
        let ahead = state.tip.as_ref().and_then(|tip| claim.height.checked_sub(tip.index));
        self.followed.contains(&remote.peer) && ahead.is_some_and(|ahead| (1..=MEANWHILE).contains(&ahead))
    }

    pub fn error(&mut self) -> RunError {
        RunError::Setback(self.last.take().unwrap_or_default())
    }
}

impl Run {
    /// The chain in the store, and the lowest checkpoint that it lacks.
    pub async fn chain(&self) -> Result<(ChainState, Option<u64>), StoreError> {
        let state = self.store.state().await?;
        Ok((state, lacking_checkpoint(&*self.store, &self.network).await?))
    }

    /// Tells how a peer's chain stands to ours.
    pub fn note(&self, peer: PeerId, claim: &Claim, standing: Standing, common_ancestor: Option<Position>) {
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
    pub fn note_empty(&self, peer: PeerId, ours_too: bool) {
        let standing = if ours_too { Standing::Same } else { Standing::Behind };
        let none = Claim { work: None, length: 0, claimed_height: 0, height: 0, hash: String::new(), held: false };
        self.note(peer, &none, standing, None);
    }

    /// Tells why a peer's chain can't be put together.
    pub fn note_problem(&self, peer: PeerId, problem: String) {
        if let Some(chain) = self.known.chain(&peer) {
            let chain = PeerChain { problem: Some(problem), ..chain };
            self.known.note(peer, chain.clone());
            self.p2p.note_chain(peer, chain);
        }
    }

    /// Draws the consequences of a setback; whether somebody is left out because of it, so that the next plan differs.
    pub fn judge(&self, setback: &Setback, record: &mut Record) -> bool {
        let text = setback.to_string();
        tracing::debug!(setback = text, "a setback");
        self.tracker.update(|progress| {
            progress.retries += 1;
            progress.last_error = Some(text.clone());
        });
        record.last = Some(text);
        match setback {
            Setback::Peer(peer, fault) => {
                self.hold_against(*peer, fault.offence());
                if let Some(problem) = fault.problem() {
                    self.note_problem(*peer, problem);
                }
                match fault.offence() {
                    Some(Offence::BrokenAnswer) => record.found.wrong.insert(*peer),
                    _ => record.found.silent.insert(*peer),
                }
            }
            Setback::Invalid(peer, violation) => {
                self.hold_against(*peer, violation.rule.proves_forgery().then_some(Offence::InvalidBlock));
                record.found.wrong.insert(*peer)
            }
            Setback::OtherGenesis { peer, .. }
            | Setback::Checkpoint { peer, .. }
            | Setback::OffCheckpoint { peer, .. } => record.found.wrong.insert(*peer),
            Setback::Seam { peer, before } => {
                let helpers = [Some(*peer), *before].into_iter().flatten().filter(|peer| Some(*peer) != record.lead);
                let helpers: Vec<_> = helpers.collect();
                match helpers.is_empty() {
                    true => {
                        record.doubted.extend(record.lead.filter(|_| before.is_none()));
                        record.seam()
                    }
                    // Whoever only helps can be done without.
                    false => {
                        let before = record.found.silent.len();
                        record.found.silent.extend(helpers);
                        record.found.silent.len() > before
                    }
                }
            }
            // If nobody but the lead has a part in it, it may be its doing.
            Setback::Moved => record.seam(),
            Setback::Store(_) | Setback::Pow(_) | Setback::Stopped => false,
        }
    }

    fn hold_against(&self, peer: PeerId, offence: Option<Offence>) {
        if let Some(offence) = offence {
            self.p2p.penalise(peer, offence);
            self.tracker.penalty(peer, offence.as_str());
        }
    }
}

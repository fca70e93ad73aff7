//! A job's settings, what it has learnt about the peers, and what follows from a failure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use libp2p::PeerId;

use crate::{
    chain::{AssumeValid, Network, Position, Verifier, unix_now},
    p2p::{Offence, P2pClient, PeerChain, Standing},
    protocol::Ancestor,
    source::job::{Mode, Stages},
    store::{BlockStore, ChainState, StoreError},
    sync::{
        failure::{PeerFault, SyncFailure},
        local_chain::missing_checkpoint,
        peers::{
            memory::{KnownChains, PeerFindings},
            remote::{Claim, RemotePeer},
            sources::Paces,
        },
        progress::ProgressTracker,
    },
};

/// Most blocks by which a fetched peer may be ahead again at the job's end. They are new, and the next tip poll brings
/// them. An epoch takes 40 minutes at the network's usual pace.
const MAX_NEW_BLOCKS: u64 = 40;

/// Mismatches of a plan with one peer before it counts as unreliable.
const MAX_MISMATCHES: u32 = 3;

/// The settings and parts of a running job.
pub struct JobRun {
    pub store: Arc<dyn BlockStore>,
    pub p2p: P2pClient,
    pub network: Arc<Network>,
    pub verifier: Verifier,
    /// The block up to which a chain that contains it is verified to `linked` only.
    pub assume_valid: Option<AssumeValid>,
    pub mode: Mode,
    /// The only peer to sync from.
    pub only: Option<PeerId>,
    /// A peer that announced a block by gossip: it is polled first.
    pub announcer: Option<PeerId>,
    /// Peers that are not polled.
    pub distrusted: HashSet<PeerId>,
    /// The job's number.
    pub job: u64,
    /// Longest time for an answer.
    pub timeout: Duration,
    /// Most blocks of one plan, at least 1.
    pub plan_blocks: u64,
    pub tracker: Arc<ProgressTracker>,
    pub stages: Arc<Stages>,
    pub known: Arc<KnownChains>,
    /// Whether the genesis is not final yet: it is taken from trusted peers only, and the one with the most work is
    /// kept.
    pub open_genesis: bool,
}

/// What a job has learnt about the peers so far.
#[derive(Default)]
pub struct RunState {
    pub found: PeerFindings,
    /// Peers that did not answer a tip poll in time: not polled again.
    pub unresponsive: HashSet<PeerId>,
    /// Peers whose chains were verified and do not win.
    pub not_better: HashSet<PeerId>,
    /// Peers whose chains were fetched to the claimed tip.
    pub fetched: HashSet<PeerId>,
    /// The peer of the latest plan.
    pub lead: Option<PeerId>,
    /// The peer that sent the chain's genesis.
    pub genesis_peer: Option<PeerId>,
    /// Peers whose blocks did not follow the common ancestor that they confirmed: it is searched by links.
    pub doubted: HashSet<PeerId>,
    /// Peers whose chains turned out to lack the assume-valid block: they are verified in full.
    pub not_assumed: HashSet<PeerId>,
    /// Mismatches that prove nothing against any peer, by the peer of the plan.
    pub mismatches: HashMap<PeerId, u32>,
    /// How fast the peers answered, and which of them did not.
    pub paces: Paces,
    /// The latest failure.
    pub last: Option<String>,
}

impl RunState {
    /// Counts a mismatch of the latest plan; returns whether its peer is now excluded.
    pub fn count_mismatch(&mut self) -> bool {
        let Some(lead) = self.lead else { return false };
        let mismatches = self.mismatches.entry(lead).or_default();
        *mismatches += 1;
        *mismatches >= MAX_MISMATCHES && self.found.unreliable.insert(lead)
    }

    /// Whether a peer is ahead only by blocks that are newer than the fetch of its chain.
    pub fn is_new_since_fetch(&self, (remote, claim): &(RemotePeer, Claim), state: &ChainState) -> bool {
        let ahead = state.tip.as_ref().and_then(|tip| claim.height.checked_sub(tip.index));
        self.fetched.contains(&remote.peer) && ahead.is_some_and(|ahead| (1..=MAX_NEW_BLOCKS).contains(&ahead))
    }
}

impl JobRun {
    /// The chain in the store, and the lowest checkpoint that it lacks.
    pub async fn chain(&self) -> Result<(ChainState, Option<u64>), StoreError> {
        let state = self.store.state().await?;
        Ok((state, missing_checkpoint(&*self.store, &self.network).await?))
    }

    /// Publishes how a peer's chain compares with the store's.
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
        self.known.record_chain(peer, chain.clone());
        self.p2p.note_chain(peer, chain);
    }

    /// Publishes that a peer has no blocks; `ours_too`: as the store.
    pub fn note_empty(&self, peer: PeerId, ours_too: bool) {
        let standing = if ours_too { Standing::Same } else { Standing::Behind };
        let none = Claim { work: None, length: 0, claimed_height: 0, height: 0, hash: String::new(), held: false };
        self.note(peer, &none, standing, None);
    }

    /// Publishes why a peer's chain can't be put together.
    pub fn note_problem(&self, peer: PeerId, problem: String) {
        if let Some(chain) = self.known.chain(&peer) {
            let chain = PeerChain { problem: Some(problem), ..chain };
            self.known.record_chain(peer, chain.clone());
            self.p2p.note_chain(peer, chain);
        }
    }

    /// Handles a failed plan or poll; returns whether a peer is now excluded, so that the next plan differs.
    pub fn handle_failure(&self, failure: &SyncFailure, run: &mut RunState) -> bool {
        let text = failure.to_string();
        tracing::debug!(failure = text, "a plan or a poll failed");
        self.tracker.update(|progress| {
            progress.retries += 1;
            progress.last_error = Some(text.clone());
        });
        run.last = Some(text);
        match failure {
            SyncFailure::Peer(peer, fault) => {
                penalise(&self.p2p, &self.tracker, *peer, fault.offence());
                if let PeerFault::NoAnswer(_) = fault {
                    run.paces.entry(*peer).or_default().late = true;
                }
                if let Some(problem) = fault.problem() {
                    self.note_problem(*peer, problem);
                }
                match fault.offence() {
                    Some(Offence::BrokenAnswer) => run.found.invalid.insert(*peer),
                    _ => run.found.unreliable.insert(*peer),
                }
            }
            SyncFailure::Invalid(peer, violation) => {
                let offence = violation.rule.proves_forgery().then_some(Offence::InvalidBlock);
                penalise(&self.p2p, &self.tracker, *peer, offence);
                run.found.invalid.insert(*peer)
            }
            SyncFailure::OtherGenesis { peer, .. }
            | SyncFailure::Checkpoint { peer, .. }
            | SyncFailure::OffCheckpoint { peer, .. } => run.found.invalid.insert(*peer),
            SyncFailure::Mismatch { peer, before } => {
                let helpers = [Some(*peer), *before].into_iter().flatten().filter(|peer| Some(*peer) != run.lead);
                let helpers: Vec<_> = helpers.collect();
                match helpers.is_empty() {
                    true => {
                        run.doubted.extend(run.lead.filter(|_| before.is_none()));
                        run.count_mismatch()
                    }
                    // The plan goes on without its helpers.
                    false => {
                        let before = run.found.unreliable.len();
                        run.found.unreliable.extend(helpers);
                        run.found.unreliable.len() > before
                    }
                }
            }
            SyncFailure::NotAssumed(_) => {
                self.tracker.update(|progress| progress.assumed = 0);
                run.lead.is_some_and(|lead| run.not_assumed.insert(lead))
            }
            SyncFailure::Unproven { peer, .. } => run.found.unreliable.insert(*peer),
            // The peer of the plan may have caused it.
            SyncFailure::ChainChanged => run.count_mismatch(),
            SyncFailure::Lighter(_) | SyncFailure::Store(_) | SyncFailure::Pow(_) | SyncFailure::Stopped => false,
        }
    }
}

/// Penalises a peer for an offence, if it is one.
pub fn penalise(p2p: &P2pClient, tracker: &ProgressTracker, peer: PeerId, offence: Option<Offence>) {
    if let Some(offence) = offence {
        p2p.penalise(peer, offence);
        tracker.penalty(peer, offence.as_str());
    }
}

//! The loop of a job: polls the peers, makes a plan and carries it out; after a failure it makes a new plan, without
//! the peer at fault.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use backon::BackoffBuilder;
use libp2p::PeerId;

use super::{
    context::{JobRun, RunState},
    plan::Plan,
};
use crate::{
    p2p::Standing,
    protocol::query::CheckPoint,
    source::job::{Genesis, GenesisSource, Mode, Phase},
    sync::{
        failure::{PeerFault, RunError, SyncFailure},
        peers::{
            memory::PeerFindings,
            remote::{Claim, RemotePeer},
            sources::Sources,
        },
    },
};

/// Failed plans in a row before the job fails.
const MAX_FAILED_PLANS: usize = 6;

/// Longest time for the plan of an untrusted peer's chain, where there are other peers: up to some hundred requests,
/// each of which may take nearly its whole time limit. Blocks that are announced meanwhile wait.
const PLAN_TIME: Duration = Duration::from_secs(60);

/// Longest pause before a retry when the store can't be used: no peer is bothered by it.
const STORE_PAUSE: Duration = Duration::from_secs(2);

impl JobRun {
    /// Runs until no useful peer has a better chain. The findings count after a failure too; blocks that were verified
    /// before it are in the store.
    pub async fn run(&self) -> (PeerFindings, Result<(), RunError>) {
        let mut run = RunState::default();
        let mut outcome = self.catch_up(&mut run).await;
        if self.open_genesis
            && outcome.is_ok()
            && let Err(failure) = self.settle_genesis(run.genesis_peer).await
        {
            outcome = Err(failure.into());
        }
        (run.found, outcome)
    }

    /// Makes the genesis of the first sync final.
    pub async fn settle_genesis(&self, lead: Option<PeerId>) -> Result<(), SyncFailure> {
        let Some(hash) = self.store.canonical_hashes(&[0]).await?.remove(&0) else { return Ok(()) };
        let peer_id = lead.map(|peer| peer.to_string());
        tracing::info!(network = self.network.name, hash, peer = peer_id, "this genesis is the network's from now on");
        let genesis = Genesis { hash, source: GenesisSource::FirstSync, peer_id };
        Ok(genesis.settle(&*self.store).await?)
    }

    async fn catch_up(&self, run: &mut RunState) -> Result<(), RunError> {
        let mut pauses = self.pauses();
        loop {
            self.tracker.enter(Phase::Planning);
            let advanced = match self.chain().await {
                Ok((state, missing)) => {
                    let claims = self.claims(&state, missing, run).await;
                    let answered = claims.len() as u64;
                    let (better, not_ahead): (Vec<_>, Vec<_>) = claims.into_iter().partition(|(remote, claim)| {
                        self.is_better(&remote.peer, claim, &state, missing) && !run.not_better.contains(&remote.peer)
                    });
                    if !better.is_empty() && better.iter().all(|better| run.is_new_since_fetch(better, &state)) {
                        (run.found.useful, run.found.more) = (answered, true);
                        return Ok(());
                    }
                    run.found.useful = not_ahead.len() as u64;
                    let (unreliable, better): (Vec<_>, Vec<_>) =
                        better.into_iter().partition(|(remote, _)| run.found.unreliable.contains(&remote.peer));
                    match (better.is_empty(), not_ahead.is_empty(), unreliable.is_empty()) {
                        (true, false, _) => return Ok(()),
                        (true, true, true) => return Err(RunError::NoPeer(run.last.take())),
                        // Every peer with a better chain is unreliable: they are tried again after a pause, a few
                        // times.
                        (true, true, false) => {
                            run.found.unreliable.clear();
                            Ok(false)
                        }
                        (false, none_not_ahead, none_unreliable) => {
                            let alternatives = !(none_not_ahead && none_unreliable);
                            self.advance(better, alternatives, run).await.map(|()| true)
                        }
                    }
                }
                Err(error) => Err(error.into()),
            };
            if let Err(failure) = &advanced {
                tracing::info!(%failure, "the sync makes a new plan");
            }
            match advanced {
                Ok(true) => pauses = self.pauses(),
                // With a peer excluded, the next plan is another one.
                Err(ref failure) if self.handle_failure(failure, run) => {}
                Ok(false) | Err(_) => match pauses.next() {
                    Some(pause) => {
                        let longest = if let Err(SyncFailure::Store(_)) = advanced { STORE_PAUSE } else { pause };
                        tokio::time::sleep(pause.min(longest)).await;
                    }
                    None => return Err(RunError::Failed(run.last.take().unwrap_or_default())),
                },
            }
        }
    }

    fn pauses(&self) -> impl Iterator<Item = Duration> + use<> {
        let policy = backon::ExponentialBuilder::default().with_jitter().with_min_delay(Duration::from_millis(200));
        policy.with_max_delay(Duration::from_secs(10)).with_max_times(MAX_FAILED_PLANS).build()
    }

    /// Fetches the best of these claimed chains.
    async fn advance(
        &self,
        mut better: Vec<(RemotePeer, Claim)>,
        alternatives: bool,
        run: &mut RunState,
    ) -> Result<(), SyncFailure> {
        // Trusted peers first: many other peers with great claims must not delay them. If another chain is better
        // still, the next plan fetches it. Then by verified work, then by claim; the sort is stable, so earlier answers
        // come first.
        let p2p = &self.p2p;
        let rank = |peer: &PeerId| (p2p.is_trusted(peer), p2p.verified_work(peer));
        better.sort_by_key(|(remote, claim)| Reverse((rank(&remote.peer), claim.work)));
        let mut better = better.into_iter();
        let Some((lead, claim)) = better.next() else { return Ok(()) };
        let others: Vec<_> = better.collect();
        run.lead = Some(lead.peer);
        if self.open_genesis {
            // Before the first block: after a restart nothing else would tell that the genesis is not final.
            Genesis::open(&*self.store).await?;
        }
        let alternatives = alternatives || !others.is_empty();
        let planned = self.plan(&lead, claim, run);
        let planned = match alternatives && !lead.is_trusted() {
            true => match tokio::time::timeout(PLAN_TIME, planned).await {
                Ok(planned) => planned,
                Err(_) => Err(SyncFailure::Peer(lead.peer, PeerFault::Slow)),
            },
            false => planned.await,
        };
        let Some(plan) = planned? else {
            run.not_better.insert(lead.peer);
            return Ok(());
        };
        self.tracker.update(|progress| {
            // A plan that continues an interrupted one keeps its beginning.
            progress.from_index = progress.from_index.map(|from| from.min(plan.from)).or(Some(plan.from));
            progress.to_index = Some(plan.to);
            progress.common_ancestor_index = plan.ancestor.as_ref().map(|ancestor| ancestor.index);
            progress.aside = plan.is_branch;
        });
        tracing::debug!(peer = %lead.peer, from = plan.from, to = plan.to, branch = plan.is_branch, assumed = plan.assumed.is_some(),
            "sync planned");
        let sources = Arc::new(Sources::new(lead.clone(), alternatives, run.paces.clone()));
        let _helpers = self.add_helpers(&plan, others, &sources);
        let outcome = self.carry_out(&plan, sources.clone()).await;
        run.paces = sources.paces();
        if let Err(SyncFailure::Lighter(claimed)) = outcome {
            // No finding against the peer: honest ones with stray blocks claim too much as well. What is staged may be
            // the beginning of the next plan.
            self.known.record_claimed(lead.peer, claimed);
            run.not_better.insert(lead.peer);
            return Ok(());
        }
        let outcome = outcome?;
        if outcome.adopted && plan.ancestor.is_none() {
            run.genesis_peer = Some(lead.peer);
        }
        // The first part of a longer branch says nothing about its weight. A plan that brought no block would be made
        // again and again.
        if plan.is_last() && (!outcome.adopted || outcome.tip_hash.is_none()) {
            if outcome.tip_hash.as_ref() != Some(&plan.claim.hash) {
                // Not the claimed chain: the peer has reorganised, or never had it.
                return Err(SyncFailure::Mismatch { peer: lead.peer, before: None });
            }
            run.not_better.insert(lead.peer);
            run.found.lighter.insert(lead.peer);
        }
        if outcome.tip_hash.as_ref() == Some(&plan.claim.hash) {
            run.fetched.insert(lead.peer);
            self.p2p.note_work(lead.peer, outcome.work);
            if outcome.adopted {
                self.note(lead.peer, &plan.claim, Standing::Same, Some(plan.claim.tip()));
            }
        }
        Ok(())
    }

    /// Adds the peers that have the planned chain as sources, each after it has confirmed that.
    fn add_helpers(
        &self,
        plan: &Plan,
        others: Vec<(RemotePeer, Claim)>,
        sources: &Arc<Sources>,
    ) -> tokio::task::JoinSet<()> {
        let mut asking = tokio::task::JoinSet::new();
        // Until the hashes of blocks are computed, nothing shows which of several peers has forged one.
        if !matches!(self.mode, Mode::Delta | Mode::Headers) || plan.assumed.is_some() {
            return asking;
        }
        for (remote, claim) in others {
            if claim.hash == plan.claim.hash {
                sources.add(remote);
                continue;
            }
            let (sources, tip) = (sources.clone(), plan.claim.clone());
            asking.spawn(async move {
                let point = CheckPoint { index: tip.height, hash: tip.hash };
                if remote.highest_match(vec![point]).await.is_ok_and(|matched| matched == Some(tip.height)) {
                    sources.add(remote);
                }
            });
        }
        asking
    }
}

//! One job from its first question to its end: chooses whom to follow, plans, carries the plan out, and after a setback
//! plans anew, with another peer where one is at fault.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use backon::BackoffBuilder;
use libp2p::PeerId;

use super::{
    known::Known,
    plan::{Plan, lacking_checkpoint},
    remote::{Claim, Remote},
    setback::{RunError, Setback},
    sources::{Paces, Sources},
    tracker::Tracker,
};
use crate::{
    chain::{Network, Verifier},
    p2p::{P2pClient, Standing},
    protocol::query::CheckPoint,
    source::job::{Genesis, GenesisSource, Mode, Phase, Stages},
    store::{BlockStore, ChainState, StoreError},
};

/// Plans in a row that may come to nothing before the job fails.
const MAX_SETBACKS: usize = 6;

/// Longest pause when the store can't be used: nobody is bothered by another try.
const STORE_PAUSE: Duration = Duration::from_secs(2);

/// Blocks by which a peer that a job has followed may be ahead again at its end: what came meanwhile, which the next look
/// brings. An epoch takes 40 minutes at the network's usual pace.
const MEANWHILE: u64 = 40;

/// Times that a setback which is nobody's fault is tolerated of one peer.
const MAX_SEAMS: u32 = 3;

/// What a job found out about the peers.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Peers that told their tips and are none of the others here.
    pub useful: u64,
    /// Peers whose claims, or blocks, were proven wrong, or that are on another network.
    pub wrong: HashSet<PeerId>,
    /// Peers that claim a better chain and don't give it, or keep others waiting.
    pub silent: HashSet<PeerId>,
    /// Peers whose chains were fetched, and weigh less than ours.
    pub lost: HashSet<PeerId>,
    /// Whether blocks came meanwhile that are still to be fetched.
    pub more: bool,
}

/// A job that runs.
pub(super) struct Run {
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
pub(super) struct Record {
    pub found: Found,
    /// Told no tip in time: not waited for again.
    pub mute: HashSet<PeerId>,
    /// Their chains are verified, and ours is the better one.
    weighed: HashSet<PeerId>,
    /// Their chains were fetched to the tip that they told.
    followed: HashSet<PeerId>,
    /// Whom the latest plan followed.
    pub lead: Option<PeerId>,
    /// Who gave the genesis that our chain has now.
    began: Option<PeerId>,
    /// Peers whose blocks didn't follow where they said that both chains part: it is looked up.
    pub doubted: HashSet<PeerId>,
    /// How often plans came to nothing that nobody is to blame for, by whom they followed.
    seams: HashMap<PeerId, u32>,
    paces: Paces,
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
    fn came_meanwhile(&self, (remote, claim): &(Remote, Claim), state: &ChainState) -> bool {
        let ahead = state.tip.as_ref().and_then(|tip| claim.height.checked_sub(tip.index));
        self.followed.contains(&remote.peer) && ahead.is_some_and(|ahead| (1..=MEANWHILE).contains(&ahead))
    }

    fn error(&mut self) -> RunError {
        RunError::Setback(self.last.take().unwrap_or_default())
    }
}

impl Run {
    /// Runs until no useful peer has a better chain. What it found out about the peers also counts if it fails; what
    /// was verified until then is in the store.
    pub async fn run(&self) -> (Found, Result<(), RunError>) {
        let mut record = Record::default();
        let mut outcome = self.catch_up(&mut record).await;
        if self.open_genesis
            && outcome.is_ok()
            && let Err(setback) = self.settle_genesis(record.began).await
        {
            outcome = Err(RunError::Setback(setback.to_string()));
        }
        (record.found, outcome)
    }

    /// Keeps the genesis that the first sync has brought.
    pub(super) async fn settle_genesis(&self, lead: Option<PeerId>) -> Result<(), Setback> {
        let Some(hash) = self.store.canonical_hashes(&[0]).await?.remove(&0) else { return Ok(()) };
        let peer_id = lead.map(|peer| peer.to_string());
        tracing::info!(network = self.network.name, hash, peer = peer_id, "this genesis is the network's from now on");
        let genesis = Genesis { hash, source: GenesisSource::FirstSync, peer_id };
        Ok(genesis.settle(&*self.store).await?)
    }

    async fn catch_up(&self, record: &mut Record) -> Result<(), RunError> {
        let mut pauses = self.pauses();
        loop {
            self.tracker.enter(Phase::Planning);
            let advanced = match self.chain().await {
                Ok((state, lacking)) => {
                    let claims = self.claims(&state, lacking, record).await;
                    let told = claims.len() as u64;
                    let (better, level): (Vec<_>, Vec<_>) = claims.into_iter().partition(|(remote, claim)| {
                        self.is_better(claim, &state, lacking) && !record.weighed.contains(&remote.peer)
                    });
                    if !better.is_empty() && better.iter().all(|better| record.came_meanwhile(better, &state)) {
                        (record.found.useful, record.found.more) = (told, true);
                        return Ok(());
                    }
                    record.found.useful = level.len() as u64;
                    let (silent, better): (Vec<_>, Vec<_>) =
                        better.into_iter().partition(|(remote, _)| record.found.silent.contains(&remote.peer));
                    match (better.is_empty(), level.is_empty(), silent.is_empty()) {
                        (true, false, _) => return Ok(()),
                        (true, true, true) => return Err(RunError::NoPeer(record.last.take())),
                        // All there are gave nothing: they are tried again after a pause, a few times.
                        (true, true, false) => {
                            record.found.silent.clear();
                            Ok(false)
                        }
                        (false, no_level, no_silent) => {
                            let alternatives = !(no_level && no_silent);
                            self.advance(better, alternatives, record).await.map(|()| true)
                        }
                    }
                }
                Err(error) => Err(error.into()),
            };
            if let Err(setback) = &advanced {
                tracing::info!(%setback, "the sync plans anew");
            }
            match advanced {
                Ok(true) => pauses = self.pauses(),
                // With somebody left out, the next plan is another one.
                Err(ref setback) if self.judge(setback, record) => {}
                Ok(false) | Err(_) => match pauses.next() {
                    Some(pause) => {
                        let longest = if let Err(Setback::Store(_)) = advanced { STORE_PAUSE } else { pause };
                        tokio::time::sleep(pause.min(longest)).await;
                    }
                    None => return Err(record.error()),
                },
            }
        }
    }

    /// The chain in the store, and the lowest checkpoint that it lacks.
    pub(super) async fn chain(&self) -> Result<(ChainState, Option<u64>), StoreError> {
        let state = self.store.state().await?;
        Ok((state, lacking_checkpoint(&*self.store, &self.network).await?))
    }

    fn pauses(&self) -> impl Iterator<Item = Duration> + use<> {
        let policy = backon::ExponentialBuilder::default().with_jitter().with_min_delay(Duration::from_millis(200));
        policy.with_max_delay(Duration::from_secs(10)).with_max_times(MAX_SETBACKS).build()
    }

    /// Plans and carries out the way to the best of these claims.
    async fn advance(
        &self,
        mut better: Vec<(Remote, Claim)>,
        alternatives: bool,
        record: &mut Record,
    ) -> Result<(), Setback> {
        // Trusted peers first: a crowd of strangers with great claims must not keep us from them. If a stranger's chain is
        // better still, the next plan is to fetch that. Then best verified work, then the claim; claims come as they were
        // told, and the sort keeps that.
        let p2p = &self.p2p;
        let rank = |peer: &PeerId| (p2p.is_trusted(peer), p2p.verified_work(peer));
        better.sort_by_key(|(remote, claim)| Reverse((rank(&remote.peer), claim.work)));
        let mut better = better.into_iter();
        let Some((lead, claim)) = better.next() else { return Ok(()) };
        let others: Vec<_> = better.collect();
        record.lead = Some(lead.peer);
        if self.open_genesis {
            // Before the first block is there: after a restart nobody could tell whether it was settled.
            Genesis::open(&*self.store).await?;
        }
        let Some(plan) = self.plan(&lead, claim, record.doubted.contains(&lead.peer)).await? else {
            record.weighed.insert(lead.peer);
            return Ok(());
        };
        self.tracker.update(|progress| {
            // A plan that goes on where the last one was interrupted leaves the beginning as it was.
            progress.from_index = progress.from_index.map(|from| from.min(plan.from)).or(Some(plan.from));
            progress.to_index = Some(plan.to);
            progress.common_ancestor_index = plan.ancestor.as_ref().map(|ancestor| ancestor.index);
            progress.aside = plan.aside;
        });
        tracing::debug!(peer = %lead.peer, from = plan.from, to = plan.to, aside = plan.aside, "sync planned");
        let sources = Arc::new(Sources::new(lead.clone(), alternatives || !others.is_empty(), record.paces.clone()));
        let _helpers = self.add_helpers(&plan, others, &sources);
        let outcome = self.carry_out(&plan, sources.clone()).await;
        record.paces = sources.paces();
        let outcome = outcome?;
        if outcome.adopted && plan.ancestor.is_none() {
            record.began = Some(lead.peer);
        }
        // What there is of a longer branch says nothing of its weight yet.
        if !outcome.adopted && plan.is_last() {
            if outcome.tip_hash.as_ref() != Some(&plan.claim.hash) {
                // Not the chain that it claims to have: it has reorganised meanwhile, or never had it.
                return Err(Setback::Seam { peer: lead.peer, before: None });
            }
            record.weighed.insert(lead.peer);
            record.found.lost.insert(lead.peer);
        }
        if outcome.tip_hash.as_ref() == Some(&plan.claim.hash) {
            record.followed.insert(lead.peer);
            self.p2p.note_work(lead.peer, outcome.work);
            if outcome.adopted {
                self.note(lead.peer, &plan.claim, Standing::Same, Some(plan.claim.tip()));
            }
        }
        Ok(())
    }

    /// Lets peers that have the planned chain give windows too, as soon as they say that they have it.
    fn add_helpers(
        &self,
        plan: &Plan,
        others: Vec<(Remote, Claim)>,
        sources: &Arc<Sources>,
    ) -> tokio::task::JoinSet<()> {
        let mut asking = tokio::task::JoinSet::new();
        if !matches!(self.mode, Mode::Delta | Mode::Headers) {
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

//! One job from its first question to its end: chooses whom to follow, plans, carries the plan out, and after a setback
//! plans anew, with another peer where one is at fault.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use backon::BackoffBuilder;
use libp2p::PeerId;

use super::{
    context::{Record, Run},
    plan::Plan,
};
use crate::{
    p2p::Standing,
    protocol::query::CheckPoint,
    source::job::{Genesis, GenesisSource, Mode, Phase},
    sync::{
        failure::{RunError, Setback},
        peers::{
            memory::Found,
            remote::{Claim, Remote},
            sources::Sources,
        },
    },
};

/// Plans in a row that may come to nothing before the job fails.
const MAX_SETBACKS: usize = 6;

/// Longest pause when the store can't be used: nobody is bothered by another try.
const STORE_PAUSE: Duration = Duration::from_secs(2);

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
    pub async fn settle_genesis(&self, lead: Option<PeerId>) -> Result<(), Setback> {
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

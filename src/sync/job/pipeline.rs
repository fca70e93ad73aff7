//! The stages of a plan: download → verify → commit, joined by bounded channels. They work concurrently in bounded
//! memory. Blocks that were verified before a failure are committed.

use std::sync::Arc;

use futures::{StreamExt, pin_mut};
use libp2p::PeerId;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    commit::Outcome,
    context::{JobRun, penalise},
    download::{FetchOptions, FetchedSpan, Span, download, spans},
    plan::Plan,
    verify::{Rules, attribute, stopped, verify, verify_hashes},
};
use crate::{
    chain::{ChainEnd, CumulativeDifficulty, Differences, Header, Level, Rule, VerifyError, Weight},
    source::job::{Mode, Phase, Stage},
    sync::{
        failure::{PeerFault, SyncFailure},
        local_chain::weight,
        peers::{block_set::Gap, sources::Sources},
    },
};

/// Windows or batches in the queue between two stages.
const QUEUE_LENGTH: usize = 2;

impl JobRun {
    /// Carries out a plan with blocks from `sources`.
    ///
    /// # Errors
    /// The first failure; blocks that were verified before it are in the store. [`SyncFailure::Lighter`] for a branch
    /// that loses even if its headers are true.
    pub async fn carry_out(&self, plan: &Plan, sources: Arc<Sources>) -> Result<Outcome, SyncFailure> {
        let numbering = self.network.epoch_numbering;
        let mut spans = spans(self.mode, numbering, plan.from, plan.to);
        let state = self.store.state().await?;
        if self.mode == Mode::Headers
            && let Some(claimed) = self.headers(plan, &mut spans, &sources, plan.level_below(&state)).await?
            && self.verifier.level() >= Level::Linked
            && plan.loses(&claimed, &weight(&state))
        {
            return Err(SyncFailure::Lighter(claimed));
        }
        self.tracker.enter(Phase::Blocks);
        let rules = Rules::new(&self.verifier, plan, sources.lead.peer, &state)?;
        let options = FetchOptions { mode: self.mode, numbering, tip: plan.claim.tip(), parent: plan.parent.clone() };
        let spans = download(options, spans, sources, self.fault_reporter());
        let (to_verify, fetched) = mpsc::channel(QUEUE_LENGTH);
        self.stages.watch(Stage::Verify, &to_verify);
        let _download = AbortOnDropHandle::new(tokio::spawn(async move {
            pin_mut!(spans);
            while let Some(FetchedSpan { windows, failed }) = spans.next().await {
                for window in windows {
                    if to_verify.send(Ok(window)).await.is_err() {
                        return;
                    }
                }
                if let Some((peer, fault)) = failed {
                    // The receiver is gone if a later stage has failed first.
                    let _ = to_verify.send(Err(SyncFailure::Peer(peer, fault))).await;
                    return;
                }
            }
        }));
        let (to_commit, verified) = mpsc::channel(QUEUE_LENGTH);
        self.stages.watch(Stage::Commit, &to_commit);
        let (tracker, stages) = (self.tracker.clone(), self.stages.clone());
        let durations = stages.verification.clone();
        let differ = move |differences: Differences| {
            tracker.update(|progress| progress.recomputed += differences.total());
            stages.add_differences(differences);
        };
        let _verify = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(failure) = verify(rules, fetched, differ, &durations, &to_commit).await {
                // The receiver is gone if the commits have failed first.
                let _ = to_commit.send(Err(failure)).await;
            }
        }));
        match self.commit(plan, verified).await {
            Err(SyncFailure::Peer(peer, PeerFault::Unlinked(gap))) => Err(self.check_gap(peer, *gap).await),
            outcome => outcome,
        }
    }

    /// The failure for a chain with a gap. An honest node may have one; but not next to a block whose hash is not that
    /// of its header.
    async fn check_gap(&self, peer: PeerId, gap: Gap) -> SyncFailure {
        let suspects = [&gap.child, &gap.misplaced].into_iter().flatten().map(|block| (**block).clone());
        match verify_hashes(&self.verifier, suspects.collect()).await {
            Ok(Err(VerifyError::Violation(violation))) => SyncFailure::Invalid(peer, violation),
            Ok(Err(VerifyError::Pow(error))) => error.into(),
            Ok(Ok(())) => SyncFailure::Peer(peer, PeerFault::Unlinked(Box::new(gap))),
            Err(error) => stopped(&error),
        }
    }

    /// Fetches and links the headers of a plan: each span gets the hash that it ends with. Returns the weight of the
    /// chain up to the last header, which is not proven. Neither where the peer does not know headers, or its headers
    /// do not link because it has stale blocks: then its blocks decide.
    async fn headers(
        &self,
        plan: &Plan,
        spans: &mut [Span],
        sources: &Sources,
        below: Level,
    ) -> Result<Option<Weight>, SyncFailure> {
        self.tracker.enter(Phase::Headers);
        let lead = &sources.lead;
        let (mut parent, mut work) = (plan.parent.clone(), plan.work);
        for at in 0..spans.len() {
            let Span { from, to, .. } = spans[at];
            let headers = match lead.headers(from, to).await {
                Ok(headers) => headers,
                Err(fault) if fault.is_unknown_path() => None,
                Err(fault) => return Err(SyncFailure::Peer(lead.peer, fault)),
            };
            let linked = match headers {
                Some(headers) => self.linked(lead.peer, parent.as_ref(), headers, below).await?,
                None => None,
            };
            let Some((end, more)) = linked else {
                // An earlier header may be the stale one: none counts.
                spans.iter_mut().for_each(|span| span.ends_with = None);
                return Ok(None);
            };
            spans[at].ends_with = Some(end.hash.clone());
            (parent, work) = (Some(end), work + more);
            self.tracker.update(|progress| progress.headers += to - from + 1);
        }
        Ok(parent.map(|end| Weight { work, length: end.index.saturating_add(1), tip_hash: end.hash }))
    }

    /// The end and the work of a run of headers after `parent`; `None` if they don't link.
    async fn linked(
        &self,
        peer: PeerId,
        parent: Option<&ChainEnd>,
        mut headers: Vec<Header>,
        below: Level,
    ) -> Result<Option<(ChainEnd, CumulativeDifficulty)>, SyncFailure> {
        let numbering = self.network.epoch_numbering;
        headers.iter_mut().for_each(|header| header.epoch = numbering.epoch(header.index));
        let (verifier, before) = (self.verifier.clone(), parent.cloned());
        let from = headers.first().map(|header| header.index);
        let linked = tokio::task::spawn_blocking(move || verifier.verify_headers(before.as_ref(), &headers));
        match linked.await {
            Ok(Ok((end, work))) => Ok(end.map(|end| (end, work))),
            Ok(Err(violation)) if matches!(violation.rule, Rule::Link | Rule::Index) => Ok(None),
            Ok(Err(violation)) => Err(attribute(self.verifier.level().min(below), peer, None, from, violation)),
            Err(error) => Err(stopped(&error)),
        }
    }

    /// Penalises peers for faults that did not end the download.
    fn fault_reporter(&self) -> impl Fn(PeerId, &PeerFault) + Clone + Send + 'static {
        let (p2p, tracker) = (self.p2p.clone(), self.tracker.clone());
        move |peer, fault| {
            tracing::debug!(%peer, %fault, "a peer did not give a window");
            penalise(&p2p, &tracker, peer, fault.offence());
        }
    }
}

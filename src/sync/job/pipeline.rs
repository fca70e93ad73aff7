//! From a plan to blocks in the store: download → verify → commit, three stages joined by bounded channels. Each stage
//! works while the others do, memory stays bounded, and what was verified before a fault is committed.

use std::sync::Arc;

use futures::{StreamExt, pin_mut};
use libp2p::PeerId;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    commit::Outcome,
    context::Run,
    download::{self, Fetched, Span},
    plan::Plan,
    verify::{blame, stopped, verify},
};
use crate::{
    chain::{ChainEnd, Differences, Header, Rule, VerifyError},
    source::job::{Mode, Phase, Stage},
    sync::{
        failure::{Fault, Setback},
        peers::{block_set::Hole, sources::Sources},
    },
};

/// Windows, or batches, that wait between two stages.
const WAITING: usize = 2;

impl Run {
    /// Carries a plan out, with blocks from `sources`.
    ///
    /// # Errors
    /// What came between; all that was verified before it is in the store.
    pub async fn carry_out(&self, plan: &Plan, sources: Arc<Sources>) -> Result<Outcome, Setback> {
        let numbering = self.network.epoch_numbering;
        let spans = match self.mode {
            Mode::Headers => self.headers(plan, &sources).await?,
            mode => {
                let cut = download::spans(mode, numbering, plan.from, plan.to).into_iter();
                cut.map(|(from, to)| Span { from, to, ends_with: None }).collect()
            }
        };
        self.tracker.enter(Phase::Blocks);
        let report = self.reporter();
        let way = download::Way { mode: self.mode, numbering, tip: plan.claim.tip(), parent: plan.parent.clone() };
        let spans = download::fetched(way, spans, sources, report);
        let (to_verify, fetched) = mpsc::channel(WAITING);
        self.stages.watch(Stage::Verify, &to_verify);
        let _download = AbortOnDropHandle::new(tokio::spawn(async move {
            pin_mut!(spans);
            while let Some(Fetched { windows, failed }) = spans.next().await {
                for window in windows {
                    if to_verify.send(Ok(window)).await.is_err() {
                        return;
                    }
                }
                if let Some((peer, fault)) = failed {
                    // Nobody takes it when a later stage has failed first.
                    let _ = to_verify.send(Err(Setback::Peer(peer, fault))).await;
                    return;
                }
            }
        }));
        let (to_commit, verified) = mpsc::channel(WAITING);
        self.stages.watch(Stage::Commit, &to_commit);
        let (verifier, parent, end) = (self.verifier.clone(), plan.parent.clone(), plan.to);
        let (tracker, stages) = (self.tracker.clone(), self.stages.clone());
        let differ = move |differences: Differences| {
            tracker.update(|progress| progress.recomputed += differences.total());
            stages.differ(differences);
        };
        let _verify = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(setback) = verify(&verifier, parent, end, fetched, differ, &to_commit).await {
                // Nobody takes it when the commits have failed first.
                let _ = to_commit.send(Err(setback)).await;
            }
        }));
        match self.commit(plan, verified).await {
            Err(Setback::Peer(peer, Fault::Unlinked(hole))) => Err(self.suspect(peer, *hole).await),
            outcome => outcome,
        }
    }

    /// What follows from a chain that ends at a hole. An honest node's may; but not at a block whose hash is not that of its
    /// header.
    async fn suspect(&self, peer: PeerId, hole: Hole) -> Setback {
        let verifier = self.verifier.clone();
        let mut suspects: Vec<_> =
            [&hole.child, &hole.misplaced].into_iter().flatten().map(|it| (**it).clone()).collect();
        let verify = move || {
            verifier.derive(&mut suspects);
            suspects.iter().try_for_each(|block| verifier.verify_hash(block))
        };
        match tokio::task::spawn_blocking(verify).await {
            Ok(Err(VerifyError::Violation(violation))) => Setback::Invalid(peer, violation),
            Ok(Err(VerifyError::Pow(error))) => error.into(),
            Ok(Ok(())) => Setback::Peer(peer, Fault::Unlinked(Box::new(hole))),
            Err(error) => stopped(&error),
        }
    }

    /// Fetches, links and weighs the headers of a plan. Where the peer doesn't know headers, or keeps a store whose headers
    /// don't say which is the chain's, its blocks do.
    async fn headers(&self, plan: &Plan, sources: &Sources) -> Result<Vec<Span>, Setback> {
        self.tracker.enter(Phase::Headers);
        let (lead, numbering) = (&sources.lead, self.network.epoch_numbering);
        let mut parent = plan.parent.clone();
        let mut spans = Vec::new();
        for (from, to) in download::spans(Mode::Headers, numbering, plan.from, plan.to) {
            let headers = match lead.headers(from, to).await {
                Ok(headers) => headers,
                Err(fault) if fault.is_unknown_path() => None,
                Err(fault) => return Err(Setback::Peer(lead.peer, fault)),
            };
            let linked = match headers {
                Some(headers) => self.linked(lead.peer, parent.as_ref(), headers).await?,
                None => None,
            };
            let Some(end) = linked else {
                // One before may be the stray: nothing is known of any.
                let all = download::spans(Mode::Headers, numbering, plan.from, plan.to).into_iter();
                return Ok(all.map(|(from, to)| Span { from, to, ends_with: None }).collect());
            };
            spans.push(Span { from, to, ends_with: Some(end.hash.clone()) });
            parent = Some(end);
            self.tracker.update(|progress| progress.headers += to - from + 1);
        }
        Ok(spans)
    }

    /// The end of a run of headers that follows `parent`; `None` where they don't link.
    async fn linked(
        &self,
        peer: PeerId,
        parent: Option<&ChainEnd>,
        mut headers: Vec<Header>,
    ) -> Result<Option<ChainEnd>, Setback> {
        let numbering = self.network.epoch_numbering;
        headers.iter_mut().for_each(|header| header.epoch = numbering.epoch(header.index));
        let (verifier, before) = (self.verifier.clone(), parent.cloned());
        let from = headers.first().map(|header| header.index);
        let linked = tokio::task::spawn_blocking(move || verifier.verify_headers(before.as_ref(), &headers));
        match linked.await {
            Ok(Ok((end, _))) => Ok(end),
            Ok(Err(violation)) if matches!(violation.rule, Rule::Link | Rule::Index) => Ok(None),
            Ok(Err(violation)) => Err(blame(self.verifier.level(), peer, None, from, violation)),
            Err(error) => Err(stopped(&error)),
        }
    }

    /// What to do with the fault of a peer that did not end the download.
    fn reporter(&self) -> impl Fn(PeerId, &Fault) + Clone + Send + 'static {
        let (p2p, tracker) = (self.p2p.clone(), self.tracker.clone());
        move |peer, fault| {
            tracing::debug!(%peer, %fault, "a peer did not give a window");
            if let Some(offence) = fault.offence() {
                p2p.penalise(peer, offence);
                tracker.penalty(peer, offence.as_str());
            }
        }
    }
}

//! From a plan to blocks in the store: download → verify → commit, three stages joined by bounded channels. Each stage
//! works while the others do, memory stays bounded, and what was verified before a fault is committed.

use std::sync::Arc;

use futures::{StreamExt, pin_mut};
use libp2p::PeerId;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    download::{self, Fetched, Span, Window},
    fault::Fault,
    links::Hole,
    plan::{Plan, weight},
    run::Run,
    setback::Setback,
    sources::Sources,
};
use crate::{
    chain::{
        ChainEnd, CumulativeDifficulty, Differences, Level, MinerBlock, Rule, VerifiedBlocks, Verifier, VerifyError,
        Violation, Weight, unix_now,
    },
    source::job::{Mode, Phase, Stage},
    store::{ChainWriter, StoreError},
};

/// Windows, or batches, that wait between two stages.
const WAITING: usize = 2;

/// Blocks verified at once where only cheap rules are applied, and committed in one transaction.
const BATCH: usize = 1000;

/// Blocks verified at once where each takes a proof-of-work hash: little is lost when one of them is wrong.
const POW_BATCH: usize = 64;

/// How a plan ended that met no setback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Whether our chain is now the planned one. If not, all of it was verified and weighs less; it was dropped, unless
    /// the next plan goes on behind it.
    pub adopted: bool,
    /// The work that the planned chain has.
    pub work: CumulativeDifficulty,
    /// Hash of its last block; `None` if no block came.
    pub tip_hash: Option<String>,
}

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
        let spans = download::fetched(self.mode, numbering, spans, plan.claim.tip(), sources, report);
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

    /// Writes batches as they come; a branch is kept aside until it weighs more than our chain, and then adopted.
    async fn commit(
        &self,
        plan: &Plan,
        mut verified: mpsc::Receiver<Result<VerifiedBlocks, Setback>>,
    ) -> Result<Outcome, Setback> {
        let (mut aside, mut length) = (plan.aside, plan.from);
        let mut outcome = Outcome { adopted: false, work: plan.work, tip_hash: None };
        let mut setback = None;
        while setback.is_none()
            && let Some(next) = verified.recv().await
        {
            let mut batches = Vec::new();
            let mut blocks = 0;
            let mut next = Some(next);
            while let Some(batch) = next {
                match batch {
                    Ok(batch) => (blocks, _) = (blocks + batch.len(), batches.push(batch)),
                    Err(error) => setback = Some(error),
                }
                let more = setback.is_none() && blocks < BATCH;
                next = if more { verified.try_recv().ok() } else { None };
            }
            if blocks == 0 {
                continue;
            }
            let mut writer = self.write().await?;
            // The crash test tells by these two whether a kill fell between them.
            tracing::trace!(blocks, "transaction begins");
            for batch in batches {
                length += batch.len() as u64;
                outcome.work =
                    batch.blocks().iter().fold(outcome.work, |work, block| work + block.actualized_difficulty);
                let tip_hash = batch.blocks().last().map(|block| block.hash.clone()).unwrap_or_default();
                outcome.tip_hash = Some(tip_hash.clone());
                match aside {
                    true => {
                        writer.stage(plan.ancestor.as_ref(), self.job, batch).await.map_err(moved)?;
                        let beats = Weight { work: outcome.work, length, tip_hash } > weight(writer.state());
                        if beats || plan.wins_at.is_some_and(|index| length > index) {
                            writer.adopt_stage(REASON, unix_now()).await.map_err(moved)?;
                            aside = false;
                        }
                    }
                    false => writer.append(batch).await.map_err(moved)?,
                }
            }
            writer.commit().await?;
            tracing::trace!(blocks, "transaction ends");
            self.tracker.update(|progress| progress.aside = aside);
            self.tracker.written(blocks as u64);
        }
        if let Some(setback) = setback {
            return Err(setback);
        }
        if aside && plan.is_last() {
            let mut writer = self.write().await?;
            writer.clear_stage().await?;
            writer.commit().await?;
        }
        if let Some(tip_hash) = outcome.tip_hash.clone().filter(|hash| *hash == plan.claim.hash) {
            self.known.weigh(Weight { work: outcome.work, length, tip_hash });
        }
        Ok(Outcome { adopted: !aside, ..outcome })
    }

    /// A writer; whoever else writes is waited for.
    async fn write(&self) -> Result<Box<dyn ChainWriter>, Setback> {
        use backon::Retryable;
        let write = || self.store.write();
        let policy = backon::ExponentialBuilder::default().with_jitter();
        Ok(write.retry(policy).when(|error| matches!(error, StoreError::Busy(_))).await?)
    }

    /// Fetches, links and weighs the headers of a plan. A peer that doesn't know headers, or
    /// whose headers are no chain, is asked for blocks at once: that proves nothing against it.
    async fn headers(&self, plan: &Plan, sources: &Sources) -> Result<Vec<Span>, Setback> {
        self.tracker.enter(Phase::Headers);
        let lead = &sources.lead;
        let mut parent = plan.parent.clone();
        let mut spans = Vec::new();
        for (from, to) in download::spans(Mode::Headers, self.network.epoch_numbering, plan.from, plan.to) {
            let headers = match lead.headers(from, to).await {
                Ok(mut headers) => {
                    let numbering = self.network.epoch_numbering;
                    headers.iter_mut().for_each(|header| header.epoch = numbering.epoch(header.index));
                    headers
                }
                Err(fault) if fault.lacks_headers() => {
                    spans.extend(self.unknown_spans(from, plan.to));
                    return Ok(spans);
                }
                Err(fault) => return Err(Setback::Peer(lead.peer, fault)),
            };
            let (verifier, before) = (self.verifier.clone(), parent.clone());
            let count = headers.len() as u64;
            let linked = tokio::task::spawn_blocking(move || verifier.verify_headers(before.as_ref(), &headers));
            let (end, _) = match linked.await {
                Ok(Ok(linked)) => linked,
                // One before may be the stray: nothing is known of any. The same where the peer has reorganised meanwhile.
                Ok(Err(violation)) if matches!(violation.rule, Rule::Link | Rule::Index) => {
                    tracing::debug!(peer = %lead.peer, %violation, "its headers are no chain");
                    return Ok(self.unknown_spans(plan.from, plan.to).collect());
                }
                Ok(Err(violation)) => return Err(blame(self.verifier.level(), lead.peer, None, Some(from), violation)),
                Err(error) => return Err(stopped(&error)),
            };
            spans.push(Span { from, to, ends_with: end.as_ref().map(|end| end.hash.clone()) });
            parent = end;
            self.tracker.update(|progress| progress.headers += count);
        }
        Ok(spans)
    }

    /// Where nothing is known of the hashes.
    fn unknown_spans(&self, from: u64, to: u64) -> impl Iterator<Item = Span> + use<> {
        let spans = download::spans(Mode::Headers, self.network.epoch_numbering, from, to).into_iter();
        spans.map(|(from, to)| Span { from, to, ends_with: None })
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

/// Why a block left the chain, as its `orphan_reason` says.
pub(super) const REASON: &str = "a chain with more work";

/// A thread that verifies has panicked.
fn stopped(error: &tokio::task::JoinError) -> Setback {
    tracing::error!(%error, "a stage of the sync has stopped");
    Setback::Stopped
}

/// The chain changed under the plan: another part of this program, or another process, wrote to it.
fn moved(error: StoreError) -> Setback {
    match error {
        StoreError::Conflict(problem) => {
            tracing::debug!(problem, "the chain changed under the plan");
            Setback::Moved
        }
        error => error.into(),
    }
}

/// Verifies windows as they come, batch by batch. `end` is the last index that will come.
async fn verify(
    verifier: &Verifier,
    mut parent: Option<ChainEnd>,
    end: u64,
    mut fetched: mpsc::Receiver<Result<Window, Setback>>,
    differ: impl Fn(Differences),
    verified: &mpsc::Sender<Result<VerifiedBlocks, Setback>>,
) -> Result<(), Setback> {
    let level = verifier.level();
    let size = if level == Level::Pow { POW_BATCH } else { BATCH };
    let mut before: Option<PeerId> = None;
    while let Some(window) = fetched.recv().await {
        let Window { peer, blocks } = window?;
        let first = blocks.first().map(|block| block.index);
        let mut rest = blocks;
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(size));
            let batch = std::mem::replace(&mut rest, later);
            let (verifier, after) = (verifier.clone(), parent.clone());
            let pool = verifier.clone();
            let verify = move || {
                let mut batch = batch;
                batch.iter_mut().for_each(MinerBlock::forget_teller);
                let differences = verifier.derive(&mut batch);
                (differences, verifier.verify(after.as_ref(), batch))
            };
            let (differences, outcome) = tokio::task::spawn_blocking(verify).await.map_err(|error| stopped(&error))?;
            differ(differences);
            let batch = match outcome {
                Ok(batch) => batch,
                Err(VerifyError::Pow(error)) => return Err(error.into()),
                Err(VerifyError::Violation(violation)) => {
                    return Err(blame(level, peer, before, first, violation));
                }
            };
            parent = batch.end().cloned();
            // Known once some of it has proven to be real.
            pool.expect(parent.as_ref().map_or(0, |parent| end.saturating_sub(parent.index)));
            if verified.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
        before = Some(peer);
    }
    Ok(())
}

/// Whose fault a violation is. A window that does not link to the one before it proves nothing against either peer: one
/// of them may have reorganised meanwhile.
fn blame(level: Level, peer: PeerId, before: Option<PeerId>, first: Option<u64>, violation: Violation) -> Setback {
    let at_seam = matches!(violation.rule, Rule::Link | Rule::Index) && first == Some(violation.index);
    match at_seam || is_unproven(level, &violation) {
        true => Setback::Seam { peer, before },
        false => Setback::Invalid(peer, violation),
    }
}

/// Whether a violation may be the fault of blocks before: where hashes are not computed their timestamps may be forged, and
/// the difficulty follows from those.
pub(super) fn is_unproven(level: Level, violation: &Violation) -> bool {
    violation.rule == Rule::Schedule && level < Level::Pow
}

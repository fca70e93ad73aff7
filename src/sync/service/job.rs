//! Runs a job of the queue and writes its progress.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::state::{Service, SyncError};
use crate::{
    source::job::{Genesis, JobSpec, Phase, Progress},
    store::{self, BlockStore, Lease, QUEUED, StoreError},
    sync::{failure::RunError, job::context::JobRun, peers::memory::PeerFindings, progress::ProgressTracker},
};

/// How often the progress is written, and a cancellation looked for.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How long to retry for a lost lease, and the pause between tries. A server may take 25 s to notice that the old
/// connection is gone, and hold the lease until then.
const LEASE_TIMEOUT: Duration = Duration::from_secs(30);
const LEASE_PAUSE: Duration = Duration::from_millis(500);

/// The end of a job that was not cancelled.
pub(super) enum JobEnd {
    /// The job has ended, with its findings about the peers.
    Finished(PeerFindings, Result<(), RunError>),
    /// The process stops, or has lost the lease. The job continues later.
    Interrupted,
}

impl Service {
    /// Runs one job in the foreground, and passes its progress to `watch`. A lease that is lost while the database is
    /// away is taken again, and the job continues.
    ///
    /// # Errors
    /// [`SyncError`]; blocks that were verified before it are in the store.
    pub async fn sync_once(
        mut self,
        spec: &JobSpec,
        shutdown: &CancellationToken,
        watch: impl Fn(&Progress),
    ) -> Result<Progress, SyncError> {
        let mut lease = store::acquire_lease(&*self.store).await?.ok_or(SyncError::Leased)?;
        self.end_stale(0).await?;
        self.enforce_checkpoints().await?;
        let id = self.create_job(spec).await?;
        let tracker = Arc::new(ProgressTracker::new(Progress::default()));
        loop {
            match self.job(id, spec, &tracker, &mut *lease, shutdown, &watch).await? {
                JobEnd::Finished(_, outcome) => return Ok(outcome.map(|()| tracker.snapshot())?),
                JobEnd::Interrupted => {
                    // Released first: the server may still hold it if only its answer was slow.
                    drop(lease);
                    match self.retake_lease(shutdown).await? {
                        Some(again) => lease = again,
                        None => break,
                    }
                }
            }
        }
        // No process will continue a job of the foreground.
        tracker.enter(Phase::Cancelled);
        write_progress(&*self.store, id, &tracker.snapshot()).await?;
        Err(SyncError::Cancelled)
    }

    /// Takes a lost lease again; `None` after the shutdown.
    async fn retake_lease(&self, shutdown: &CancellationToken) -> Result<Option<Box<dyn Lease>>, SyncError> {
        let give_up = Instant::now() + LEASE_TIMEOUT;
        while !shutdown.is_cancelled() {
            match self.store.lease().await {
                Ok(Some(lease)) => return Ok(Some(lease)),
                Ok(None) if Instant::now() >= give_up => return Err(SyncError::Leased),
                Err(error) if Instant::now() >= give_up => return Err(error.into()),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "the lost lease can't be taken again yet"),
            }
            shutdown.run_until_cancelled(tokio::time::sleep(LEASE_PAUSE)).await;
        }
        Ok(None)
    }

    pub(super) async fn create_job(&self, spec: &JobSpec) -> Result<u64, StoreError> {
        // Plain data: serializing can't fail.
        self.store.create_job(&serde_json::to_string(spec).unwrap_or_default()).await
    }

    /// Ends begun jobs, but the latest `keep`: with the lease held here, none of them can be running.
    pub(super) async fn end_stale(&self, keep: usize) -> Result<(), StoreError> {
        let jobs = self.store.unfinished_jobs().await?;
        for job in jobs.into_iter().rev().filter(|job| job.phase != QUEUED).skip(keep) {
            let written = serde_json::from_str(&job.progress).unwrap_or_default();
            let progress = Progress { phase: Phase::Cancelled, ..written };
            write_progress(&*self.store, job.id, &progress).await?;
        }
        Ok(())
    }

    /// The oldest unfinished job. Cancelled and unreadable ones are finished here.
    pub(super) async fn next_job(&self) -> Result<Option<(u64, JobSpec)>, StoreError> {
        for job in self.store.unfinished_jobs().await? {
            match serde_json::from_str(&job.spec) {
                Ok(spec) if !job.cancel_requested => return Ok(Some((job.id, spec))),
                outcome => {
                    let phase = if outcome.is_ok() { Phase::Cancelled } else { Phase::Failed };
                    let last_error = outcome.err().map(|error| error.to_string());
                    write_progress(&*self.store, job.id, &Progress { phase, last_error, ..Progress::default() })
                        .await?;
                }
            }
        }
        Ok(None)
    }

    /// Runs a job, and writes its progress meanwhile.
    pub(super) async fn job(
        &self,
        id: u64,
        spec: &JobSpec,
        tracker: &Arc<ProgressTracker>,
        lease: &mut dyn Lease,
        shutdown: &CancellationToken,
        watch: impl Fn(&Progress),
    ) -> Result<JobEnd, SyncError> {
        let mut ticks = interval(PROGRESS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut only = std::pin::pin!(async {
            match &spec.peer {
                Some(name) => match self.p2p.wait_connected(name, self.peer_timeout).await {
                    Ok(peer) => Ok(Some(peer)),
                    Err(_) => Err(SyncError::Peer(name.clone())),
                },
                None => {
                    self.wait_for_peer().await;
                    Ok(None)
                }
            }
        });
        let only = loop {
            tokio::select! {
                only = &mut only => break only,
                () = shutdown.cancelled() => return Ok(JobEnd::Interrupted),
                _ = ticks.tick() => match self.may_go_on(id, tracker, lease, &watch).await {
                    Ok(true) => {}
                    Ok(false) => return Ok(JobEnd::Interrupted),
                    Err(cancelled) => break Err(cancelled),
                }
            }
        };
        let run = match only {
            Ok(only) => self.prepare(id, spec, tracker.clone(), only).await,
            Err(error) => Err(error),
        };
        // A task of its own: writing the progress may wait for the store while the job holds it.
        let mut work = AbortOnDropHandle::new(tokio::spawn(async move { Ok::<_, SyncError>(run?.run().await) }));
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome.unwrap_or_else(|error| {
                    tracing::error!(%error, "a sync job has panicked");
                    Err(SyncError::Panicked)
                }),
                () = shutdown.cancelled() => return Ok(JobEnd::Interrupted),
                _ = ticks.tick() => match self.may_go_on(id, tracker, lease, &watch).await {
                    Ok(true) => {}
                    Ok(false) => return Ok(JobEnd::Interrupted),
                    Err(cancelled) => break Err(cancelled),
                }
            }
        };
        // No more hashes are expected: their memory is released.
        self.verifier.expect(0);
        let failed = |error: &dyn std::error::Error| (Phase::Failed, Some(error.to_string()));
        tracker.update(|progress| match &outcome {
            Ok((_, Ok(()))) => progress.phase = Phase::Done,
            Ok((_, Err(error))) => (progress.phase, progress.last_error) = failed(error),
            Err(SyncError::Cancelled) => progress.phase = Phase::Cancelled,
            Err(error) => (progress.phase, progress.last_error) = failed(error),
        });
        write_progress(&*self.store, id, &tracker.snapshot()).await?;
        outcome.map(|(found, outcome)| JobEnd::Finished(found, outcome))
    }

    /// Writes a job's progress; returns whether the lease is still held.
    ///
    /// # Errors
    /// [`SyncError::Cancelled`], if that was requested.
    async fn may_go_on(
        &self,
        id: u64,
        tracker: &ProgressTracker,
        lease: &mut dyn Lease,
        watch: impl Fn(&Progress),
    ) -> Result<bool, SyncError> {
        let progress = tracker.snapshot();
        watch(&progress);
        match self.write_job_progress(id, &progress).await {
            Ok(false) => {}
            Ok(true) => return Err(SyncError::Cancelled),
            // Retried in a second. The job itself gives up on a failing store, and the lease shows whether another
            // process may continue.
            Err(error) => tracing::debug!(%error, "the progress of a job was not written"),
        }
        Ok(lease.held().await)
    }

    /// Writes a job's progress; returns whether its cancellation was requested.
    async fn write_job_progress(&self, id: u64, progress: &Progress) -> Result<bool, StoreError> {
        write_progress(&*self.store, id, progress).await?;
        if self.status.job == Some(id) {
            self.status.write(&*self.store).await?;
        }
        Ok(self.store.job(id).await?.is_some_and(|job| job.cancel_requested))
    }

    /// Collects the settings and parts of a job.
    pub(super) async fn prepare(
        &self,
        job: u64,
        spec: &JobSpec,
        tracker: Arc<ProgressTracker>,
        only: Option<PeerId>,
    ) -> Result<JobRun, SyncError> {
        let mut verifier = match spec.verify {
            Some(level) => self.verifier.at(level)?,
            None => self.verifier.clone(),
        };
        let genesis = Genesis::read(&*self.store, self.network.genesis_hash.as_deref()).await?;
        if let Some(genesis) = &genesis {
            verifier = verifier.with_genesis(&genesis.hash);
        }
        tracker.update(|progress| progress.verification = Some(verifier.level()));
        // A level that the job itself names holds for all blocks.
        let assume_valid = self.assume_valid().filter(|_| spec.verify.is_none()).cloned();
        // Without hashes a chain of any weight may be shown for a tip: the other jobs don't go by that.
        let known = if verifier.level() < self.verifier.level() { Arc::default() } else { self.known.clone() };
        Ok(JobRun {
            store: self.store.clone(),
            p2p: self.p2p.clone(),
            network: self.network.clone(),
            verifier,
            assume_valid,
            mode: spec.mode,
            only,
            announcer: self.announcer,
            distrusted: self.distrusted().filter(|peer| Some(*peer) != only).collect(),
            job,
            timeout: self.peer_timeout,
            plan_blocks: self.plan_blocks,
            tracker,
            stages: self.stages.clone(),
            known,
            open_genesis: genesis.is_none(),
        })
    }

    /// Waits until a peer is connected, as long as for an answer.
    async fn wait_for_peer(&self) {
        let mut changes = self.p2p.changes();
        let ready = async { while self.p2p.candidates().is_empty() && changes.changed().await.is_ok() {} };
        // Without a peer the job fails with that reason.
        let _ = tokio::time::timeout(self.peer_timeout, ready).await;
    }
}

async fn write_progress(store: &dyn BlockStore, id: u64, progress: &Progress) -> Result<(), StoreError> {
    // Plain data: serializing can't fail.
    let text = serde_json::to_string(progress).unwrap_or_default();
    store.update_job(id, progress.phase.as_str(), &text).await
}

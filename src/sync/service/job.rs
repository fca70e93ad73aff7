//! One job of the service: its row in the store, and whoever waits for it.

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
    sync::{failure::RunError, job::context::Run, peers::memory::Found, progress::Tracker},
};

/// How often progress is written, and wishes of others are looked for.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How long a lost lease is tried for, and the pause between two tries: a server may take 25 s to notice that the
/// connection with the lost one is gone, and until then it looks as if somebody else had it.
const LEASE_PATIENCE: Duration = Duration::from_secs(30);
const LEASE_PAUSE: Duration = Duration::from_millis(500);

/// How a job ended that was not cancelled.
pub(super) enum Ended {
    /// By itself, and with what it found out about the peers.
    Ran(Found, Result<(), RunError>),
    /// Before its end: the process stops, or has lost the lease. It goes on later.
    Interrupted,
}

impl Service {
    /// Does one job in the foreground, and tells `watch` of its progress. Where the lease is lost, with a database that was
    /// away for a while, it is taken again and the job goes on.
    ///
    /// # Errors
    /// [`SyncError`]; what was verified until then is in the store.
    pub async fn sync_once(
        mut self,
        spec: &JobSpec,
        shutdown: &CancellationToken,
        watch: impl Fn(&Progress),
    ) -> Result<Progress, SyncError> {
        let mut lease = store::lease_in_turn(&*self.store).await?.ok_or(SyncError::Leased)?;
        self.end_stale(0).await?;
        self.enforce_checkpoints().await?;
        let id = self.create_job(spec).await?;
        let tracker = Arc::new(Tracker::new(Progress::default()));
        loop {
            match self.job(id, spec, &tracker, &mut *lease, shutdown, &watch).await? {
                Ended::Ran(_, outcome) => return Ok(outcome.map(|()| tracker.snapshot())?),
                Ended::Interrupted => {
                    // Given back first: it may be there still, if only its connection was slow to say so.
                    drop(lease);
                    match self.lease_again(shutdown).await? {
                        Some(again) => lease = again,
                        None => break,
                    }
                }
            }
        }
        // Whoever waits for it here will not do so again.
        tracker.enter(Phase::Cancelled);
        write_progress(&*self.store, id, &tracker.snapshot()).await?;
        Err(SyncError::Cancelled)
    }

    /// The lease once more, after it was lost; `None` if the shutdown comes first.
    async fn lease_again(&self, shutdown: &CancellationToken) -> Result<Option<Box<dyn Lease>>, SyncError> {
        let give_up = Instant::now() + LEASE_PATIENCE;
        while !shutdown.is_cancelled() {
            match self.store.lease().await {
                Ok(Some(lease)) => return Ok(Some(lease)),
                Ok(None) if Instant::now() >= give_up => return Err(SyncError::Leased),
                Err(error) if Instant::now() >= give_up => return Err(error.into()),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "the lost lease can't be taken again yet"),
            }
            let pause = tokio::time::sleep(LEASE_PAUSE);
            tokio::select! { () = pause => {}, () = shutdown.cancelled() => {} }
        }
        Ok(None)
    }

    pub(super) async fn create_job(&self, spec: &JobSpec) -> Result<u64, StoreError> {
        // Plain data: writing it as JSON doesn't fail.
        self.store.create_job(&serde_json::to_string(spec).unwrap_or_default()).await
    }

    /// Ends jobs that have begun and can't be running, since the lease is ours: all but the latest `keep`.
    pub(super) async fn end_stale(&self, keep: usize) -> Result<(), StoreError> {
        let jobs = self.store.unfinished_jobs().await?;
        for job in jobs.into_iter().rev().filter(|job| job.phase != QUEUED).skip(keep) {
            let told = serde_json::from_str(&job.progress).unwrap_or_default();
            let progress = Progress { phase: Phase::Cancelled, ..told };
            write_progress(&*self.store, job.id, &progress).await?;
        }
        Ok(())
    }

    /// The oldest job that isn't finished. One that can't be read is finished with that.
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

    /// Runs a job, and writes its progress as long as it runs.
    pub(super) async fn job(
        &self,
        id: u64,
        spec: &JobSpec,
        tracker: &Arc<Tracker>,
        lease: &mut dyn Lease,
        shutdown: &CancellationToken,
        watch: impl Fn(&Progress),
    ) -> Result<Ended, SyncError> {
        let only = async {
            match &spec.peer {
                Some(name) => self.reach(name).await.map(Some),
                None => {
                    self.wait_for_peer().await;
                    Ok(None)
                }
            }
        };
        let only = tokio::select! {
            only = only => only,
            () = shutdown.cancelled() => return Ok(Ended::Interrupted),
        };
        let run = match only {
            Ok(only) => self.prepare(id, spec, tracker.clone(), only).await,
            Err(error) => Err(error),
        };
        // As a task: what is written about it waits for the store, which the task may hold.
        let mut work = AbortOnDropHandle::new(tokio::spawn(async move { Ok::<_, SyncError>(run?.run().await) }));
        let mut ticks = interval(PROGRESS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome.unwrap_or_else(|error| {
                    tracing::error!(%error, "a sync job has panicked");
                    Err(SyncError::Panicked)
                }),
                () = shutdown.cancelled() => return Ok(Ended::Interrupted),
                _ = ticks.tick() => {
                    let progress = tracker.snapshot();
                    watch(&progress);
                    match self.tell(id, &progress).await {
                        Ok(false) => {}
                        Ok(true) => break Err(SyncError::Cancelled),
                        // There is another second. The job itself waits for the store and knows when to give up, and the
                        // lease says whether somebody else may go on with it.
                        Err(error) => tracing::debug!(%error, "the progress of a job was not written"),
                    }
                    if !lease.held().await {
                        return Ok(Ended::Interrupted);
                    }
                }
            }
        };
        // Nothing more is ahead: the memory that much work is worth is given back.
        self.verifier.expect(0);
        let failed = |error: &dyn std::error::Error| (Phase::Failed, Some(error.to_string()));
        tracker.update(|progress| match &outcome {
            Ok((_, Ok(()))) => progress.phase = Phase::Done,
            Ok((_, Err(error))) => (progress.phase, progress.last_error) = failed(error),
            Err(SyncError::Cancelled) => progress.phase = Phase::Cancelled,
            Err(error) => (progress.phase, progress.last_error) = failed(error),
        });
        write_progress(&*self.store, id, &tracker.snapshot()).await?;
        outcome.map(|(found, outcome)| Ended::Ran(found, outcome))
    }

    /// Writes how far a job is; whether it shall be cancelled.
    async fn tell(&self, id: u64, progress: &Progress) -> Result<bool, StoreError> {
        write_progress(&*self.store, id, progress).await?;
        if self.status.job == Some(id) {
            self.status.write(&*self.store).await?;
        }
        Ok(self.store.job(id).await?.is_some_and(|job| job.cancel_requested))
    }

    /// What a job needs to run.
    pub(super) async fn prepare(
        &self,
        job: u64,
        spec: &JobSpec,
        tracker: Arc<Tracker>,
        only: Option<PeerId>,
    ) -> Result<Run, SyncError> {
        let mut verifier = match spec.verify {
            Some(level) => self.verifier.at(level)?,
            None => self.verifier.clone(),
        };
        let genesis = Genesis::read(&*self.store, self.network.genesis_hash.as_deref()).await?;
        if let Some(genesis) = &genesis {
            verifier = verifier.with_genesis(&genesis.hash);
        }
        tracker.update(|progress| progress.verification = Some(verifier.level()));
        Ok(Run {
            store: self.store.clone(),
            p2p: self.p2p.clone(),
            network: self.network.clone(),
            verifier,
            mode: spec.mode,
            only,
            first: self.teller,
            left_alone: self.distrusted().filter(|peer| Some(*peer) != only).collect(),
            job,
            timeout: self.peer_timeout,
            plan_blocks: self.plan_blocks,
            tracker,
            stages: self.stages.clone(),
            known: self.known.clone(),
            open_genesis: genesis.is_none(),
        })
    }

    /// The peer of this name, once it is connected.
    async fn reach(&self, name: &str) -> Result<PeerId, SyncError> {
        self.p2p.wait_connected(name, self.peer_timeout).await.map_err(|_| SyncError::Peer(name.into()))
    }

    /// Waits until there is somebody to ask, for as long as an answer may take.
    async fn wait_for_peer(&self) {
        let mut changes = self.p2p.changes();
        let ready = async { while self.p2p.candidates().is_empty() && changes.changed().await.is_ok() {} };
        // Without anybody the job says so.
        let _ = tokio::time::timeout(self.peer_timeout, ready).await;
    }
}

async fn write_progress(store: &dyn BlockStore, id: u64, progress: &Progress) -> Result<(), StoreError> {
    // Plain data: writing it as JSON doesn't fail.
    let text = serde_json::to_string(progress).unwrap_or_default();
    store.update_job(id, progress.phase.as_str(), &text).await
}

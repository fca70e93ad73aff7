//! The service that keeps a store level with the network: jobs, one at a time, gossip, and a regular look at the peers.
//!
//! One process at a time does this for a store, the one with the lease; the others see what it writes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::progress::Tracker;
use crate::{
    source::job::{JobSpec, Progress, SyncState, SyncStatus},
    store::{Lease, StoreError},
};

mod gossip;
mod job;
mod state;

pub use state::{Service, Settings, SyncError};

use gossip::Inbox;
use job::Ended;

/// How often wishes of others are looked for while nothing is to be done.
const IDLE_EVERY: Duration = Duration::from_millis(500);
/// How long until another try to get the lease, or to reach the store.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// How long until the peers are looked at after gossip that was not listened to: others have the block by then.
const LOOK_AFTER: Duration = Duration::from_secs(5);

impl Service {
    /// Runs until `shutdown`. A store that fails is waited for.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut inbox = Inbox::new(self.p2p.gossip());
        while !shutdown.is_cancelled() {
            let outcome = match self.store.lease().await {
                Ok(Some(mut lease)) => self.lead(&mut *lease, &mut inbox, &shutdown).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "the sync can't use the store; trying on");
            }
            let pause = tokio::time::sleep(RETRY_EVERY);
            tokio::select! { () = pause => {}, () = shutdown.cancelled() => {} }
        }
    }

    /// Syncs for as long as the lease is held.
    async fn lead(
        &mut self,
        lease: &mut dyn Lease,
        inbox: &mut Inbox,
        shutdown: &CancellationToken,
    ) -> Result<(), StoreError> {
        tracing::debug!("this process syncs the store");
        self.end_stale(1).await?;
        self.enforce_checkpoints().await?;
        let mut changes = self.p2p.changes();
        let (mut idle, mut check) = (interval(IDLE_EVERY), interval(self.interval));
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Jobs that wait come first: a look at the peers may start another one.
                biased;
                () = shutdown.cancelled() => return Ok(()),
                _ = idle.tick() => {
                    if !lease.held().await {
                        return Err(lease_lost());
                    }
                    while let Some((id, spec)) = self.next_job().await? {
                        self.run_job(id, &spec, lease, inbox, shutdown).await?;
                        if shutdown.is_cancelled() {
                            return Ok(());
                        }
                        if spec.peer.is_some() {
                            self.check(lease, inbox, shutdown).await?;
                        }
                    }
                    if self.missed.is_some_and(|at| at.elapsed() >= LOOK_AFTER) {
                        self.check(lease, inbox, shutdown).await?;
                    }
                    self.heartbeat().await?;
                }
                _ = check.tick() => self.check(lease, inbox, shutdown).await?,
                Ok(()) = changes.changed() => {
                    // Whoever is level with the network hears of news by gossip and at the next tick.
                    if self.status.state != SyncState::Synced {
                        self.check(lease, inbox, shutdown).await?;
                    }
                }
                () = self.p2p.missed_gossip(), if self.missed.is_none() => self.missed = Some(Instant::now()),
                Some(message) = inbox.next() => {
                    if self.on_gossip(message, inbox).await? {
                        // All of them: whoever told of it may have nothing to give, and be slow to say so.
                        self.check(lease, inbox, shutdown).await?;
                    }
                }
            }
        }
    }

    /// Looks at the peers' tips, and syncs if one of them claims a better chain.
    async fn check(
        &mut self,
        lease: &mut dyn Lease,
        inbox: &mut Inbox,
        shutdown: &CancellationToken,
    ) -> Result<(), StoreError> {
        self.missed = None;
        let run = self.prepare(0, &JobSpec::default(), Arc::new(Tracker::new(Progress::default())), None).await;
        let run = run.map_err(|error| match error {
            SyncError::Store(error) => error,
            error => StoreError::Conflict(error.to_string()),
        })?;
        let (found, better, reason) = run.look().await?;
        let useful = found.useful;
        self.status.checked_at = Some(self.store.now().await?);
        self.status.useful_peers = useful;
        // Before those that are found mute now are left alone: peers that are were not asked, and what they did is still
        // the reason.
        let former = self.status.reason.clone().filter(|_| self.distrusted().next().is_some());
        self.distrust.add(found, |peer| self.p2p.is_trusted(peer), Instant::now());
        if better {
            let spec = JobSpec::default();
            let id = self.create_job(&spec).await?;
            return self.run_job(id, &spec, lease, inbox, shutdown).await;
        }
        if run.open_genesis && useful > 0 {
            // The process that brought it ended too early.
            let settled = run.settle_genesis(None).await;
            settled.map_err(|error| StoreError::Conflict(error.to_string()))?;
        }
        self.set_state(match useful {
            0 => SyncStatus::stalled(reason.or(former).unwrap_or_else(|| "no useful peer".into())),
            _ => SyncStatus { state: SyncState::Synced, ..SyncStatus::default() },
        })
        .await
    }

    /// Runs a job to its end, and tells what became of it.
    async fn run_job(
        &mut self,
        id: u64,
        spec: &JobSpec,
        lease: &mut dyn Lease,
        inbox: &mut Inbox,
        shutdown: &CancellationToken,
    ) -> Result<(), StoreError> {
        self.set_state(SyncStatus { state: SyncState::Syncing, job: Some(id), ..SyncStatus::default() }).await?;
        let tracker = Arc::new(Tracker::new(Progress::default()));
        let ended = {
            let job = self.job(id, spec, &tracker, lease, shutdown, |_| {});
            let mut job = std::pin::pin!(job);
            loop {
                // What comes meanwhile waits for its parents.
                tokio::select! {
                    ended = &mut job => break ended,
                    Some(message) = inbox.next() => inbox.put_by(&self.p2p, &message),
                }
            }
        };
        match ended {
            Ok(Ended::Ran(found, outcome)) => {
                self.connect(inbox).await?;
                inbox.clear();
                if found.more {
                    self.missed = Some(Instant::now());
                }
                self.status.checked_at = Some(self.store.now().await?);
                self.status.useful_peers = found.useful;
                self.distrust.add(found, |peer| self.p2p.is_trusted(peer), Instant::now());
                self.set_state(match outcome {
                    Ok(()) => SyncStatus { state: SyncState::Synced, ..SyncStatus::default() },
                    Err(error) => {
                        tracing::warn!(job = id, %error, "a sync job failed");
                        SyncStatus::stalled(error.to_string())
                    }
                })
                .await
            }
            Ok(Ended::Interrupted) if shutdown.is_cancelled() => Ok(()),
            Ok(Ended::Interrupted) => Err(lease_lost()),
            Err(SyncError::Store(error)) => Err(error),
            Err(SyncError::Cancelled) => self.set_state(SyncStatus::stalled("the sync was cancelled")).await,
            Err(error) => {
                tracing::warn!(job = id, %error, "a sync job failed");
                self.set_state(SyncStatus::stalled(error.to_string())).await
            }
        }
    }
}

fn lease_lost() -> StoreError {
    StoreError::Busy("the lease is lost".into())
}

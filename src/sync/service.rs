//! The service that keeps a store in sync: runs queued jobs one at a time, handles gossip, and polls the peers' tips.
//!
//! One process at a time does this for a store: the one with the lease. Other processes read what it writes.

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{failure::RunError, progress::ProgressTracker};
use crate::{
    source::job::{JobSpec, Progress, SyncState, SyncStatus},
    store::Lease,
};

mod gossip;
mod job;
mod raise;
mod state;

pub use state::{Service, Settings, SyncError};

use gossip::GossipInbox;
use job::JobEnd;
use raise::{Busy, Raiser};

/// How often the queue of jobs is read while no job runs.
const IDLE_EVERY: Duration = Duration::from_millis(500);
/// Pause before a retry to take the lease, or to use the store.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// Shortest time between two lines of the log that the service tries again for the same reason.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Time from gossip that was dropped to the tip poll for it: peers have the block by then.
const MISSED_GOSSIP_DELAY: Duration = Duration::from_secs(5);
/// Shortest time from a tip poll to one for a change of the connections.
const CHANGES_PAUSE: Duration = Duration::from_secs(1);
/// How often the lease is checked during a tip poll.
const LEASE_EVERY: Duration = Duration::from_secs(1);

impl Service {
    /// Runs until `shutdown`; waits for a store that fails.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut inbox = GossipInbox::new(self.p2p.gossip());
        let mut logged: Option<(Instant, String)> = None;
        while !shutdown.is_cancelled() {
            let outcome = match self.store.lease().await {
                Ok(Some(mut lease)) => self.run_leased(&mut *lease, &mut inbox, &shutdown).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = outcome {
                let (text, error): (_, &dyn Display) = match &error {
                    SyncError::Store(error) => ("the sync can't use the store; trying again", error),
                    error => ("the sync has stopped; trying again", error),
                };
                // A store that is down for a day is one fault.
                let said = error.to_string();
                if logged.as_ref().is_none_or(|(at, last)| at.elapsed() >= LOG_EVERY || *last != said) {
                    tracing::warn!(%error, "{text}");
                    logged = Some((Instant::now(), said));
                } else {
                    tracing::debug!(%error, "{text}");
                }
            }
            shutdown.run_until_cancelled(tokio::time::sleep(RETRY_EVERY)).await;
        }
    }

    /// Syncs while the lease is held.
    async fn run_leased(
        &mut self,
        lease: &mut dyn Lease,
        inbox: &mut GossipInbox,
        shutdown: &CancellationToken,
    ) -> Result<(), SyncError> {
        tracing::debug!("this process syncs the store");
        self.end_stale(1).await?;
        self.enforce_checkpoints().await?;
        let _raising = Raiser::start(self);
        let mut changes = self.p2p.changes();
        let (mut idle, mut poll) = (interval(IDLE_EVERY), interval(self.interval));
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Queued jobs come first: a tip poll may start another one.
                biased;
                () = shutdown.cancelled() => return Ok(()),
                _ = idle.tick() => {
                    if !lease.held().await {
                        return Err(SyncError::LeaseLost);
                    }
                    while let Some((id, spec)) = self.next_job().await? {
                        self.run_job(id, &spec, lease, inbox, shutdown).await?;
                        if shutdown.is_cancelled() {
                            return Ok(());
                        }
                        if spec.peer.is_some() {
                            self.poll(lease, inbox, shutdown).await?;
                        }
                    }
                    if self.missed_gossip.is_some_and(|at| at.elapsed() >= MISSED_GOSSIP_DELAY) {
                        self.poll(lease, inbox, shutdown).await?;
                    }
                    self.heartbeat().await?;
                }
                _ = poll.tick() => self.poll(lease, inbox, shutdown).await?,
                // Not again and again for a peer that comes and goes: each poll may cost all of them a read of the chain.
                Ok(()) = changes.changed(), if self.polled_at.is_none_or(|at| at.elapsed() >= CHANGES_PAUSE) => {
                    // A store in sync gets new blocks by gossip and at the next tick.
                    if self.status.state != SyncState::Synced && !self.p2p.candidates().is_empty() {
                        self.poll(lease, inbox, shutdown).await?;
                    }
                }
                () = self.p2p.missed_gossip(), if self.missed_gossip.is_none() => {
                    self.missed_gossip = Some(Instant::now());
                }
                Some(message) = inbox.next() => {
                    if self.on_gossip(message, inbox).await? {
                        // All peers: the announcer may have nothing to send, and be slow.
                        self.poll(lease, inbox, shutdown).await?;
                    }
                }
            }
        }
    }

    /// Polls the peers' tips, and runs a job if one of them claims a better chain. Gossip is handled meanwhile: with an
    /// unresponsive peer a poll takes as long as peers remember a message.
    async fn poll(
        &mut self,
        lease: &mut dyn Lease,
        inbox: &mut GossipInbox,
        shutdown: &CancellationToken,
    ) -> Result<(), SyncError> {
        self.missed_gossip = None;
        let asks = !self.p2p.candidates().is_empty();
        let tracker = Arc::new(ProgressTracker::new(Progress::default()));
        let run = self.prepare(0, &JobSpec::default(), tracker, None).await?;
        // A task of its own: an answer must not be late because a block is verified.
        let polling = async move { (run.poll_tips().await, run) };
        let mut polling = AbortOnDropHandle::new(tokio::spawn(polling));
        let mut ticks = interval(LEASE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (polled, run) = loop {
            tokio::select! {
                polled = &mut polling => break polled.map_err(|_| SyncError::Panicked)?,
                () = shutdown.cancelled() => return Ok(()),
                _ = ticks.tick() => {
                    if !lease.held().await {
                        return Err(SyncError::LeaseLost);
                    }
                    self.heartbeat().await?;
                }
                Some(message) = inbox.next() => {
                    if self.on_gossip(message, inbox).await? {
                        self.missed_gossip = Some(Instant::now());
                    }
                }
            }
        };
        self.polled_at = asks.then(Instant::now).or(self.polled_at);
        let (found, better, reason) = polled?;
        let useful = found.useful;
        // Read before the findings are added: peers that are distrusted were not polled, and the earlier reason still
        // holds.
        let earlier = self.status.reason.clone().filter(|_| self.distrusted().next().is_some());
        self.add_findings(found).await?;
        if better {
            let spec = JobSpec::default();
            let id = self.create_job(&spec).await?;
            return self.run_job(id, &spec, lease, inbox, shutdown).await;
        }
        if run.open_genesis && useful > 0 {
            // The process of the first sync ended before that.
            run.settle_genesis(None).await.map_err(RunError::from)?;
        }
        self.set_state(match useful {
            0 => SyncStatus::stalled(reason.or(earlier).unwrap_or_else(|| "no useful peer".into())),
            _ => SyncStatus { state: SyncState::Synced, ..SyncStatus::default() },
        })
        .await?;
        Ok(())
    }

    /// Runs a job to its end, and sets the status.
    async fn run_job(
        &mut self,
        id: u64,
        spec: &JobSpec,
        lease: &mut dyn Lease,
        inbox: &mut GossipInbox,
        shutdown: &CancellationToken,
    ) -> Result<(), SyncError> {
        let busy = Busy::begin(&self.busy);
        self.set_state(SyncStatus { state: SyncState::Syncing, job: Some(id), ..SyncStatus::default() }).await?;
        let tracker = Arc::new(ProgressTracker::new(Progress::default()));
        let ended = {
            let job = self.job(id, spec, &tracker, lease, shutdown, |_| {});
            let mut job = std::pin::pin!(job);
            loop {
                // Blocks of gossip wait for their parents meanwhile.
                tokio::select! {
                    ended = &mut job => break ended,
                    Some(message) = inbox.next() => inbox.defer(&self.p2p, &message),
                }
            }
        };
        drop(busy);
        let outcome = match ended {
            Ok(JobEnd::Finished(found, outcome)) => {
                self.append_pending(inbox).await?;
                inbox.clear();
                if found.more {
                    self.missed_gossip = Some(Instant::now());
                }
                self.add_findings(found).await?;
                outcome.map_err(SyncError::from)
            }
            Ok(JobEnd::Interrupted) if shutdown.is_cancelled() => return Ok(()),
            Ok(JobEnd::Interrupted) => return Err(SyncError::LeaseLost),
            Err(error) => Err(error),
        };
        let status = match outcome {
            Ok(()) => SyncStatus { state: SyncState::Synced, ..SyncStatus::default() },
            Err(error @ SyncError::Store(_)) => return Err(error),
            Err(SyncError::Cancelled) => SyncStatus::stalled("the sync was cancelled"),
            Err(error) => {
                tracing::warn!(job = id, %error, "a sync job failed");
                SyncStatus::stalled(error.to_string())
            }
        };
        Ok(self.set_state(status).await?)
    }
}

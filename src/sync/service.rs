//! The service that keeps a store level with the network: jobs, one at a time, gossip, and a regular look at the peers.
//!
//! One process at a time does this for a store, the one with the lease; the others see what it writes.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    distrust::Distrust, gossip::Inbox, job::Ended, known::Known, plan::MAX_BLOCKS, setback::RunError, tracker::Tracker,
};
use crate::{
    chain::{Level, Network, PowError, PowOptions, Verifier},
    p2p::P2pClient,
    source::job::{JobSpec, Progress, Stages, SyncState, SyncStatus},
    store::{BlockStore, Lease, StoreError},
};

/// How often wishes of others are looked for while nothing is to be done.
const IDLE_EVERY: Duration = Duration::from_millis(500);
/// How often the status is written when it stays the same.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long until another try to get the lease, or to reach the store.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// How long until the peers are looked at after gossip that was not listened to: others have the block by then.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// Settings of the sync.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The network that blocks must belong to.
    pub network: Network,
    /// How far blocks are verified.
    pub level: Level,
    /// How proof of work is computed.
    pub pow: PowOptions,
    /// Time between two looks at the peers' tips.
    pub interval: Duration,
    /// Longest wait for a peer's answer.
    pub peer_timeout: Duration,
}

/// Why a sync can't run, or did not finish.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Another process syncs this store.
    #[error("another process is syncing this store")]
    Leased,
    /// The proof of work can't be computed.
    #[error(transparent)]
    Pow(#[from] PowError),
    /// The store.
    #[error("store")]
    Store(#[from] StoreError),
    /// No such peer.
    #[error("peer `{0}` can't be reached")]
    Peer(String),
    /// The job failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A fault of this program.
    #[error("the sync has panicked")]
    Panicked,
    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// Keeps a store level with the network.
pub struct Service {
    pub(super) store: Arc<dyn BlockStore>,
    pub(super) p2p: P2pClient,
    pub(super) network: Arc<Network>,
    pub(super) verifier: Verifier,
    pub(super) stages: Arc<Stages>,
    pub(super) known: Arc<Known>,
    /// A checkpoint below which the chain was rewound, and what is told of it until the chain has it.
    pub(super) rewound: Option<(u64, String)>,
    interval: Duration,
    pub(super) peer_timeout: Duration,
    pub(super) plan_blocks: u64,
    /// Peers that are left alone for a while.
    pub(super) distrust: Distrust,
    /// Peers whose gossip started a look at the peers, and when.
    pub(super) gossip_asked: HashMap<PeerId, Instant>,
    /// The last of them: among those that are asked, however many there are.
    pub(super) teller: Option<PeerId>,
    /// When gossip came that was not listened to, and the peers have not been looked at since.
    missed: Option<Instant>,
    pub(super) status: SyncStatus,
    status_written: Option<Instant>,
}

impl Service {
    /// A service over a store and a node.
    ///
    /// # Errors
    /// [`PowError`] for settings that can't work.
    pub fn new(store: Arc<dyn BlockStore>, p2p: P2pClient, settings: &Settings) -> Result<Self, PowError> {
        Ok(Self {
            store,
            p2p,
            network: Arc::new(settings.network.clone()),
            verifier: Verifier::new(&settings.network, settings.level, settings.pow)?,
            stages: Arc::default(),
            known: Arc::default(),
            rewound: None,
            interval: settings.interval,
            peer_timeout: settings.peer_timeout,
            plan_blocks: MAX_BLOCKS,
            distrust: Distrust::default(),
            gossip_asked: HashMap::new(),
            teller: None,
            missed: None,
            status: SyncStatus::stalled("the sync has not begun yet"),
            status_written: None,
        })
    }

    /// The same, telling `stages` how full they are.
    pub fn watched(self, stages: Arc<Stages>) -> Self {
        Self { stages, ..self }
    }

    /// The same, planning no more than `blocks` blocks at a time, at least 1, instead of a million. A longer stretch takes
    /// several plans.
    pub fn planning(self, blocks: u64) -> Self {
        Self { plan_blocks: blocks.max(1), ..self }
    }

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

    async fn set_state(&mut self, status: SyncStatus) -> Result<(), StoreError> {
        let status = match status.state {
            SyncState::Synced => self.unless_rewound(status).await?,
            _ => status,
        };
        let (checked_at, useful_peers) = (self.status.checked_at, self.status.useful_peers);
        let status = SyncStatus { checked_at, useful_peers, ..status };
        if status.state != self.status.state {
            tracing::info!(state = status.state.as_str(), reason = status.reason, "sync");
        }
        self.status = status;
        self.write_status().await
    }

    async fn heartbeat(&mut self) -> Result<(), StoreError> {
        if self.status_written.is_none_or(|at| at.elapsed() >= HEARTBEAT) {
            self.write_status().await?;
        }
        Ok(())
    }

    async fn write_status(&mut self) -> Result<(), StoreError> {
        self.status_written = Some(Instant::now());
        self.status.write(&*self.store).await
    }
}

fn lease_lost() -> StoreError {
    StoreError::Busy("the lease is lost".into())
}

//! The state of the service: its settings, errors, and the status that it writes to the store.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use tokio::sync::watch;

use crate::{
    chain::{AssumeValid, Level, Network, PowError, PowOptions, Verifier},
    p2p::P2pClient,
    source::job::{Stages, SyncState, SyncStatus},
    store::{BlockStore, StoreError},
    sync::{
        failure::RunError,
        local_chain::{enforce_checkpoints, missing_checkpoint},
        peers::memory::{Distrust, KnownChains, PeerFindings},
    },
};

/// Default most blocks of one plan. Bounds the memory for a plan, whatever a peer claims.
const MAX_BLOCKS: u64 = 1_000_000;

/// Default of the blocks that are raised in one transaction: some five seconds of work.
const RAISED_BLOCKS: u64 = 64;

/// How often an unchanged status is written.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Settings of the sync.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The network that blocks must belong to.
    pub network: Network,
    /// How far blocks are verified.
    pub level: Level,
    /// How proof of work is computed.
    pub pow: PowOptions,
    /// Time between two tip polls.
    pub interval: Duration,
    /// Longest time for a peer's answer.
    pub peer_timeout: Duration,
}

/// Why a sync can't run, or has failed.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Another process syncs this store.
    #[error("another process is syncing this store")]
    Leased,
    /// The lease of the store ended: its connection broke, or another process has it.
    #[error("the lease of the store is lost")]
    LeaseLost,
    /// The proof of work can't be computed.
    #[error(transparent)]
    Pow(#[from] PowError),
    /// The store.
    #[error("store")]
    Store(#[from] StoreError),
    /// The peer can't be reached.
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

/// Keeps a store in sync with the network.
pub struct Service {
    pub(super) store: Arc<dyn BlockStore>,
    pub(super) p2p: P2pClient,
    pub(super) network: Arc<Network>,
    pub(super) verifier: Verifier,
    pub(super) stages: Arc<Stages>,
    pub(super) known: Arc<KnownChains>,
    /// The checkpoint that the chain was rewound for, and the reason to say, until the chain has its block.
    pub(super) rewound: Option<(u64, String)>,
    pub(super) interval: Duration,
    pub(super) peer_timeout: Duration,
    pub(super) plan_blocks: u64,
    /// Blocks that are verified in the background and then raised in one transaction.
    pub(super) raised_blocks: u64,
    /// Whether a job runs: the verification in the background waits for its end.
    pub(super) busy: Arc<watch::Sender<bool>>,
    /// Peers that are not polled for a while.
    pub(super) distrust: Distrust,
    /// When a peer's gossip started a tip poll.
    pub(super) announcer_polls: HashMap<PeerId, Instant>,
    /// The last such peer: it is always polled.
    pub(super) announcer: Option<PeerId>,
    /// When gossip was dropped, until the next tip poll.
    pub(super) missed_gossip: Option<Instant>,
    /// When the last tip poll ended that asked a peer.
    pub(super) polled_at: Option<Instant>,
    pub(super) status: SyncStatus,
    pub(super) status_written: Option<Instant>,
    /// The state that the log had last.
    logged: Option<SyncState>,
    began: Instant,
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
            raised_blocks: RAISED_BLOCKS,
            busy: Arc::new(watch::Sender::new(false)),
            distrust: Distrust::default(),
            announcer_polls: HashMap::new(),
            announcer: None,
            missed_gossip: None,
            polled_at: None,
            status: SyncStatus::stalled("the sync has not begun yet"),
            status_written: None,
            logged: None,
            began: Instant::now(),
        })
    }

    /// Reports queue lengths to `stages`.
    pub fn with_stages(self, stages: Arc<Stages>) -> Self {
        Self { stages, ..self }
    }

    /// Sets the most blocks of one plan, at least 1, instead of a million. A longer chain takes several plans.
    pub fn with_plan_blocks(self, blocks: u64) -> Self {
        Self { plan_blocks: blocks.max(1), ..self }
    }

    /// Sets how many blocks are verified in the background before their level is written, at least 1, instead of 64.
    pub fn with_raised_blocks(self, blocks: u64) -> Self {
        Self { raised_blocks: blocks.max(1), ..self }
    }

    /// The network's assume-valid block, where it makes a difference: the proof of work is verified.
    pub(super) fn assume_valid(&self) -> Option<&AssumeValid> {
        self.network.assume_valid.as_ref().filter(|_| self.verifier.level() == Level::Pow)
    }

    /// The peers that are distrusted now.
    pub(super) fn distrusted(&self) -> impl Iterator<Item = PeerId> {
        self.distrust.peers(Instant::now())
    }

    /// Adds what a tip poll or a job found out about the peers to the status, and to the distrusted peers.
    pub(super) async fn add_findings(&mut self, found: PeerFindings) -> Result<(), StoreError> {
        self.status.checked_at = Some(self.store.now().await?);
        self.status.useful_peers = found.useful;
        self.distrust.add(found, |peer| self.p2p.is_trusted(peer), Instant::now());
        Ok(())
    }

    /// Rewinds a chain that breaks a checkpoint.
    pub(super) async fn enforce_checkpoints(&mut self) -> Result<(), StoreError> {
        if let Some(rewound) = enforce_checkpoints(&*self.store, &self.network).await? {
            self.rewound = Some(rewound);
        }
        Ok(())
    }

    /// The status, or stalled while the chain lacks a checkpoint. The store says so: another process may have rewound
    /// the chain.
    async fn unless_below_checkpoint(&mut self, status: SyncStatus) -> Result<SyncStatus, StoreError> {
        let Some(index) = missing_checkpoint(&*self.store, &self.network).await? else {
            self.rewound = None;
            return Ok(status);
        };
        self.rewound = self.rewound.take().filter(|(rewound, _)| *rewound == index);
        let ends_below = || format!("the chain does not have the network's checkpoint at {index} yet");
        Ok(SyncStatus::stalled(self.rewound.as_ref().map_or_else(ends_below, |(_, reason)| reason.clone())))
    }

    pub(super) async fn set_state(&mut self, status: SyncStatus) -> Result<(), StoreError> {
        let status = match status.state {
            SyncState::Synced => self.unless_below_checkpoint(status).await?,
            _ => status,
        };
        let (checked_at, useful_peers) = (self.status.checked_at, self.status.useful_peers);
        let status = SyncStatus { checked_at, useful_peers, ..status };
        // At the start no peer is connected yet.
        let is_early =
            status.state == SyncState::Stalled && self.logged.is_none() && self.began.elapsed() < self.interval;
        if self.logged != Some(status.state) && !is_early {
            self.logged = Some(status.state);
            let (state, reason) = (status.state.as_str(), &status.reason);
            match status.state {
                SyncState::Stalled => tracing::warn!(state, reason, "sync"),
                _ => tracing::info!(state, reason, "sync"),
            }
        }
        self.status = status;
        self.write_status().await
    }

    pub(super) async fn heartbeat(&mut self) -> Result<(), StoreError> {
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

//! The side that syncs: a store of its own and a real node.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::{sync::Arc, time::Duration};

use libp2p::{Multiaddr, identity::Keypair};
use modal_gateway::{
    chain::{Level, MinerBlock, PowOptions, Verifier},
    p2p::{self, P2pClient, P2pConfig, PeerInfo},
    source::job::{JobSpec, Mode, PeerCounts, Progress, SyncState, SyncStatus},
    store::BlockStore,
    sync::{Service, Settings, SyncError},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{
    gateway::{Backend, EmptyResponder, PATIENCE, TestStore},
    linked::network,
    peer::ScriptedPeer,
    serving::Serving,
};

pub use crate::support::until::eventually;

/// Longest wait for a peer's answer.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(2);

/// A store, and a node that syncs it when it is told to.
pub struct Syncing {
    pub store: Arc<dyn BlockStore>,
    pub p2p: P2pClient,
    pub level: Level,
    peer_timeout: Duration,
    test: Arc<TestStore>,
    _running: DropGuard,
}

/// Settings of a sync to this level, which looks at the peers' tips only when it has a reason to.
pub fn settings(level: Level) -> Settings {
    Settings {
        network: network(),
        level,
        pow: PowOptions::default(),
        interval: Duration::from_secs(3600),
        peer_timeout: PEER_TIMEOUT,
    }
}

/// A job that fetches in this way.
pub fn by(mode: Mode) -> JobSpec {
    JobSpec { mode, ..JobSpec::default() }
}

/// A peer that serves this chain, or what else is said of it.
pub async fn serve(node: &Serving) -> ScriptedPeer {
    ScriptedPeer::start(node.script()).await
}

impl Syncing {
    /// One whose store holds these blocks, verified to level `pow`.
    pub async fn with(backend: Backend, blocks: &[MinerBlock]) -> Self {
        Self::at(backend, blocks, Level::Pow).await
    }

    /// One that works at this level.
    pub async fn at(backend: Backend, blocks: &[MinerBlock], level: Level) -> Self {
        let test = Arc::new(TestStore::create(backend).await);
        fill(&*test.open().await, blocks, level).await;
        Self::over(test, level).await
    }

    /// One over this store, at level `pow`.
    pub async fn on(test: TestStore) -> Self {
        Self::over(Arc::new(test), Level::Pow).await
    }

    /// Another process on the same store.
    pub async fn beside(&self) -> Self {
        Self::over(self.test.clone(), self.level).await
    }

    async fn over(test: Arc<TestStore>, level: Level) -> Self {
        let store = test.open().await;
        let running = CancellationToken::new();
        // How long a peer is waited for is for the sync to say.
        let config =
            P2pConfig { target_peers: 0, request_timeout: 3 * PATIENCE, ..P2pConfig::new(Keypair::generate_ed25519()) };
        let (p2p, _) = p2p::start(config, Arc::new(EmptyResponder), running.clone()).await.unwrap();
        Self { store, p2p, test, level, peer_timeout: PEER_TIMEOUT, _running: running.drop_guard() }
    }

    /// The same, which gives a peer so much time for an answer.
    pub fn waiting(self, peer_timeout: Duration) -> Self {
        Self { peer_timeout, ..self }
    }

    /// Connects with a peer.
    pub async fn meet(&self, peer: &ScriptedPeer) {
        self.meet_at(peer.address.clone()).await;
    }

    /// Connects with whoever listens there.
    pub async fn meet_at(&self, address: Multiaddr) {
        let id = self.p2p.dial(address).await.unwrap();
        self.p2p.wait_connected(&id.to_string(), PATIENCE).await.unwrap();
    }

    /// A service over the store.
    pub fn service(&self) -> Service {
        let settings = Settings { peer_timeout: self.peer_timeout, ..settings(self.level) };
        Service::new(self.store.clone(), self.p2p.clone(), &settings).unwrap()
    }

    /// Runs a service until the guard is dropped.
    pub fn run(&self) -> DropGuard {
        let stop = CancellationToken::new();
        tokio::spawn(self.service().run(stop.clone()));
        stop.drop_guard()
    }

    /// Waits until the state of the sync is this; the status.
    pub async fn wait_for(&self, state: SyncState) -> SyncStatus {
        eventually(async || {
            let status = SyncStatus::read(&*self.store, true).await.unwrap();
            (status.state == state).then_some(status)
        })
        .await
    }

    /// Waits until this is the tip.
    pub async fn wait_for_tip(&self, block: &MinerBlock) {
        let there = async || self.store.state().await.unwrap().tip.is_some_and(|tip| tip.hash == block.hash);
        eventually(async || there().await.then_some(())).await;
    }

    /// Does one job to its end.
    pub async fn sync(&self, spec: &JobSpec) -> Result<Progress, SyncError> {
        self.service().sync_once(spec, &CancellationToken::new(), |_| {}).await
    }

    /// Does one job until it has come so far, or has failed.
    pub async fn sync_until(&self, spec: &JobSpec, far: impl Fn(&Progress) -> bool) {
        let (stop, last) = (CancellationToken::new(), std::cell::RefCell::new(Progress::default()));
        let watch = |progress: &Progress| {
            last.replace(progress.clone());
            if far(progress) {
                stop.cancel();
            }
        };
        let ended = tokio::time::timeout(PATIENCE, self.service().sync_once(spec, &stop, watch)).await;
        let ended = ended.unwrap_or_else(|_| panic!("it never came so far: {:?}", last.borrow()));
        assert!(ended.is_err(), "there was nobody to get it from: {ended:?}");
    }

    /// What is known of a peer.
    pub fn info(&self, peer: &ScriptedPeer) -> PeerInfo {
        let id = peer.peer_id.to_string();
        self.p2p.peers().into_iter().find(|info| info.peer_id.as_ref() == Some(&id)).unwrap()
    }

    /// The canonical chain in the store.
    pub async fn chain(&self) -> Vec<MinerBlock> {
        self.store.range(0, u64::MAX >> 1).await.unwrap().list.parse().unwrap()
    }

    /// That the store holds this chain, block by block and nothing else, and has come to know it by verifying it.
    pub async fn assert_holds(&self, expected: &[MinerBlock]) {
        let (found, state) = (self.chain().await, self.store.state().await.unwrap());
        let hashes = |blocks: &[MinerBlock]| blocks.iter().map(|block| block.hash.clone()).collect::<Vec<_>>();
        assert!(hashes(&found) == hashes(expected), "{} blocks, expected {}", found.len(), expected.len());
        assert!(found == expected, "the same hashes, other blocks");
        let work = crate::support::chain::work(expected);
        assert_eq!((state.length, state.cumulative_difficulty.to_string()), (expected.len() as u64, work.to_string()));
        assert_eq!(state.tip.map(|tip| tip.hash), expected.last().map(|block| block.hash.clone()));
        assert_eq!(state.level, (!expected.is_empty()).then_some(self.level));
        assert_eq!(self.store.staged().await.unwrap(), None, "a branch is still kept aside");
    }
}

/// What a job tells of a peer.
pub fn counts(progress: &Progress, peer: &ScriptedPeer) -> PeerCounts {
    let id = peer.peer_id.to_string();
    progress.peers.iter().find(|counts| counts.peer_id == id).cloned().unwrap_or_default()
}

/// Appends blocks, verified to this level.
pub async fn fill(store: &dyn BlockStore, blocks: &[MinerBlock], level: Level) {
    if blocks.is_empty() {
        return;
    }
    let verified = Verifier::new(&network(), level, PowOptions::default()).unwrap().verify(None, blocks.to_vec());
    let mut writer = store.write().await.unwrap();
    writer.append(verified.unwrap()).await.unwrap();
    writer.commit().await.unwrap();
}

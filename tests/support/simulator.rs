//! A simulator of the network's real node, as far as a peer sees it: real libp2p, and the behaviours that were measured
//! on real nodes, each by name and switchable ([`Switches`]). No mock of our own parts: it shares nothing with the
//! gateway but libp2p.
//!
//! * `block`: a block as a real node keeps and tells it
//! * `store`: what it knows: every block by hash, the canonical ones among them, however many at an index
//! * `answers`: the answer to each path, from the store
//! * `mining`: SHA-256 proof of work, and genesis
//! * `fork_choice`: what it does with a block that it hears of, and with a chain that it adopts
//! * `network`: the swarm, the one task that does everything, and what ends that task for good
//! * `syncing`: the asker's side: the common ancestor, ranges, the adoption of a heavier chain
//! * `recording`: requests and answers of real nodes, recorded

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    sync::{Arc, MutexGuard, atomic::Ordering},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, identity::Keypair};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::gateway::PATIENCE;

mod answers;
mod block;
mod fork_choice;
mod mining;
mod network;
mod recording;
mod store;
mod syncing;

#[allow(unused_imports, reason = "each test program uses its own part of this")]
pub use self::{
    answers::{Panic, Request, Response},
    block::{Block, GossipBlock},
    fork_choice::{Heard, adopt, hear},
    mining::{genesis, mined, next, sealed},
    network::Death,
    recording::Recording,
    store::Store,
};

use self::network::{Command, Shared};

/// The behaviours of a real node that a test may switch. The default is a real node's with a clean store.
#[derive(Debug, Clone)]
pub struct Switches {
    /// Makes a genesis of its own where its store is empty at the start. It stays canonical when another chain is
    /// adopted. Default: false.
    pub own_genesis: bool,
    /// The last block but the tip's of a branch that was left for a heavier one stays canonical, linked to nothing.
    /// Default: false.
    pub stale_branch: bool,
    /// Indexes at which it tells of no canonical block. Default: none.
    pub gaps: BTreeSet<u64>,
    /// What it hears by gossip it stores, and serves, with an empty `data_hash`. Default: true.
    pub gossip_without_data_hash: bool,
    /// It gossips `epoch = index / 40`, whatever it has stored. Default: true.
    pub epoch_index_div_40: bool,
    /// `chain_length`, `chain_height` and `cumulative_difficulty` count every canonical block, strays included.
    /// Default: true.
    pub counts_include_strays: bool,
    /// Works at one request at a time; all else that its networking has to do waits meanwhile. Default: true.
    pub one_at_a_time: bool,
    /// What a request takes. Default: 40 ms.
    pub service_time: Duration,
    /// An answer to an asker that has left ends its networking for good. Default: true.
    pub dies_when_an_asker_leaves: bool,
    /// How old a request may get, in the queue or at work, until it counts as left. Default: 60 s.
    pub request_timeout: Duration,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            own_genesis: false,
            stale_branch: false,
            gaps: BTreeSet::new(),
            gossip_without_data_hash: true,
            epoch_index_div_40: true,
            counts_include_strays: true,
            one_at_a_time: true,
            service_time: Duration::from_millis(40),
            dies_when_an_asker_leaves: true,
            request_timeout: Duration::from_secs(60),
        }
    }
}

/// What the agent string calls the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// It mines.
    #[default]
    Miner,
    /// It follows.
    Observer,
}

/// Over what it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// `/ip4/…/tcp/N`.
    #[default]
    Tcp,
    /// `/ip4/…/tcp/N/ws`.
    WebSocket,
}

/// A simulator's settings.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What is switched.
    pub switches: Switches,
    /// Default: miner.
    pub role: Role,
    /// Default: TCP.
    pub transport: Transport,
    /// What its store holds at the start. Default: nothing.
    pub blocks: Vec<Block>,
    /// Whom it dials, and the only ones that it syncs from. Default: nobody.
    pub bootstrap: Vec<Multiaddr>,
    /// Target difficulty of the blocks that it mines. Default: 1, one hash in 256.
    pub difficulty: u128,
    /// Timestamp of its genesis, unix seconds; its blocks follow a minute apart by index. Default: 2023-11-14.
    pub genesis_time: i64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            switches: Switches::default(),
            role: Role::default(),
            transport: Transport::default(),
            blocks: Vec::new(),
            bootstrap: Vec::new(),
            difficulty: 1,
            genesis_time: 1_700_000_000,
        }
    }
}

/// A node that runs; gone, with its connections, when this is dropped.
pub struct Simulator {
    /// Its id.
    pub peer_id: PeerId,
    /// Where it listens, `/p2p/ID` included.
    pub address: Multiaddr,
    setup: Setup,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    _stop: DropGuard,
}

impl Simulator {
    /// A node that listens on a free port of 127.0.0.1.
    pub async fn start(setup: Setup) -> Self {
        let key = Keypair::generate_ed25519();
        let peer_id = key.public().to_peer_id();
        let mut store = Store::default();
        store.hidden.clone_from(&setup.switches.gaps);
        setup.blocks.iter().cloned().for_each(|block| store.put(block));
        if setup.switches.own_genesis && setup.blocks.is_empty() {
            store.put(genesis(&peer_id.to_string(), setup.genesis_time, setup.difficulty));
        }
        let shared = Arc::new(Shared::new(store, &setup));
        let stop = CancellationToken::new();
        let (commands, address) = network::start(key, &setup, shared.clone(), stop.clone()).await;
        Self { peer_id, address, setup, shared, commands, _stop: stop.drop_guard() }
    }

    /// A node that serves these blocks and has no habit but those of every real one.
    pub async fn serving(blocks: Vec<Block>) -> Self {
        Self::start(Setup { blocks, ..Setup::default() }).await
    }

    /// What its store holds.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.shared.store.lock().unwrap()
    }

    /// Its chain: from the tip down by links, genesis first.
    pub fn chain(&self) -> Vec<Block> {
        self.store().linked()
    }

    /// The end of its chain.
    pub fn tip(&self) -> Block {
        self.store().tip().cloned().expect("a chain")
    }

    /// Why its networking has ended for good; `None` while it works.
    pub fn death(&self) -> Option<Death> {
        self.shared.death.borrow().clone()
    }

    /// Waits until its networking has ended for good; why.
    pub async fn wait_dead(&self) -> Death {
        let mut death = self.shared.death.subscribe();
        let died = death.wait_for(Option::is_some);
        tokio::time::timeout(PATIENCE, died).await.expect("it lives on").unwrap().clone().unwrap()
    }

    /// Waits until its store is so.
    pub async fn wait_store(&self, what: &str, so: impl Fn(&Store) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        let waited = changed.wait_for(|_| so(&self.store()));
        let waited = tokio::time::timeout(PATIENCE, waited).await;
        let waited = waited.is_ok_and(|changed| changed.is_ok());
        let tip = self.store().tip().cloned();
        assert!(waited, "{what}: it never came to that: {tip:?}; dead: {:?}", self.death());
    }

    /// Waits until this is its tip.
    pub async fn wait_tip(&self, hash: &str) {
        self.wait_store("the tip", |store| store.tip().is_some_and(|tip| tip.hash == hash)).await;
    }

    /// Waits until so many of its peers listen to its gossip.
    pub async fn wait_listeners(&self, count: usize) {
        let mut listeners = self.shared.listeners.subscribe();
        let enough = listeners.wait_for(|listeners| listeners.len() >= count);
        tokio::time::timeout(PATIENCE, enough).await.expect("nobody listens").unwrap();
    }

    /// Waits until it has taken up so many requests.
    pub async fn wait_requests(&self, count: usize) {
        let mut taken = self.shared.requests.subscribe();
        let enough = taken.wait_for(|requests| requests.len() >= count);
        tokio::time::timeout(PATIENCE, enough).await.expect("nobody asks").unwrap();
    }

    /// The requests that it has taken up so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.borrow().clone()
    }

    /// The most requests that it worked at, at once; more than one only where [`Switches::one_at_a_time`] is off.
    pub fn most_at_once(&self) -> usize {
        self.shared.most_at_once.load(Ordering::Relaxed)
    }

    /// What it has heard by gossip, in order.
    pub fn heard(&self) -> watch::Receiver<Vec<Value>> {
        self.shared.heard.subscribe()
    }

    /// Mines `count` blocks on its tip and gossips each; the blocks.
    pub fn mine(&self, count: usize) -> Vec<Block> {
        self.mine_worth(count, &(1..=u128::MAX))
    }

    /// The same, of blocks whose hashes are worth so much.
    pub fn mine_worth(&self, count: usize, worth: &RangeInclusive<u128>) -> Vec<Block> {
        let blocks = self.mine_apart(count, worth);
        self.tell(&blocks);
        blocks
    }

    /// The same, without a word to anybody. Whoever asks is told; see [`mine_aside`](Self::mine_aside).
    pub fn mine_apart(&self, count: usize, worth: &RangeInclusive<u128>) -> Vec<Block> {
        let blocks = self.mine_aside(count, worth);
        blocks.iter().cloned().for_each(|block| self.store().put(block));
        self.shared.change();
        blocks
    }

    /// Mines `count` blocks on its tip and keeps them to itself, until they are [`reveal`](Self::reveal)ed.
    pub fn mine_aside(&self, count: usize, worth: &RangeInclusive<u128>) -> Vec<Block> {
        let (nominee, Setup { difficulty, genesis_time, .. }) = (self.peer_id.to_string(), &self.setup);
        let mut parent = self.tip();
        let blocks = (0..count).map(|_| {
            let time = genesis_time + 60 * (parent.index as i64 + 1);
            parent = mined(&next(&parent, &nominee, fastrand::u64(..), time, *difficulty), worth);
            parent.clone()
        });
        blocks.collect()
    }

    /// Takes blocks that were mined aside into its store, as fork choice has it, and gossips them.
    pub fn reveal(&self, blocks: &[Block]) {
        for block in blocks {
            hear(&mut self.store(), block.clone());
        }
        self.shared.change();
        self.tell(blocks);
    }

    /// Gossips these blocks, as their miner does. Nobody hears of them where nobody listens.
    pub fn tell(&self, blocks: &[Block]) {
        for block in blocks {
            let told = GossipBlock::of(block, &self.setup.switches);
            // A simulator that is dead gossips to nobody.
            let _ = self.commands.send(Command::Publish(serde_json::to_vec(&told).unwrap()));
        }
    }

    /// Compares its chain with that of one of its bootstrap peers, and adopts it if it claims more work.
    ///
    /// # Errors
    /// What the peer did not give, or gave and isn't a chain.
    pub async fn sync_with(&self, peer: PeerId) -> Result<(), String> {
        syncing::sync_with(peer, &self.shared, &self.commands).await
    }

    /// The answer of another peer to a request from this one; `None` if there is none.
    pub async fn ask(&self, peer: PeerId, path: &str, data: Value) -> Option<Response> {
        let (reply, answer) = oneshot::channel();
        let request = Request { path: path.into(), data: Some(data) };
        self.commands.send(Command::Ask { peer, request, reply }).ok()?;
        answer.await.ok()
    }
}

//! One network: two miners, of which the second had a genesis and a branch of its own before, an observer, and a
//! gateway on each store.

use std::time::Duration;

use rstest::rstest;

use crate::{
    support::{
        chain::{LIGHT, MIDDLE},
        gateway::Backend,
        simulator::{Block, Role, Setup, Simulator, Switches},
    },
    world::{Gateway, miner},
};

/// Rounds of twelve blocks, after nine in the beginning and genesis: 130 blocks, three epochs.
const ROUNDS: usize = 10;
const BEGINNING: usize = 9;

/// The round in which the lighter branch is three blocks long.
const LONG_BRANCH: usize = 5;

/// Who asks each gateway of each node, and how often. A node that is never idle lets nobody in: new connections come
/// last in its loop.
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(1500);

struct Nodes {
    first: Simulator,
    second: Simulator,
    observer: Simulator,
}

impl Nodes {
    async fn meet() -> Self {
        let first = miner(BEGINNING, Switches::default()).await;
        let apart = Switches { own_genesis: true, stale_branch: true, ..Switches::default() };
        let bootstrap = vec![first.address.clone()];
        let second = Simulator::start(Setup { switches: apart, bootstrap, ..Setup::default() }).await;
        second.mine_apart(2, &LIGHT);
        second.sync_with(first.peer_id).await.unwrap();
        let bootstrap = vec![first.address.clone(), second.address.clone()];
        let observer = Simulator::start(Setup { role: Role::Observer, bootstrap, ..Setup::default() }).await;
        observer.sync_with(first.peer_id).await.unwrap();
        let nodes = Self { first, second, observer };
        assert_eq!(nodes.second.chain(), nodes.first.chain());
        let canonical = nodes.second.store().canonical().len();
        assert_eq!(canonical, BEGINNING + 3, "its own genesis, and the last block of its branch");
        nodes.listen(2).await;
        nodes
    }

    fn all(&self) -> [&Simulator; 3] {
        [&self.first, &self.second, &self.observer]
    }

    /// Waits until each of them is listened to by so many others.
    async fn listen(&self, others: usize) {
        for node in self.all() {
            node.wait_listeners(others).await;
        }
    }

    /// Waits until all have this tip.
    async fn agree(&self, tip: &Block) {
        for node in self.all() {
            node.wait_tip(&tip.hash).await;
        }
    }

    /// Twelve more blocks: the miners mine apart first, and the one that comes second has the heavier branch.
    async fn round(&self, round: usize, see_lighter: impl AsyncFnOnce(&Block)) {
        let (winner, loser) =
            if round.is_multiple_of(2) { (&self.first, &self.second) } else { (&self.second, &self.first) };
        let length = if round == LONG_BRANCH { 3 } else { 1 };
        let branch = winner.mine_aside(length, &MIDDLE);
        let lighter = loser.mine_worth(length, &LIGHT);
        self.agree(lighter.last().unwrap()).await;
        if round == LONG_BRANCH {
            see_lighter(&lighter[2]).await;
        }
        winner.reveal(&branch);
        self.agree(branch.last().unwrap()).await;
        let more = winner.mine_worth(12 - length, &MIDDLE);
        self.agree(more.last().unwrap()).await;
    }

    /// The chain of all three in the end.
    fn chain(&self) -> Vec<Block> {
        let chain = self.first.chain();
        assert_eq!(chain.len(), 130);
        assert_eq!(self.all().map(|node| node.tip().hash), [(); 3].map(|()| chain[129].hash.clone()));
        chain
    }
}

/// Without us: what they tell and store is what was measured, and their chain is the heaviest.
#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_agree_among_themselves() {
    let nodes = Nodes::meet().await;
    for round in 0..ROUNDS {
        nodes.round(round, async |_| {}).await;
    }
    let chain = nodes.chain();
    let orphans = nodes.observer.store().orphans();
    assert_eq!(orphans, ROUNDS + 2, "one a round, and three in one");
    assert_eq!(nodes.second.store().canonical().len(), 132);
    for node in nodes.all() {
        let block = &node.chain()[80];
        let its_own = block.nominated_peer_id == node.peer_id.to_string();
        assert_eq!((block.data_hash.is_empty(), block.epoch), if its_own { (false, 1) } else { (true, 2) });
    }
    let miners: Vec<_> = nodes.all().into_iter().filter(|node| node.chain()[80].epoch == 1).collect();
    assert_eq!(miners.len(), 1, "chain {}", chain.len());
    assert_eq!(nodes.all().map(Simulator::death), [None, None, None]);
}

#[rstest]
#[case::undisturbed(false)]
#[case::stopped_ten_times_under_load(true)]
#[tokio::test(flavor = "multi_thread")]
async fn both_gateways_follow_the_heaviest_chain(#[case] stopped: bool) {
    let nodes = Nodes::meet().await;
    let peers = [("first", &nodes.first), ("second", &nodes.second), ("observer", &nodes.observer)];
    let mut gateways = [
        Gateway::start(Backend::Sqlite, &peers, &["--sync-interval", "1s"]).await,
        Gateway::start(Backend::Postgres, &peers, &["--sync-interval", "1s"]).await,
    ];
    for gateway in &gateways {
        gateway.wait_level(&nodes.first.tip()).await;
    }
    nodes.listen(4).await;
    let mut clients = Vec::new();
    if stopped {
        clients
            .extend(gateways.iter().flat_map(|gateway| peers.map(|(alias, _)| gateway.clients(alias, CLIENTS, PAUSE))));
    }
    for round in 0..ROUNDS {
        let seen = async |lighter: &Block| {
            for gateway in &gateways {
                gateway.wait_level(lighter).await;
            }
        };
        nodes.round(round, seen).await;
        if stopped {
            gateways.iter_mut().for_each(Gateway::restart);
        }
    }
    drop(clients);
    let chain = nodes.chain();
    for gateway in &gateways {
        gateway.assert_follows(&chain).await;
        let status = gateway.data("/status").await.unwrap();
        let orphans = status["chain"]["orphans"].as_u64().unwrap();
        assert!(orphans >= 3, "it was on the lighter branch: {status:#}");
    }
    gateways.iter_mut().for_each(Gateway::stop);
    for node in nodes.all() {
        crate::world::assert_lives(node).await;
    }
}

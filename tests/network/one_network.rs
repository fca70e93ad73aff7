//! One network: two miners, of which the second had a genesis and a branch of its own before, an observer, and a gateway on
//! each store.

use rstest::rstest;

use crate::{
    support::{
        chain::{LIGHT, MIDDLE},
        gateway::Backend,
        simulator::{Role, Setup, Simulator, Switches},
    },
    world::{Gateway, miner},
};

/// Rounds of twelve blocks, after nine in the beginning and genesis: 130 blocks, three epochs.
const ROUNDS: usize = 10;
const BEGINNING: usize = 9;

/// The round in which the lighter branch is three blocks long.
const LONG_BRANCH: usize = 5;

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
    async fn agree(&self, tip: &str) {
        for node in self.all() {
            node.wait_tip(tip).await;
        }
    }
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
        clients.extend(gateways.iter().flat_map(|gateway| peers.map(|(alias, _)| gateway.clients(alias, 4))));
    }
    for round in 0..ROUNDS {
        let (winner, loser) =
            if round % 2 == 0 { (&nodes.first, &nodes.second) } else { (&nodes.second, &nodes.first) };
        let length = if round == LONG_BRANCH { 3 } else { 1 };
        let branch = winner.mine_apart(length, &MIDDLE);
        let lighter = loser.mine_worth(length, &LIGHT);
        if round == LONG_BRANCH {
            for gateway in &gateways {
                gateway.wait_level(lighter.last().unwrap()).await;
            }
        }
        winner.tell(&branch);
        nodes.agree(&branch.last().unwrap().hash).await;
        let more = winner.mine_worth(12 - length, &MIDDLE);
        nodes.agree(&more.last().unwrap().hash).await;
        if stopped {
            gateways.iter_mut().for_each(Gateway::restart);
        }
    }
    drop(clients);
    let chain = nodes.first.chain();
    assert_eq!(chain.len(), 130);
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

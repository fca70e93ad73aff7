//! A gateway's process among simulators, and clients that ask them through it.

use std::time::Duration;

use libp2p::Multiaddr;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::support::{
    gateway::{Backend, TestStore},
    ports::free_port,
    process::{Process, program},
    simulator::{Block, Setup, Simulator, Switches},
    until::within,
};

/// The simulators' network, for `--network`.
pub const NETWORK: &str = "name = 'simulated'\npow = { algorithm = 'sha256' }\ninitial_difficulty = 1\n\
                           genesis_hash = 'any'\ndifficulty_schedule = 'report'\npublic = false\n";

/// Longest wait for anything that must happen: a simulator takes its time for each answer, and several of them do.
pub const LONG: Duration = Duration::from_secs(40);

/// What every client asks of a peer.
const QUESTIONS: [&str; 4] = [
    "/data/miner_block/canonical?",
    "/data/miner_block/chain_info?",
    "/data/miner_block/epoch?epoch=0&",
    "/data/miner_block/range?from_index=0&to_index=9&",
];

/// A gateway, which keeps its store, key and HTTP address while it comes and goes.
pub struct Gateway {
    store: TestStore,
    args: Vec<String>,
    process: Option<Process>,
    pub base: String,
    client: Client,
}

impl Gateway {
    /// A gateway over an empty store that has these peers, by alias.
    pub async fn start(backend: Backend, peers: &[(&str, &Simulator)], more: &[&str]) -> Self {
        let store = TestStore::create(backend).await;
        std::fs::write(store.folder.path().join("network.toml"), NETWORK).unwrap();
        let http = format!("127.0.0.1:{}", free_port());
        let mut args = vec!["serve", "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0", "--http", &http];
        args.extend(["--network", "network.toml", "--rate-limit", "0", "--database-url", &store.url]);
        args.extend(more);
        let mut args: Vec<_> = args.into_iter().map(String::from).collect();
        for (alias, peer) in peers {
            args.extend(["--peer".into(), format!("{alias}={}", peer.address)]);
        }
        let client = Client::builder().no_proxy().timeout(LONG).build().unwrap();
        let mut gateway = Self { base: format!("http://{http}"), store, args, process: None, client };
        gateway.up();
        gateway
    }

    fn up(&mut self) {
        let mut serve = program(self.store.folder.path(), &self.args);
        serve.env("RUST_LOG", std::env::var("NETWORK_LOG").unwrap_or_else(|_| "warn".into()));
        self.process = Some(Process::start(serve));
    }

    /// Ends it as a supervisor does.
    pub fn stop(&mut self) {
        let process = self.process.take().expect("it runs");
        assert_eq!(process.stop(), Some(0), "it ends cleanly");
    }

    /// The same, and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.up();
    }

    /// Where it listens for other nodes, until it is restarted.
    pub fn address(&self) -> Multiaddr {
        self.process.as_ref().expect("it runs").libp2p[0].parse().unwrap()
    }

    /// `data` of an answer, if it is one.
    pub async fn data(&self, path: &str) -> Option<Value> {
        let answer = self.client.get(format!("{}{path}", self.base)).send().await.ok()?;
        let answer: Value = answer.error_for_status().ok()?.json().await.ok()?;
        Some(answer["data"].clone())
    }

    /// Waits until its status is so; the status.
    pub async fn wait_status(&self, so: impl Fn(&Value) -> bool) -> Value {
        within(LONG, async || self.data("/status").await.filter(|status| so(status))).await
    }

    /// Waits until this is its tip.
    pub async fn wait_level(&self, tip: &Block) {
        self.wait_status(|status| status["chain"]["tip"]["hash"] == tip.hash.as_str()).await;
    }

    /// Checks that it has this chain, verified, and holds nothing against anybody.
    pub async fn assert_follows(&self, chain: &[Block]) {
        let tip = chain.last().unwrap();
        let level =
            |status: &Value| status["chain"]["tip"]["hash"] == tip.hash.as_str() && status["sync"]["state"] == "synced";
        let status = self.wait_status(level).await;
        assert!(["pow", "linked"].map(Value::from).contains(&status["chain"]["verification"]), "{status:#}");
        let told = self.data("/data/miner_block/canonical").await.unwrap();
        let hashes: Vec<_> = told["blocks"].as_array().unwrap().iter().map(|block| block["hash"].clone()).collect();
        assert_eq!(hashes, chain.iter().map(|block| json!(block.hash)).collect::<Vec<_>>());
        self.assert_blames_nobody().await;
    }

    /// Checks that it holds nothing against anybody.
    pub async fn assert_blames_nobody(&self) {
        let peers = self.data("/peers").await.unwrap();
        for peer in peers["peers"].as_array().unwrap() {
            let blame = [&peer["score"], &peer["penalties"], &peer["shunned"], &peer["last_penalty"]];
            assert_eq!(blame, [&json!(0.0), &json!(0), &json!(false), &Value::Null], "{peer:#}");
        }
    }

    /// Clients that ask this peer through it, again and again, whether it is there or not, each with such a pause.
    pub fn clients(&self, peer: &str, count: usize, pause: Duration) -> JoinSet<()> {
        (0..count)
            .map(|number| {
                let (client, url) = (self.client.clone(), format!("{}{}peer={peer}", self.base, QUESTIONS[number % 4]));
                async move {
                    let mut ticks = tokio::time::interval(pause);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    loop {
                        ticks.tick().await;
                        // Refused, busy, cut off, or answered: what counts is what became of the peer.
                        if let Ok(answer) = client.get(&url).send().await {
                            let _ = answer.bytes().await;
                        }
                    }
                }
            })
            .collect()
    }

    /// Has the operator ban a peer.
    pub async fn ban(&self, peer: &Simulator) {
        let admin = &self.process.as_ref().unwrap().admin;
        let url = format!("{admin}/peers/{}?ban_seconds=60", peer.peer_id);
        let answer = self.client.delete(url).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    }
}

/// A miner with so many blocks above a genesis of its own.
pub async fn miner(blocks: usize, switches: Switches) -> Simulator {
    let switches = Switches { own_genesis: true, ..switches };
    let node = Simulator::start(Setup { switches, ..Setup::default() }).await;
    node.mine_apart(blocks, &crate::support::chain::LIGHT);
    node
}

/// Checks that a node has come through: it answers somebody else, after all that waits in its queue.
pub async fn assert_lives(node: &Simulator) {
    let asker = Simulator::start(Setup { bootstrap: vec![node.address.clone()], ..Setup::default() }).await;
    let answer = asker.ask(node.peer_id, "/ping", json!("there?")).await;
    assert_eq!(node.death(), None);
    assert!(answer.is_some_and(|answer| answer.ok), "no answer");
}

//! The programs that run, and what befalls them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use modal_gateway::{
    chain::{
        ChainEnd, Network, PowAlgorithm, PowOptions,
        miner::{self, HASHES_PER_DIFFICULTY, Miner},
    },
    store::{self, BlockStore, OpenOptions},
};
use reqwest::Client;
use serde_json::{Value, json};

use super::Duration;
use crate::support::{
    cluster::Cluster,
    ports::free_port,
    process::{Process, SERVE, program},
    until::within,
};

/// Kinds of trouble.
pub const TROUBLES: u32 = 5;

/// Blocks that come between two of them.
pub const SPELL: u64 = 10;

/// Blocks a second of the whole network: a week of one a minute in an hour.
const PACE: f64 = 7.0 * 24.0 * 60.0 / 3600.0;

/// The part of a core that a node gets for mining, about: the nodes give way to everything else, and are away at times.
const SHARE: f64 = 0.15;

/// Longest wait for anything that must happen: mining is slow where the machine, or its disk, is busy.
pub const LONG: Duration = Duration::from_secs(300);

/// The canonical chain in the end.
#[derive(Debug)]
pub struct End {
    pub tip: Value,
    pub length: u64,
}

/// Two nodes that mine, and a gateway that follows them.
pub struct World {
    pub gateway: Process,
    nodes: [Node; 2],
    cluster: Cluster,
    client: Client,
    /// Deleted when nobody writes there any more.
    folder: tempfile::TempDir,
}

/// A node, which keeps its store, key and port while it comes and goes.
struct Node {
    name: &'static str,
    port: u16,
    store: Arc<dyn BlockStore>,
    running: Option<Process>,
}

impl World {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let network = format!(
            "name = 'soak'\ninitial_difficulty = {}\ndifficulty_schedule = false\npublic = false\n[pow]\nalgorithm = \
             'sha256'\n",
            difficulty()
        );
        std::fs::write(folder.path().join("soak.toml"), network).unwrap();
        let cluster = Cluster::start();
        let mut nodes = [Node::new("a", folder.path()).await, Node::new("b", folder.path()).await];
        let ports = [nodes[0].port, nodes[1].port];
        let peers = ports.map(|port| format!("/ip4/127.0.0.1/tcp/{port}"));
        for (node, other) in nodes.iter_mut().zip([&peers[1], &peers[0]]) {
            node.start(folder.path(), &["--peer", other]);
        }
        let url = cluster.url(cluster.address, "postgres");
        let mut serve = program(folder.path(), SERVE);
        serve.args(["--network", "soak.toml", "--sync-interval", "1s", "--database-url", &url]);
        for (name, address) in ["a", "b"].iter().zip(&peers) {
            serve.args(["--peer", &format!("{name}={address}")]);
        }
        // A small cache is full soon, so that what grows is no cache.
        serve.env("MODAL_GATEWAY_CACHE_MIB", "4").env("RUST_LOG", "warn");
        let gateway = Process::start(serve);
        let client = Client::builder().no_proxy().build().unwrap();
        let world = Self { folder, cluster, nodes, gateway, client };
        world.grown(SPELL).await;
        world
    }

    /// Lets something happen, and a few blocks after it; what it was.
    pub async fn trouble(&mut self, round: u32) -> &'static str {
        let what = match round % TROUBLES {
            0 => self.kill_a_node().await,
            1 => self.mine_apart().await,
            2 => self.restart_database("fast", "database restarted"),
            3 => self.restart_database("immediate", "database killed and restarted"),
            _ => self.leave_alone().await,
        };
        self.grown(SPELL).await;
        what
    }

    async fn kill_a_node(&mut self) -> &'static str {
        // A node that has not been in sync with its peer yet does not mine without it.
        self.nodes[0].mines().await;
        self.nodes[1].running = None;
        self.grown(SPELL).await;
        self.start_nodes();
        "node killed"
    }

    /// The nodes don't hear of each other; the gateway follows the first until the second has the heavier branch.
    async fn mine_apart(&mut self) -> &'static str {
        for node in &mut self.nodes {
            node.stop();
        }
        let path = self.folder.path();
        // The gateway may have fallen behind: what it catches up with is not mined apart.
        let shared = self.nodes[0].store.state().await.unwrap().length;
        self.nodes[0].start(path, &[]);
        self.reached(shared + SPELL).await;
        self.nodes[0].stop();
        // Not at its port: the gateway would find it there.
        self.nodes[1].start_at(path, 0, &[]);
        self.nodes[1].outweighs(&self.nodes[0]).await;
        self.nodes[1].stop();
        self.start_nodes();
        "branches mined apart"
    }

    fn restart_database(&self, mode: &str, what: &'static str) -> &'static str {
        tokio::task::block_in_place(|| {
            self.cluster.stop(mode);
            self.cluster.up();
        });
        what
    }

    async fn leave_alone(&mut self) -> &'static str {
        for node in &mut self.nodes {
            node.stop();
        }
        let lonely = async || {
            let peers = self.data("/peers").await?;
            let all = peers["peers"].as_array()?;
            all.iter().all(|peer| peer["connected"] == false).then_some(())
        };
        until(lonely).await;
        self.start_nodes();
        "both nodes gone"
    }

    fn start_nodes(&mut self) {
        let peers = self.nodes.each_ref().map(|node| format!("/ip4/127.0.0.1/tcp/{}", node.port));
        for (node, other) in self.nodes.iter_mut().zip([&peers[1], &peers[0]]) {
            if node.running.is_none() {
                node.start(self.folder.path(), &["--peer", other]);
            }
        }
    }

    /// `data` of an answer, if it is one.
    async fn data(&self, path: &str) -> Option<Value> {
        let answer = self.client.get(format!("{}{path}", self.gateway.http)).send().await.ok()?;
        let answer: Value = answer.error_for_status().ok()?.json().await.ok()?;
        Some(answer["data"].clone())
    }

    /// Waits until the gateway's chain has this many more blocks.
    async fn grown(&self, blocks: u64) {
        let length = async || self.data("/status").await?["chain"]["length"].as_u64();
        let before = until(length).await;
        self.reached(before + blocks).await;
    }

    /// Waits until the gateway's chain has so many blocks.
    async fn reached(&self, blocks: u64) {
        until(async || self.data("/status").await?["chain"]["length"].as_u64().filter(|now| *now >= blocks)).await;
    }

    /// No more blocks come, and everybody has the same; the hash of its tip.
    pub async fn rest(&mut self) -> String {
        for node in &mut self.nodes {
            node.stop();
        }
        // The same nodes, not mining, with all that either of them knows.
        let peers = self.nodes.each_ref().map(|node| format!("/ip4/127.0.0.1/tcp/{}", node.port));
        for (node, other) in self.nodes.iter_mut().zip([&peers[1], &peers[0]]) {
            node.serve(self.folder.path(), node.port, &["--peer", other]);
        }
        let level = async || {
            let status = self.data("/status").await?;
            let tip = status["chain"]["tip"]["hash"].as_str()?.to_owned();
            let states = futures::future::join_all(self.nodes.iter().map(|node| node.store.state())).await;
            let same = |state: &store::Result<store::ChainState>| {
                state.as_ref().is_ok_and(|state| state.tip.as_ref().is_some_and(|known| known.hash == tip))
            };
            (status["sync"]["state"] == "synced" && states.iter().all(same)).then_some(tip)
        };
        until(level).await
    }

    /// Ends everything and audits all three stores.
    pub async fn end(self) -> End {
        assert_eq!(self.gateway.stop(), Some(0), "the gateway ends cleanly");
        let mut urls = vec![self.cluster.url(self.cluster.address, "postgres")];
        for mut node in self.nodes {
            node.stop();
            node.store.close().await;
            urls.push(node.url(self.folder.path()));
        }
        for url in &urls {
            let audit = network_program(self.folder.path(), "verify").args(["--database-url", url]).output().unwrap();
            assert!(audit.status.success(), "{url}: {}", String::from_utf8_lossy(&audit.stderr));
        }
        let store = store::open(&urls[0], &OpenOptions::default()).await.unwrap();
        let state = store.state().await.unwrap();
        store.close().await;
        let tip = state.tip.expect("a chain");
        End { tip: json!({"index": tip.index, "hash": tip.hash}), length: state.length }
    }
}

impl Node {
    async fn new(name: &'static str, folder: &Path) -> Self {
        let port = free_port();
        let store = store::open(&url(name, folder), &OpenOptions::default()).await.unwrap();
        Self { name, port, store, running: None }
    }

    fn url(&self, folder: &Path) -> String {
        url(self.name, folder)
    }

    fn start(&mut self, folder: &Path, args: &[&str]) {
        self.start_at(folder, self.port, args);
    }

    fn start_at(&mut self, folder: &Path, port: u16, args: &[&str]) {
        self.serve(folder, port, &[&["--mine"], args].concat());
    }

    fn serve(&mut self, folder: &Path, port: u16, args: &[&str]) {
        // Mining takes what others leave.
        let mut node = network_program(folder, "node");
        node.args(["--database-url", &self.url(folder), "--identity", &format!("{}.key", self.name)]);
        node.args(["--listen", &format!("/ip4/127.0.0.1/tcp/{port}"), "--sync-interval", "1s"]).args(args);
        let mut nice = Command::new("nice");
        nice.args(["-n", "5"]).arg(node.get_program()).args(node.get_args());
        nice.env_clear().env("RUST_LOG", "warn").env("PATH", "/usr/bin:/bin").current_dir(folder);
        self.running = Some(Process::start(nice));
    }

    fn stop(&mut self) {
        if let Some(process) = self.running.take() {
            assert_eq!(process.stop(), Some(0), "{} ends cleanly", self.name);
        }
    }

    /// Waits until it has mined a block from now on, and the block was the tip.
    async fn mines(&self) {
        let (_, id) = self.running.as_ref().unwrap().libp2p[0].rsplit_once('/').unwrap();
        let tip = async || Some(self.store.state().await.ok()?.tip.map_or(0, |tip| tip.index));
        let before = until(tip).await;
        let own = async || {
            let index = tip().await.filter(|index| *index > before)?;
            let (block, _) = self.store.block_at(index).await.ok()??;
            (block.nominated_peer_id == id).then_some(())
        };
        until(own).await;
    }

    /// Waits until its chain has more work than the other's.
    async fn outweighs(&self, other: &Self) {
        let work = async |node: &Self| Some(node.store.state().await.ok()?.cumulative_difficulty);
        until(async || (work(self).await? > work(other).await?).then_some(())).await;
    }
}

fn url(name: &str, folder: &Path) -> String {
    let path: PathBuf = folder.join(format!("{name}.db"));
    format!("sqlite://{}", path.display())
}

fn network_program(folder: &Path, command: &str) -> Command {
    program(folder, [command, "--network", "soak.toml"])
}

/// Looks until there is something.
async fn until<T>(look: impl AsyncFnMut() -> Option<T>) -> T {
    within(LONG, look).await
}

/// The difficulty at which two nodes on this machine keep the [`PACE`].
fn difficulty() -> u128 {
    let network = Network { pow: PowAlgorithm::Sha256, genesis_hash: None, ..Network::devnet() };
    let miner = Miner::new(&network, PowOptions { threads: 1, ..PowOptions::default() }).unwrap();
    let parent = ChainEnd { index: 0, hash: "0".into(), timestamp: 0, target_difficulty: 1, epoch_started: 0 };
    let (start, mut blocks) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(300) {
        let template = miner::next_template(&network, &parent, "soak", blocks, 0);
        miner.mine(template, &AtomicBool::new(false)).unwrap();
        blocks += 1;
    }
    // Blocks of difficulty 1.
    let rate = blocks as f64 / start.elapsed().as_secs_f64();
    eprintln!("soak: {:.0} hashes a second and thread", rate * HASHES_PER_DIFFICULTY as f64);
    (rate * 2.0 * SHARE / PACE).max(1.0) as u128
}

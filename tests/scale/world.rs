//! The parts, and what happens to them.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use modal_gateway::{store, store::OpenOptions};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::{
    clients::Clients,
    followers::Followers,
    support::{
        clock::judge,
        cluster::Cluster,
        linked::{NETWORK_FILE, linked},
        peer::ScriptedPeer,
        pgbouncer::PgBouncer,
        ports::free_port,
        process::{Process, program},
        serving::{Served, Serving, grow},
        until::{eventually, within},
    },
};

const HAPROXY: &str = "/usr/sbin/haproxy";

/// The peer's chain at the beginning, and how often it grows.
const LENGTH: u64 = 60;
const GROWS_EVERY: Duration = Duration::from_millis(200);

/// Blocks that all followers see in each step.
const STEP: u64 = 6;
/// How soon all followers have an event that one of them has; those that have to connect again aside.
const AGREE: Duration = Duration::from_millis(250);
/// Good answers in a step without new blocks, and how long they may take on a busy machine.
const READS: usize = 500;
const LONG: Duration = Duration::from_secs(300);

/// All of it.
pub struct World {
    folder: TempDir,
    pub primary: Cluster,
    pub replica: Cluster,
    pub pooler: PgBouncer,
    peer: ScriptedPeer,
    chain: Served,
    growth: JoinSet<()>,
    ports: Vec<u16>,
    gateways: Vec<Option<Process>>,
    proxy: Proxy,
    proxy_port: u16,
    clients: Clients,
    followers: Followers,
}

impl World {
    /// Starts all of it; `None` where HAProxy is not installed.
    pub async fn start() -> Option<Self> {
        if !Path::new(HAPROXY).exists() {
            assert!(std::env::var_os("CI").is_none(), "haproxy is missing: scripts/setup.sh proxies");
            eprintln!("skipped: haproxy is not installed; scripts/setup.sh proxies installs it");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("network.toml"), NETWORK_FILE).unwrap();
        let primary = Cluster::start();
        let replica = primary.standby();
        let pooler = PgBouncer::with(&url(&primary), "transaction", "server_login_retry = 1").await;
        let serving = Serving::of(&linked(None, LENGTH, "main"));
        let chain = serving.chain();
        let peer = ScriptedPeer::start(serving.script()).await;
        let (ports, proxy_port): (Vec<_>, _) = ((0..3).map(|_| free_port()).collect(), free_port());
        let proxy = proxy(folder.path(), proxy_port, &ports);
        let base = format!("http://127.0.0.1:{proxy_port}");
        let mut world = Self {
            clients: Clients::start(&base),
            // Each gateway's own, and three by way of the proxy.
            followers: Followers::of(&[[base.clone(), base.clone(), base].to_vec(), bases(&ports)].concat()),
            folder,
            primary,
            replica,
            pooler,
            peer,
            chain,
            growth: JoinSet::new(),
            gateways: vec![None, None, None],
            ports,
            proxy,
            proxy_port,
        };
        for place in 0..3 {
            world.restart(place);
        }
        world.growth.spawn(grow(world.chain.clone(), GROWS_EVERY));
        world.replica_is_used().await;
        Some(world)
    }

    fn peers_tip(&self) -> u64 {
        self.chain.lock().unwrap().last().unwrap().index
    }

    /// Starts a gateway that is not there.
    pub fn restart(&mut self, place: usize) {
        let folder = self.folder.path().join(place.to_string());
        fs::create_dir_all(&folder).unwrap();
        let http = format!("127.0.0.1:{}", self.ports[place]);
        let mut serve = program(&folder, ["serve", "--http", &http, "--admin", "127.0.0.1:0"]);
        serve.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--network", "../network.toml", "--verify", "linked"]);
        serve.args([
            "--sync-interval",
            "200ms",
            "--rate-limit",
            "0",
            "--peer",
            &format!("writer={}", self.peer.address),
        ]);
        serve.args(["--database-url", &self.pooler.url, "--database-read-url", &url(&self.replica)]);
        serve.env("MODAL_GATEWAY_PEER_TIMEOUT", "2s").env("RUST_LOG", "warn,modal_gateway::sync=debug");
        self.gateways[place] = Some(match std::env::var_os("SCALE_LOG") {
            Some(_) => Process::start(serve),
            None => Process::start_quietly(serve),
        });
    }

    /// Kills a gateway.
    pub fn kill(&mut self, place: usize) {
        self.gateways[place] = None;
    }

    /// Kills the proxy and starts it again.
    pub async fn proxy_restarts(&mut self) {
        self.proxy.end();
        self.proxy = proxy(self.folder.path(), self.proxy_port, &self.ports);
    }

    /// The gateway that syncs.
    pub fn syncing(&self) -> usize {
        self.leased().into_iter().next().expect("one of them syncs")
    }

    /// Waits until another gateway syncs.
    pub async fn next_syncing(&self, before: usize) -> usize {
        eventually(async || self.leased().into_iter().find(|place| *place != before)).await
    }

    fn leased(&self) -> Vec<usize> {
        let leased = |place: &usize| {
            let Some(gateway) = &self.gateways[*place] else { return false };
            gateway.log.lock().unwrap().iter().any(|line| line.contains("this process syncs the store"))
        };
        (0..3).filter(leased).collect()
    }

    /// Waits until every gateway reads from the replica.
    pub async fn replica_is_used(&self) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for gateway in self.gateways.iter().flatten() {
            eventually(async || {
                let metrics = http.get(format!("{}/metrics", gateway.admin)).send().await.ok()?.text().await.ok()?;
                metrics
                    .lines()
                    .any(|line| line.starts_with("modal_store_replica_up{") && line.ends_with(" 1"))
                    .then_some(())
            })
            .await;
        }
    }

    /// Waits until every follower that has a gateway has seen some more blocks.
    pub async fn goes_on(&mut self, when: &str) {
        let (started, after) = (Instant::now(), self.followers.last());
        let index = self.peers_tip() + STEP;
        // The follower of a gateway that is gone waits for its return.
        let there: Vec<_> = [true; 3].into_iter().chain(self.gateways.iter().map(Option::is_some)).collect();
        self.followers.reach(index, &there, when).await;
        let spreads = self.followers.spreads(after, &there);
        // On a busy machine one event may be all there is, and be there already.
        let at = |place: usize| spreads.get(place).copied().unwrap_or_default();
        let (median, most) = (at(spreads.len() / 2), at(spreads.len().saturating_sub(1)));
        eprintln!(
            "{when:32} all followers at {index} after {:.2?}; they agree within {median:.0?}, at most {most:.0?}",
            started.elapsed(),
        );
        judge(median < AGREE, format_args!("{when}: they agree within {median:?}"));
        self.check(when);
    }

    /// Waits until clients have read for a while, though nothing can be written.
    pub async fn reads_go_on(&mut self, when: &str) {
        let (started, before) = (Instant::now(), self.clients.good());
        within(LONG, async || (self.clients.good() >= before + READS).then_some(())).await;
        eprintln!("{when:32} {READS} good answers within {:.2?}", started.elapsed());
        self.check(when);
    }

    fn check(&self, when: &str) {
        let seen = self.clients.seen.lock().unwrap();
        assert!(seen.wrong.is_empty(), "{when}: {:#?}", seen.wrong);
    }

    /// Ends all of it, and audits what is left.
    pub async fn end(mut self) {
        self.growth.shutdown().await;
        let tip = self.chain.lock().unwrap().last().unwrap().clone();
        self.followers.reach(tip.index, &[true; 6], "the end").await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for base in bases(&self.ports) {
            let asked = format!("{base}/data/miner_block/chain_info");
            // Followers are told of a tip a little earlier than those who ask.
            eventually(async || {
                let info: serde_json::Value = http.get(&asked).send().await.unwrap().json().await.unwrap();
                (info["data"]["tip_hash"] == tip.hash.as_str()).then_some(())
            })
            .await;
        }
        let seen = self.clients.end().await;
        eprintln!("answers {:?}, {} tips, slowest {:.2?}", seen.statuses, seen.tips, seen.slowest);
        assert!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
        assert!(seen.tips > 50, "{}", seen.tips);
        judge(seen.slowest < Duration::from_secs(5), format_args!("{:?}", seen.slowest));
        for gateway in self.gateways.drain(..).flatten() {
            assert_eq!(gateway.stop(), Some(0));
        }
        let (folder, database) = (self.folder.path(), url(&self.primary));
        let verify = ["verify", "--network", "network.toml", "--verify", "linked", "--database-url", &database];
        let verify = program(folder, verify).output().unwrap();
        assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stderr));
        let store = store::open(&database, &OpenOptions::default()).await.unwrap();
        assert_eq!(store.state().await.unwrap().length, tip.index + 1);
        let mut ids: Vec<u64> = Vec::new();
        loop {
            let more = store.events(ids.last().copied().unwrap_or(0), 1000).await.unwrap();
            if more.is_empty() {
                break;
            }
            ids.extend(more.into_iter().map(|event| event.id));
        }
        self.followers.have_all(&ids);
        eprintln!("{} events, {} blocks: each follower has all events once", ids.len(), tip.index + 1);
    }
}

/// HAProxy, killed when this is dropped.
struct Proxy(Child);

impl Proxy {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

fn url(cluster: &Cluster) -> String {
    cluster.url(cluster.address, "postgres")
}

fn bases(ports: &[u16]) -> Vec<String> {
    ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect()
}

/// HAProxy before the gateways, with the settings of docs/operations.md.
fn proxy(folder: &Path, port: u16, gateways: &[u16]) -> Proxy {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let settings = page.split("```haproxy\n").find(|block| block.contains("backend gateways")).expect("the settings");
    let mut settings = settings.split("```").next().unwrap().replace("bind :80", &format!("bind 127.0.0.1:{port}"));
    for (number, gateway) in gateways.iter().enumerate() {
        settings = settings.replace(&format!("10.0.0.{}:8080", number + 1), &format!("127.0.0.1:{gateway}"));
    }
    let file = folder.join("haproxy.cfg");
    fs::write(&file, settings).unwrap();
    let mut command = Command::new(HAPROXY);
    command.arg("-db").arg("-f").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Proxy(command.spawn().unwrap())
}

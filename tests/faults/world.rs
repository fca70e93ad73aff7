//! A gateway's process, a peer whose chain grows and forks, clients that read, and one who follows.

use std::time::{Duration, Instant};

use modal_gateway::{chain::MinerBlock, store, store::OpenOptions};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::support::{clock::judge, until::eventually};
use crate::{
    load::{self, Sample, Samples, statuses},
    support::{
        follower::{self, Received},
        gateway::PATIENCE,
        linked::{NETWORK_FILE, linked},
        peer::ScriptedPeer,
        process::{Process, SERVE, program},
        serving::{Served, Serving, grow},
    },
};

/// No answer may take longer,
const SLOWEST: Duration = Duration::from_secs(5);
/// and the gateway be unhealthy for longer once the database is back.
const RECOVERY: Duration = Duration::from_secs(3);

/// How soon a reader is told of a database that is known to be gone.
const REFUSAL: Duration = Duration::from_millis(100);

/// What everybody around has seen before anything fails: events, a fork among them.
const EVENTS: usize = 10;

/// The peer's chain at the beginning, and how often it grows.
const LENGTH: u64 = 60;
const GROWS_EVERY: Duration = Duration::from_millis(150);

/// What readers meet while the fault lasts.
#[derive(Clone, Copy, PartialEq)]
pub enum Reads {
    /// They go on.
    GoOn,
    /// They fail: the database can't be reached.
    Fail,
    /// They fail, though it can be reached.
    Refused,
    /// Some may fail, until the gateway has found the way on.
    Stumble,
}

/// The gateway and all around it.
pub struct World {
    url: String,
    folder: TempDir,
    pub gateway: Process,
    pub base: String,
    pub admin: String,
    _peer: ScriptedPeer,
    chain: Served,
    growth: JoinSet<()>,
    samples: Samples,
    clients: JoinSet<()>,
    stop_clients: CancellationToken,
    told: watch::Receiver<Received>,
}

/// One at a time: what is timed is not to be slowed down by another test.
pub async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    ALONE.lock().await
}

impl World {
    /// A gateway on this store, followed and asked, that has begun to follow the peer.
    pub async fn over(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let serving = Serving::of(&linked(None, LENGTH, "main"));
        let chain = serving.chain();
        let peer = ScriptedPeer::start(serving.script()).await;
        std::fs::write(folder.path().join("network.toml"), NETWORK_FILE).unwrap();
        let gateway = serve(&folder, url, &peer);
        let (base, admin) = (gateway.http.clone(), gateway.admin.clone());
        let stop = CancellationToken::new();
        let (told, (samples, clients)) = (follower::follow(&base), load::clients(&base, &stop));
        let url = url.to_owned();
        let growth = JoinSet::new();
        let mut world = Self {
            url,
            folder,
            gateway,
            base,
            admin,
            _peer: peer,
            chain,
            growth,
            samples,
            clients,
            stop_clients: stop,
            told,
        };
        world.growth.spawn(grow(world.chain.clone(), GROWS_EVERY));
        world.goes_on(EVENTS).await;
        world
    }

    fn peers_tip(&self) -> MinerBlock {
        self.chain.lock().unwrap().last().unwrap().clone()
    }

    /// Waits until the follower is told of so many more events.
    pub async fn goes_on(&self, events: usize) {
        let mut told = self.told.clone();
        let enough = told.borrow().ids.len() + events;
        let news = told.wait_for(|told| told.ids.len() >= enough);
        tokio::time::timeout(PATIENCE, news).await.expect("the gateway follows the peer").unwrap();
    }

    /// Waits until the follower is told of a block that the peer does not have yet.
    async fn catches_up(&mut self, when: &str) {
        let now = self.peers_tip().index;
        let news = self.told.wait_for(|told| told.tip["index"].as_u64().is_some_and(|index| index > now));
        let waited = tokio::time::timeout(PATIENCE, news).await.is_ok();
        assert!(waited, "{when}: no news; the peer was at {now}: {}", self.told.borrow().tip);
    }

    async fn status(&self, path: &str) -> u16 {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        http.get(format!("{}{path}", self.base)).send().await.unwrap().status().as_u16()
    }

    /// The admin listener's figures.
    pub async fn metrics(&self) -> String {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let response = http.get(format!("{}/metrics", self.admin)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.text().await.unwrap()
    }

    /// Lets something fail for a while and then work again, and checks what everybody around saw of it. `writes` says
    /// whether the gateway could go on writing all the while.
    pub async fn fault(
        &mut self,
        name: &str,
        lasts: Duration,
        (reads, writes): (Reads, bool),
        inject: impl AsyncFnOnce(),
        heal: impl AsyncFnOnce(),
    ) {
        let begin = Instant::now();
        inject().await;
        // Whatever was under way has ended half way through.
        let half = || tokio::time::timeout(lasts / 2, std::future::pending::<()>());
        let _ = half().await;
        let written = self.told.borrow().ids.len();
        let _ = half().await;
        eventually(async || {
            let figures = self.metrics().await;
            (figures.contains("modal_store_up 0") == (reads == Reads::Fail)).then_some(())
        })
        .await;
        if !writes {
            assert_eq!(self.told.borrow().ids.len(), written, "{name}: it was written all the same");
        }
        heal().await;
        let healed = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let all = [self.status("/health/ready").await, self.status("/data/miner_block/epoch?epoch=0").await];
            if all == [200, 200] {
                break;
            }
            assert!(healed.elapsed() < PATIENCE, "{name}: it never recovers: {all:?}");
        }
        let healthy = healed.elapsed();
        let again = Instant::now();
        self.catches_up(name).await;
        let samples: Vec<_> = self.samples.lock().unwrap().iter().copied().filter(|s| s.at >= begin).collect();
        let slowest = samples.iter().map(|sample| sample.took).max().unwrap();
        let mut refusals: Vec<_> = samples.iter().filter(|s| s.status == 503).map(|sample| sample.took).collect();
        refusals.sort();
        let median = refusals.get(refusals.len() / 2);
        let refused = median.map(|median| format!(", 503 after {median:.1?}")).unwrap_or_default();
        eprintln!(
            "{name:28} {:5} requests {:?}, slowest {slowest:.2?}{refused}; healthy after {healthy:.2?}, news after {:.2?}",
            samples.len(),
            statuses(&samples),
            again.elapsed() + healthy,
        );
        judge(median.is_none_or(|median| *median < REFUSAL), format_args!("{name}: refused after {median:?}"));
        check(name, &samples);
        let failed = samples.iter().any(|sample| sample.status == 503);
        let expected = matches!(reads, Reads::Fail | Reads::Refused);
        assert!(reads == Reads::Stumble || failed == expected, "{name}: {:?}", statuses(&samples));
        judge(healthy < RECOVERY, format_args!("{name}: healthy after {healthy:?}"));
    }

    /// Ends all of it, and audits what is left. `losses`: how often the database has lost what was committed.
    pub async fn end(mut self, losses: usize) {
        self.catches_up("the end").await;
        self.growth.shutdown().await;
        let tip = self.peers_tip();
        let last = tip.hash.clone();
        let level = self.told.wait_for(|told| told.tip["hash"] == last.as_str());
        tokio::time::timeout(PATIENCE, level).await.expect("the gateway comes level with the peer").unwrap();
        self.stop_clients.cancel();
        let ended = async {
            while let Some(client) = self.clients.join_next().await {
                client.unwrap()
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("every request has its answer");
        check("in the end", &self.samples.lock().unwrap());
        assert_eq!(self.gateway.stop(), Some(0));

        let verify = ["verify", "--network", "network.toml", "--verify", "linked", "--database-url", &self.url];
        let verify = program(self.folder.path(), verify).output();
        let verify = verify.unwrap();
        assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stderr));
        let store = store::open(&self.url, &OpenOptions::default()).await.unwrap();
        let state = store.state().await.unwrap();
        assert_eq!(state.tip.map(|tip| tip.hash), Some(tip.hash));
        let known = self.told.borrow().resets.last().copied().unwrap_or_default();
        let mut ids = Vec::new();
        loop {
            let more = store.events(ids.last().copied().unwrap_or(known), 1000).await.unwrap();
            if more.is_empty() {
                break;
            }
            ids.extend(more.into_iter().map(|event| event.id));
        }
        let told = self.told.borrow();
        assert!(told.broken.is_empty(), "events that don't follow each other: {:#?}", told.broken);
        assert_eq!(told.resets.len(), losses, "what is lost is told once: {:?}", told.resets);
        assert_eq!(told.ids, ids, "the events told are those in the store");
        eprintln!("{} events, {} blocks: told once each, and the audit finds nothing", ids.len(), state.length);
    }
}

/// Checks that nobody was answered late, impolitely, or not at all.
fn check(name: &str, samples: &[Sample]) {
    for sample in samples {
        // The chain may fork under whoever reads all of it.
        let forked = sample.status == 409 && sample.path.ends_with("/canonical");
        let told = matches!(sample.status, 200 | 503 | 0) || forked;
        assert!(told && sample.polite, "{name}: {} {}", sample.status, sample.path);
        judge(sample.took < SLOWEST, format_args!("{name}: {} took {:?}", sample.path, sample.took));
        assert!(sample.status == 200 || !sample.is_always(), "{name}: {} {}", sample.status, sample.path);
    }
}

/// Starts a gateway that follows the peer.
fn serve(folder: &TempDir, url: &str, peer: &ScriptedPeer) -> Process {
    let mut serve = program(folder.path(), SERVE);
    serve.args(["--network", "network.toml", "--verify", "linked", "--sync-interval", "200ms", "--rate-limit", "0"]);
    serve.args(["--database-url", url, "--peer", &format!("writer={}", peer.address)]);
    let log = std::env::var("FAULTS_LOG").unwrap_or_else(|_| "off".into());
    serve.env("MODAL_GATEWAY_PEER_TIMEOUT", "2s").env("RUST_LOG", log);
    Process::start(serve)
}

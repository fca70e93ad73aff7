//! 1,000 subscribers, who leave and come back: each one's events are complete and give the store's chain.

use std::{sync::Arc, time::Instant};

use modal_gateway::{chain::Level, store::BlockStore};
use rstest::rstest;
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
};

use crate::{
    stream::{append, blocks, reorganise},
    support::{
        gateway::{Backend, TestGateway, TestStore, synthetic},
        listeners::Listeners,
        until::within,
    },
};

const SUBSCRIBERS: usize = 1000;
/// Blocks appended one by one, and the reorganisations between them.
const BLOCKS: u64 = 500;
const REORGANISATIONS: u64 = 20;
/// Changes while nobody leaves.
const CALM: u64 = 10;
/// A subscriber leaves after one of so many lines.
const LEAVES: usize = 600;
/// Far longer than it takes.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(300);

#[derive(Deserialize)]
struct Position {
    index: u64,
    hash: String,
}

#[derive(Deserialize)]
struct Event {
    from: Option<u64>,
    previous_hash: Option<String>,
    ancestor: Option<Position>,
    old_tip: Option<Position>,
    added: Vec<String>,
    tip: Position,
}

/// A subscriber and what it has been told.
struct Subscriber {
    /// Ports of two gateways on one store.
    ports: [u16; 2],
    last: String,
    versions: Vec<u64>,
    hashes: Vec<String>,
    connections: usize,
    random: fastrand::Rng,
    /// From this version on it leaves now and then.
    restless_after: u64,
}

impl Subscriber {
    /// Follows until it was told of `until`, over as many connections as it takes.
    async fn follow(mut self, until: u64, told: watch::Sender<u64>) -> Self {
        while self.versions.last() < Some(&until) {
            // What breaks off is begun anew.
            let _ = self.connect(until, &told).await;
        }
        self
    }

    async fn connect(&mut self, until: u64, told: &watch::Sender<u64>) -> std::io::Result<()> {
        self.connections += 1;
        let first = self.connections == 1 || self.random.bool();
        let mut socket = TcpStream::connect(("127.0.0.1", self.ports[usize::from(!first)])).await?;
        // Without chunks the stream is the rest of what comes.
        let request = format!("GET /events HTTP/1.0\r\nhost: x\r\nlast-event-id: {}\r\n\r\n", self.last);
        socket.write_all(request.as_bytes()).await?;
        let (mut reader, mut line) = (BufReader::with_capacity(2048, socket), String::new());
        let (mut id, mut name, mut data) = (String::new(), String::new(), String::new());
        while self.versions.last() < Some(&until) {
            line.clear();
            // It may leave in the midst of an event, which then has not come.
            let restless = self.versions.last() >= Some(&self.restless_after);
            if reader.read_line(&mut line).await? == 0 || restless && self.random.usize(..LEAVES) == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(": ") {
                Some(("id", value)) => id = value.into(),
                Some(("event", value)) => name = value.into(),
                Some(("data", value)) => data = value.into(),
                None if !data.is_empty() => {
                    self.apply(&id, &name, &std::mem::take(&mut data));
                    told.send_replace(*self.versions.last().unwrap());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Applies an event, which must follow from what came before.
    fn apply(&mut self, id: &str, name: &str, data: &str) {
        let event: Event = serde_json::from_str(data).unwrap();
        let version = id.split('-').next().unwrap().parse().unwrap();
        assert_eq!(version, self.versions.last().unwrap_or(&0) + 1, "a gap, or twice: {data}");
        let known = self.hashes.last();
        match name {
            "extended" => {
                assert_eq!((event.from, event.previous_hash.as_ref()), (Some(self.hashes.len() as u64), known));
            }
            "reorganised" => {
                assert_eq!(event.old_tip.as_ref().map(|tip| &tip.hash), known);
                let ancestor = event.ancestor.unwrap();
                assert_eq!(self.hashes[ancestor.index as usize], ancestor.hash);
                self.hashes.truncate(ancestor.index as usize + 1);
            }
            _ => panic!("{name} {data}"),
        }
        self.hashes.extend(event.added);
        assert_eq!((self.hashes.len() as u64, self.hashes.last()), (event.tip.index + 1, Some(&event.tip.hash)));
        self.versions.push(version);
        self.last = id.into();
    }
}

/// Writes the chain, as fast as the first subscriber is told of it, more or less.
async fn write(store: Arc<dyn BlockStore>, mut told: watch::Receiver<u64>, calm: impl AsyncFn(u64)) {
    let mut random = fastrand::Rng::with_seed(20);
    let (mut version, mut branch) = (1, "main".to_owned());
    for appended in 1..=BLOCKS {
        let tip = store.state().await.unwrap().tip.unwrap();
        append(&*store, (tip.index, &tip.hash), blocks_after(&branch, tip.index, 1)).await;
        version += 1;
        if appended % (BLOCKS / REORGANISATIONS) == 0 {
            let depth = random.u64(1..=8);
            let keep = tip.index + 1 - depth;
            let kept = store.canonical_hashes(&[keep]).await.unwrap().remove(&keep).unwrap();
            let parent_branch = kept.rsplit_once('-').unwrap().0.to_owned();
            branch = format!("branch{appended}");
            reorganise(&*store, (keep, &parent_branch), blocks(&branch, &parent_branch, keep + 1, tip.index + 2)).await;
            version += 1;
        }
        if appended <= CALM {
            calm(version).await;
        } else if appended % 10 == 0 {
            told.wait_for(|told| *told >= version).await.unwrap();
        }
    }
}

fn blocks_after(branch: &str, index: u64, count: u64) -> Vec<modal_gateway::chain::MinerBlock> {
    blocks(branch, branch, index + 1, index + count)
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_1000_subscribers_is_told_every_change_once_and_in_order(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let store = TestStore::create(backend).await;
    store.append(synthetic(1), Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    // Another gateway on the same store.
    let replica = Listeners::open(TestStore::create(backend).await, &gateway.store.url, false).await;
    let ports = [gateway.base.rsplit(':').next().unwrap().parse().unwrap(), replica.public.port()];
    let (began, last) = (Instant::now(), 1 + BLOCKS + REORGANISATIONS);
    let (mut subscribers, mut told) = (JoinSet::new(), Vec::new());
    for seed in 0..SUBSCRIBERS {
        let (tell, hear) = watch::channel(0);
        told.push(hear);
        let subscriber = Subscriber {
            ports,
            last: "0".into(),
            versions: Vec::new(),
            hashes: Vec::new(),
            connections: 0,
            random: fastrand::Rng::with_seed(seed as u64),
            restless_after: 1 + CALM,
        };
        subscribers.spawn(subscriber.follow(last, tell));
    }
    let reads = async || {
        let figures = gateway.request(|client, _| client.get(format!("{}/metrics", gateway.admin))).await;
        let text = String::from_utf8(figures.body.to_vec()).unwrap();
        let figure = text.lines().find_map(|line| line.strip_prefix("modal_news_entries ")).unwrap();
        figure.parse::<u64>().unwrap()
    };
    let everybody = async |version: u64| {
        within(LIMIT, async || told.iter().all(|told| *told.borrow() >= version).then_some(())).await;
    };
    everybody(1).await;
    // Each read is kept: while all are up to date, there are as many as changes, whatever the number of subscribers.
    let before = reads().await;
    let calm = async |version| {
        everybody(version).await;
        let (reads, changes) = (reads().await - before, version - 1);
        assert!((changes..=2 * changes).contains(&reads), "{reads} reads for {changes} changes");
    };
    write(gateway.store.open().await, told[0].clone(), calm).await;
    let mut ended = Vec::new();
    let ends = async {
        while let Some(subscriber) = subscribers.join_next().await {
            ended.push(subscriber.unwrap());
        }
    };
    tokio::time::timeout(LIMIT, ends).await.expect("each is told of all");

    let handle = gateway.store.open().await;
    let indexes: Vec<u64> = (0..=handle.state().await.unwrap().tip.unwrap().index).collect();
    let canonical = handle.canonical_hashes(&indexes).await.unwrap();
    let chain: Vec<&String> = indexes.iter().map(|index| &canonical[index]).collect();
    let logged: Vec<u64> = handle.events(0, u64::MAX).await.unwrap().iter().map(|event| event.id).collect();
    assert_eq!((logged.len() as u64, ended.len()), (last, SUBSCRIBERS));
    let connections: usize = ended.iter().map(|subscriber| subscriber.connections).sum();
    for subscriber in &ended {
        assert_eq!(subscriber.versions, logged);
        assert!(subscriber.hashes.iter().eq(chain.iter().copied()));
    }
    let events = ended.len() as u64 * last;
    let seconds = began.elapsed().as_secs_f64();
    assert!(connections > 2 * SUBSCRIBERS, "{connections} connections: nobody left");
    eprintln!(
        "{backend:?}: {SUBSCRIBERS} subscribers, {events} events, {connections} connections: complete and in order in {seconds:.1} s"
    );
}

//! Many connections with many requests that stall: some never arrive whole, the answers of others are never read.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, Event, Message, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, SwarmBuilder, identify, noise, tcp, yamux};
use modal_gateway::chain::{Level, MinerBlock};
use modal_gateway::protocol::{IDENTIFY_PROTOCOL, PROTOCOL};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::bytes_codec::BytesCodec;
use crate::support::clock::judge;
use crate::support::gateway::{Backend, PATIENCE, TestStore};
use crate::support::linked::{NETWORK_FILE, linked};
use crate::support::peer::ScriptedPeer;
use crate::support::process::{Process, SERVE, program};
use crate::support::serving::Serving;
use crate::until;

const CONNECTIONS: usize = 32;
const REQUESTS: usize = 100;
/// Of a request that never arrives whole: most of the longest that there is.
const PARTIAL_BYTES: usize = 1_000_000;
/// How often a stalled request is begun anew: later than it is cut off.
const AGAIN: Duration = Duration::from_secs(12);
/// How long the flood stands: longer than anything that ends a stalled request.
const STANDS: Duration = Duration::from_secs(25);
const MAX_GROWTH_MIB: f64 = 64.0;

/// Sends part of a request, or all of it, and then nothing; never reads.
#[derive(Clone, Default)]
struct Stalling;

impl request_response::Codec for Stalling {
    type Protocol = StreamProtocol;
    /// The bytes, and whether they are all.
    type Request = (Bytes, bool);
    type Response = ();

    async fn read_request<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<(Bytes, bool)>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        let _ = tokio::time::timeout(AGAIN, std::future::pending::<()>()).await;
        Err(io::ErrorKind::TimedOut.into())
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, (bytes, all): (Bytes, bool)) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        if !all {
            // The rest of it is never sent; the other side may cut it off meanwhile.
            let _ = tokio::time::timeout(AGAIN, async {
                let _ = io.write_all(&bytes).await;
                std::future::pending::<()>().await;
            })
            .await;
            return Err(io::ErrorKind::TimedOut.into());
        }
        io.write_all(&bytes).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    stall: request_response::Behaviour<Stalling>,
    /// It answers what it is asked, so that it can be asked.
    serve: request_response::Behaviour<BytesCodec>,
    identify: identify::Behaviour,
}

/// Connects, opens its requests, and begins each anew when it is cut off. Counts those begun.
async fn attack(target: Multiaddr, number: usize, begun: Arc<AtomicUsize>, ids: tokio::sync::mpsc::Sender<PeerId>) {
    let long = Duration::from_secs(600);
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| Behaviour {
            stall: request_response::Behaviour::new(
                [(StreamProtocol::new(PROTOCOL), ProtocolSupport::Outbound)],
                request_response::Config::default().with_request_timeout(long).with_max_concurrent_streams(1000),
            ),
            serve: request_response::Behaviour::new(
                [(StreamProtocol::new(PROTOCOL), ProtocolSupport::Inbound)],
                request_response::Config::default(),
            ),
            identify: identify::Behaviour::new(identify::Config::new(IDENTIFY_PROTOCOL.into(), key.public())),
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(long))
        .build();
    let partial = Bytes::from(format!(r#"{{"path":"/ping","data":"{}"#, "x".repeat(PARTIAL_BYTES)));
    let mut next = number;
    let mut request = move |which: usize| {
        if which.is_multiple_of(2) {
            return (partial.clone(), false);
        }
        // Each another answer, of some 600 kB.
        next += 97;
        let (from, to) = (next % 10_000, next % 10_000 + 999);
        let data = format!(r#"{{"from_index":{from},"to_index":{to},"max_chunk_size":1000}}"#);
        (format!(r#"{{"path":"/data/miner_block/range","data":{data}}}"#).into(), true)
    };
    swarm.dial(target).unwrap();
    let mut count = 0;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                for which in 0..REQUESTS {
                    swarm.behaviour_mut().stall.send_request(&peer_id, request(which));
                    begun.fetch_add(1, Ordering::Relaxed);
                }
                let _ = ids.send(*swarm.local_peer_id()).await;
            }
            SwarmEvent::Behaviour(BehaviourEvent::Stall(Event::OutboundFailure { peer, .. })) => {
                count += 1;
                swarm.behaviour_mut().stall.send_request(&peer, request(count));
                begun.fetch_add(1, Ordering::Relaxed);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Serve(Event::Message {
                message: Message::Request { channel, .. },
                ..
            })) => {
                let answer = Bytes::from_static(br#"{"ok":true,"data":1,"errors":null}"#);
                let _ = swarm.behaviour_mut().serve.send_response(channel, answer);
            }
            SwarmEvent::ConnectionClosed { cause, .. } => panic!("the flood was cut: {cause:?}"),
            _ => {}
        }
    }
}

/// A gateway that is a process of its own.
fn gateway(test_store: &TestStore, peer: &Multiaddr) -> Process {
    let folder = test_store.folder.path();
    std::fs::write(folder.join("network.toml"), format!("public = false\n{NETWORK_FILE}")).unwrap();
    let mut serve = program(folder, SERVE);
    serve.args(["--database-url", &test_store.url, "--verify", "linked", "--peer", &format!("healthy={peer}")]);
    serve.args(["--network", "network.toml", "--identity", "key", "--sync-interval", "1s", "--rate-limit", "0"]);
    // So that no two answers share their memory.
    serve.env("MODAL_GATEWAY_CACHE_MIB", "0").env("RUST_LOG", "off");
    Process::start(serve)
}

/// Memory in use, in MiB.
fn memory(gateway: &Process) -> f64 {
    gateway.memory_kib("VmRSS") as f64 / 1024.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_stalled_requests_takes_little_memory_and_none_of_our_own_calls() {
    let chain: Vec<MinerBlock> = linked(None, 12_000, "main");
    let test_store = TestStore::create(Backend::Sqlite).await;
    test_store.append(chain.clone(), Level::Linked).await;
    let node = Serving::of(&chain);
    let healthy = ScriptedPeer::start(node.script()).await;
    let gateway = gateway(&test_store, &healthy.address);
    let http = reqwest::Client::builder().no_proxy().timeout(3 * PATIENCE).build().unwrap();
    let get = async |path: String| {
        let response = http.get(format!("{}{path}", gateway.http)).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let read =
        async |n: u64| get(format!("/data/miner_block/range?from_index={n}&to_index={}&peer=healthy", n + 9)).await.0;
    let length = async || get("/status".into()).await.1["data"]["chain"]["length"].as_u64().unwrap();
    until("it is connected", async || read(0).await == 200).await;
    // What it needs anyway, it has: each connection to the database its cache, and clients were given long answers.
    let long = (0..200u64).map(|n| {
        let from = n * 50;
        get(format!("/data/miner_block/range?from_index={from}&to_index={}&max_chunk_size=1000", from + 999))
    });
    let mut long = futures::stream::iter(long).buffer_unordered(16);
    while let Some((status, _)) = long.next().await {
        assert_eq!(status, 200);
    }
    let before = memory(&gateway);

    let begun = Arc::new(AtomicUsize::new(0));
    let (ids, mut attackers) = tokio::sync::mpsc::channel(CONNECTIONS);
    let mut flood = JoinSet::new();
    for number in 0..CONNECTIONS {
        flood.spawn(attack(gateway.libp2p[0].parse::<Multiaddr>().unwrap(), number, Arc::clone(&begun), ids.clone()));
    }
    let mut hostile = Vec::new();
    while hostile.len() < CONNECTIONS {
        hostile.push(attackers.recv().await.unwrap());
    }
    let (began, mut peak, mut slowest) = (Instant::now(), 0.0, Duration::ZERO);
    let (mut calls, mut answered) = (0u64, 0u64);
    let mut grown = 12_000;
    while began.elapsed() < STANDS || grown == 12_000 {
        let asked = Instant::now();
        assert_eq!(read(calls % 11_000).await, 200, "a call to a healthy peer, {calls} before it");
        slowest = slowest.max(asked.elapsed());
        // The attackers themselves can be asked as well, over the connections that they flood.
        let peer = hostile[calls as usize % CONNECTIONS];
        let ping = http.post(format!("{}/ping?peer={peer}", gateway.http)).header("content-type", "application/json");
        let pong = ping.body("1").send().await.unwrap();
        // They may be too busy with us to answer in time, but that is all that may go wrong.
        match pong.status().as_u16() {
            200 => answered += 1,
            status => assert_eq!(status, 504, "a call to a hostile peer"),
        }
        calls += 1;
        peak = memory(&gateway).max(peak);
        if calls % 20 == 0 && length().await == grown {
            // The network goes on, and so does the sync.
            let mut served = node.chain();
            let more = linked(served_tip(&mut served).as_ref(), 5, "main");
            node.chain().lock().unwrap().extend(more);
            grown += 5;
        }
        if let Some(ended) = flood.try_join_next() {
            ended.unwrap();
        }
    }
    until("the sync has followed", async || length().await == grown).await;
    let growth = peak - before;
    let begun = begun.load(Ordering::Relaxed);
    eprintln!(
        "stream flood: {CONNECTIONS} connections, {begun} stalled requests in {} s; memory {before:.1} -> {peak:.1} MiB \
         (+{growth:.1}); {calls} calls to a healthy peer, all 200, the slowest in {} ms; {answered} of {calls} to hostile ones; \
         {} blocks synced meanwhile",
        STANDS.as_secs(),
        slowest.as_millis(),
        grown - 12_000
    );
    judge(answered * 10 >= calls * 9, format_args!("{answered} of {calls} calls to hostile peers"));
    assert!(begun >= CONNECTIONS * REQUESTS);
    assert!(growth <= MAX_GROWTH_MIB, "{growth:.1} MiB");
}

fn served_tip(chain: &mut crate::support::serving::Served) -> Option<MinerBlock> {
    chain.lock().unwrap().last().cloned()
}

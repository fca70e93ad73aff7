//! Limits on what is in flight, for all clients and for each.

use std::time::Duration;

use modal_gateway::{
    chain::Level,
    config::Config,
    http::{Settings, counters::CloseReason, server::ConnectionLimits},
};
use reqwest::Method;
use tokio::time::{Instant, sleep_until};

use crate::support::clock::judge;
use crate::{
    listen, open, open_long,
    rate::{EPOCH, ask},
    raw_client::RawClient,
    support::{
        gateway::{Backend, PATIENCE, TestGateway, TestStore, synthetic},
        listeners::{ListenerOptions, Listeners, proxy_here, send, unlimited},
        peer::{Reply, ScriptedPeer},
        until::eventually,
    },
};

/// Limits under which what is held on purpose is not closed for being slow.
fn patient() -> ConnectionLimits {
    ConnectionLimits { header_timeout: 10 * PATIENCE, stall_timeout: 10 * PATIENCE, ..ConnectionLimits::default() }
}

/// A request whose answer is too long for the buffers on its way, and whose client does not read it.
async fn occupy(listeners: &Listeners) -> RawClient {
    let mut wire = RawClient::connect(listeners.public).await;
    wire.send("GET /data/miner_block/canonical HTTP/1.1\r\nhost: x\r\n\r\n").await;
    wire
}

async fn wait_for(listeners: &Listeners, name: &str, value: u64) {
    let line = format!("modal_{name} {value}");
    eventually(async || {
        let metrics = send(listeners.admin(Method::GET, "/metrics")).await.text().await.unwrap();
        metrics.lines().any(|own| own == line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn slow_readers_do_not_block_other_answers() {
    let settings = Settings { max_requests: 2, ..unlimited() };
    let listeners = open_long(ListenerOptions { settings, ..ListenerOptions::default() }).await;
    let held = [occupy(&listeners).await, occupy(&listeners).await];
    wait_for(&listeners, "http_answer_bytes", 2 << 20).await;
    let whole = async || send(listeners.public(Method::GET, "/data/miner_block/canonical")).await;
    let refused = whole().await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["errors"]["code"], "busy");
    assert_eq!(listeners.counters.shed.get(), 1);
    assert_eq!(send(listeners.public(Method::GET, EPOCH)).await.status(), 200);
    drop(held);
    wait_for(&listeners, "http_answer_bytes", 0).await;
    assert_eq!(whole().await.status(), 200);
}

#[tokio::test]
async fn large_answers_being_sent_to_one_client_are_limited() {
    let addresses = proxy_here();
    // Without a rate: what each of them reads ahead costs as well.
    let settings = Settings { addresses, rate_limit: 0, ..Settings::default() };
    let listeners = open_long(ListenerOptions { settings, limits: patient(), ..ListenerOptions::default() }).await;
    let whole = async |client: &str| ask(&listeners, client, "/data/miner_block/canonical").await;
    let mut held = Vec::new();
    let refused = loop {
        let response = whole("192.0.2.1").await;
        if response.status() != 200 {
            break response;
        }
        held.push(response);
        assert!(held.len() <= 256);
    };
    assert_eq!((held.len(), refused.status().as_u16()), (32, 429));
    assert_eq!(whole("192.0.2.2").await.status(), 200);
}

#[tokio::test]
async fn answers_of_known_size_count_until_they_are_read() {
    let addresses = proxy_here();
    let settings = Settings { addresses, max_requests: 128, ..Settings::default() };
    let store = TestStore::create(Backend::Sqlite).await;
    let mut blocks = synthetic(1000);
    for block in &mut blocks {
        for text in [&mut block.data_hash, &mut block.nominated_peer_id, &mut block.hash, &mut block.previous_hash] {
            *text = format!("{text:x>1000}");
        }
    }
    store.append(blocks, Level::None).await;
    let listeners = listen(store, ListenerOptions { settings, limits: patient(), ..ListenerOptions::default() }).await;
    let path = "/data/miner_block/range?from_index=0&to_index=999";
    let size = ask(&listeners, "192.0.2.1", path).await.bytes().await.unwrap().len();
    assert!(size > 4 << 20, "{size}: too much for the buffers on its way");
    let mut held = Vec::new();
    let refused = loop {
        let mut wire = RawClient::narrow(listeners.public).await;
        wire.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.1\r\n\r\n")).await;
        let head = wire.head().await;
        if !head.starts_with("http/1.1 200") {
            break head;
        }
        held.push(wire);
        assert!(held.len() <= 16, "what nobody reads is not counted");
    };
    assert!(refused.starts_with("http/1.1 429"), "{refused}");
    assert_eq!(held.len(), (16 << 20) / size, "of 128 MiB an eighth");
    assert_eq!(ask(&listeners, "192.0.2.2", path).await.status(), 200);
}

#[tokio::test]
async fn a_forwarded_request_keeps_its_permit_until_the_peer_is_done() {
    let (gateway, peer) = with_silent_peer(2).await;
    let mut wire = RawClient::connect(gateway.base.strip_prefix("http://").unwrap().parse().unwrap()).await;
    wire.send("GET /ping?peer=silent HTTP/1.1\r\nhost: x\r\n\r\n").await;
    eventually(async || (!peer.requests().is_empty()).then_some(())).await;
    drop(wire);
    assert_eq!(gateway.get("/ping?peer=silent").await.code(), "busy");
    eventually(async || (gateway.get("/ping?peer=silent").await.code() == "peer_timeout").then_some(())).await;
}

/// A gateway that works at so many requests at once, and knows a peer that never answers.
async fn with_silent_peer(max_requests: usize) -> (TestGateway, ScriptedPeer) {
    let peer = ScriptedPeer::start(|_| Reply::Silence).await;
    let store = TestStore::create(Backend::Sqlite).await;
    let peers = [format!("silent={}", peer.address)];
    let gateway = TestGateway::over(store, &peers, |config| Config { max_requests, ..config }).await;
    gateway.p2p.wait_connected("silent", PATIENCE).await.unwrap();
    (gateway, peer)
}

#[tokio::test]
async fn over_the_limit_a_request_is_refused_at_once_and_health_is_not() {
    let (gateway, _peer) = with_silent_peer(1).await;
    let slow = async || gateway.get("/ping?peer=silent").await.code();
    let others = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        // Once that one waits.
        while gateway.get("/ping").await.status == 200 {
            ticks.tick().await;
        }
        let refused = gateway.get("/ping").await;
        assert_eq!((refused.status, refused.code().as_str(), refused.header("retry-after")), (503, "busy", Some("1")));
        for path in ["/health/live", "/health/ready"] {
            assert_eq!(gateway.get(path).await.status, 200, "{path}");
        }
    };
    let (code, ()) = tokio::join!(slow(), others);
    assert_eq!(code, "peer_timeout");
    assert_eq!(gateway.get("/ping").await.status, 200);
}

#[tokio::test]
async fn requests_that_wait_for_peers_do_not_block_others() {
    let (gateway, _peer) = with_silent_peer(4).await;
    let forwarded = async || gateway.get("/ping?peer=silent").await.code();
    let asked = tokio::join!(forwarded(), forwarded(), forwarded(), async {
        // While those wait.
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..20 {
            ticks.tick().await;
            assert_eq!(gateway.get("/ping").await.status, 200);
        }
    });
    let mut codes = [asked.0, asked.1, asked.2];
    codes.sort();
    assert_eq!(codes, ["busy", "peer_timeout", "peer_timeout"]);
}

#[tokio::test]
async fn slow_senders_take_no_permit() {
    let settings = Settings { max_requests: 1, ..unlimited() };
    let listeners = open(ListenerOptions { settings, limits: patient(), ..ListenerOptions::default() }).await;
    let mut slow = Vec::new();
    for number in 1..=10 {
        let mut wire = RawClient::connect(listeners.public).await;
        wire.send("POST /ping HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\nnu")
            .await;
        slow.push(wire);
        wait_for(&listeners, "http_body_bytes", 2 * number).await;
    }
    assert_eq!(send(listeners.public(Method::GET, EPOCH)).await.status(), 200);
    for wire in &mut slow {
        wire.send("ll").await;
        assert!(wire.answer().await.0.starts_with("http/1.1 200"));
    }
    wait_for(&listeners, "http_body_bytes", 0).await;
}

#[tokio::test]
async fn bodies_of_one_client_are_limited() {
    let settings = Settings { addresses: proxy_here(), rate_limit: 1000, rate_burst: 1000, ..Settings::default() };
    let listeners = open(ListenerOptions { settings, limits: patient(), ..ListenerOptions::default() }).await;
    let post = "POST /ping HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4\r\n";
    let mut slow = Vec::new();
    for number in 1..=16 {
        let mut wire = RawClient::connect(listeners.public).await;
        wire.send(format!("{post}x-forwarded-for: 192.0.2.1\r\n\r\nnu")).await;
        slow.push(wire);
        wait_for(&listeners, "http_body_bytes", 2 * number).await;
    }
    let send = async |client: &str| {
        let mut wire = RawClient::connect(listeners.public).await;
        wire.send(format!("{post}x-forwarded-for: {client}\r\n\r\nnull")).await;
        wire.answer().await.0
    };
    assert!(send("192.0.2.1").await.starts_with("http/1.1 429"));
    assert_eq!(listeners.counters.rate_limited.get(), 1);
    assert!(send("192.0.2.2").await.starts_with("http/1.1 200"));
    for wire in &mut slow {
        wire.send("ll").await;
        assert!(wire.answer().await.0.starts_with("http/1.1 200"));
    }
    assert!(send("192.0.2.1").await.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn body_and_answer_share_one_timeout() {
    let peer = ScriptedPeer::start(|_| Reply::Silence).await;
    let store = TestStore::create(Backend::Sqlite).await;
    let second = Duration::from_secs(1);
    let peers = [format!("silent={}", peer.address)];
    let longer = |config| Config { request_timeout: 2 * second, peer_timeout: 10 * second, ..config };
    let gateway = TestGateway::over(store, &peers, longer).await;
    gateway.p2p.wait_connected("silent", PATIENCE).await.unwrap();
    let mut wire = RawClient::connect(gateway.base.strip_prefix("http://").unwrap().parse().unwrap()).await;
    let start = Instant::now();
    wire.send(
        "POST /ping?peer=silent HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\nnu",
    )
    .await;
    sleep_until(start + second).await;
    wire.send("ll").await;
    assert!(wire.answer().await.0.starts_with("http/1.1 503"));
    assert!(start.elapsed() >= 2 * second, "{:?}", start.elapsed());
    judge(start.elapsed() < 3 * second, format_args!("{:?}", start.elapsed()));
}

#[tokio::test]
async fn event_streams_have_limits_of_their_own() {
    let addresses = proxy_here();
    let settings = Settings { addresses, max_requests: 1, ..Settings::default() };
    let listeners = open(ListenerOptions { settings, ..ListenerOptions::default() }).await;
    let mut streams = Vec::new();
    let refused = loop {
        let response = ask(&listeners, "192.0.2.1", "/events").await;
        if response.status() != 200 {
            break response;
        }
        streams.push(response);
        assert!(streams.len() <= 256);
    };
    assert_eq!((streams.len(), refused.status().as_u16(), listeners.counters.rate_limited.get()), (16, 429, 1));
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(ask(&listeners, "192.0.2.2", "/events").await.status(), 200);
    assert_eq!(ask(&listeners, "192.0.2.2", EPOCH).await.status(), 200);
    drop(streams);
    wait_for(&listeners, "event_streams", 0).await;
    assert_eq!(ask(&listeners, "192.0.2.1", "/events").await.status(), 200);
}

#[tokio::test]
async fn idle_connections_are_evicted_and_busy_ones_stay() {
    let limits = ConnectionLimits { connections: 4, ..ConnectionLimits::default() };
    let listeners = open(ListenerOptions { limits, ..ListenerOptions::default() }).await;
    let mut busy = RawClient::connect(listeners.public).await;
    busy.send("GET /events HTTP/1.1\r\nhost: x\r\n\r\n").await;
    wait_for(&listeners, "event_streams", 1).await;
    let mut idle = RawClient::connect(listeners.public).await;
    assert!(idle.get("/health/live").await.0.starts_with("http/1.1 200"));
    // Far more than there is room for, none of which asks for anything.
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(RawClient::connect(listeners.public).await);
    }
    let mut late = RawClient::connect(listeners.public).await;
    assert!(late.get("/health/live").await.0.starts_with("http/1.1 200"), "there is room for one that asks");
    idle.closed().await;
    assert!(
        listeners.counters.public.closed(CloseReason::Evicted) >= 18,
        "{}",
        listeners.counters.public.closed(CloseReason::Evicted)
    );
    assert!(listeners.counters.public.open() <= 4);
    listeners.close().await;
    let (told, _) = busy.closed().await;
    assert!(String::from_utf8_lossy(&told).contains("the gateway is shutting down"), "who follows events stays");
}

#[tokio::test]
async fn where_all_connections_are_busy_another_is_closed() {
    let limits = ConnectionLimits { connections: 2, ..ConnectionLimits::default() };
    let listeners = open_long(ListenerOptions { limits, ..ListenerOptions::default() }).await;
    let _busy = [occupy(&listeners).await, occupy(&listeners).await];
    wait_for(&listeners, "http_answer_bytes", 2 << 20).await;
    let (bytes, _) = RawClient::connect(listeners.public).await.closed().await;
    assert!(bytes.is_empty());
    assert_eq!(listeners.counters.public.closed(CloseReason::Full), 1);
}

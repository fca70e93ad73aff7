//! Nobody makes us dial inwards: neither a client of the HTTP listener nor a peer.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use libp2p::{Multiaddr, PeerId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::address_forms::{hostile, multiaddrs};
use crate::connection_counter::ConnectionCounter;
use crate::hostile_peer::Hostile;
use crate::support::gateway::{Backend, PATIENCE, TestGateway, TestStore};
use crate::{Node, until};

/// Every public route that takes parameters, and a `POST` body for those that take one.
const ROUTES: [(&str, &str); 18] = [
    ("/", ""),
    ("/status", ""),
    ("/peers", ""),
    ("/sync", ""),
    ("/sync/1", ""),
    ("/events", "not read"),
    ("/health/live", ""),
    ("/health/ready", ""),
    ("/openapi.json", ""),
    ("/ping", "1"),
    ("/inspect", "{}"),
    ("/data/miner_block/get", r#"{"hash":"x"}"#),
    ("/data/miner_block/canonical", "{}"),
    ("/data/miner_block/epoch", r#"{"epoch":0}"#),
    ("/data/miner_block/range", r#"{"from_index":0,"to_index":1}"#),
    ("/data/miner_block/chain_info", "{}"),
    ("/data/miner_block/find_ancestor", r#"{"check_points":[]}"#),
    ("/data/miner_block/debug_index", r#"{"index":0}"#),
];
const PARAMETERS: [&str; 6] = ["peer", "anchor", "hash", "local_block_hashes", "url", "address"];
const HEADERS: [&str; 8] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "origin",
    "referer",
    "x-real-ip",
    "last-event-id",
    "if-none-match",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_request_makes_the_gateway_dial_what_the_client_names() {
    let counter = ConnectionCounter::start().await;
    let store = TestStore::create(Backend::Sqlite).await;
    let gateway = TestGateway::over(store, &[], |config| modal_gateway::config::Config {
        rate_limit: 0,
        client_connections: 0,
        ..config
    })
    .await;
    let forms = hostile(counter.port);
    assert!(forms.len() >= 200, "{}", forms.len());
    let (sent, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let tries =
        forms.iter().enumerate().flat_map(|(n, form)| ROUTES.iter().map(move |(route, body)| (n, form, *route, *body)));
    let one = async |(n, form, route, body): (usize, &String, &str, &str)| {
        // Each form through `peer` on every route, and in turn through the other parameters and the headers.
        let other = PARAMETERS[n % PARAMETERS.len()];
        let header = HEADERS[n % HEADERS.len()];
        if route != "/events" {
            for name in ["peer", other] {
                let query: String =
                    url::form_urlencoded::Serializer::new(String::new()).append_pair(name, form).finish();
                let reply = gateway.get(&format!("{route}?{query}")).await;
                assert!(reply.status < 500, "{route} {name} {form}: {}", reply.status);
                if name == "peer" && route.starts_with("/data/") && reply.code() == "unknown_peer" {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
            if let Ok(value) = reqwest::header::HeaderValue::from_bytes(form.as_bytes()) {
                let reply =
                    gateway.request(|client, base| client.get(format!("{base}{route}")).header(header, value)).await;
                assert!(reply.status < 500, "{route} {header} {form}: {}", reply.status);
            }
            sent.fetch_add(3, Ordering::Relaxed);
        }
        if !body.is_empty() && route != "/events" {
            let text = serde_json::Value::from(form.as_str());
            for body in [
                body.to_owned(),
                serde_json::json!({"hash": text, "peer": text, "local_block_hashes": [text]}).to_string(),
                serde_json::json!({"check_points": [{"index": 0, "hash": text}]}).to_string(),
                text.to_string(),
            ] {
                let query: String =
                    url::form_urlencoded::Serializer::new(String::new()).append_pair("peer", form).finish();
                assert!(gateway.post(route, body.clone()).await.status < 500, "{route} {form}");
                assert!(gateway.post(&format!("{route}?{query}"), body).await.status < 500, "{route} {form}");
                sent.fetch_add(2, Ordering::Relaxed);
            }
        }
    };
    futures::stream::iter(tries).for_each_concurrent(16, one).await;
    let raw = ["GET http://{} HTTP/1.1\r\nHost: x", "GET / HTTP/1.1\r\nHost: {}", "CONNECT {} HTTP/1.1\r\nHost: {}"];
    for form in
        forms.iter().filter(|form| form.is_ascii() && !form.contains(char::is_whitespace) && !form.contains('\0'))
    {
        for head in raw {
            let address = gateway.base.strip_prefix("http://").unwrap();
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = head.replace("{}", form.trim_start_matches("http://"));
            stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // It may be reset when the head is refused before it is read whole.
            let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends");
            assert!(!answer.starts_with(b"HTTP/1.1 5"), "{head}: {}", String::from_utf8_lossy(&answer));
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
    let refused = refused.into_inner();
    assert!(refused >= forms.len(), "{refused} refused");
    let stats = gateway.p2p.endpoint_stats();
    assert_eq!((stats.dials, stats.connections_out), (0, 0));
    assert_eq!(counter.counts(), [0; 3], "nothing came");
    // The counter would have seen it: the operator may send us there.
    for address in counter.addresses().into_iter().chain([format!("/dns/localhost/tcp/{}", counter.port)]) {
        gateway.p2p.add_peer(address.parse().unwrap()).await.unwrap();
    }
    until("what the operator names is dialled", async || counter.counts().iter().all(|count| *count > 0)).await;
    eprintln!(
        "SSRF over HTTP: {} forms, {} requests, {refused} refused as unknown_peer, 0 dials; the operator's: {:?}",
        forms.len(),
        sent.into_inner(),
        counter.counts()
    );
}

#[tokio::test]
async fn an_answer_does_not_reveal_whether_a_port_is_open() {
    let counter = ConnectionCounter::start().await;
    let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = held.local_addr().unwrap().port();
    drop(held);
    let store = TestStore::create(Backend::Sqlite).await;
    let (open_id, closed_id) = (PeerId::random(), PeerId::random());
    let peers = [(open_id, counter.port, "open"), (closed_id, closed, "closed")]
        .map(|(id, port, alias)| format!("{alias}=/ip4/127.0.0.1/tcp/{port}/p2p/{id}"));
    let gateway = TestGateway::over(store, &peers, |config| config).await;
    let shape = async |peer: &str| {
        let reply = gateway.get(&format!("/inspect?peer={peer}")).await;
        (reply.status, reply.json())
    };
    let forms = [counter.port, closed].map(|port| format!("/ip4/127.0.0.1/tcp/{port}"));
    assert_eq!(shape(&forms[0]).await, shape(&forms[1]).await);
    let (status, told) = shape("closed").await;
    assert_eq!((status, &told["errors"]["code"]), (503, &"peer_unreachable".into()));
    assert!(told["errors"]["detail"].is_null(), "{told}");
}

/// What becomes of what a hostile peer tells: two nodes hear it, one of which may dial it.
async fn told(own: bool) {
    let (strict, loose) = (ConnectionCounter::start().await, ConnectionCounter::start().await);
    let told = |port| -> Vec<Multiaddr> {
        multiaddrs(port, PeerId::random()).iter().filter_map(|form| form.parse().ok()).collect()
    };
    let (all, few) = (told(strict.port), loose.addresses());
    let few: Vec<Multiaddr> = few.iter().map(|address| address.parse().unwrap()).collect();
    let count = all.len();
    assert!(count >= 100, "{count} addresses that libp2p can read");
    let start = async |addresses: &[Multiaddr], private_addresses| {
        // As many each as a message of its protocol has room for, many times over.
        let mut hostiles = Vec::new();
        for part in addresses.chunks(if own { 8 } else { 48 }) {
            hostiles.push(if own { Hostile::start(part, &[]).await } else { Hostile::start(&[], part).await });
        }
        let node = Node::start(|config| {
            config.private_addresses = private_addresses;
            config.target_peers = 64;
            let known = hostiles.iter().filter(|_| !own);
            config.peers = known.map(|hostile| hostile.address.to_string().parse().unwrap()).collect();
        })
        .await;
        for hostile in &hostiles {
            // Configured ones are dialled already.
            if own {
                node.client.dial(hostile.address.clone()).await.unwrap();
            }
            node.client.wait_connected(&hostile.id.to_string(), PATIENCE).await.unwrap();
        }
        if own {
            // They leave, so that whoever wants them back dials where they said they are.
            drop(std::mem::take(&mut hostiles));
        }
        (node, hostiles)
    };
    let first = start(&all, false).await;
    if own {
        let gone = async || first.0.client.peers().iter().all(|peer| !peer.connected);
        until("they are gone", gone).await;
    }
    // Begun when the first had its chance already: what the second one does, the first one would have done.
    let second = start(&few, true).await;
    let seen = async || loose.counts().iter().all(|count| *count > 0);
    until("the one that may dials what it was told", seen).await;
    let refused =
        |node: &Node| node.client.endpoint_stats().refused.iter().find(|(why, _)| *why == "address").unwrap().1;
    if !own {
        until("kademlia wanted to dial for the other one, too", async || refused(&first.0) > 0).await;
    }
    assert_eq!(strict.counts(), [0; 3], "nothing came");
    let way = if own { "identify" } else { "kademlia" };
    eprintln!(
        "SSRF by {way}: {count} addresses told, 0 dialled ({} dials refused); where the settings allow it: {:?} ({})",
        refused(&first.0),
        loose.counts(),
        refused(&second.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_from_identify_are_dialled_only_where_the_settings_allow() {
    told(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_from_kademlia_are_dialled_only_where_the_settings_allow() {
    told(false).await;
}

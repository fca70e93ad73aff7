//! `request` against nodes of ours.

use std::{fs, sync::Arc};

use bytes::Bytes;
use libp2p::identity::Keypair;
use modal_gateway::p2p::{self, Accepted, P2pClient, P2pConfig, Responder};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{WorkDir, support::ports::free_port};

/// Answers `/ping` with the data it got, and anything else with its path and `ok: false`.
struct Echo;

impl Responder for Echo {
    fn accept(self: Arc<Self>, request: Bytes) -> Accepted {
        let request: serde_json::Value = serde_json::from_slice(&request).unwrap();
        let answer = match request["path"].as_str().unwrap() {
            "/ping" => serde_json::json!({"ok": true, "data": request["data"], "errors": null}).to_string(),
            "/garbage" => "garbage\u{7}".into(),
            _ => serde_json::json!({"ok": false, "data": null, "errors": {"error": "Unknown path"}}).to_string(),
        };
        Accepted::short(std::future::ready(answer.into()))
    }
}

async fn echo_node() -> (P2pClient, DropGuard) {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap(), "/ip4/127.0.0.1/tcp/0/ws".parse().unwrap()];
    let config = P2pConfig { listen, ..P2pConfig::new(Keypair::generate_ed25519()) };
    let stop = CancellationToken::new();
    let (client, _) = p2p::start(config, Arc::new(Echo), stop.clone()).await.unwrap();
    (client, stop.drop_guard())
}

#[tokio::test(flavor = "multi_thread")]
async fn request_is_curl_for_the_protocol() {
    let dir = WorkDir::new();
    let (node, _running) = echo_node().await;
    let addresses: Vec<_> = node.listen_addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses.len(), 2);
    for address in &addresses {
        let answer = dir.run(["request", address, "/ping", r#"{"n": 18446744073709551615}"#]).ok();
        let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert_eq!(answer, serde_json::json!({"ok": true, "data": {"n": u64::MAX}, "errors": null}));
    }
    let address = &addresses[0];
    let null = dir.run(["request", address, "/ping"]).ok().stdout;
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&null).unwrap()["data"], serde_json::Value::Null);

    let unknown = dir.run(["request", address, "/nothing"]);
    assert_eq!((unknown.code, unknown.stderr.as_str()), (1, ""));
    assert!(String::from_utf8(unknown.stdout).unwrap().contains("Unknown path"));

    let garbage = dir.run(["request", address, "/garbage"]).fails(1, &[address]);
    assert!(garbage.stdout.is_empty() && !garbage.stderr.contains('\u{7}'), "{}", garbage.stderr);

    let (alias, id) = (format!("node={address}/p2p/{}", node.local_peer_id()), node.local_peer_id().to_string());
    for name in ["node", &id] {
        dir.run(["request", name, "/ping", "1", "--peer", &alias]).ok();
    }
    let wrong = format!("{address}/p2p/{}", Keypair::generate_ed25519().public().to_peer_id());
    dir.run(["request", &wrong, "/ping"]).fails(1, &[address, "can't be reached"]);
    assert_eq!(fs::read_dir(dir.0.path()).unwrap().count(), 0, "neither a key nor a store");
}

#[tokio::test]
async fn request_names_what_is_wrong() {
    let dir = WorkDir::new();
    // Accepts nothing, answers nothing.
    let silent = std::net::TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port());
    dir.run(["request", &address, "/ping", "--timeout", "1"]).fails(1, &["no answer within 1 s"]);
    drop(silent);
    dir.run(["request", &address, "/ping"]).fails(1, &[&address, "can't be reached"]);
    dir.run(["request", "node", "/ping"]).fails(2, &["`node` is neither a multiaddr nor", "none is configured"]);
    dir.run(["request", "/ip4/1.2.3", "/ping"]).fails(2, &["`/ip4/1.2.3` is not a multiaddr"]);
    let usage = dir.run(["request", &address, "/ping", "{epoch: 0}"]);
    assert_eq!(usage.code, 2);
    assert!(usage.stderr.contains("not JSON: key must be a string (column 2)"), "{}", usage.stderr);
}

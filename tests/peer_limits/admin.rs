//! The operator's routes for peers.

use std::time::Duration;

use modal_gateway::app::Gateway;
use modal_gateway::config::Config;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::gateway::{Backend, PATIENCE, TestStore};
use crate::{Node, until};

#[tokio::test]
async fn peers_are_added_allowed_denied_and_removed_on_the_admin_listener_only() {
    let test_store = TestStore::create(Backend::Sqlite).await;
    let config = Config {
        database_url: test_store.url.parse().unwrap(),
        http: ([127, 0, 0, 1], 0).into(),
        admin: ([127, 0, 0, 1], 0).into(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        identity: test_store.folder.path().join("key"),
        sync: false,
        network: modal_gateway::chain::Network::devnet(),
        ..Config::default()
    };
    let gateway = Gateway::start(&config).await.unwrap();
    let [public, admin] = [gateway.http, gateway.admin].map(|address| format!("http://{address}"));
    let (own, p2p) = (gateway.node.addresses()[0].clone(), gateway.node.p2p.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn(gateway.run(stop.clone()));
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let send = async |method: Method, url: String, body: Option<Value>| {
        let mut request = http.request(method, url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap_or_default())
    };
    let peers = format!("{admin}/peers");
    let post = async |body: Value| send(Method::POST, peers.clone(), Some(body)).await;

    let friend = Node::start(|_| {}).await;
    let address = format!("friend={}", friend.address());
    let (status, told) = post(json!({ "address": address })).await;
    assert_eq!((status, &told["data"]["peer"]["alias"]), (202, &json!("friend")), "{told}");
    p2p.wait_connected("friend", PATIENCE).await.unwrap();
    let (status, told) = post(json!({ "address": address })).await;
    let peer = &told["data"]["peer"];
    assert_eq!((status, &peer["connected"], &peer["trusted"]), (200, &json!(true), &json!(true)), "{told}");
    assert_eq!((&peer["banned_until"], &peer["score"]), (&Value::Null, &json!(0.0)));
    let id = friend.id().to_string();

    for (body, code, said) in [
        (json!({"address": "/ip4/127.0.0.1/udp/1/quic-v1"}), "invalid_parameter", "can't be dialled"),
        (json!({"address": "http://127.0.0.1:1"}), "invalid_parameter", "not a multiaddr"),
        (json!({"address": format!("any={own}")}), "invalid_parameter", "reserved"),
        (json!({"address": format!("friend={own}")}), "invalid_parameter", "two peers have the alias"),
        (json!({"peer": "x", "trust": "allow"}), "invalid_parameter", "peer id"),
        (json!({"peer": id, "trust": "maybe"}), "malformed_body", "allow"),
        (json!({"peer": id}), "malformed_body", "MULTIADDR"),
        (json!({"address": 1}), "malformed_body", "MULTIADDR"),
        (json!([]), "malformed_body", "MULTIADDR"),
    ] {
        let (status, told) = post(body.clone()).await;
        let errors = &told["errors"];
        assert_eq!((status, &errors["code"]), (400, &json!(code)), "{body}: {told}");
        assert!(errors["detail"].as_str().unwrap().contains(said), "{body}: {told}");
    }

    // Put on the deny-list it is sent away; taken off it, it is let in again.
    assert_eq!(post(json!({"peer": id, "trust": "deny"})).await.0, 200);
    let connected = || p2p.peers().iter().any(|peer| peer.peer_id.as_deref() == Some(&*id) && peer.connected);
    until("it is disconnected", async || !connected()).await;
    assert_eq!(post(json!({"peer": id, "trust": "allow"})).await.0, 200);
    p2p.wait_connected("friend", PATIENCE).await.unwrap();

    let (status, told) = send(Method::DELETE, format!("{peers}/friend?ban_seconds=600"), None).await;
    let peer = &told["data"]["peer"];
    assert_eq!((status, &peer["configured"], &peer["trusted"]), (200, &json!(false), &json!(false)), "{told}");
    let left = peer["banned_until"].as_i64().unwrap() - modal_gateway::chain::unix_now();
    assert!((595..=601).contains(&left), "{left}");
    until("it is disconnected", async || !connected()).await;
    let refused = |why: &str| p2p.endpoint_stats().refused.iter().any(|(reason, count)| *reason == why && *count > 0);
    let _ = friend.client.dial(own).await;
    until("it is refused", async || refused("banned")).await;
    for unknown in ["friend", "nobody", "%ff", "12D3KooWNobody"] {
        let (status, told) = send(Method::DELETE, format!("{peers}/{unknown}"), None).await;
        assert_eq!((status, &told["errors"]["code"]), (404, &json!("unknown_peer")), "{unknown}");
    }
    assert_eq!(send(Method::DELETE, format!("{peers}/{id}?ban_seconds=x"), None).await.0, 400);

    // One that was never reached has no id yet, and one that was never seen is on a list only.
    assert_eq!(post(json!({"address": "nowhere=/ip4/127.0.0.1/tcp/1"})).await.0, 202);
    let unseen = libp2p::PeerId::random().to_string();
    assert_eq!(post(json!({"peer": unseen, "trust": "allow"})).await.0, 200);
    for (name, status) in [("nowhere", 200), ("nowhere", 404), (&*unseen, 200)] {
        assert_eq!(send(Method::DELETE, format!("{peers}/{name}"), None).await.0, status, "{name}");
    }

    // The public listener has none of it.
    let there = format!("{public}/peers");
    assert_eq!(send(Method::POST, there.clone(), Some(json!({ "address": address }))).await.0, 405);
    assert_eq!(send(Method::DELETE, format!("{there}/{id}"), None).await.0, 404);
    let metrics = http.get(format!("{admin}/metrics")).send().await.unwrap().text().await.unwrap();
    for figure in [
        "modal_p2p_connections{direction=\"in\"}",
        "modal_p2p_refused_total{reason=\"banned\"}",
        "modal_p2p_refused_total{reason=\"memory\"} 0",
        "modal_p2p_answer_bytes 0",
        "modal_p2p_requests_in_flight 0",
        "modal_p2p_requests_given_up 0",
        "modal_p2p_requests_waiting 0",
        "modal_p2p_inbound_waiting 0",
        "modal_p2p_inbound_delayed_total 0",
        "modal_p2p_command_queue",
        "modal_gossip_queue 0",
        "modal_peers_banned 1",
        "modal_p2p_inbound_rate_limited_total 0",
    ] {
        assert!(metrics.contains(figure), "{figure}");
    }

    // Forgiven, it is let in again.
    let penalties = |name: &str| send(Method::DELETE, format!("{peers}/{name}/penalties"), None);
    let (status, told) = penalties(&id).await;
    let peer = &told["data"]["peer"];
    assert_eq!((status, &peer["peer_id"], &peer["banned_until"]), (200, &json!(id), &Value::Null), "{told}");
    assert_eq!((&peer["score"], &peer["shunned"], &peer["penalties"]), (&json!(0.0), &json!(false), &json!(0)));
    friend.client.dial(p2p.dial_addresses().remove(0)).await.unwrap();
    until("it is let in", async || connected()).await;
    for unknown in ["friend", "nobody", "%ff", "12D3KooWNobody"] {
        let (status, told) = penalties(unknown).await;
        assert_eq!((status, &told["errors"]["code"]), (404, &json!("unknown_peer")), "{unknown}");
    }
    assert_eq!(send(Method::DELETE, format!("{there}/{id}/penalties"), None).await.0, 404);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), running).await.unwrap().unwrap().unwrap();
}

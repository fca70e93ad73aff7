//! No question of a gateway's, and no end of one, takes a node of the network off it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use modal_gateway::app::Gateway;
use modal_gateway::config::Config;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::clock::judge;
use crate::support::gateway::{Backend, PATIENCE, TestStore};
use crate::support::peer::{Reply, ScriptedPeer};
use crate::support::process::{Process, SERVE, program};
use crate::until;

/// A peer that answers `/ping` as it is released, and knows nothing else.
async fn pinged() -> ScriptedPeer {
    ScriptedPeer::start(|request| match request["path"].as_str() {
        Some("/ping") => Reply::Held(json!({"ok": true, "data": request["data"], "errors": null})),
        _ => Reply::Json(json!({"ok": false, "data": null, "errors": {"error": "Unknown path"}})),
    })
    .await
}

/// The pings that arrived, in order.
fn pings(peer: &ScriptedPeer) -> Vec<Value> {
    let requests = peer.requests().into_iter().filter(|request| request["path"] == "/ping");
    requests.map(|request| request["data"].clone()).collect()
}

/// A ping of a client behind a proxy of ours.
async fn ping(http: &reqwest::Client, base: &str, client: &str, data: u64) -> (u16, Value) {
    let request = http.post(format!("{base}/ping?peer=node")).header("x-forwarded-for", client);
    let response = request.json(&data).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_gateway_share_two_requests_in_flight_and_get_an_error_in_time() {
    let (test_store, peer) = (TestStore::create(Backend::Sqlite).await, pinged().await);
    let config = Config {
        database_url: test_store.url.parse().unwrap(),
        http: ([127, 0, 0, 1], 0).into(),
        admin: ([127, 0, 0, 1], 0).into(),
        listen: Vec::new(),
        identity: test_store.folder.path().join("key"),
        peer: vec![format!("node={}", peer.address).parse().unwrap()],
        peer_timeout: Duration::from_secs(4),
        sync: false,
        ..Config::default()
    };
    let gateway = Gateway::start(&config).await.unwrap();
    let (base, p2p) = (format!("http://{}", gateway.http), gateway.node.p2p.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn(gateway.run(stop.clone()));
    p2p.wait_connected("node", PATIENCE).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let asked = |client: &'static str, data: u64| {
        let (http, base) = (http.clone(), base.clone());
        tokio::spawn(async move { ping(&http, &base, client, data).await })
    };
    let mut all: Vec<_> = (0..12).map(|n| asked("192.0.2.1", n)).collect();
    until("ten wait", async || p2p.endpoint_stats().outbound_waiting == 10).await;
    peer.until(|figures| figures.open == 2).await;
    all.push(asked("192.0.2.2", 100));
    until("another one waits", async || p2p.endpoint_stats().outbound_waiting == 11).await;
    peer.release(13);
    for answer in all {
        assert_eq!(answer.await.unwrap().0, 200);
    }
    let turn = pings(&peer).iter().position(|data| *data == 100).unwrap();
    assert!(turn <= 4, "its turn comes with the first ones': {:?}", pings(&peer));
    assert_eq!(peer.figures().most_open, 2);
    until("nothing is in flight", async || p2p.endpoint_stats().outbound == 0).await;

    // The node is mute now: who was asked did not answer, and the third question was never sent.
    let slow = [asked("192.0.2.1", 200), asked("192.0.2.2", 201)];
    peer.until(|figures| figures.open == 2).await;
    let (status, told) = ping(&http, &base, "192.0.2.3", 202).await;
    assert_eq!((status, &told["errors"]["code"]), (503, &json!("busy")), "{told}");
    for slow in slow {
        let (status, told) = slow.await.unwrap();
        assert_eq!((status, &told["errors"]["code"]), (504, &json!("peer_timeout")), "{told}");
    }
    assert_eq!(pings(&peer).len(), 15);
    until("both were given up", async || p2p.endpoint_stats().outbound_given_up == 2).await;
    stop.cancel();
    until("the gateway takes nothing more", async || http.get(&base).send().await.is_err()).await;
    peer.release(2);
    running.await.unwrap().unwrap();
    peer.until(|figures| figures.connections == 0).await;
    assert_eq!((peer.figures().lost, peer.figures().most_open), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_gateway_waits_for_the_nodes_answers() {
    let (test_store, peer) = (TestStore::create(Backend::Sqlite).await, pinged().await);
    let mut serve = program(test_store.folder.path(), SERVE);
    serve.args(["--database-url", &test_store.url, "--identity", "key", "--network", "devnet"]);
    serve.args(["--peer", &format!("node={}", peer.address)]);
    serve.env("MODAL_GATEWAY_PEER_TIMEOUT", "500ms");
    let gateway = Process::start(serve);
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    until("the node is asked", async || {
        let (status, told) = ping(&http, &gateway.http, "192.0.2.1", 1).await;
        assert!(status >= 500, "{told}");
        !pings(&peer).is_empty()
    })
    .await;
    let base = gateway.http.clone();
    gateway.signal("TERM");
    until("it takes nothing more", async || http.get(&base).send().await.is_err()).await;
    assert_eq!(peer.figures().connections, 1, "what was given up is waited for");
    // More than were asked: another one may be on its way.
    peer.release(10);
    assert_eq!(tokio::task::spawn_blocking(|| gateway.wait()).await.unwrap(), Some(0));
    peer.until(|figures| figures.connections == 0).await;
    assert_eq!((peer.figures().lost, peer.figures().open), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_command_waits_for_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    for interrupted in [false, true] {
        let peer = pinged().await;
        // The time of a request is that of connecting, too.
        let limit = if interrupted { 60 } else { 5 };
        let mut command = program(
            folder.path(),
            ["request", &peer.address.to_string(), "/ping", "1", "--timeout", &limit.to_string()],
        );
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        peer.until(|figures| figures.open == 1).await;
        let began = Instant::now();
        if interrupted {
            assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        }
        until("its time is over", async || {
            assert_eq!(peer.figures().connections, 1);
            began.elapsed() > Duration::from_secs(if interrupted { 2 } else { limit + 1 })
        })
        .await;
        peer.release(1);
        let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(if interrupted { "interrupted" } else { "no answer within 5 s" }), "{stderr}");
        assert_eq!(peer.figures().lost, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sync_command_waits_for_its_answers() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = json!({"ok": false, "data": null, "errors": {"error": "Unknown path"}});
    let peer = ScriptedPeer::start(move |_| Reply::Held(refusal.clone())).await;
    let mut command = program(folder.path(), ["sync", &peer.address.to_string(), "--network", "devnet"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    peer.until(|figures| figures.open > 0).await;
    let began = Instant::now();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    until("it could have gone long ago", async || {
        assert_eq!(peer.figures().connections, 1);
        began.elapsed() > Duration::from_secs(2)
    })
    .await;
    let asked = peer.figures().open;
    peer.release(2);
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && stderr.contains("interrupted"), "{stderr}");
    judge(began.elapsed() < Duration::from_secs(8), format_args!("{:?}", began.elapsed()));
    assert_eq!((peer.figures().lost, peer.requests().len()), (0, asked), "nothing new is asked");
}

//! The id of a request, in its answer and in the log; and what took how long.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use modal_gateway::protocol::Code;

use crate::support::{
    gateway::{Backend, Reply, TestGateway},
    peer::{self, ScriptedPeer},
    ports::free_port,
    process::{Process, SERVE, program},
    until::eventually,
};

const READ: &str = "/data/miner_block/epoch?epoch=1";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn id(reply: &Reply) -> &str {
    let mut ids = reply.headers.get_all("x-request-id").iter();
    let id = ids.next().expect("every answer has an id").to_str().unwrap();
    assert!(ids.next().is_none(), "one id");
    id
}

#[tokio::test]
async fn every_answer_has_an_id() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let settled = "/data/miner_block/range?from_index=0&to_index=20";
    for path in [READ, settled, "/data/miner_block/canonical", "/nope", "/health/live", "/docs/", "/events?after=x"] {
        let (first, second) = (gateway.get(path).await, gateway.get(path).await);
        assert!(id(&first).len() == 32 && id(&first) != id(&second), "{path}: {}", id(&first));
        let named = gateway.get_with(path, "x-request-id", "client-7").await;
        assert_eq!(id(&named), "client-7", "{path}");
        let traced = gateway.get_with(path, "traceparent", PARENT).await;
        assert_eq!(id(&traced), TRACE, "{path}");
    }
    let both = gateway.request(|http, base| {
        http.get(format!("{base}{READ}")).header("traceparent", PARENT).header("x-request-id", "client-7")
    });
    assert_eq!(id(&both.await), "client-7");
    for bad in ["a b", "a\"b", "a;b", &"x".repeat(129)] {
        assert_ne!(id(&gateway.get_with(READ, "x-request-id", bad).await), bad);
    }
    assert_eq!(id(&gateway.get_with(READ, "traceparent", "00-0-0-0").await).len(), 32);
}

/// The parts of `server-timing`, in milliseconds.
fn timing(reply: &Reply) -> Vec<(String, f64)> {
    let header = reply.header("server-timing").expect("every answer says how long it took");
    let part = |part: &str| {
        let (name, millis) = part.split_once(";dur=").unwrap();
        (name.to_owned(), millis.parse().unwrap())
    };
    header.split(", ").map(part).collect()
}

#[tokio::test]
async fn an_answer_says_what_took_how_long() {
    let node = ScriptedPeer::start(|request| {
        peer::Reply::Held(serde_json::json!({"ok": true, "data": request["data"], "errors": null}))
    })
    .await;
    let gateway = TestGateway::with_peers(Backend::Sqlite, &[format!("node={}", node.address)]).await;
    let read = timing(&gateway.get(READ).await);
    let [(store, took), (total, all)] = &read[..] else { panic!("{read:?}") };
    assert!(store == "store" && total == "total" && took <= all, "{read:?}");
    let hold = async {
        eventually(async || (!node.requests().is_empty()).then_some(())).await;
        let held = Instant::now();
        eventually(async || (held.elapsed() > Duration::from_millis(50)).then_some(())).await;
        node.release(1);
        held.elapsed()
    };
    let (asked, held) = tokio::join!(gateway.get("/ping?peer=node"), hold);
    let asked = timing(&asked);
    let [(peer, took), (total, all)] = &asked[..] else { panic!("{asked:?}") };
    assert!(peer == "peer" && total == "total" && took <= all, "{asked:?}");
    assert!(*took >= 50.0, "{took} ms, while the answer was held for {held:?}");
    let own = timing(&gateway.get("/status").await);
    assert!(matches!(&own[..], [(total, _)] if total == "total"), "{own:?}");
}

#[tokio::test]
async fn the_log_names_the_request_that_a_peer_could_not_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let free = free_port();
    let id = libp2p::identity::Keypair::generate_ed25519().public().to_peer_id();
    let mut serve = program(folder.path(), SERVE);
    serve.args(["--log", "json", "--peer", &format!("down=/ip4/127.0.0.1/tcp/{free}/p2p/{id}")]);
    serve.env("RUST_LOG", "info,modal_gateway::source=debug");
    let process = Process::start_quietly(serve);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked = client.get(format!("{}{READ}&peer=down", process.http)).header("x-request-id", "client-7");
    let reply = asked.header("traceparent", PARENT).send().await.unwrap();
    assert_eq!((reply.status().as_u16(), &reply.headers()["x-request-id"]), (503, &"client-7".parse().unwrap()));
    assert!(reply.text().await.unwrap().contains(Code::PeerUnreachable.as_str()));
    let line = logged(&process.log, "a peer could not be asked").await;
    assert_eq!(line["span"]["name"], "request", "{line}");
    assert_eq!((&line["span"]["id"], &line["span"]["trace"]), (&"client-7".into(), &TRACE.into()), "{line}");
}

/// The line of a log of JSON objects with this message.
async fn logged(log: &Arc<Mutex<Vec<String>>>, message: &str) -> serde_json::Value {
    eventually(async || {
        let lines = log.lock().unwrap();
        let objects = lines.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        objects.into_iter().find(|line| line["message"] == message)
    })
    .await
}

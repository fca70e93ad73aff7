//! The 34 recorded requests get the recorded answers, over HTTP and libp2p, from both stores.

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::gateway::{Backend, TestGateway};

const TRANSCRIPTS: &str = include_str!("../fixtures/node-transcripts-61.json");
const TIP: u64 = 60;

fn transcripts() -> Vec<(Value, Value)> {
    let recorded: Vec<Value> = serde_json::from_str(TRANSCRIPTS).unwrap();
    recorded.into_iter().map(|mut one| (one["request"].take(), one["response"].take())).collect()
}

/// What a real node answered, with the differences that we document.
fn expected(request: &Value, mut answer: Value, peer_id: &str) -> Value {
    let path = request["path"].as_str().unwrap();
    let data = &mut answer["data"];
    if path == "/inspect" {
        data["peer_id"] = json!(peer_id);
    }
    if path.ends_with("/range") && data.is_object() {
        let asked = &request["data"];
        let (from, to) = (asked["from_index"].as_u64().unwrap(), asked["to_index"].as_u64().unwrap());
        let chunk = asked["max_chunk_size"].as_u64().unwrap_or(1000);
        let end = to.min(from + chunk - 1);
        let more = end < to.min(TIP);
        data["to_index"] = json!(end);
        data["chunk_size"] = json!(chunk);
        data["has_more"] = json!(more);
        data["next_from_index"] = if more { json!(end + 1) } else { Value::Null };
    }
    if path.ends_with("/get") && data.is_object() {
        data["difficulty"] = data["target_difficulty"].clone();
    }
    let blocks = data.get_mut("blocks").and_then(Value::as_array_mut);
    for block in blocks.into_iter().flatten() {
        if block.get("target_difficulty").is_some() {
            block["difficulty"] = block["target_difficulty"].clone();
        }
    }
    answer
}

/// Takes our additions to `errors` out, after a look at them.
fn without_additions(mut answer: Value) -> Value {
    if let Some(errors) = answer["errors"].as_object_mut() {
        let code = errors.remove("code").expect("every error has a code");
        assert!(code.as_str().unwrap().chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        errors.remove("detail");
    }
    answer
}

fn documented_status(answer: &Value) -> u16 {
    match answer["errors"]["error"].as_str() {
        None => 200,
        Some("Block not found" | "Unknown path") => 404,
        Some(_) => 400,
    }
}

/// The `GET` form of a request, where it has one.
fn as_get(request: &Value) -> Option<String> {
    let path = request["path"].as_str().unwrap();
    let mut query = Vec::new();
    for (name, value) in request["data"].as_object().into_iter().flatten() {
        query.push(match value {
            // A number as text is the wrong type in JSON, and a number in a query string.
            Value::String(text) if text.parse::<u64>().is_err() => format!("{name}={text}"),
            Value::Array(list) if list.iter().all(Value::is_string) && path.ends_with("chain_info") => {
                let list: Vec<_> = list.iter().filter_map(Value::as_str).collect();
                format!("{name}={}", list.join(","))
            }
            Value::Number(_) | Value::Bool(_) => format!("{name}={value}"),
            _ => return None,
        });
    }
    (!path.ends_with("find_ancestor")).then(|| format!("{path}?{}", query.join("&")))
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn recorded_requests_get_the_recorded_answers(#[case] backend: Backend) {
    let gateway = TestGateway::start(backend).await;
    let transcripts = transcripts();
    assert_eq!(transcripts.len(), 34);
    for (request, recorded) in transcripts {
        let expected = expected(&request, recorded, &gateway.peer_id.to_string());
        let over_libp2p = gateway.ask(request.to_string()).await;
        let answer: Value = serde_json::from_slice(&over_libp2p).unwrap();
        assert_eq!(without_additions(answer), expected, "{request} over libp2p");

        let path = request["path"].as_str().unwrap();
        let posted = gateway.post(path, request["data"].to_string()).await;
        assert_eq!(posted.status, documented_status(&expected), "{request} over HTTP");
        assert_eq!(without_additions(posted.json()), expected, "{request} over HTTP");
        if expected["ok"] == json!(true) {
            assert_eq!(posted.body, over_libp2p, "{request}: HTTP and libp2p give the same bytes");
        }
        if let Some(url) = as_get(&request) {
            let got = gateway.get(&url).await;
            assert_eq!(got.status, documented_status(&expected), "{url}");
            assert_eq!(without_additions(got.json()), expected, "{url}");
            // `/ping` echoes the JSON that it gets: from a query string it is written anew.
            if expected["ok"] == json!(true) && path != "/ping" {
                assert_eq!(got.body, over_libp2p, "{url}: HTTP and libp2p give the same bytes");
            }
        }
    }
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn an_answer_names_its_source(#[case] backend: Backend) {
    let gateway = TestGateway::start(backend).await;
    let reply = gateway.get("/data/miner_block/epoch?epoch=0").await;
    assert_eq!(reply.json()["data"]["count"], 41);
    assert_eq!(reply.header("x-modal-source"), Some("local"));
    let tip = "60:0017cbb916921c1144f2fcdb002392cebdb0849e1bc14f883df8dd0430cccc0f";
    assert_eq!(reply.header("x-modal-tip"), Some(tip));
    assert_eq!(reply.header("x-modal-verification"), Some("linked"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_range_is_paged_to_its_end() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let (mut next, mut seen) = (Some(0), Vec::new());
    while let Some(from) = next {
        let url = format!("/data/miner_block/range?from_index={from}&to_index=1000000&max_chunk_size=7");
        let data = gateway.get(&url).await.json()["data"].take();
        seen.extend(data["blocks"].as_array().unwrap().iter().map(|block| block["index"].as_u64().unwrap()));
        next = data["next_from_index"].as_u64();
        assert_eq!(next.is_some(), data["has_more"].as_bool().unwrap());
    }
    assert_eq!(seen, (0..=TIP).collect::<Vec<_>>());
}

#[tokio::test]
async fn status_and_peers_are_in_the_envelope() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let status = gateway.get("/status").await.json();
    assert_eq!(status["data"]["chain"]["length"], 61);
    assert_eq!(status["data"]["chain"]["cumulative_difficulty"], "809");
    assert_eq!(status["data"]["chain"]["verification"], "linked");
    assert_eq!(status["data"]["peer_id"], gateway.peer_id.to_string());
    assert_eq!(gateway.get("/health/live").await.status, 200);
    assert_eq!(gateway.get("/health/ready").await.json()["data"]["status"], "ready");
    let peers = gateway.get("/peers").await.json();
    assert_eq!(peers["data"], serde_json::json!({"peers": [], "count": 0}));
    gateway.ask(r#"{"path":"/ping"}"#).await;
    let peers = gateway.get("/peers").await.json();
    assert_eq!(peers["data"]["peers"][0]["connected"], true, "the node that asked over libp2p: {peers}");
    assert!(!peers.to_string().contains("127.0.0.1"), "nobody's address is shown: {peers}");
}

//! Peers of every release and character, asked through `?peer=`: each ends in the documented status, within its
//! timeout, and the gateway goes on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use modal_gateway::{
    chain::{Level, MinerBlock},
    config::Config,
};
use serde_json::{Value, json};

use crate::support::clock::judge;
use crate::support::{
    gateway::{Backend, PATIENCE, TestGateway, TestStore, chain},
    peer::{Reply, ScriptedPeer},
};

pub fn good(data: Value) -> Reply {
    Reply::Json(json!({"ok": true, "data": data, "errors": null}))
}

pub fn failed(error: &str) -> Reply {
    Reply::Json(json!({"ok": false, "data": null, "errors": {"error": error}}))
}

/// A block as the first release sends it, or as current nodes do.
pub fn in_dialect(block: &MinerBlock, first_release: bool) -> Value {
    let mut value = serde_json::to_value(block).unwrap();
    let object = value.as_object_mut().unwrap();
    let gone: &[&str] = if first_release {
        &["target_difficulty", "actualized_difficulty", "height_at_time", "orphan_reason"]
    } else {
        &["difficulty"]
    };
    for name in gone {
        object.remove(*name);
    }
    value
}

/// A node of the network, as far as these tests ask it: 50 blocks at a time at most, or the first release without
/// any limit.
fn node(first_release: bool, chunk_limit: u64) -> impl Fn(Value) -> Reply + Send + Sync + 'static {
    let blocks = chain();
    move |request| {
        let data = &request["data"];
        let select = |keep: &dyn Fn(&MinerBlock) -> bool| -> Vec<Value> {
            blocks.iter().filter(|block| keep(block)).map(|block| in_dialect(block, first_release)).collect()
        };
        match request["path"].as_str().unwrap() {
            "/ping" => good(data.clone()),
            "/data/miner_block/get" => match select(&|block| data["hash"] == block.hash.as_str()).pop() {
                Some(block) => good(block),
                None => failed("Block not found"),
            },
            "/data/miner_block/epoch" => {
                let list = select(&|block| data["epoch"] == block.epoch);
                good(json!({"epoch": data["epoch"], "count": list.len(), "blocks": list}))
            }
            "/data/miner_block/canonical" => {
                let list = select(&|_| true);
                good(json!({"count": list.len(), "blocks": list}))
            }
            "/data/miner_block/range" => {
                let (from, to) = (data["from_index"].as_u64().unwrap(), data["to_index"].as_u64().unwrap());
                if first_release {
                    let list = select(&|block| (from..=to).contains(&block.index));
                    return good(json!({"from_index": from, "to_index": to, "count": list.len(), "blocks": list}));
                }
                let chunk = data["max_chunk_size"].as_u64().unwrap_or(50).min(chunk_limit);
                let end = to.min(from + chunk - 1);
                let list = select(&|block| (from..=end).contains(&block.index));
                // As real nodes have it: about the end asked for, not about the chain.
                let has_more = end < to && !list.is_empty();
                good(json!({"from_index": from, "to_index": end, "requested_to": to, "count": list.len(),
                    "blocks": list, "has_more": has_more, "chunk_size": chunk}))
            }
            _ => failed("Unknown path"),
        }
    }
}

/// A gateway connected with this peer, which has time enough for an answer, also on a busy machine.
pub async fn gateway_with(alias: &str, peer: &ScriptedPeer) -> TestGateway {
    waiting_for(alias, peer, PATIENCE / 2).await
}

/// The same, with a time that the peer has for an answer.
async fn waiting_for(alias: &str, peer: &ScriptedPeer, peer_timeout: Duration) -> TestGateway {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(chain(), Level::Linked).await;
    let peers = [format!("{alias}={}", peer.address)];
    let gateway = TestGateway::over(store, &peers, |config| Config { peer_timeout, ..config }).await;
    gateway.p2p.wait_connected(alias, PATIENCE).await.unwrap();
    gateway
}

#[rstest::rstest]
#[case::first_release(true, 0)]
#[case::fifty_at_a_time(false, 50)]
#[case::three_at_a_time(false, 3)]
#[tokio::test]
async fn nodes_of_either_dialect_give_the_same_answers_as_the_store(#[case] first_release: bool, #[case] limit: u64) {
    let peer = ScriptedPeer::start(node(first_release, limit)).await;
    let gateway = gateway_with("node", &peer).await;
    let hash = chain()[5].hash.clone();
    for question in [
        "/data/miner_block/epoch?epoch=0",
        "/data/miner_block/epoch?epoch=77",
        "/data/miner_block/range?from_index=0&to_index=60",
        "/data/miner_block/range?from_index=3&to_index=7",
        "/data/miner_block/range?from_index=59&to_index=561",
        "/data/miner_block/range?from_index=0&to_index=40&max_chunk_size=7",
        "/data/miner_block/range?from_index=66&to_index=67",
        "/data/miner_block/canonical?",
        &format!("/data/miner_block/get?hash={hash}"),
    ] {
        let own = gateway.get(question).await;
        let theirs = gateway.get(&format!("{question}&peer=node")).await;
        assert_eq!(theirs.status, 200, "{question}: {:?}", theirs.body);
        assert_eq!(theirs.header("x-modal-source"), Some(format!("peer:{}", peer.peer_id).as_str()));
        assert_eq!(theirs.header("x-modal-verification"), Some("none"));
        let mut own = own.json();
        if first_release {
            // What that dialect does not tell can't be passed on.
            strip_height(&mut own);
        }
        assert_eq!(theirs.json(), own, "{question}");
    }
    let absent = gateway.get("/data/miner_block/get?hash=nope&peer=node").await;
    assert_eq!((absent.status, absent.code().as_str()), (404, "block_not_found"));
    assert_eq!(absent.header("x-modal-source"), Some(format!("peer:{}", peer.peer_id).as_str()));
    let old = gateway.get("/data/miner_block/chain_info?peer=node").await;
    assert_eq!((old.status, old.code().as_str()), (404, "unknown_path"), "a path that the peer lacks");
    let sizes: Vec<_> = peer.requests().iter().map(|request| request["data"]["max_chunk_size"].clone()).collect();
    assert!(!sizes.contains(&json!(0)), "a real node does not survive this");
}

fn strip_height(answer: &mut Value) {
    let data = &mut answer["data"];
    if let Some(blocks) = data.get_mut("blocks").and_then(Value::as_array_mut) {
        blocks.iter_mut().for_each(|block| block["height_at_time"] = Value::Null);
    } else if data.get("hash").is_some() {
        data["height_at_time"] = Value::Null;
    }
}

#[rstest::rstest]
#[case::refuses("boom", 502, "peer_error")]
#[case::garbage("garbage", 502, "peer_broke_protocol")]
#[case::half("half", 502, "peer_broke_protocol")]
#[case::nothing("nothing", 504, "peer_timeout")]
#[case::hangs_up("hangs up", 502, "peer_broke_protocol")]
#[case::too_much("too much", 502, "peer_broke_protocol")]
#[case::other_blocks("other blocks", 502, "peer_broke_protocol")]
#[case::unasked("unasked", 502, "peer_broke_protocol")]
#[case::one_before("one before", 502, "peer_broke_protocol")]
#[case::one_behind("one behind", 502, "peer_broke_protocol")]
#[case::shape("shape", 502, "peer_broke_protocol")]
#[case::disagreeing("disagreeing", 502, "peer_broke_protocol")]
#[tokio::test]
async fn status_of_a_failed_peer_request_matches_the_failure(
    #[case] character: &'static str,
    #[case] status: u16,
    #[case] code: &str,
) {
    let blocks = chain();
    let answer = move |request: Value| {
        if request["path"] == "/ping" {
            return good(request["data"].clone());
        }
        let list = |range: std::ops::Range<usize>| -> Vec<Value> {
            blocks[range].iter().map(|block| in_dialect(block, false)).collect()
        };
        let range = |list: Vec<Value>, count: usize| {
            good(json!({"from_index": 3, "to_index": 7, "blocks": list, "count": count}))
        };
        match character {
            "boom" => failed("boom"),
            "garbage" => Reply::Raw(Bytes::from_static(b"\x00\xffnot json at all")),
            "half" => Reply::Raw(Bytes::from_static(br#"{"ok":true,"data":{"blocks":[{"hash":"ab"#)),
            "nothing" => Reply::Silence,
            "hangs up" => Reply::Close,
            "too much" => Reply::Raw(vec![b' '; (10 << 20) + 1].into()),
            "other blocks" => range(list(10..15), 5),
            "unasked" => range(list(3..20), 17),
            "one before" => range(list(2..8), 6),
            "one behind" => range(list(3..9), 6),
            "shape" => good(json!({"from_index": 3, "to_index": 7, "blocks": {}, "count": 0})),
            "disagreeing" => {
                let mut list = list(3..8);
                list[2]["difficulty"] = json!("2");
                range(list, 5)
            }
            other => unreachable!("{other}"),
        }
    };
    let peer = ScriptedPeer::start(answer).await;
    let limit = if character == "nothing" { Duration::from_secs(2) } else { PATIENCE / 2 };
    let gateway = waiting_for("bad", &peer, limit).await;
    let asked = Instant::now();
    let reply = gateway.get("/data/miner_block/range?from_index=3&to_index=7&peer=bad").await;
    // Twice the time that a silent peer has.
    judge(asked.elapsed() < Duration::from_secs(4), format_args!("{:?}", asked.elapsed()));
    assert_eq!((reply.status, reply.code().as_str()), (status, code), "{:?}", reply.body);
    assert_eq!(reply.header("x-modal-source"), Some(format!("peer:{}", peer.peer_id).as_str()));
    // The gateway goes on, and so does the connection.
    assert_eq!(gateway.get("/data/miner_block/epoch?epoch=0").await.status, 200);
    let ping = gateway.get("/ping?still=there&peer=bad").await;
    assert_eq!(ping.json()["data"], json!({"still": "there"}), "{:?}", ping.body);
}

#[tokio::test]
async fn a_question_that_is_too_long_is_no_failure_of_the_peer() {
    let peer = ScriptedPeer::start(node(false, 50)).await;
    let gateway = gateway_with("honest", &peer).await;
    // As long as a body may be; the request to the peer has an envelope around it.
    let question = serde_json::to_vec(&"a".repeat((1 << 20) - 2)).unwrap();
    for target in ["honest", "any"] {
        let reply = gateway.post(&format!("/ping?peer={target}"), question.clone()).await;
        assert_eq!((reply.status, reply.code().as_str()), (413, "request_too_large"), "{target}");
    }
    assert_eq!(gateway.get("/peers").await.json()["data"]["peers"][0]["failures"], 0);
    assert_eq!(gateway.get("/ping?still=there&peer=honest").await.status, 200);
}

#[tokio::test]
async fn any_goes_on_to_the_next_peer_and_auto_asks_only_for_what_is_missing() {
    let liar = ScriptedPeer::start(|_| Reply::Raw(Bytes::from_static(b"garbage"))).await;
    let honest = ScriptedPeer::start(node(false, 50)).await;
    let peers = [format!("liar={}", liar.address), format!("honest={}", honest.address)];
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(chain().drain(..30).collect(), Level::Linked).await;
    let gateway = TestGateway::over(store, &peers, |config| config).await;
    for alias in ["liar", "honest"] {
        gateway.p2p.wait_connected(alias, PATIENCE).await.unwrap();
    }
    let by_honest = format!("peer:{}", honest.peer_id);
    let any = gateway.get("/data/miner_block/epoch?epoch=0&peer=any").await;
    assert_eq!((any.status, any.header("x-modal-source")), (200, Some(by_honest.as_str())), "{:?}", any.body);
    let (held, lacking) = (chain()[5].hash.clone(), chain()[55].hash.clone());
    let auto = async |hash: &str| gateway.get(&format!("/data/miner_block/get?hash={hash}&peer=auto")).await;
    assert_eq!(auto(&held).await.header("x-modal-source"), Some("local"));
    assert_eq!(auto(&lacking).await.header("x-modal-source"), Some(by_honest.as_str()));
    assert_eq!(auto("nowhere").await.code(), "block_not_found");
    let range = gateway.get("/data/miner_block/range?from_index=20&to_index=40&peer=auto").await;
    assert_eq!(
        (range.json()["data"]["count"].clone(), range.header("x-modal-source")),
        (json!(21), Some(by_honest.as_str()))
    );
}

#[tokio::test]
async fn a_peer_can_not_fill_the_memory_chunk_by_chunk() {
    let peer = ScriptedPeer::start(|request| {
        let index = &request["data"]["from_index"];
        let mut block = serde_json::to_value(&chain()[1]).unwrap();
        block["index"] = index.clone();
        block["nominated_peer_id"] = "x".repeat(3 << 20).into();
        let data = json!({"from_index": index, "to_index": index, "requested_to": 99, "blocks": [block], "count": 1,
            "has_more": true, "chunk_size": 1, "next_from_index": null});
        Reply::Json(json!({"ok": true, "data": data, "errors": null}))
    })
    .await;
    let gateway = gateway_with("large", &peer).await;
    let reply = gateway.get("/data/miner_block/range?from_index=1&to_index=12&peer=large").await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "answer_too_large"));
    let asked = peer.requests().iter().filter(|request| request["path"] == "/data/miner_block/range").count();
    assert_eq!(asked, 4, "no more once it is too much");
}

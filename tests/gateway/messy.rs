//! Peers with a messy store, asked through `?peer=`: what they say is passed on as it is.

use modal_gateway::{
    chain::MinerBlock,
    protocol::{self, Answer, Request},
};
use serde_json::{Value, json};

use super::interop::{failed, gateway_with, good, in_dialect};
use crate::support::{
    gateway::{TestGateway, chain},
    peer::ScriptedPeer,
};

/// Whether `?peer=node` gives these blocks as they were said, counted anew.
async fn passes_on(gateway: &TestGateway, question: &str, expected: &[MinerBlock]) {
    let reply = gateway.get(&format!("{question}&peer=node")).await;
    assert_eq!(reply.status, 200, "{question}: {:?}", reply.body);
    assert_eq!(reply.header("x-modal-verification"), Some("none"), "{question}");
    let data = reply.json()["data"].take();
    let said: Vec<_> = expected.iter().map(|block| (json!(block.index), json!(block.hash))).collect();
    let blocks = data["blocks"].as_array().unwrap();
    let given: Vec<_> = blocks.iter().map(|block| (block["index"].clone(), block["hash"].clone())).collect();
    assert_eq!(given, said, "{question}");
    // `chain_info` has no count of its blocks.
    assert!(data.get("count").is_none_or(|count| *count == json!(said.len())), "{question}: {data}");
}

/// The bundled chain as a node with a messy store has it: blocks of its own at 0 and 2, none at 5, 6 and 7, and the
/// second at 9 told before the first.
fn messy_chain() -> Vec<MinerBlock> {
    let mut blocks = chain();
    blocks.retain(|block| !(5..8).contains(&block.index));
    for index in [0, 2] {
        let at = blocks.iter().position(|block| block.index == index).unwrap();
        let own = MinerBlock { hash: format!("own_{index}"), data_hash: String::new(), ..blocks[at].clone() };
        blocks.insert(at + 1, own);
    }
    let at = blocks.iter().position(|block| block.index == 9).unwrap();
    blocks.swap(at, at - 1);
    blocks
}

#[rstest::rstest]
#[case::at_once(1000)]
#[case::fifty_at_a_time(50)]
#[case::four_at_a_time(4)]
#[tokio::test]
async fn the_answer_of_a_peer_with_a_messy_store_is_forwarded(#[case] limit: u64) {
    let peer = ScriptedPeer::start(move |request| {
        let (blocks, data) = (messy_chain(), &request["data"]);
        let select = |keep: &dyn Fn(&MinerBlock) -> bool| -> Vec<Value> {
            blocks.iter().filter(|block| keep(block)).map(|block| in_dialect(block, false)).collect()
        };
        match request["path"].as_str().unwrap() {
            "/data/miner_block/range" => {
                let (from, to) = (data["from_index"].as_u64().unwrap(), data["to_index"].as_u64().unwrap());
                let end = to.min(from + limit.min(data["max_chunk_size"].as_u64().unwrap()) - 1);
                let list = select(&|block| (from..=end).contains(&block.index));
                good(json!({"from_index": from, "to_index": end, "requested_to": to, "count": list.len(), "blocks": list,
                    "has_more": end < to, "chunk_size": limit}))
            }
            "/data/miner_block/epoch" => {
                let list = select(&|block| data["epoch"] == block.epoch);
                good(json!({"epoch": data["epoch"], "count": 7, "blocks": list}))
            }
            "/data/miner_block/canonical" => good(json!({"count": 7000, "blocks": select(&|_| true)})),
            "/data/miner_block/chain_info" => good(json!({"cumulative_difficulty": "811", "chain_length": 60,
                "chain_height": 59, "tip_hash": blocks.last().unwrap().hash, "tip_epoch": 7, "blocks": select(&|_| true)})),
            _ => failed("Unknown path"),
        }
    })
    .await;
    let gateway = gateway_with("node", &peer).await;
    let all = messy_chain();
    let within = |from: u64, to: u64| -> Vec<_> {
        all.iter().filter(|block| (from..=to).contains(&block.index)).cloned().collect()
    };
    for (from, to) in [(0, 60), (0, 2), (2, 2), (3, 9), (4, 8)] {
        let question = format!("/data/miner_block/range?from_index={from}&to_index={to}");
        // The four from 5 to 8 begin with three that are missing; the swapped two lie in one chunk or two.
        let mut expected = within(from, to);
        if limit == 4 {
            expected.sort_by_key(|block| (block.index - from) / 4);
        }
        passes_on(&gateway, &question, &expected).await;
    }
    let epoch_0: Vec<_> = all.iter().filter(|block| block.epoch == 0).cloned().collect();
    passes_on(&gateway, "/data/miner_block/epoch?epoch=0", &epoch_0).await;
    passes_on(&gateway, "/data/miner_block/canonical?", &all).await;
    passes_on(&gateway, "/data/miner_block/chain_info?include_blocks=true", &all).await;
    let info = gateway.get("/data/miner_block/chain_info?peer=node").await.json()["data"].take();
    assert_eq!((&info["chain_length"], &info["tip_epoch"]), (&json!(60), &json!(7)), "as it was said");
    let range = gateway.get("/data/miner_block/range?from_index=0&to_index=9&max_chunk_size=3&peer=node").await;
    let data = range.json()["data"].take();
    assert_eq!((&data["to_index"], &data["has_more"], &data["next_from_index"]), (&json!(2), &json!(true), &json!(3)));
    assert_eq!(data["count"], 5);
}

#[tokio::test]
async fn recorded_answers_of_real_nodes_are_answers() {
    for text in [
        include_str!("../fixtures/network-first-miner.json"),
        include_str!("../fixtures/network-second-miner.json"),
        include_str!("../fixtures/network-observer.json"),
    ] {
        let recorded: Vec<Value> = serde_json::from_str(text).unwrap();
        assert_eq!(recorded.len(), 17);
        for one in recorded {
            let request = one["request"].to_string();
            let query = Request::parse(request.as_bytes()).unwrap().query().unwrap();
            let response = one["response"].to_string();
            let data = protocol::open_envelope(response.as_bytes()).unwrap().unwrap();
            let answer = Answer::decode(&query, data).unwrap_or_else(|error| panic!("{request}: {error}"));
            let written: Value = serde_json::from_str(&answer.encode()).unwrap();
            let (written, said) = (&written["data"], &one["response"]["data"]);
            let told = |data: &Value| -> Vec<_> {
                let block = data.get("hash").is_some().then(|| vec![data.clone()]);
                let blocks = block.unwrap_or_else(|| data["blocks"].as_array().cloned().unwrap_or_default());
                blocks.iter().map(|block| (block["index"].clone(), block["hash"].clone())).collect()
            };
            assert_eq!(told(written), told(said), "{request}");
            for name in ["count", "chain_length", "chain_height", "cumulative_difficulty", "tip_hash", "datastore"] {
                assert_eq!(written.get(name), said.get(name), "{request}");
            }
        }
    }
}

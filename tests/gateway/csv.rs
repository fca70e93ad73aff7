//! Lists as CSV.

use csv::StringRecord;
use modal_gateway::chain::{Deviation, Level, MinerBlock};
use rstest::rstest;
use serde_json::Value;

use super::compressed::decoded;
use crate::support::{
    gateway::{Backend, PATIENCE, Reply, TestGateway, TestStore, synthetic},
    peer::ScriptedPeer,
    serving::Serving,
};

const CSV: &str = "text/csv";

/// The names and the records of an answer.
fn records(reply: &Reply) -> (StringRecord, Vec<StringRecord>) {
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/csv; charset=utf-8; header=present")));
    let text = String::from_utf8(decoded(reply)).unwrap();
    assert!(text.ends_with("\r\n"), "{text}");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    (reader.headers().unwrap().clone(), reader.records().map(Result::unwrap).collect())
}

/// A member as a field has it.
fn field(member: &Value) -> String {
    match member {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(words) => words.iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// Compares a list in CSV with the same as JSON.
async fn check(gateway: &TestGateway, path: &str) -> usize {
    let blocks = gateway.get(path).await.json()["data"]["blocks"].as_array().unwrap().clone();
    let (names, records) = records(&gateway.get_with(path, "accept", CSV).await);
    assert_eq!(records.len(), blocks.len(), "{path}");
    for (record, block) in records.iter().zip(&blocks) {
        for (name, value) in names.iter().zip(record) {
            assert_eq!(value, field(&block[name]), "{path} {name}");
        }
        assert!(block.as_object().unwrap().keys().all(|member| names.iter().any(|name| name == member)), "{block}");
    }
    blocks.len()
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn a_list_comes_as_csv(#[case] backend: Backend) {
    let store = TestStore::create(backend).await;
    let mut blocks = synthetic(2_345);
    blocks[3] = MinerBlock {
        nonce: u128::MAX,
        target_difficulty: u128::MAX,
        miner_number: u64::MAX,
        data_hash: "a \"quote\", a comma,\r\na line and a NUL\0".into(),
        nominated_peer_id: "=HYPERLINK(\"http://192.0.2.1\")".into(),
        seen_at: Some(i64::MIN),
        height_at_time: Some(u64::MAX),
        deviations: vec![Deviation::Schedule, Deviation::Timestamp],
        ..blocks[3].clone()
    };
    store.append(blocks, Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    for (path, count) in [
        ("/data/miner_block/epoch?epoch=0", 41),
        ("/data/miner_block/range?from_index=2&to_index=1500", 1000),
        ("/data/miner_block/canonical", 2_345),
        ("/data/miner_block/epoch?epoch=99", 0),
    ] {
        assert_eq!(check(&gateway, path).await, count, "{path}");
    }
}

#[tokio::test]
async fn csv_has_a_tag_of_its_own_and_one_way_to_write_numbers() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let path = "/data/miner_block/range?from_index=0&to_index=9";
    let (json, csv) = (gateway.get(path).await, gateway.get_with(path, "accept", CSV).await);
    assert_ne!(csv.header("etag"), json.header("etag"));
    let strings = gateway.get_with(&format!("{path}&numbers=string"), "accept", CSV).await;
    assert_eq!((strings.header("etag"), &strings.body), (csv.header("etag"), &csv.body));
    let current = gateway.request(|http, base| {
        http.get(format!("{base}{path}")).header("accept", CSV).header("if-none-match", csv.header("etag").unwrap())
    });
    assert_eq!(current.await.status, 304);
    let posted = gateway.request(|http, base| {
        let request = http.post(format!("{base}/data/miner_block/range")).header("accept", CSV);
        request.header("content-type", "application/json").body(r#"{"from_index":0,"to_index":9}"#)
    });
    assert_eq!(posted.await.body, csv.body);
}

#[tokio::test]
async fn errors_stay_json() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    for (path, status, code) in [
        ("/data/miner_block/range?from_index=7&to_index=3", 400, "invalid_range"),
        ("/data/miner_block/epoch", 400, "missing_parameter"),
        ("/data/miner_block/range?from_index=0&to_index=3&anchor=zz", 404, "block_not_found"),
        ("/data/miner_block/chain_info", 406, "not_acceptable"),
        ("/status", 406, "not_acceptable"),
    ] {
        let reply = gateway.get_with(path, "accept", CSV).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"), "{path}");
    }
}

#[tokio::test]
async fn a_peers_list_comes_as_csv_too() {
    let peer = ScriptedPeer::start(Serving::of(&synthetic(20)).script()).await;
    let peers = [format!("peer={}", peer.address)];
    let gateway = TestGateway::over(TestStore::create(Backend::Sqlite).await, &peers, |config| config).await;
    gateway.p2p.wait_connected("peer", PATIENCE).await.unwrap();
    assert_eq!(check(&gateway, "/data/miner_block/range?from_index=2&to_index=11&peer=peer").await, 10);
}

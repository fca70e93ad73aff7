//! What the gateway says of blocks that are assumed valid.

use modal_gateway::{
    chain::{AssumeValid, CumulativeDifficulty, Level, Network},
    config::Config,
    source::job::AssumedBlocks,
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::gateway::{Backend, TestGateway, TestStore, chain};

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn what_is_left_is_shown_and_each_block_has_its_level(#[case] backend: Backend) {
    let store = TestStore::create(backend).await;
    store.append(chain(), Level::Linked).await;
    let handle = store.open().await;
    let mut writer = handle.write().await.unwrap();
    writer.raise(41, 60, Level::Pow).await.unwrap();
    writer.commit().await.unwrap();
    let hash = chain()[50].hash.clone();
    let pin = AssumeValid { index: 50, hash, work: CumulativeDifficulty::default() + 761 };
    let assumed = AssumedBlocks::count(&*handle, &pin).await.unwrap();
    assert_eq!(assumed.blocks_left, Some(41));
    AssumedBlocks { failure: Some("block 40 is bad".into()), ..assumed }.write(&*handle).await.unwrap();

    let network = Network { assume_valid: Some(pin.clone()), ..Network::devnet() };
    let gateway = TestGateway::over(store, &[], |config| Config { network, ..config }).await;
    let status = async |gateway: &TestGateway| {
        let chain = &gateway.get("/status").await.json()["data"]["chain"];
        (chain["verification"].clone(), chain["assumed_valid"].clone())
    };
    let shown = json!({"index": 50, "hash": pin.hash, "blocks_left": 41, "failure": "block 40 is bad"});
    assert_eq!(status(&gateway).await, (json!("linked"), shown));
    for (block, level) in [(40, "linked"), (41, "pow")] {
        let reply = gateway.get(&format!("/chain/blocks/{block}")).await;
        assert_eq!(reply.json()["data"]["verification"], level, "{block}");
        assert_eq!(reply.header("x-modal-verification"), Some(level), "{block}");
    }
    let url = format!("{}/metrics", gateway.admin);
    let metrics = gateway.request(|http, _| http.get(url)).await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    for sample in ["modal_chain_assumed_blocks 41", "modal_chain_assumed_failed 1"] {
        assert!(metrics.lines().any(|line| line == sample), "{sample}");
    }

    // Another block is configured: what was written of the first one says nothing.
    let store = TestStore::create(backend).await;
    assumed_elsewhere(&store, &pin).await;
    let other = Network { assume_valid: Some(AssumeValid { index: 49, ..pin }), ..Network::devnet() };
    let gateway = TestGateway::over(store, &[], |config| Config { network: other, ..config }).await;
    let (_, shown) = status(&gateway).await;
    assert_eq!((&shown["index"], &shown["blocks_left"], &shown["failure"]), (&json!(49), &Value::Null, &Value::Null));
    let gateway = TestGateway::start(backend).await;
    assert_eq!(status(&gateway).await.1, Value::Null);
}

/// Notes a number of blocks that no chain has.
async fn assumed_elsewhere(store: &TestStore, pin: &AssumeValid) {
    let left = AssumedBlocks { index: pin.index, hash: pin.hash.clone(), blocks_left: Some(7), failure: None };
    left.write(&*store.open().await).await.unwrap();
}

//! What caches and other readers of HTTP rely on: entity tags, freshness, forms.

use std::sync::Arc;

use modal_gateway::{
    chain::Level,
    protocol::Query,
    source::{LocalSource, Origin, Settings, Source},
};
use serde_json::Value;

use crate::support::gateway::{Backend, PATIENCE, Reply, TestGateway, TestStore, chain};

const EPOCH: &str = "/data/miner_block/epoch?epoch=0";

#[tokio::test]
async fn a_copy_that_is_current_is_not_sent_again() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    for path in [EPOCH, "/data/miner_block/canonical", "/data/miner_block/chain_info", "/inspect"] {
        let first = gateway.get(path).await;
        let tag = first.header("etag").expect("every read has a tag").to_owned();
        assert!(tag.starts_with('"') && tag.len() > 8, "strong: {tag}");
        let second = gateway.get_with(path, "if-none-match", &format!("\"other\", {tag}")).await;
        assert_eq!((second.status, second.body.len()), (304, 0), "{path}");
        assert_eq!(second.header("etag"), Some(tag.as_str()));
        assert_eq!(gateway.get_with(path, "if-none-match", "\"other\"").await.status, 200);
        let in_lines = gateway.request(|http, base| {
            http.get(format!("{base}{path}")).header("if-none-match", "\"other\"").header("if-none-match", &tag)
        });
        assert_eq!(in_lines.await.status, 304, "{path}");
    }
}

#[tokio::test]
async fn the_head_of_the_whole_chain_reads_no_block() {
    const PATH: &str = "/data/miner_block/canonical";
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let head = async |accept: &str| {
        gateway.request(|http, base| http.head(format!("{base}{PATH}")).header("accept", accept)).await
    };
    for accept in ["*/*", "application/x-ndjson", "text/csv"] {
        let by_get = gateway.get_with(PATH, "accept", accept).await;
        let by_head = head(accept).await;
        assert_eq!((by_head.status, by_head.body.len()), (200, 0));
        for name in ["content-type", "content-length", "etag", "cache-control", "vary", "x-modal-tip", "x-modal-source"]
        {
            assert_eq!(by_head.header(name), by_get.header(name), "{accept}: {name}");
        }
    }
    // There is nothing to read it from.
    gateway.store.execute("ALTER TABLE block RENAME TO gone").await;
    assert_eq!(gateway.get(PATH).await.status, 503);
    assert_eq!(head("*/*").await.status, 200);
}

#[tokio::test]
async fn only_final_blocks_may_be_kept_by_shared_caches() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let kept = async |path: &str| gateway.get(path).await.header("cache-control").unwrap().starts_with("public");
    // The tip is 60 and the finality depth 40.
    assert!(kept("/data/miner_block/range?from_index=0&to_index=20").await);
    assert!(!kept("/data/miner_block/range?from_index=0&to_index=21").await);
    assert!(!kept(EPOCH).await, "block 40 is not deep enough");
    assert!(!kept("/data/miner_block/canonical").await);
    assert!(!kept("/data/miner_block/chain_info").await);
    let hash = |index: usize| chain()[index].hash.clone();
    assert!(kept(&format!("/data/miner_block/get?hash={}", hash(20))).await);
    assert!(!kept(&format!("/data/miner_block/get?hash={}", hash(21))).await);
    assert_eq!(gateway.get("/nope").await.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn a_list_comes_one_block_a_line() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let lines = |reply: &Reply| -> Vec<Value> {
        assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
        let text = std::str::from_utf8(&reply.body).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for path in [EPOCH, "/data/miner_block/canonical", "/data/miner_block/range?from_index=3&to_index=7"] {
        let json = gateway.get(path).await;
        let ndjson = gateway.get_with(path, "accept", "application/x-ndjson").await;
        assert_eq!(Value::Array(lines(&ndjson)), json.json()["data"]["blocks"], "{path}");
        assert_ne!(json.header("etag"), ndjson.header("etag"), "two forms, two tags");
    }
    let refused = gateway.get_with("/status", "accept", "application/x-ndjson").await;
    assert_eq!((refused.status, refused.code().as_str()), (406, "not_acceptable"));
    let refused = gateway.get_with("/data/miner_block/chain_info", "accept", "application/x-ndjson").await;
    assert_eq!((refused.status, refused.code().as_str()), (406, "not_acceptable"));
}

#[tokio::test]
async fn a_store_written_by_another_process_is_seen() {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(chain().drain(..50).collect(), Level::Linked).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    assert_eq!(gateway.get("/data/miner_block/epoch?epoch=1").await.json()["data"]["count"], 9);
    gateway.store.append(chain().drain(50..).collect(), Level::Linked).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while gateway.get("/data/miner_block/epoch?epoch=1").await.json()["data"]["count"] != 20 {
        assert!(std::time::Instant::now() < deadline, "the write is never seen");
    }
}

#[tokio::test]
async fn a_chain_of_many_pages_is_streamed_whole() {
    let store = TestStore::create(Backend::Sqlite).await;
    let blocks = crate::support::gateway::synthetic(2_345);
    store.append(blocks, Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    let streamed = gateway.get("/data/miner_block/canonical").await;
    assert_eq!(streamed.json()["data"]["count"], 2_345);
    assert_eq!(streamed.header("x-modal-verification"), Some("none"));
    let over_libp2p = gateway.ask(r#"{"path":"/data/miner_block/canonical","data":null}"#).await;
    assert!(streamed.body == over_libp2p, "page by page or at once, the same bytes");
}

#[tokio::test]
async fn a_store_that_was_replaced_answers_for_itself() {
    let [old, new] = [TestStore::create(Backend::Sqlite).await, TestStore::create(Backend::Sqlite).await];
    old.append(chain(), Level::Linked).await;
    new.append(chain()[..50].to_vec(), Level::Linked).await;
    let settings = Settings {
        finality_depth: 40,
        peer_timeout: PATIENCE,
        cache_bytes: 1 << 20,
        sync: false,
        network: Arc::default(),
    };
    let source = Source::local_only(Arc::new(LocalSource::new(old.open().await, libp2p::PeerId::random(), settings)));
    let read = async || source.answer(Query::Epoch { epoch: 1 }, &Origin::Local, 0).await.unwrap();
    let before = read().await;
    std::fs::rename(new.folder.path().join("store.db"), old.folder.path().join("store.db")).unwrap();
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
    let deadline = std::time::Instant::now() + PATIENCE;
    // Both are at version 1.
    while read().await.body == before.body {
        ticks.tick().await;
        assert!(std::time::Instant::now() < deadline, "it answers for the old one");
    }
}

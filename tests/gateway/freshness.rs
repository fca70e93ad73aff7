//! How current what a client reads is: the age of the tip, and the state of the sync.

use std::sync::Arc;

use libp2p::PeerId;
use modal_gateway::{
    chain::{Level, MinerBlock, unix_now},
    source::{
        LocalSource, Settings, Source,
        job::{SyncState, SyncStatus},
    },
};
use reqwest::header::HeaderValue;
use rstest::rstest;

use crate::support::{
    gateway::{Backend, PATIENCE, Reply, TestGateway, TestStore, chain, parent, synthetic, synthetic_block, verifier},
    until::eventually,
};

const EPOCH: &str = "/data/miner_block/epoch?epoch=1";

fn age(reply: &Reply) -> Option<i64> {
    reply.header("x-modal-tip-age").map(|age| age.parse().unwrap())
}

/// The gateway's answer, once the sync was looked at.
async fn watched(gateway: &TestGateway, path: &str) -> Reply {
    eventually(async || {
        let reply = gateway.get(path).await;
        reply.header("x-modal-sync").is_some().then_some(reply)
    })
    .await
}

#[tokio::test]
async fn answers_from_the_store_say_how_current_they_are_unless_any_cache_may_keep_them() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let first = watched(&gateway, EPOCH).await;
    let timestamp = chain().last().unwrap().timestamp;
    let is_current = |reply: &Reply| {
        let expected = unix_now() - timestamp;
        age(reply).is_some_and(|age| (expected - 5..=expected).contains(&age))
            && reply.header("x-modal-sync") == Some("off")
    };
    assert!(is_current(&first), "{:?}", first.headers);
    let tag = first.header("etag").unwrap();
    let copy = gateway.get_with(EPOCH, "if-none-match", tag).await;
    assert!(copy.status == 304 && is_current(&copy), "{} {:?}", copy.status, copy.headers);
    for (path, status) in [
        ("/data/miner_block/canonical", 200),
        ("/data/miner_block/chain_info", 200),
        ("/data/miner_block/get?hash=00", 404),
        ("/data/miner_block/epoch", 400),
        ("/status", 200),
        ("/health/ready", 200),
    ] {
        let reply = gateway.get(path).await;
        assert!(reply.status == status && is_current(&reply), "{path}: {} {:?}", reply.status, reply.headers);
    }
    let settled = gateway.get("/data/miner_block/range?from_index=0&to_index=20").await;
    assert!(settled.header("cache-control").unwrap().starts_with("public"));
    assert_eq!((age(&settled), settled.header("x-modal-sync")), (None, None));
    let document = gateway.get("/openapi.json").await;
    assert_eq!((age(&document), document.header("x-modal-sync")), (None, None), "no answer from the store");
}

#[tokio::test]
async fn an_answer_of_a_peer_does_not_say_how_current_the_store_is() {
    let peer = TestGateway::start(Backend::Sqlite).await;
    let address = peer.p2p.dial_addresses().remove(0);
    let gateway = TestGateway::with_peers(Backend::Sqlite, &[format!("node={address}")]).await;
    watched(&gateway, EPOCH).await;
    let forwarded = gateway.get(&format!("{EPOCH}&peer=node")).await;
    assert!(forwarded.status == 200 && forwarded.header("x-modal-tip").is_some(), "{:?}", forwarded.headers);
    assert_eq!((age(&forwarded), forwarded.header("x-modal-sync")), (None, None));
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn the_age_follows_the_tip_and_the_state_follows_the_sync(#[case] backend: Backend) {
    let gateway = TestGateway::over(TestStore::create(backend).await, &[], |config| config).await;
    let empty = watched(&gateway, EPOCH).await;
    assert_eq!((age(&empty), empty.header("x-modal-sync")), (None, Some("off")), "an empty chain has no tip");

    let mut blocks = synthetic(3);
    blocks[2] = MinerBlock { timestamp: unix_now() - 1000, ..blocks[2].clone() };
    gateway.store.append(blocks, Level::None).await;
    let aged = async |tip: &str, least: i64| {
        eventually(async || {
            let reply = gateway.get(EPOCH).await;
            let is_there = reply.header("x-modal-tip") == Some(tip);
            // Without an age: the tip was read by another request, which still learns its time.
            is_there.then(|| age(&reply)).flatten().map(|age| (least..least + 60).contains(&age))
        })
        .await
    };
    assert!(aged("2:main-2", 1000).await);

    let store = gateway.store.open().await;
    let mut writer = store.write().await.unwrap();
    writer.rewind(Some(1), "heavier chain", Some("side-3"), unix_now()).await.unwrap();
    let branch: Vec<_> = (2..4)
        .map(|index| MinerBlock {
            timestamp: unix_now() - 100,
            ..synthetic_block(index, "side", if index == 2 { "main" } else { "side" })
        })
        .collect();
    writer.append(verifier(Level::None).verify(Some(&parent(1, "main-1")), branch).unwrap()).await.unwrap();
    writer.commit().await.unwrap();
    assert!(aged("3:side-3", 100).await);

    for status in [
        SyncStatus { state: SyncState::Syncing, ..SyncStatus::default() },
        SyncStatus { state: SyncState::Synced, ..SyncStatus::default() },
        SyncStatus::stalled("no useful peer"),
    ] {
        status.write(&*store).await.unwrap();
        let word = status.state.as_str();
        eventually(async || (gateway.get(EPOCH).await.header("x-modal-sync") == Some(word)).then_some(())).await;
    }
}

/// The hash of a block that is not verified may be any text.
#[tokio::test]
async fn the_tip_of_an_answer_is_accepted_as_it_was_sent() {
    const PATH: &str = "/data/miner_block/chain_info";
    let store = TestStore::create(Backend::Sqlite).await;
    let mut blocks = synthetic(3);
    blocks[2].hash = "näher".into();
    store.append(blocks, Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    let tip = gateway.get(PATH).await.headers["x-modal-tip"].clone();
    assert_eq!(tip.as_bytes(), "2:näher".as_bytes());
    let ask =
        async |tip| gateway.request(|http, base| http.get(format!("{base}{PATH}")).header("x-modal-tip", tip)).await;
    assert_eq!(ask(tip).await.status, 200);
    let reply = ask(HeaderValue::from_bytes(b"2:n\xe4her").unwrap()).await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "invalid_parameter"), "no UTF-8");
}

/// The state of the chain that a view begins from may be a little older than what it reads.
#[tokio::test]
async fn a_view_from_the_tip_on_begins_with_the_tip_that_it_names() {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(3), Level::None).await;
    let opened = store.open().await;
    let settings =
        Settings { finality_depth: 40, peer_timeout: PATIENCE, cache_bytes: 0, sync: false, network: Arc::default() };
    let source = Source::local_only(Arc::new(LocalSource::new(opened.clone(), PeerId::random(), settings)));
    let known = opened.state().await.unwrap();
    let more = (3..63).map(|index| synthetic_block(index, "main", "main"));
    store.append(more.collect(), Level::None).await;
    let blocks = source.views().blocks(&known, None, 5).await.unwrap();
    let shown: Vec<_> = blocks.data.blocks.iter().map(|block| block.index).collect();
    assert_eq!((shown, blocks.snapshot.tip.unwrap().index), (vec![62, 61, 60, 59, 58], 62));
    let before = source.views().blocks(&known, Some(3), 5).await.unwrap();
    assert_eq!(before.data.blocks[0].index, 2);
    let network = source.views().network(&known).await.unwrap();
    assert_eq!((network.data.tip.unwrap().index, network.data.length), (62, 63));
    assert_eq!(network.data.epoch.unwrap().epoch, 1);
}

/// As a client that comes from another gateway on the same database asks.
#[rstest]
#[tokio::test]
async fn an_answer_is_not_behind_the_tip_that_the_client_has_seen(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    const PATH: &str = "/data/miner_block/chain_info";
    let store = TestStore::create(backend).await;
    store.append(synthetic(3), Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    let other = gateway.store.open().await;
    for index in 3..13 {
        // What the gateway has read it may use for a while.
        gateway.get(PATH).await;
        let mut writer = other.write().await.unwrap();
        let before = parent(index - 1, &format!("main-{}", index - 1));
        let block = synthetic_block(index, "main", "main");
        writer.append(verifier(Level::None).verify(Some(&before), vec![block]).unwrap()).await.unwrap();
        writer.commit().await.unwrap();
        let seen = format!("{index}:main-{index}");
        let reply = gateway.get_with(PATH, "x-modal-tip", &seen).await;
        assert_eq!((reply.status, reply.header("x-modal-tip")), (200, Some(seen.as_str())));
    }
    // The chain has passed the one, and knows nothing of the other.
    for tip in ["5:main-5", "5:main-5", "99:side-99"] {
        let reply = gateway.get_with(PATH, "x-modal-tip", tip).await;
        assert_eq!((reply.status, reply.header("x-modal-tip")), (200, Some("12:main-12")), "{tip}");
    }
    for malformed in ["", "12", "main-12", "12:", "-1:main-12", "one:main-12"] {
        let reply = gateway.get_with(PATH, "x-modal-tip", malformed).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "invalid_parameter"), "{malformed:?}");
        assert!(reply.json()["errors"]["detail"].as_str().unwrap().starts_with("x-modal-tip: "), "{malformed:?}");
        // The header is about the store's answer.
        let health = gateway.get_with("/health/ready", "x-modal-tip", malformed).await;
        assert_eq!(health.status, 200);
    }
}

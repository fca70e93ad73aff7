//! A paged read that is pinned to a chain, when the chain changes under it.

use std::time::{Duration, Instant};

use modal_gateway::chain::Level;
use rstest::rstest;
use serde_json::json;

use crate::support::gateway::{Backend, TestGateway, TestStore, parent, synthetic, synthetic_block, verifier};

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn an_anchor_that_is_reorganised_away_is_a_conflict(#[case] backend: Backend) {
    let store = TestStore::create(backend).await;
    store.append(synthetic(100), Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    let page = |anchor: &str| format!("/data/miner_block/range?from_index=10&to_index=20&anchor={anchor}");
    assert_eq!(gateway.get(&page("main-99")).await.json()["data"]["count"], 11);
    assert_eq!(gateway.get("/data/miner_block/canonical?anchor=main-99").await.status, 200);
    assert_eq!(gateway.get("/data/miner_block/epoch?epoch=1&anchor=main-99").await.status, 200);

    let other = gateway.store.open().await;
    let mut writer = other.write().await.unwrap();
    writer.rewind(Some(89), "heavier chain", Some("side-100"), 1_700_001_000).await.unwrap();
    let branch = (90..=100).map(|index| synthetic_block(index, "side", if index == 90 { "main" } else { "side" }));
    let branch = verifier(Level::None).verify(Some(&parent(89, "main-89")), branch.collect()).unwrap();
    writer.append(branch).await.unwrap();
    // The gateway has seen the old chain a moment ago.
    assert_eq!(gateway.get("/data/miner_block/chain_info").await.json()["data"]["tip_hash"], "main-99");
    writer.commit().await.unwrap();
    let kept = gateway.get("/data/miner_block/canonical?anchor=main-10").await;
    assert_eq!((kept.status, kept.json()["data"]["count"].as_u64()), (200, Some(101)), "the block is in both");

    for path in [
        page("main-99"),
        "/data/miner_block/canonical?anchor=main-99".into(),
        "/data/miner_block/epoch?epoch=1&anchor=main-99".into(),
    ] {
        let conflict = gateway.get(&path).await;
        assert_eq!((conflict.status, conflict.code().as_str()), (409, "anchor_not_canonical"), "{path}");
        assert_eq!(conflict.json()["errors"]["common_ancestor"], json!({"index": 89, "hash": "main-89"}));
    }
    assert_eq!(gateway.get(&page("main-89")).await.status, 200, "below the fork nothing changed");
    assert_eq!(gateway.get(&page("side-100")).await.status, 200);
    assert_eq!(gateway.get(&page("never-was")).await.status, 404);

    // Without an anchor the new chain is there as soon as the old state has aged.
    let deadline = Instant::now() + Duration::from_secs(5);
    while gateway.get("/data/miner_block/chain_info").await.json()["data"]["tip_hash"] != "side-100" {
        assert!(Instant::now() < deadline, "the reorganisation is never seen");
    }
    let orphan = gateway.get("/data/miner_block/get?hash=main-95").await.json();
    assert_eq!(orphan["data"]["is_canonical"], false);
    assert_eq!(orphan["data"]["orphan_reason"], "heavier chain");
    assert_eq!(orphan["data"]["competing_hash"], "side-100");
    let at_95 = gateway.get("/data/miner_block/debug_index?index=95").await.json();
    assert_eq!(at_95["data"]["total_blocks_at_index"], 2);
    assert_eq!(at_95["data"]["canonical_hash"], "side-95");
    assert_eq!(at_95["data"]["matching_block_for_next"]["hash"], "side-95");
}

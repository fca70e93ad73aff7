//! Blocks as long as the network's gossip carries, with any nominee; and what the chain's row tells of them.

use super::*;

/// A chain in which each of these nominees is named twice.
fn nominating(nominees: &[String]) -> Vec<MinerBlock> {
    let mut blocks = plain(2 * nominees.len() as u64);
    for (block, nominee) in blocks.iter_mut().zip(nominees.iter().cycle()) {
        block.nominated_peer_id = nominee.clone();
    }
    blocks
}

#[rstest]
#[tokio::test]
async fn a_nominee_is_any_text_that_gossip_carries(#[values(Sqlite, Postgres)] kind: Kind) {
    let long = |bytes: usize| "n".repeat(bytes);
    let marked = "\u{1}sha256:";
    let nominees = [
        String::new(),
        "12D3KooW".into(),
        long(1024),
        long(1100),
        format!("{}m", long(1099)),
        long(9000),
        long(60_000),
        "with \0 in it".into(),
        "with \0 in iT".into(),
        "\0".repeat(10_000),
        marked.into(),
        format!("{marked}{}", "0".repeat(64)),
    ];
    let chain = nominating(&nominees);
    let (_database, store) = holding(kind, chain.clone()).await;
    let stored = store.state().await.unwrap();
    assert_eq!(stored.miners, nominees.len() as u64);
    assert_eq!(stored.largest, chain.iter().map(|block| canonical_text(block).len() as u64).max().unwrap());
    assert_eq!(stored, recount(&store).await);
    for block in &chain {
        let found = store.get(&block.hash).await.unwrap().unwrap();
        assert_eq!((found.json, found.index), (canonical_text(block), block.index));
        assert_eq!(store.block_at(block.index).await.unwrap().unwrap().0, *block);
    }
    assert_eq!(store.range(0, 99).await.unwrap().list.json, joined(&chain));
    assert_eq!(store.epoch(0, 99).await.unwrap().list.json, joined(&chain));

    let mut writer = store.write().await.unwrap();
    assert_eq!(writer.rewind(Some(1), "a turn", Some("other"), 1).await.unwrap(), chain.len() as u64 - 2);
    let rewound = writer.commit().await.unwrap();
    assert_eq!((rewound.miners, rewound.largest), (2, stored.largest), "what is gone counts too");
    assert_eq!(rewound, recount(&store).await);
    let again = append(&store, chain[2..].to_vec()).await;
    assert_eq!(again, ChainState { version: 3, ..stored });
    assert_eq!(again, recount(&store).await);
    assert_eq!(store.range(0, 99).await.unwrap().list.json, joined(&chain));
}

#[rstest]
#[tokio::test]
async fn long_blocks_may_be_staged_or_orphans(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(3)).await;
    let ancestor = Position::from(&plain(3)[0]);
    let mut aside = branch("aside", "block_hash_000", 1, 5);
    aside[1].nominated_peer_id = "\0".repeat(10_000);
    aside[2].nominated_peer_id = "n".repeat(60_000);
    let mut beside = branch("beside", "block_hash_001", 2, 3);
    beside[0].nominated_peer_id = "b\0".repeat(9000);
    let mut writer = store.write().await.unwrap();
    assert_eq!(writer.add_orphans(&beside, Level::None).await.unwrap(), 1);
    writer.stage(Some(&ancestor), 1, verified(aside.clone())).await.unwrap();
    assert_eq!(writer.commit().await.unwrap().largest, canonical_text(&plain(3)[2]).len() as u64);
    let mut writer = store.write().await.unwrap();
    assert_eq!(writer.adopt_stage("heavier", 7).await.unwrap().adopted, 4);
    let adopted = writer.commit().await.unwrap();
    assert_eq!(adopted.largest, canonical_text(&aside[2]).len() as u64);
    assert_eq!(adopted, recount(&store).await);
    assert_eq!(store.range(1, 99).await.unwrap().list.json, joined(&aside));
    let kept: MinerBlock = serde_json::from_str(&store.get("beside_002").await.unwrap().unwrap().json).unwrap();
    assert_eq!(kept.nominated_peer_id, beside[0].nominated_peer_id);
}

#[rstest]
#[tokio::test]
async fn deviations_are_counted_of_the_canonical_chain(#[values(Sqlite, Postgres)] kind: Kind) {
    let mut chain = plain(6);
    chain[2].deviations = vec![Deviation::Schedule];
    chain[4].deviations = vec![Deviation::Timestamp];
    chain[5].deviations = vec![Deviation::Schedule, Deviation::Timestamp];
    let (test, store) = holding(kind, chain.clone()).await;
    let off = |state: &ChainState| (state.off_schedule, state.off_timestamp);
    let full = store.state().await.unwrap();
    assert_eq!(off(&full), (2, 2));
    assert_eq!(full, recount(&store).await);
    let mut writer = store.write().await.unwrap();
    writer.rewind(Some(3), "a turn", None, 1).await.unwrap();
    assert_eq!(off(&writer.commit().await.unwrap()), (1, 0));
    let again = append(&store, chain[4..].to_vec()).await;
    assert_eq!(again, ChainState { version: 3, ..full });
    store.close().await;
    assert_eq!(off(&test.open().await.state().await.unwrap()), (2, 2));
}

#[test]
fn an_answer_holds_at_least_one_block() {
    let state = |largest| ChainState { largest, ..ChainState::default() };
    assert_eq!(state(0).blocks_within(10), 10);
    assert_eq!(state(99).blocks_within(1000), 10);
    assert_eq!(state(99).blocks_within(999), 9);
    assert_eq!((state(99).blocks_within(0), state(u64::MAX).blocks_within(1000)), (1, 1));
}

#[rstest]
#[tokio::test]
async fn an_older_store_counts_as_holding_the_longest_of_its_time(
    #[values(Sqlite, Postgres)] kind: Kind,
    #[values(0, 3)] length: u64,
) {
    let test = TestDatabase::new(kind).await;
    let store = test.open().await;
    if length > 0 {
        append(&store, plain(length)).await;
    }
    store.close().await;
    test.before_migration(3).await;
    let store = test.open().await;
    let state = store.state().await.unwrap();
    assert_eq!((state.length, state.off_schedule, state.off_timestamp), (length, 0, 0));
    assert_eq!(state.largest, if length > 0 { 8192 } else { 0 });
    assert!(length == 0 || state.blocks_within(10 << 20) >= 1000, "lists are as long as they were");
    if length > 0 {
        let mut long = branch("long", "block_hash_002", 3, 4);
        long[0].nominated_peer_id = "n".repeat(9000);
        assert_eq!(append(&store, long.clone()).await.largest, canonical_text(&long[0]).len() as u64);
    }
}

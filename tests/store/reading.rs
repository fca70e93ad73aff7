//! What is read is what was written, and the database keeps it so.

use super::*;

#[rstest]
#[tokio::test]
async fn an_empty_store_answers_everything(#[values(Sqlite, Postgres)] kind: Kind) {
    let test = TestDatabase::new(kind).await;
    let store = test.open().await;
    assert_eq!(store.state().await.unwrap(), ChainState::default());
    assert!(store.get("nope").await.unwrap().is_none());
    for blocks in [store.epoch(0, 100).await.unwrap(), store.range(0, u64::MAX).await.unwrap()] {
        assert_eq!((blocks.snapshot, blocks.list), (Snapshot::default(), BlockList::default()));
        assert_eq!((blocks.last_index, blocks.last_hash), (None, None));
    }
    assert_eq!(store.at_index(0).await.unwrap(), (vec![], 0, None));
    assert!(store.canonical_hashes(&[0, 1, u64::MAX]).await.unwrap().is_empty());
    assert_eq!(store.highest_canonical(&["nope".into()]).await.unwrap(), None);
    assert_eq!(store.anchor("nope").await.unwrap(), (Anchor::Unknown, 0));
}

#[rstest]
#[tokio::test]
async fn the_network_s_chain_comes_back_as_it_went_in(#[values(Sqlite, Postgres)] kind: Kind) {
    let chain = fixture();
    let (_database, store) = holding(kind, chain.clone()).await;

    let state = store.state().await.unwrap();
    assert_eq!((state.version, state.length, state.total_blocks), (1, 61, 61));
    assert_eq!((state.epochs, state.miners, state.cumulative_difficulty), (2, 6, difficulty("809")));
    assert_eq!((state.tip.clone(), state.level), (tip_of(&chain[60]), Some(Level::None)));
    assert_eq!(state, recount(&store).await);

    for block in &chain {
        let found = store.get(&block.hash).await.unwrap().unwrap();
        assert_eq!(found.json, canonical_text(block));
        assert_eq!((found.index, found.canonical), (block.index, true));
        assert_eq!(found.snapshot, state.snapshot(Some(Level::None)));
    }
    let first = store.epoch(0, 1000).await.unwrap();
    assert_eq!((first.list.json, first.list.count, first.last_index), (joined(&chain[..41]), 41, Some(40)));
    let second = store.epoch(1, 3).await.unwrap();
    assert_eq!((second.list.json, second.list.count, second.last_index), (joined(&chain[41..44]), 3, Some(43)));
    assert_eq!(store.epoch(2, 1000).await.unwrap().list.count, 0);

    let middle = store.range(3, 7).await.unwrap();
    assert_eq!((middle.list.json, middle.list.count), (joined(&chain[3..8]), 5));
    assert_eq!((middle.last_index, middle.last_hash.as_ref()), (Some(7), Some(&chain[7].hash)));
    assert_eq!(middle.snapshot, state.snapshot(Some(Level::None)));
    let end = store.range(59, u64::MAX).await.unwrap();
    assert_eq!((end.list.json, end.list.count), (joined(&chain[59..]), 2));
    let beyond = store.range(61, 100).await.unwrap();
    assert_eq!((beyond.list, beyond.snapshot), (BlockList::default(), state.snapshot(None)));

    let hashes = store.canonical_hashes(&[60, 5, 61, u64::MAX]).await.unwrap();
    assert_eq!(hashes, HashMap::from([(60, chain[60].hash.clone()), (5, chain[5].hash.clone())]));
    let known = [chain[4].hash.clone(), "zz".into(), chain[0].hash.clone()];
    assert_eq!(store.highest_canonical(&known).await.unwrap(), Some(4));
    assert_eq!(store.highest_canonical(&[]).await.unwrap(), None);
    assert_eq!(store.anchor(&chain[9].hash).await.unwrap(), (Anchor::Canonical, 1));
}

#[rstest]
#[tokio::test]
async fn every_block_at_an_index_is_listed(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(4)).await;
    let mut writer = store.write().await.unwrap();
    let many = MAX_BLOCKS_PER_INDEX + 1;
    let forks = (0..many).map(|number| MinerBlock {
        orphan_reason: Some("slower".into()),
        ..branch(&format!("fork {number:04}"), "block_hash_001", 2, 3).remove(0)
    });
    let forks: Vec<_> = forks.collect();
    assert_eq!(writer.add_orphans(&forks, Level::None).await.unwrap(), many);
    writer.commit().await.unwrap();

    let (entries, total, next) = store.at_index(2).await.unwrap();
    assert_eq!((entries.len() as u64, total), (MAX_BLOCKS_PER_INDEX, many + 1));
    assert_eq!(entries[0].hash, "block_hash_002");
    assert!(entries[0].canonical && !entries[0].orphaned && entries[0].orphan_reason.is_none());
    assert_eq!(entries[1].hash, "fork 0000_002");
    assert!(!entries[1].canonical && entries[1].orphaned);
    assert_eq!(entries[1].orphan_reason.as_deref(), Some("slower"));
    assert!(entries[1..].is_sorted_by_key(|entry| entry.hash.clone()));
    let next = next.unwrap();
    assert_eq!((next.index, next.hash.as_str(), next.previous_hash.as_str()), (3, "block_hash_003", "block_hash_002"));

    let (entries, total, next) = store.at_index(3).await.unwrap();
    assert_eq!((entries.len(), total, next), (1, 1, None));
}

#[rstest]
#[tokio::test]
async fn every_number_comes_back_exactly(#[values(Sqlite, Postgres)] kind: Kind) {
    let extreme = MinerBlock {
        hash: "\u{1F980} \" \\ , '; DROP TABLE block; --".into(),
        index: u64::MAX,
        epoch: u64::MAX,
        timestamp: i64::MIN,
        previous_hash: "somewhere".into(),
        nonce: u128::MAX,
        target_difficulty: u128::MAX,
        actualized_difficulty: u128::MAX,
        miner_number: u64::MAX,
        height_at_time: Some(u64::MAX),
        seen_at: Some(i64::MAX),
        ..MinerBlock::default()
    };
    let (_database, store) = holding(kind, plain(2)).await;
    let mut writer = store.write().await.unwrap();
    assert_eq!(writer.add_orphans(std::slice::from_ref(&extreme), Level::None).await.unwrap(), 1);
    writer.commit().await.unwrap();

    let found = store.get(&extreme.hash).await.unwrap().unwrap();
    assert_eq!((found.index, found.canonical, found.snapshot.level), (u64::MAX, false, Some(Level::None)));
    let read: MinerBlock = serde_json::from_str(&found.json).unwrap();
    assert_eq!(read, MinerBlock { is_orphaned: true, ..extreme.clone() });
    let (entries, total, next) = store.at_index(u64::MAX).await.unwrap();
    assert_eq!((entries[0].index, &entries[0].hash, total, next), (u64::MAX, &extreme.hash, 1, None));
    assert_eq!(store.anchor(&extreme.hash).await.unwrap().0, Anchor::Orphaned(None));
    // It is beside the chain, and so in none of these.
    assert_eq!(store.epoch(u64::MAX, 10).await.unwrap().list.count, 0);
    assert_eq!(store.range(2, u64::MAX).await.unwrap().list.count, 0);
    assert_eq!(store.range(u64::MAX, u64::MAX).await.unwrap().list.count, 0);
    assert_eq!(store.highest_canonical(&[extreme.hash]).await.unwrap(), None);
}

#[rstest]
#[tokio::test]
async fn the_epoch_is_the_one_that_the_block_claims(#[values(Sqlite, Postgres)] kind: Kind) {
    let mut chain = plain(3);
    chain[1].epoch = u64::MAX;
    chain[2].epoch = 1 << 63;
    let (_database, store) = holding(kind, chain.clone()).await;
    for block in &chain {
        assert_eq!(store.epoch(block.epoch, 10).await.unwrap().list.json, canonical_text(block));
    }
    let state = store.state().await.unwrap();
    assert_eq!((state.epochs, state.tip), (3, tip_of(&chain[2])));
}

#[rstest]
#[tokio::test]
async fn the_database_keeps_one_canonical_block_per_index(#[values(Sqlite, Postgres)] kind: Kind) {
    let (test, store) = holding(kind, plain(3)).await;
    let second = "INSERT INTO block SELECT 'second', idx, epoch, previous_hash, canonical, orphan_reason, \
                  cumulative_difficulty, level, document FROM block WHERE canonical AND idx = 1";
    let error = test.execute(second).await.unwrap_err();
    assert!(error.as_database_error().is_some_and(|error| error.is_unique_violation()), "{error}");
    assert_eq!(test.execute(&second.replace("canonical, orphan", "false, orphan")).await.unwrap(), 1);
    let error = test.execute("UPDATE block SET canonical = true WHERE hash = 'second'").await.unwrap_err();
    assert!(error.as_database_error().is_some_and(|error| error.is_unique_violation()), "{error}");
    assert!(test.execute("UPDATE block SET idx = -1 WHERE hash = 'block_hash_001'").await.is_err());
    assert_eq!(store.range(0, 9).await.unwrap().list.json, joined(&plain(3)));
}

#[rstest]
#[tokio::test]
async fn blocks_that_do_not_follow_the_tip_are_a_conflict(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(3)).await;
    let again = plain(3);
    let gap = branch("gap", "block_hash_002", 4, 5);
    let other_parent = branch("other", "block_hash_001", 3, 4);
    let mut same_hash = branch("same", "block_hash_002", 3, 4);
    same_hash[0].hash = "block_hash_000".into();
    for blocks in [again, gap, other_parent, same_hash] {
        let mut writer = store.write().await.unwrap();
        let error = writer.append(verified(blocks)).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
    }
    assert_eq!(store.state().await.unwrap(), recount(&store).await);
    assert_eq!(append(&store, branch("new", "block_hash_002", 3, 5)).await.length, 5);
}

#[rstest]
#[tokio::test]
async fn the_first_block_has_index_0(#[values(Sqlite, Postgres)] kind: Kind) {
    let test = TestDatabase::new(kind).await;
    let store = test.open().await;
    let mut writer = store.write().await.unwrap();
    let error = writer.append(verified(branch("late", "x", 1, 2))).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
}

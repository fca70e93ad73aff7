//! Reorganisations, orphans and writers that meet.

use super::*;

/// Replaces what comes after `block_hash_004` by seven blocks of another branch.
async fn reorganise(store: &Arc<dyn BlockStore>) -> Box<dyn store::ChainWriter> {
    let mut writer = store.write().await.unwrap();
    assert_eq!(writer.rewind(Some(4), "heavier branch", Some("new_011"), 77).await.unwrap(), 5);
    writer.append(verified(branch("new", "block_hash_004", 5, 12))).await.unwrap();
    writer
}

#[rstest]
#[tokio::test]
async fn a_reorganisation_is_seen_whole_or_not_at_all(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(10)).await;
    let before = store.state().await.unwrap();
    let mut writer = reorganise(&store).await;
    assert_eq!(writer.canonical_at(5).await.unwrap(), Some(("new_005".into(), Level::None)));
    assert_eq!(writer.canonical_at(12).await.unwrap(), None);
    let within = writer.state().clone();
    assert_eq!((within.length, within.total_blocks, within.tip.unwrap().hash.as_str()), (12, 17, "new_011"));

    assert_eq!(store.state().await.unwrap(), before);
    assert_eq!(store.range(0, 99).await.unwrap().list.json, joined(&plain(10)));
    assert_eq!(store.get("block_hash_007").await.unwrap().unwrap().json, canonical_text(&plain(10)[7]));
    assert!(store.get("new_007").await.unwrap().is_none());

    let after = writer.commit().await.unwrap();
    assert_eq!((after.version, after.length, after.total_blocks), (2, 12, 17));
    assert_eq!(store.state().await.unwrap(), after);
    assert_eq!(recount(&store).await, after);
    let chain: Vec<_> = plain(5).into_iter().chain(branch("new", "block_hash_004", 5, 12)).collect();
    assert_eq!(store.range(0, 99).await.unwrap().list.json, joined(&chain));
    let orphan = store.get("block_hash_007").await.unwrap().unwrap();
    assert_eq!((orphan.canonical, orphan.index), (false, 7));
    let told = MinerBlock {
        is_canonical: false,
        is_orphaned: true,
        orphaned_at: Some(77),
        orphan_reason: Some("heavier branch".into()),
        competing_hash: Some("new_011".into()),
        ..plain(10)[7].clone()
    };
    assert_eq!(orphan.json, told.to_json());
    let (entries, total, _) = store.at_index(7).await.unwrap();
    assert_eq!((entries[0].hash.as_str(), entries[1].hash.as_str(), total), ("new_007", "block_hash_007", 2));
    assert_eq!(entries[1].orphan_reason.as_deref(), Some("heavier branch"));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn readers_never_see_a_chain_that_is_half_reorganised(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(60)).await;
    let other: Vec<_> = plain(5).into_iter().chain(branch("new", "block_hash_004", 5, 70)).collect();
    let expected = HashMap::from([("block_hash_059", joined(&plain(60))), ("new_069", joined(&other))]);
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for round in 0..10 {
                let branch =
                    if round % 2 == 0 { branch("new", "block_hash_004", 5, 70) } else { plain(60).split_off(5) };
                let mut writer = store.write().await.unwrap();
                writer.rewind(Some(4), "turn", None, round).await.unwrap();
                writer.append(verified(branch)).await.unwrap();
                writer.commit().await.unwrap();
            }
        }
    });
    let mut reads = 0;
    while !writing.is_finished() || reads == 0 {
        let read = store.range(0, 99).await.unwrap();
        let tip = read.snapshot.tip.unwrap().hash;
        assert_eq!(Some(&tip), read.last_hash.as_ref());
        assert_eq!(expected[tip.as_str()], read.list.json);
        reads += 1;
    }
    writing.await.unwrap();
    let state = store.state().await.unwrap();
    assert_eq!((state.version, state.length, state.total_blocks), (11, 60, 125));
    assert_eq!(state, recount(&store).await);
}

#[rstest]
#[tokio::test]
async fn a_dropped_writer_leaves_nothing(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(10)).await;
    let before = store.state().await.unwrap();
    drop(reorganise(&store).await);
    assert_eq!(store.state().await.unwrap(), before);
    assert!(store.get("new_005").await.unwrap().is_none());
    let after = reorganise(&store).await.commit().await.unwrap();
    assert_eq!((after.version, after.length), (2, 12));
}

#[rstest]
#[tokio::test]
async fn orphans_are_adopted_again(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(10)).await;
    let before = store.state().await.unwrap();
    reorganise(&store).await.commit().await.unwrap();
    let mut writer = store.write().await.unwrap();
    assert_eq!(writer.rewind(Some(4), "back again", None, 78).await.unwrap(), 7);
    let returning = plain(10).split_off(5).into_iter();
    let returning = returning.map(|block| MinerBlock { is_canonical: false, is_orphaned: true, ..block });
    writer.append(verified(returning.collect())).await.unwrap();
    let after = writer.commit().await.unwrap();
    assert_eq!(after, ChainState { version: 3, total_blocks: 17, ..before });
    assert_eq!(after, recount(&store).await);
    assert_eq!(store.range(0, 99).await.unwrap().list.json, joined(&plain(10)));
}

#[rstest]
#[tokio::test]
async fn a_chain_of_many_statements_can_go_and_come_back(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(1203)).await;
    let before = store.state().await.unwrap();
    assert_eq!(before, recount(&store).await);
    let mut writer = store.write().await.unwrap();
    assert_eq!(writer.rewind(None, "all of it", None, 1).await.unwrap(), 1203);
    assert_eq!(
        writer.state(),
        &ChainState { version: 1, total_blocks: 1203, largest: before.largest, ..ChainState::default() }
    );
    assert_eq!(writer.rewind(None, "nothing left", None, 1).await.unwrap(), 0);
    let emptied = writer.commit().await.unwrap();
    assert_eq!(emptied, recount(&store).await);
    assert_eq!(append(&store, plain(1203)).await, ChainState { version: 3, ..before });
}

#[rstest]
#[tokio::test]
async fn the_weakest_level_is_known(#[values(Sqlite, Postgres)] kind: Kind) {
    let test = TestDatabase::new(kind).await;
    let store = test.open().await;
    let chain = fixture();
    let mut writer = store.write().await.unwrap();
    writer.append(verified_to(Level::Linked, chain[..41].to_vec())).await.unwrap();
    assert_eq!(writer.state().level, Some(Level::Linked));
    writer.append(verified(chain[41..].to_vec())).await.unwrap();
    assert_eq!(writer.canonical_at(40).await.unwrap(), Some((chain[40].hash.clone(), Level::Linked)));
    assert_eq!(writer.commit().await.unwrap().level, Some(Level::None));
    assert_eq!(store.epoch(0, 100).await.unwrap().snapshot.level, Some(Level::Linked));
    assert_eq!(store.range(40, 41).await.unwrap().snapshot.level, Some(Level::None));
    assert_eq!(store.get(&chain[40].hash).await.unwrap().unwrap().snapshot.level, Some(Level::Linked));
    let mut writer = store.write().await.unwrap();
    writer.rewind(Some(40), "weak", None, 1).await.unwrap();
    assert_eq!(writer.commit().await.unwrap().level, Some(Level::Linked));
}

#[rstest]
#[tokio::test]
async fn orphans_are_kept_beside_the_chain(#[values(Sqlite, Postgres)] kind: Kind) {
    let (test, store) = holding(kind, plain(3)).await;
    let before = store.state().await.unwrap();
    let side = branch("side", "block_hash_001", 2, 4);
    let unknown = branch("unknown", "nowhere", 7, 9);
    let mut writer = store.write().await.unwrap();
    assert_eq!(
        writer.add_orphans(&[side.clone(), unknown.clone(), plain(3)].concat(), Level::Linked).await.unwrap(),
        4
    );
    assert_eq!(writer.add_orphans(&side, Level::Linked).await.unwrap(), 0);
    assert_eq!(writer.add_orphans(&[], Level::None).await.unwrap(), 0);
    let nul = MinerBlock { previous_hash: "\0".into(), ..side[0].clone() };
    assert!(matches!(writer.add_orphans(&[nul], Level::None).await, Err(StoreError::Conflict(_))));
    let after = writer.commit().await.unwrap();
    assert_eq!(after, ChainState { version: 2, total_blocks: 7, ..before });
    assert_eq!(after, recount(&store).await);

    assert_eq!(store.get("side_003").await.unwrap().unwrap().snapshot.level, Some(Level::Linked));

    // 1000 + 1001 of the chain below, then 1002 and 1003.
    let known = "UPDATE block SET level = level WHERE hash = 'side_003' AND cumulative_difficulty = '4006'";
    assert_eq!(test.execute(known).await.unwrap(), 1);
    let known = "UPDATE block SET level = level WHERE hash = 'unknown_008' AND cumulative_difficulty IS NULL";
    assert_eq!(test.execute(known).await.unwrap(), 1);

    assert_eq!(store.anchor("side_003").await.unwrap(), (Anchor::Orphaned(Some((1, "block_hash_001".into()))), 2));
    assert_eq!(store.anchor("unknown_008").await.unwrap().0, Anchor::Orphaned(None));
    assert_eq!(store.anchor("block_hash_002").await.unwrap().0, Anchor::Canonical);
    assert_eq!(store.anchor("\0").await.unwrap().0, Anchor::Unknown);
    assert!(store.get("\0").await.unwrap().is_none());
    let hashes = ["side_003".into(), "\0".into(), "block_hash_001".into()];
    assert_eq!(store.highest_canonical(&hashes).await.unwrap(), Some(1));
}

#[rstest]
#[tokio::test]
async fn a_circle_of_orphans_has_an_end(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(1)).await;
    let mut circle = branch("circle", "circle_002", 1, 3);
    circle[1].previous_hash = "circle_001".into();
    let mut writer = store.write().await.unwrap();
    assert_eq!(writer.add_orphans(&circle, Level::None).await.unwrap(), 2);
    writer.commit().await.unwrap();
    assert_eq!(store.anchor("circle_001").await.unwrap().0, Anchor::Orphaned(None));
}

#[rstest]
#[tokio::test]
async fn a_second_writer_waits_and_then_gives_up(#[values(Sqlite, Postgres)] kind: Kind) {
    let (test, store) = holding(kind, plain(3)).await;
    let other = store::open(&test.url(), &impatient()).await.unwrap();
    let patient = test.open().await;

    let mut writer = store.write().await.unwrap();
    writer.append(verified(branch("new", "block_hash_002", 3, 4))).await.unwrap();
    for _ in 0..2 {
        let error = other.write().await.err().unwrap();
        assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
    }
    let held = other.range(0, 9).await.unwrap();
    assert_eq!((held.list.count, held.snapshot.version), (3, 1));

    let waiting = tokio::spawn(async move { patient.write().await.map(|writer| writer.state().version) });
    writer.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 2);

    let writer = other.write().await.unwrap();
    let error = other.write().await.err().unwrap();
    assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
    drop(writer);
    assert!(other.write().await.is_ok());
}

#[rstest]
#[tokio::test]
async fn a_write_whose_append_failed_is_not_committed(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(3)).await;
    let mut blocks = branch("new", "block_hash_002", 3, 303);
    let mut writer = store.write().await.unwrap();
    // Nothing is written of what does not follow, and the same write may go on.
    assert!(matches!(writer.append(verified(plain(2))).await, Err(StoreError::Conflict(_))));
    blocks.last_mut().unwrap().hash = "block_hash_000".into();
    assert!(matches!(writer.append(verified(blocks)).await, Err(StoreError::Conflict(_))));
    assert!(matches!(writer.commit().await, Err(StoreError::Conflict(_))));
    assert_eq!(store.state().await.unwrap(), recount(&store).await);
}

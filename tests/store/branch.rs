//! The staged branch: begun, resumed, adopted, deleted.

use super::*;

/// The branch from `block_hash_004` on, blocks 5 to 11, which the tests keep aside.
fn heavier() -> Vec<MinerBlock> {
    branch("new", "block_hash_004", 5, 12)
}

fn at(index: u64, hash: &str) -> Position {
    Position { index, hash: hash.into() }
}

async fn stage(store: &Arc<dyn BlockStore>, ancestor: Option<&Position>, level: Level, blocks: Vec<MinerBlock>) {
    let mut writer = store.write().await.unwrap();
    writer.stage(ancestor, 7, verified_to(level, blocks)).await.unwrap();
    writer.commit().await.unwrap();
}

async fn adopt(store: &Arc<dyn BlockStore>) -> Reorganisation {
    let mut writer = store.write().await.unwrap();
    let done = writer.adopt_stage("heavier branch", 77).await.unwrap();
    writer.commit().await.unwrap();
    done
}

fn is_conflict<T: std::fmt::Debug>(result: store::Result<T>) -> bool {
    matches!(result, Err(StoreError::Conflict(_)))
}

#[rstest]
#[tokio::test]
async fn a_staged_branch_is_not_seen_by_readers(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(10)).await;
    let before = store.state().await.unwrap();
    assert_eq!(store.staged().await.unwrap(), None);
    stage(&store, Some(&at(4, "block_hash_004")), Level::None, heavier()).await;

    assert_eq!(store.state().await.unwrap(), before);
    assert_eq!(store.range(0, 99).await.unwrap().list.json, joined(&plain(10)));
    assert!(store.get("new_007").await.unwrap().is_none());
    assert_eq!(store.at_index(7).await.unwrap().1, 1);
    assert_eq!(store.anchor("new_007").await.unwrap(), (Anchor::Unknown, before.version));
    assert_eq!(store.highest_canonical(&["new_011".into()]).await.unwrap(), None);
    assert_eq!(store.block_at(11).await.unwrap(), None);

    let stage = store.staged().await.unwrap().unwrap();
    let chain: Vec<_> = plain(5).into_iter().chain(heavier()).collect();
    assert_eq!(stage.end, heavier()[6]);
    assert_eq!((stage.ancestor, stage.count, stage.job), (Some(at(4, "block_hash_004")), 7, 7));
    assert_eq!(stage.work, chain.iter().map(|block| block.actualized_difficulty).sum());
}

#[rstest]
#[tokio::test]
async fn an_adopted_branch_is_the_chain(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(10)).await;
    stage(&store, Some(&at(4, "block_hash_004")), Level::None, heavier()).await;
    let done = adopt(&store).await;
    let expected = Reorganisation {
        ancestor: Some(at(4, "block_hash_004")),
        old_tip: Some(at(9, "block_hash_009")),
        new_tip: at(11, "new_011"),
        orphaned: 5,
        adopted: 7,
    };
    assert_eq!(done, expected);
    let state = store.state().await.unwrap();
    assert_eq!((state.version, state.length, state.total_blocks), (2, 12, 17));
    assert_eq!(state, recount(&store).await);
    let chain: Vec<_> = plain(5).into_iter().chain(heavier()).collect();
    assert_eq!(store.range(0, 99).await.unwrap().list.json, joined(&chain));
    assert_eq!(store.staged().await.unwrap(), None);

    // What left stays readable.
    let orphan = store.get("block_hash_007").await.unwrap().unwrap();
    let told: MinerBlock = serde_json::from_str(&orphan.json).unwrap();
    assert_eq!((orphan.canonical, told.is_orphaned, told.orphaned_at), (false, true, Some(77)));
    assert_eq!(told.orphan_reason.as_deref(), Some("heavier branch"));
    assert_eq!(told.competing_hash.as_deref(), Some("new_011"));
    let (entries, total, _) = store.at_index(7).await.unwrap();
    assert_eq!((entries[0].hash.as_str(), entries[1].hash.as_str(), total), ("new_007", "block_hash_007", 2));

    // And can come back.
    stage(&store, Some(&at(4, "block_hash_004")), Level::None, plain(10).split_off(5)).await;
    assert_eq!(adopt(&store).await.orphaned, 7);
    let state = store.state().await.unwrap();
    assert_eq!((state.length, state.total_blocks), (10, 17));
    assert_eq!(state, recount(&store).await);
    assert_eq!(store.range(0, 99).await.unwrap().list.json, joined(&plain(10)));
}

#[rstest]
#[tokio::test]
async fn a_branch_that_loses_is_deleted(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(10)).await;
    let before = store.state().await.unwrap();
    stage(&store, Some(&at(4, "block_hash_004")), Level::None, heavier()).await;
    let mut writer = store.write().await.unwrap();
    writer.clear_stage().await.unwrap();
    writer.clear_stage().await.unwrap();
    assert!(is_conflict(writer.adopt_stage("nothing there", 1).await));
    writer.commit().await.unwrap();
    assert_eq!(store.staged().await.unwrap(), None);
    assert_eq!(store.state().await.unwrap(), before);
    // Another branch may be staged.
    stage(&store, None, Level::None, branch("other", "0", 0, 3)).await;
    assert_eq!(store.staged().await.unwrap().unwrap().ancestor, None);
}

#[rstest]
#[tokio::test]
async fn a_branch_is_resumed_after_reopening(#[values(Sqlite, Postgres)] kind: Kind) {
    let (test, store) = holding(kind, fixture()[..45].to_vec()).await;
    let (chain, fork) = (fixture(), Position::from(&fixture()[30]));
    stage(&store, Some(&fork), Level::Linked, chain[31..35].to_vec()).await;
    // What isn't committed when the process ends is not staged.
    let mut writer = store.write().await.unwrap();
    writer.stage(Some(&fork), 8, verified(chain[35..40].to_vec())).await.unwrap();
    drop(writer);
    store.close().await;

    let store = test.open().await;
    let resumed = store.staged().await.unwrap().unwrap();
    assert_eq!((resumed.end.index, resumed.count, resumed.level, resumed.job), (34, 4, Level::Linked, 7));
    let end = store.staged_end(EpochNumbering::GenesisFirst).await.unwrap();
    assert_eq!(end, Some(ChainEnd::new(&chain[34], &chain[1])), "its epoch began on the chain below");
    let mut writer = store.write().await.unwrap();
    writer.stage(Some(&fork), 8, verified(chain[35..50].to_vec())).await.unwrap();
    writer.commit().await.unwrap();
    let resumed = store.staged().await.unwrap().unwrap();
    assert_eq!((resumed.end.index, resumed.count, resumed.level, resumed.job), (49, 19, Level::None, 8));
    let end = store.staged_end(EpochNumbering::GenesisFirst).await.unwrap();
    assert_eq!(end, Some(ChainEnd::new(&chain[49], &chain[41])), "its epoch began within the branch");
    let end = store.staged_end(EpochNumbering::Plain).await.unwrap();
    assert_eq!(end, Some(ChainEnd::new(&chain[49], &chain[40])));

    assert_eq!(adopt(&store).await.adopted, 19);
    let state = store.state().await.unwrap();
    assert_eq!(state, recount(&store).await);
    assert_eq!(store.range(0, 99).await.unwrap().list.json, joined(&chain[..50]));
    assert_eq!(store.block_at(34).await.unwrap().unwrap().1, Level::Linked);
    assert_eq!(store.block_at(35).await.unwrap().unwrap().1, Level::None);
}

#[rstest]
#[tokio::test]
async fn blocks_that_do_not_follow_a_branch_are_a_conflict(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(10)).await;
    let fork = at(4, "block_hash_004");
    let unfit = [
        (Some(at(4, "elsewhere")), branch("new", "elsewhere", 5, 6)),
        (Some(at(10, "block_hash_009")), branch("new", "block_hash_009", 11, 12)),
        (Some(fork.clone()), branch("new", "block_hash_003", 5, 6)),
        (Some(fork.clone()), branch("new", "block_hash_004", 6, 7)),
        (None, branch("new", "block_hash_004", 5, 6)),
    ];
    for (ancestor, blocks) in unfit {
        let mut writer = store.write().await.unwrap();
        assert!(is_conflict(writer.stage(ancestor.as_ref(), 7, verified(blocks)).await), "{ancestor:?}");
    }
    stage(&store, Some(&fork), Level::None, heavier()).await;
    let mut twice = branch("more", "new_011", 12, 13);
    twice[0].hash = "new_006".into();
    let unfit = [
        (at(3, "block_hash_003"), branch("more", "new_011", 12, 13)),
        (fork.clone(), branch("more", "new_010", 12, 13)),
        (fork.clone(), branch("more", "new_011", 13, 14)),
        (fork.clone(), twice),
    ];
    for (ancestor, blocks) in unfit {
        let mut writer = store.write().await.unwrap();
        assert!(is_conflict(writer.stage(Some(&ancestor), 7, verified(blocks)).await), "{ancestor:?}");
    }
    // None of it was kept.
    assert_eq!(store.staged().await.unwrap().unwrap().end.hash, "new_011");
    stage(&store, Some(&fork), Level::None, branch("more", "new_011", 12, 13)).await;
}

#[rstest]
#[tokio::test]
async fn a_branch_whose_ancestor_left_the_chain_is_not_adopted(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(10)).await;
    stage(&store, Some(&at(4, "block_hash_004")), Level::None, heavier()).await;
    let mut writer = store.write().await.unwrap();
    writer.rewind(Some(2), "other branch", None, 1).await.unwrap();
    writer.append(verified(branch("other", "block_hash_002", 3, 9))).await.unwrap();
    let state = writer.commit().await.unwrap();
    assert_eq!(store.staged_end(EpochNumbering::Plain).await.unwrap(), None);
    let mut writer = store.write().await.unwrap();
    assert!(is_conflict(writer.adopt_stage("late", 2).await));
    drop(writer);
    assert_eq!(store.state().await.unwrap(), state);
}

#[rstest]
#[tokio::test]
async fn a_branch_may_replace_genesis_or_extend_the_tip(#[values(Sqlite, Postgres)] kind: Kind) {
    let test = TestDatabase::new(kind).await;
    let store = test.open().await;
    stage(&store, None, Level::None, plain(3)).await;
    let first = adopt(&store).await;
    assert_eq!((first.ancestor, first.old_tip, first.orphaned, first.adopted), (None, None, 0, 3));
    stage(&store, None, Level::None, branch("new", "0", 0, 5)).await;
    assert_eq!(adopt(&store).await.orphaned, 3);
    stage(&store, Some(&at(4, "new_004")), Level::None, branch("more", "new_004", 5, 7)).await;
    let last = adopt(&store).await;
    assert_eq!((last.ancestor, last.orphaned, last.adopted), (Some(at(4, "new_004")), 0, 2));
    let state = store.state().await.unwrap();
    assert_eq!((state.length, state.total_blocks), (7, 10));
    assert_eq!(state, recount(&store).await);
}

#[rstest]
#[tokio::test]
async fn a_deep_reorganisation_is_one_transaction(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(3000)).await;
    let fork = at(99, "block_hash_099");
    let new = branch("new", "block_hash_099", 100, 3500);
    for chunk in new.chunks(1000) {
        stage(&store, Some(&fork), Level::None, chunk.to_vec()).await;
    }
    let before = store.state().await.unwrap();
    let mut writer = store.write().await.unwrap();
    let done = writer.adopt_stage("deep", 1).await.unwrap();
    assert_eq!((done.orphaned, done.adopted), (2900, 3400));
    assert_eq!(store.state().await.unwrap(), before);
    assert_eq!(store.range(0, 9999).await.unwrap().list.json, joined(&plain(3000)));
    drop(writer);
    assert_eq!(store.state().await.unwrap(), before);
    assert_eq!(store.staged().await.unwrap().unwrap().count, 3400);

    adopt(&store).await;
    let state = store.state().await.unwrap();
    assert_eq!((state.length, state.total_blocks), (3500, 6400));
    assert_eq!(state, recount(&store).await);
    let chain: Vec<_> = plain(100).into_iter().chain(new).collect();
    assert_eq!(store.range(0, 9999).await.unwrap().list.json, joined(&chain));
}

#[rstest]
#[tokio::test]
async fn a_chain_end_knows_when_its_epoch_began(#[values(Sqlite, Postgres)] kind: Kind) {
    let chain = fixture();
    let (_database, store) = holding(kind, chain.clone()).await;
    let plain = EpochNumbering::Plain;
    let ends = [
        (0, EpochNumbering::GenesisFirst, 0),
        (1, EpochNumbering::GenesisFirst, 1),
        (40, EpochNumbering::GenesisFirst, 1),
        (41, EpochNumbering::GenesisFirst, 41),
        (0, plain, 0),
        (39, plain, 0),
        (60, plain, 40),
    ];
    for (index, numbering, first) in ends {
        let end = store.chain_end(index, numbering).await.unwrap();
        assert_eq!(end, Some(ChainEnd::new(&chain[index as usize], &chain[first])), "{index} {numbering:?}");
    }
    assert_eq!(store.chain_end(61, plain).await.unwrap(), None);
    assert_eq!(store.staged_end(plain).await.unwrap(), None);
    assert_eq!(store.block_at(60).await.unwrap(), Some((chain[60].clone(), Level::None)));
    assert_eq!(store.block_at(u64::MAX).await.unwrap(), None);
    let work = chain[..41].iter().map(|block| block.actualized_difficulty).sum();
    assert_eq!(store.work_at(40).await.unwrap(), Some(work));
    assert_eq!(store.work_at(61).await.unwrap(), None);
}

#[rstest]
#[tokio::test]
async fn levels_are_raised_and_never_lowered(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(10)).await;
    let raise = async |from, to, level| {
        let mut writer = store.write().await.unwrap();
        let raised = writer.raise(from, to, level).await.unwrap();
        (raised, writer.commit().await.unwrap())
    };
    let (raised, state) = raise(0, 3, Level::Pow).await;
    assert_eq!((raised, state.level, state.version), (4, Some(Level::None), 2));
    let (raised, state) = raise(2, u64::MAX, Level::Linked).await;
    assert_eq!((raised, state.level, state.version), (6, Some(Level::Linked), 3));
    assert_eq!(store.block_at(3).await.unwrap().unwrap().1, Level::Pow);
    assert_eq!(store.range(0, 3).await.unwrap().snapshot.level, Some(Level::Pow));
    let (raised, state) = raise(0, 9, Level::Linked).await;
    assert_eq!((raised, state.version), (0, 3), "nothing changed");
    let (raised, state) = raise(4, 9, Level::Pow).await;
    assert_eq!((raised, state.level), (6, Some(Level::Pow)));
    assert_eq!(state, recount(&store).await);
    let mut writer = store.write().await.unwrap();
    writer.rewind(Some(1), "gone", None, 1).await.unwrap();
    assert_eq!(writer.raise(0, 9, Level::Pow).await.unwrap(), 0);
    assert_eq!(writer.commit().await.unwrap(), recount(&store).await);
}

//! What every store does, run over both databases: one body per property.

use std::{collections::HashMap, time::Duration};

use modal_gateway::{
    chain::{CumulativeDifficulty, Level, MinerBlock, Network, Position, VerifiedBlocks, Verifier},
    store::{self, Anchor, BlockStore, ChainState, MAX_BLOCKS_PER_INDEX, OpenOptions, StoreError, Tip},
};
use rstest::rstest;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use std::sync::Arc;
use support::postgres;

mod support;

/// The databases.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Sqlite,
    Postgres,
}
use Kind::{Postgres, Sqlite};

/// An empty place for a store.
enum Place {
    Folder(tempfile::TempDir),
    Database(postgres::Database),
}

impl Place {
    async fn new(kind: Kind) -> Self {
        match kind {
            Sqlite => Self::Folder(tempfile::tempdir().unwrap()),
            Postgres => Self::Database(postgres::Database::create().await),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Folder(folder) => format!("sqlite://{}/chain.db", folder.path().display()),
            Self::Database(database) => database.url.clone(),
        }
    }

    async fn open(&self) -> Arc<dyn BlockStore> {
        store::open(&self.url(), &impatient()).await.unwrap()
    }

    /// Runs SQL past the store.
    async fn execute(&self, sql: &str) -> sqlx::Result<u64> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Folder(_) => {
                let mut connection = SqliteConnection::connect(&self.url()).await?;
                Ok(sqlx::query(sql).execute(&mut connection).await?.rows_affected())
            }
            Self::Database(_) => {
                let mut connection = PgConnection::connect(&self.url()).await?;
                Ok(sqlx::query(sql).execute(&mut connection).await?.rows_affected())
            }
        }
    }
}

/// Waits long enough for what is going to come, and not long for what isn't.
fn impatient() -> OpenOptions {
    OpenOptions { wait: Duration::from_millis(1500), ..OpenOptions::default() }
}

fn fixture() -> Vec<MinerBlock> {
    let lines = include_str!("fixtures/randomx-chain-61.ndjson").lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Blocks `from..to` of a chain whose hashes begin with `name`, after the block with hash `parent`.
fn branch(name: &str, parent: &str, from: u64, to: u64) -> Vec<MinerBlock> {
    let hash = |index| format!("{name}_{index:03}");
    let block = |index| MinerBlock {
        hash: hash(index),
        index,
        epoch: index / 40,
        previous_hash: if index == from { parent.into() } else { hash(index - 1) },
        target_difficulty: 1000,
        actualized_difficulty: 1000 + u128::from(index),
        nominated_peer_id: format!("miner {}", index % 7),
        is_canonical: true,
        ..MinerBlock::default()
    };
    (from..to).map(block).collect()
}

/// The chain of the protocol's first document: hashes are plain text.
fn plain(length: u64) -> Vec<MinerBlock> {
    branch("block_hash", "0", 0, length)
}

fn verified_to(level: Level, blocks: Vec<MinerBlock>) -> VerifiedBlocks {
    let verifier = Verifier::new(&Network::default(), level, 1).unwrap();
    let first = &blocks[0];
    let parent = Position { index: first.index.wrapping_sub(1), hash: first.previous_hash.clone() };
    verifier.verify((first.index > 0).then_some(&parent), blocks).unwrap()
}

fn verified(blocks: Vec<MinerBlock>) -> VerifiedBlocks {
    verified_to(Level::None, blocks)
}

async fn append(store: &Arc<dyn BlockStore>, blocks: Vec<MinerBlock>) -> ChainState {
    let mut writer = store.write().await.unwrap();
    writer.append(verified(blocks)).await.unwrap();
    writer.commit().await.unwrap()
}

/// A store at a new place that holds these blocks.
async fn holding(kind: Kind, blocks: Vec<MinerBlock>) -> (Place, Arc<dyn BlockStore>) {
    let place = Place::new(kind).await;
    let store = place.open().await;
    append(&store, blocks).await;
    (place, store)
}

/// What the store answers for a block on its canonical chain.
fn canonical_text(block: &MinerBlock) -> String {
    let place = MinerBlock { is_canonical: true, is_orphaned: false, orphaned_at: None, ..block.clone() };
    MinerBlock { orphan_reason: None, competing_hash: None, ..place }.to_json()
}

fn joined(blocks: &[MinerBlock]) -> String {
    blocks.iter().map(canonical_text).collect::<Vec<_>>().join(",")
}

fn tip_of(block: &MinerBlock) -> Option<Tip> {
    Some(Tip { index: block.index, hash: block.hash.clone(), epoch: block.epoch })
}

/// The state that the whole chain, read block by block, amounts to.
async fn recount(store: &Arc<dyn BlockStore>) -> ChainState {
    let state = store.state().await.unwrap();
    let read = store.range(0, u64::MAX).await.unwrap();
    let blocks: Vec<MinerBlock> = serde_json::from_str(&format!("[{}]", read.json)).unwrap();
    let distinct = |values: Vec<String>| values.into_iter().collect::<std::collections::HashSet<_>>().len() as u64;
    ChainState {
        version: state.version,
        total_blocks: state.total_blocks,
        tip: blocks.last().and_then(tip_of),
        length: blocks.len() as u64,
        cumulative_difficulty: blocks.iter().map(|block| block.actualized_difficulty).sum(),
        bytes: blocks.iter().map(|block| block.to_json().len() as u64).sum(),
        epochs: distinct(blocks.iter().map(|block| block.epoch.to_string()).collect()),
        miners: distinct(blocks.iter().map(|block| block.nominated_peer_id.clone()).collect()),
        level: read.level,
    }
}

fn difficulty(text: &str) -> CumulativeDifficulty {
    text.parse().unwrap()
}

#[rstest]
#[tokio::test]
async fn an_empty_store_answers_everything(#[values(Sqlite, Postgres)] kind: Kind) {
    let place = Place::new(kind).await;
    let store = place.open().await;
    assert_eq!(store.state().await.unwrap(), ChainState::default());
    assert!(store.get("nope").await.unwrap().is_none());
    for blocks in [store.epoch(0, 100).await.unwrap(), store.range(0, u64::MAX).await.unwrap()] {
        assert_eq!((blocks.json.as_str(), blocks.count, blocks.tip, blocks.version), ("", 0, None, 0));
        assert_eq!((blocks.last_index, blocks.last_hash, blocks.level), (None, None, None));
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
    let (_place, store) = holding(kind, chain.clone()).await;

    let state = store.state().await.unwrap();
    assert_eq!((state.version, state.length, state.total_blocks), (1, 61, 61));
    assert_eq!((state.epochs, state.miners, state.cumulative_difficulty), (2, 6, difficulty("809")));
    assert_eq!((state.tip.clone(), state.level), (tip_of(&chain[60]), Some(Level::None)));
    assert_eq!(state, recount(&store).await);

    for block in &chain {
        let found = store.get(&block.hash).await.unwrap().unwrap();
        assert_eq!(found.json, canonical_text(block));
        assert_eq!((found.index, found.canonical, found.version, &found.tip), (block.index, true, 1, &state.tip));
    }
    let first = store.epoch(0, 1000).await.unwrap();
    assert_eq!((first.json, first.count, first.last_index), (joined(&chain[..41]), 41, Some(40)));
    let second = store.epoch(1, 3).await.unwrap();
    assert_eq!((second.json, second.count, second.last_index), (joined(&chain[41..44]), 3, Some(43)));
    assert_eq!(store.epoch(2, 1000).await.unwrap().count, 0);

    let middle = store.range(3, 7).await.unwrap();
    assert_eq!((middle.json, middle.count, middle.version), (joined(&chain[3..8]), 5, 1));
    assert_eq!((middle.last_index, middle.last_hash.as_ref()), (Some(7), Some(&chain[7].hash)));
    assert_eq!((middle.tip, middle.level), (state.tip.clone(), Some(Level::None)));
    let end = store.range(59, u64::MAX).await.unwrap();
    assert_eq!((end.json, end.count), (joined(&chain[59..]), 2));
    let beyond = store.range(61, 100).await.unwrap();
    assert_eq!((beyond.json.as_str(), beyond.count, beyond.tip), ("", 0, state.tip));

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
    let (_place, store) = holding(kind, plain(4)).await;
    let mut writer = store.write().await.unwrap();
    let many = MAX_BLOCKS_PER_INDEX + 1;
    let forks = (0..many).map(|number| MinerBlock {
        orphan_reason: Some("slower".into()),
        ..branch(&format!("fork {number:04}"), "block_hash_001", 2, 3).remove(0)
    });
    let forks: Vec<_> = forks.collect();
    assert_eq!(writer.add_orphans(&forks).await.unwrap(), many);
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
    let (_place, store) = holding(kind, plain(2)).await;
    let mut writer = store.write().await.unwrap();
    assert_eq!(writer.add_orphans(std::slice::from_ref(&extreme)).await.unwrap(), 1);
    writer.commit().await.unwrap();

    let found = store.get(&extreme.hash).await.unwrap().unwrap();
    assert_eq!((found.index, found.canonical, found.level), (u64::MAX, false, Level::None));
    let read: MinerBlock = serde_json::from_str(&found.json).unwrap();
    assert_eq!(read, MinerBlock { is_orphaned: true, ..extreme.clone() });
    let (entries, total, next) = store.at_index(u64::MAX).await.unwrap();
    assert_eq!((entries[0].index, &entries[0].hash, total, next), (u64::MAX, &extreme.hash, 1, None));
    assert_eq!(store.anchor(&extreme.hash).await.unwrap().0, Anchor::Orphaned(None));
    // It is beside the chain, and so in none of these.
    assert_eq!(store.epoch(u64::MAX, 10).await.unwrap().count, 0);
    assert_eq!(store.range(2, u64::MAX).await.unwrap().count, 0);
    assert_eq!(store.range(u64::MAX, u64::MAX).await.unwrap().count, 0);
    assert_eq!(store.highest_canonical(&[extreme.hash]).await.unwrap(), None);
}

#[rstest]
#[tokio::test]
async fn the_epoch_is_the_one_that_the_block_claims(#[values(Sqlite, Postgres)] kind: Kind) {
    let mut chain = plain(3);
    chain[1].epoch = u64::MAX;
    chain[2].epoch = 1 << 63;
    let (_place, store) = holding(kind, chain.clone()).await;
    for block in &chain {
        assert_eq!(store.epoch(block.epoch, 10).await.unwrap().json, canonical_text(block));
    }
    let state = store.state().await.unwrap();
    assert_eq!((state.epochs, state.tip), (3, tip_of(&chain[2])));
}

#[rstest]
#[tokio::test]
async fn the_database_keeps_one_canonical_block_per_index(#[values(Sqlite, Postgres)] kind: Kind) {
    let (place, store) = holding(kind, plain(3)).await;
    let second = "INSERT INTO block SELECT 'second', idx, epoch, previous_hash, canonical, orphan_reason, \
                  cumulative_difficulty, level, document FROM block WHERE canonical AND idx = 1";
    let error = place.execute(second).await.unwrap_err();
    assert!(error.as_database_error().is_some_and(|error| error.is_unique_violation()), "{error}");
    assert_eq!(place.execute(&second.replace("canonical, orphan", "false, orphan")).await.unwrap(), 1);
    let error = place.execute("UPDATE block SET canonical = true WHERE hash = 'second'").await.unwrap_err();
    assert!(error.as_database_error().is_some_and(|error| error.is_unique_violation()), "{error}");
    assert!(place.execute("UPDATE block SET idx = -1 WHERE hash = 'block_hash_001'").await.is_err());
    assert_eq!(store.range(0, 9).await.unwrap().json, joined(&plain(3)));
}

#[rstest]
#[tokio::test]
async fn what_does_not_follow_the_tip_is_a_conflict(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_place, store) = holding(kind, plain(3)).await;
    let again = plain(3);
    let gap = branch("gap", "block_hash_002", 4, 5);
    let other_parent = branch("other", "block_hash_001", 3, 4);
    let mut same_hash = branch("same", "block_hash_002", 3, 4);
    same_hash[0].hash = "block_hash_000".into();
    let mut long = branch("long", "block_hash_002", 3, 4);
    long[0].hash = "x".repeat(5000);
    for blocks in [again, gap, other_parent, same_hash, long] {
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
    let place = Place::new(kind).await;
    let store = place.open().await;
    let mut writer = store.write().await.unwrap();
    let error = writer.append(verified(branch("late", "x", 1, 2))).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
}

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
    let (_place, store) = holding(kind, plain(10)).await;
    let before = store.state().await.unwrap();
    let mut writer = reorganise(&store).await;
    assert_eq!(writer.canonical_at(5).await.unwrap(), Some(("new_005".into(), Level::None)));
    assert_eq!(writer.canonical_at(12).await.unwrap(), None);
    let within = writer.state().clone();
    assert_eq!((within.length, within.total_blocks, within.tip.unwrap().hash.as_str()), (12, 17, "new_011"));

    assert_eq!(store.state().await.unwrap(), before);
    assert_eq!(store.range(0, 99).await.unwrap().json, joined(&plain(10)));
    assert_eq!(store.get("block_hash_007").await.unwrap().unwrap().json, canonical_text(&plain(10)[7]));
    assert!(store.get("new_007").await.unwrap().is_none());

    let after = writer.commit().await.unwrap();
    assert_eq!((after.version, after.length, after.total_blocks), (2, 12, 17));
    assert_eq!(store.state().await.unwrap(), after);
    assert_eq!(recount(&store).await, after);
    let chain: Vec<_> = plain(5).into_iter().chain(branch("new", "block_hash_004", 5, 12)).collect();
    assert_eq!(store.range(0, 99).await.unwrap().json, joined(&chain));
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
    let (_place, store) = holding(kind, plain(60)).await;
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
        let tip = read.tip.unwrap().hash;
        assert_eq!(Some(&tip), read.last_hash.as_ref());
        assert_eq!(expected[tip.as_str()], read.json);
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
    let (_place, store) = holding(kind, plain(10)).await;
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
    let (_place, store) = holding(kind, plain(10)).await;
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
    assert_eq!(store.range(0, 99).await.unwrap().json, joined(&plain(10)));
}

#[rstest]
#[tokio::test]
async fn a_chain_of_many_statements_can_go_and_come_back(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_place, store) = holding(kind, plain(1203)).await;
    let before = store.state().await.unwrap();
    assert_eq!(before, recount(&store).await);
    let mut writer = store.write().await.unwrap();
    assert_eq!(writer.rewind(None, "all of it", None, 1).await.unwrap(), 1203);
    assert_eq!(writer.state(), &ChainState { version: 1, total_blocks: 1203, ..ChainState::default() });
    assert_eq!(writer.rewind(None, "nothing left", None, 1).await.unwrap(), 0);
    let emptied = writer.commit().await.unwrap();
    assert_eq!(emptied, recount(&store).await);
    assert_eq!(append(&store, plain(1203)).await, ChainState { version: 3, ..before });
}

#[rstest]
#[tokio::test]
async fn the_weakest_level_is_known(#[values(Sqlite, Postgres)] kind: Kind) {
    let place = Place::new(kind).await;
    let store = place.open().await;
    let chain = fixture();
    let mut writer = store.write().await.unwrap();
    writer.append(verified_to(Level::Linked, chain[..41].to_vec())).await.unwrap();
    assert_eq!(writer.state().level, Some(Level::Linked));
    writer.append(verified(chain[41..].to_vec())).await.unwrap();
    assert_eq!(writer.canonical_at(40).await.unwrap(), Some((chain[40].hash.clone(), Level::Linked)));
    assert_eq!(writer.commit().await.unwrap().level, Some(Level::None));
    assert_eq!(store.epoch(0, 100).await.unwrap().level, Some(Level::Linked));
    assert_eq!(store.range(40, 41).await.unwrap().level, Some(Level::None));
    assert_eq!(store.get(&chain[40].hash).await.unwrap().unwrap().level, Level::Linked);
    let mut writer = store.write().await.unwrap();
    writer.rewind(Some(40), "weak", None, 1).await.unwrap();
    assert_eq!(writer.commit().await.unwrap().level, Some(Level::Linked));
}

#[rstest]
#[tokio::test]
async fn orphans_are_kept_beside_the_chain(#[values(Sqlite, Postgres)] kind: Kind) {
    let (place, store) = holding(kind, plain(3)).await;
    let before = store.state().await.unwrap();
    let side = branch("side", "block_hash_001", 2, 4);
    let unknown = branch("unknown", "nowhere", 7, 9);
    let mut writer = store.write().await.unwrap();
    assert_eq!(writer.add_orphans(&[side.clone(), unknown.clone(), plain(3)].concat()).await.unwrap(), 4);
    assert_eq!(writer.add_orphans(&side).await.unwrap(), 0);
    assert_eq!(writer.add_orphans(&[]).await.unwrap(), 0);
    let nul = MinerBlock { previous_hash: "\0".into(), ..side[0].clone() };
    assert!(matches!(writer.add_orphans(&[nul]).await, Err(StoreError::Conflict(_))));
    let after = writer.commit().await.unwrap();
    assert_eq!(after, ChainState { version: 2, total_blocks: 7, ..before });
    assert_eq!(after, recount(&store).await);

    // 1000 + 1001 of the chain below, then 1002 and 1003.
    let known = "UPDATE block SET level = level WHERE hash = 'side_003' AND cumulative_difficulty = '4006'";
    assert_eq!(place.execute(known).await.unwrap(), 1);
    let known = "UPDATE block SET level = level WHERE hash = 'unknown_008' AND cumulative_difficulty IS NULL";
    assert_eq!(place.execute(known).await.unwrap(), 1);

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
    let (_place, store) = holding(kind, plain(1)).await;
    let mut circle = branch("circle", "circle_002", 1, 3);
    circle[1].previous_hash = "circle_001".into();
    let mut writer = store.write().await.unwrap();
    assert_eq!(writer.add_orphans(&circle).await.unwrap(), 2);
    writer.commit().await.unwrap();
    assert_eq!(store.anchor("circle_001").await.unwrap().0, Anchor::Orphaned(None));
}

#[rstest]
#[tokio::test]
async fn a_second_writer_waits_and_then_gives_up(#[values(Sqlite, Postgres)] kind: Kind) {
    let (place, store) = holding(kind, plain(3)).await;
    let hasty = OpenOptions { wait: Duration::from_millis(200), ..OpenOptions::default() };
    let other = store::open(&place.url(), &hasty).await.unwrap();
    let patient = place.open().await;

    let writer = store.write().await.unwrap();
    for _ in 0..2 {
        let error = other.write().await.err().unwrap();
        assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
    }
    let held = other.range(0, 9).await.unwrap();
    assert_eq!((held.count, held.version), (3, 1));

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
async fn a_store_that_is_opened_again_has_kept_everything(#[values(Sqlite, Postgres)] kind: Kind) {
    let (place, store) = holding(kind, fixture()).await;
    let state = store.state().await.unwrap();
    store.close().await;
    let error = store.state().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    let store = place.open().await;
    assert_eq!(store.state().await.unwrap(), state);
    assert_eq!(store.range(0, 99).await.unwrap().json, joined(&fixture()));
}

#[rstest]
#[tokio::test]
async fn the_schema_is_migrated_when_that_is_wanted(#[values(Sqlite, Postgres)] kind: Kind) {
    let place = Place::new(kind).await;
    let as_it_is = OpenOptions { migrate: false, ..impatient() };
    let error = store::open(&place.url(), &as_it_is).await.err().unwrap();
    assert!(matches!(error, StoreError::OlderSchema), "{error:?}");
    assert_eq!(store::migrate(&place.url(), &as_it_is).await.unwrap(), (0, 1));
    assert_eq!(store::migrate(&place.url(), &as_it_is).await.unwrap(), (1, 1));
    store::open(&place.url(), &as_it_is).await.unwrap();

    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 SELECT 99, description, success, checksum, execution_time FROM _sqlx_migrations";
    place.execute(newer).await.unwrap();
    let refused = [
        store::open(&place.url(), &impatient()).await.err().unwrap(),
        store::migrate(&place.url(), &impatient()).await.unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, StoreError::NewerSchema { found: 99, known: 1 }), "{error:?}");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn many_may_open_a_new_store_at_once(#[values(Sqlite, Postgres)] kind: Kind) {
    let place = Place::new(kind).await;
    let url = place.url();
    let opening = (0..6).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { store::open(&url, &OpenOptions::default()).await })
    });
    for opened in futures::future::join_all(opening).await {
        assert_eq!(opened.unwrap().unwrap().state().await.unwrap(), ChainState::default());
    }
}

#[rstest]
#[tokio::test]
async fn what_is_read_only_can_be_read(#[values(Sqlite, Postgres)] kind: Kind) {
    let (place, store) = holding(kind, plain(3)).await;
    store.close().await;
    let url = match &place {
        Place::Folder(_) => place.url() + "?mode=ro",
        Place::Database(_) => {
            place
                .execute(
                    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', \
                           current_database()); END $$",
                )
                .await
                .unwrap();
            place.url()
        }
    };
    let store = store::open(&url, &impatient()).await.unwrap();
    assert_eq!(store.range(0, 9).await.unwrap().json, joined(&plain(3)));
    let error = store.write().await.err().unwrap();
    assert!(matches!(error, StoreError::ReadOnly), "{error:?}");
}

#[rstest]
#[tokio::test]
async fn a_row_that_makes_no_sense_is_damage(#[values(Sqlite, Postgres)] kind: Kind) {
    let (place, store) = holding(kind, plain(3)).await;
    place.execute("UPDATE chain SET cumulative_difficulty = 'much'").await.unwrap();
    for error in [store.state().await.unwrap_err(), store.write().await.err().unwrap()] {
        assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
    }
    assert!(store.range(0, 9).await.is_ok());
    place.execute("UPDATE chain SET cumulative_difficulty = '3003', tip_hash = NULL").await.unwrap();
    let error = store.range(0, 9).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
}

#[tokio::test]
async fn a_missing_sqlite_file_is_created_only_if_wanted() {
    let place = Place::new(Sqlite).await;
    let keep = OpenOptions { create: false, ..impatient() };
    for url in [place.url(), place.url() + "?mode=ro", place.url().replace("chain.db", "no/chain.db")] {
        let error = store::open(&url, &keep).await.err().unwrap();
        assert!(matches!(&error, StoreError::Missing(path) if path.ends_with("chain.db")), "{error:?}");
    }
    let Place::Folder(folder) = &place else { unreachable!() };
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    for url in ["sqlite://", "sqlite:", "mysql://host/x", "chain.db", "sqlite://x?mode=odd", "postgres://host:port/x"] {
        let error = store::open(url, &impatient()).await.err().unwrap();
        assert!(matches!(error, StoreError::Url(_)), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_damaged() {
    let place = Place::new(Sqlite).await;
    let Place::Folder(folder) = &place else { unreachable!() };
    let path = folder.path().join("chain.db");
    std::fs::write(&path, "no database ".repeat(1000)).unwrap();
    for url in [place.url(), place.url() + "?mode=ro"] {
        let error = store::open(&url, &impatient()).await.err().unwrap();
        assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "no database ".repeat(1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_memory_is_read_while_it_is_written() {
    let store = store::open("sqlite::memory:", &impatient()).await.unwrap();
    let other = store::open("sqlite::memory:", &impatient()).await.unwrap();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    let read = store.range(0, 9999).await.unwrap();
                    assert_eq!(read.count, 250 * read.version);
                    if read.version == 8 {
                        break;
                    }
                }
            })
        })
        .collect();
    for chunk in plain(2000).chunks(250) {
        append(&store, chunk.to_vec()).await;
    }
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(store.state().await.unwrap(), recount(&store).await);
    assert_eq!(other.state().await.unwrap().length, 0);
}

#[tokio::test]
async fn a_postgres_that_is_not_there_is_named_without_its_password() {
    let place = Place::new(Postgres).await;
    let error = store::open(&place.url().replace("modal_gateway", "no_such"), &impatient()).await.err().unwrap();
    assert!(matches!(error, StoreError::Missing(_)), "{error:?}");
    let error = store::open("postgres://user:secret@127.0.0.1:1/chain", &impatient()).await.err().unwrap();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[tokio::test]
async fn a_postgres_that_goes_away_is_unreachable_until_it_comes_back() {
    let place = Place::new(Postgres).await;
    let relay = support::relay::Relay::to(&place.url()).await;
    let hasty = OpenOptions { wait: Duration::from_millis(300), ..OpenOptions::default() };
    let store = store::open(&relay.url, &hasty).await.unwrap();
    append(&store, plain(3)).await;
    let writer = store.write().await.unwrap();
    let address = relay.cut().await;
    let error = writer.commit().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    for _ in 0..3 {
        let error = store.state().await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
        let error = store.write().await.err().unwrap();
        assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    }
    let _relay = support::relay::Relay::at(address, &place.url()).await;
    let state = store.state().await.unwrap();
    assert_eq!((state.version, state.length), (1, 3));
    assert_eq!(append(&store, branch("new", "block_hash_002", 3, 5)).await.length, 5);
}

//! `verify` on stores that are good, damaged, or in use.

use rstest::rstest;

use crate::{
    TIP, WorkDir, fixture, fixture_lines, joined,
    support::gateway::{Backend, TestStore},
};

fn verify(level: &str) -> [&str; 5] {
    ["verify", "--network", "devnet", "--verify", level]
}

#[test]
fn linked_blocks_are_raised_to_pow() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let level = |dir: &WorkDir| dir.import(&fixture()).ok().stderr.trim_end().rsplit(' ').next().unwrap().to_owned();
    let done = dir.run([&verify("linked")[..], &["--no-raise"]].concat()).ok();
    assert_eq!((done.stderr, done.stdout), (format!("verified 61 blocks to linked, tip 60 {TIP}\n"), vec![]));
    assert_eq!(level(&dir), "linked");
    let said = dir.run(verify("pow")).ok().stderr;
    assert_eq!(said, format!("verified 61 blocks to pow, tip 60 {TIP}, raised the level of 61\n"));
    assert_eq!(level(&dir), "pow");
    let said = dir.run(verify("linked")).ok().stderr;
    assert_eq!(said, format!("verified 61 blocks to linked, tip 60 {TIP}\n"));
    assert_eq!(level(&dir), "pow");
}

#[rstest]
#[case::sqlite(Backend::Sqlite)]
#[case::postgres(Backend::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn raising_needs_the_store_for_itself(#[case] backend: Backend) {
    let dir = WorkDir::new();
    let store = TestStore::create(backend).await;
    let on = |args: &[&str]| dir.run([args, &["--network", "devnet", "--database-url", &store.url]].concat());
    on(&["import", fixture().to_str().unwrap(), "--verify", "none"]).ok();
    let handle = store.open().await;
    let lease = handle.lease().await.unwrap().unwrap();
    on(&["verify", "--verify", "linked"]).fails(1, &["another process is syncing this store", "--no-raise"]);
    on(&["verify", "--verify", "linked", "--no-raise"]).ok();
    drop(lease);
    let said = on(&["verify", "--verify", "linked"]).ok().stderr;
    assert!(said.ends_with("raised the level of 61\n"), "{said}");
    assert_eq!(handle.state().await.unwrap().level, Some(modal_gateway::chain::Level::Linked));
}

#[rstest]
#[case::link(
    "UPDATE block SET document = json_set(document, '$.previous_hash', 'ab') WHERE idx = 17",
    &["block 17 (", "violates rule `link`"]
)]
#[case::data_hash(
    "UPDATE block SET document = json_set(document, '$.miner_number', 1) WHERE idx = 60",
    &["block 60 (", "rule `data_hash`"]
)]
#[case::schedule(
    "UPDATE block SET document = json_set(document, '$.target_difficulty', '2', '$.difficulty', '2') WHERE idx = 48",
    &["block 48 (", "rule `schedule`"]
)]
#[case::missing("DELETE FROM block WHERE idx = 30", &["block 30 is missing"])]
#[case::cut_off("DELETE FROM block WHERE idx >= 50", &["block 50 is missing"])]
#[case::text("UPDATE block SET document = 'oops' WHERE idx = 12", &["block 12: its text can't be read"])]
#[case::not_a_block("UPDATE block SET document = '{}' WHERE idx = 12", &["block 12: its text", "missing field"])]
#[case::hash(
    "UPDATE block SET hash = 'ab' WHERE idx = 9",
    &["block 9: it is listed under the hash ab, its text says 0"]
)]
#[case::work(
    "UPDATE block SET cumulative_difficulty = CAST(cumulative_difficulty AS INTEGER) + 1 WHERE idx >= 58",
    &["block 58: the work up to it is "]
)]
#[case::length("UPDATE chain SET length = 62", &["the length is 61, it says 62"])]
#[case::all_work("UPDATE chain SET cumulative_difficulty = '808'", &["the work is 809, it says 808"])]
#[case::tip("UPDATE chain SET tip_hash = 'ab'", &["the tip is 0017cbb9", "it says ab"])]
#[case::level("UPDATE chain SET level = 2", &["the weakest level is linked, it says pow"])]
#[tokio::test]
async fn damage_is_named_with_its_block(#[case] sql: &'static str, #[case] texts: &[&str]) {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    sqlx::query(sql).execute(&mut dir.database().await).await.unwrap();
    for more in [&["--no-raise"][..], &[]] {
        dir.run([&verify("linked")[..], more].concat()).fails(1, texts);
    }
}

#[tokio::test]
async fn the_first_bad_block_is_named_whatever_its_rule() {
    let dir = WorkDir::new();
    let lines = fixture_lines();
    dir.import(&dir.write("ten.ndjson", joined(&lines[..10]))).ok();
    let mut database = dir.database().await;
    let nonce = "UPDATE block SET document = json_set(document, '$.nonce', '1') WHERE idx = 3";
    sqlx::query(nonce).execute(&mut database).await.unwrap();
    dir.run(verify("linked")).ok();
    let link = "UPDATE block SET document = json_set(document, '$.previous_hash', 'ab') WHERE idx = 7";
    sqlx::query(link).execute(&mut database).await.unwrap();
    dir.run(verify("pow")).fails(1, &["block 3 (", "rule `hash`"]);
    dir.run(verify("linked")).fails(1, &["block 7 (", "rule `link`"]);
}

#[test]
fn other_networks_and_empty_stores() {
    let dir = WorkDir::new();
    dir.run(["verify"]).fails(1, &["the store does not exist"]);
    dir.run(["migrate"]).ok();
    assert_eq!(dir.run(["verify"]).ok().stderr, "verified 0 blocks, the chain is empty\n");
    dir.import(&fixture()).ok();
    dir.write("other.toml", crate::OTHER_NETWORK);
    let verify = ["verify", "--verify", "none", "--network", "other.toml"];
    dir.run(verify).fails(1, &["block 0 (63dc2d1c", "rule `genesis`"]);
}

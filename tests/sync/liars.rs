//! Peers that lie: none gets a bad block into the chain, each is blamed for what is provable and no more, and what is
//! true of their chains is kept.

use modal_gateway::{
    chain::{Level, MinerBlock},
    source::job::{Mode, Progress},
    sync::SyncError,
};
use rstest::rstest;
use serde_json::json;

use super::node::{Syncing, by, counts, serve};
use crate::support::{
    chain::{Chain, HEAVY, LIGHT, MIDDLE, main_chain, mine, sealed},
    gateway::Backend,
    peer::ScriptedPeer,
    serving::Serving,
};

/// Blocks of the honest chain, those in the store before, and where the lie is.
pub(super) const LENGTH: usize = 301;
pub(super) const HELD: usize = 20;
pub(super) const AT: usize = 150;

/// Blocks that are verified together: as many may be lost before the one that is wrong.
const BATCH: usize = 64;

pub(super) fn honest() -> Chain {
    main_chain().first(LENGTH)
}

/// The honest chain with one block changed, and nothing else.
fn changed(change: impl FnOnce(&mut MinerBlock)) -> Vec<MinerBlock> {
    let mut blocks = honest().to_vec();
    change(&mut blocks[AT]);
    blocks
}

/// The honest chain up to a block that is changed, and behind it a good chain of others that follow it.
fn followed(change: impl FnOnce(MinerBlock) -> MinerBlock) -> Vec<MinerBlock> {
    let before = honest().first(AT);
    let block = change(mine(before.next(), &LIGHT));
    before.with(block).extend(LENGTH - AT, &LIGHT).to_vec()
}

pub(super) fn flipped(hash: &str) -> String {
    let (head, last) = hash.split_at(hash.len() - 1);
    format!("{head}{}", if last == "0" { '1' } else { '0' })
}

/// Runs a job that the only peer makes fail. What the store holds then is the honest chain's beginning.
pub(super) async fn fails(syncing: &Syncing) -> (SyncError, usize) {
    let error = syncing.sync(&by(Mode::Delta)).await.expect_err("there is nobody to get the chain from");
    (error, beginning(syncing).await)
}

/// How much of the honest chain the store holds, which holds nothing else.
pub(super) async fn beginning(syncing: &Syncing) -> usize {
    let held = syncing.chain().await.len();
    syncing.assert_holds(&honest()[..held.min(LENGTH)]).await;
    assert_eq!(syncing.store.state().await.unwrap().total_blocks, held as u64, "nothing is kept beside it");
    held
}

/// That this is held against the peer, in the job and in the peer book, and nothing else.
pub(super) async fn assert_blamed(syncing: &Syncing, peer: &ScriptedPeer, word: Option<&str>) {
    let job = syncing.store.jobs(1).await.unwrap().remove(0);
    let progress: Progress = serde_json::from_str(&job.progress).unwrap();
    let (held, info) = (counts(&progress, peer).penalties, syncing.info(peer));
    assert!(held.iter().all(|held| Some(held.as_str()) == word), "{held:?}, expected {word:?}");
    assert_eq!((info.last_penalty, info.penalties), (word, held.len() as u64), "{progress:?}");
    let heavy = matches!(word, Some("invalid_block" | "broken_answer"));
    assert_eq!(info.shunned, heavy, "{info:?}");
}

/// That another node on the same store, which knows nothing of the liar, gets the honest chain with both as its peers.
pub(super) async fn assert_honest_chain_wins(syncing: &Syncing, liar: &ScriptedPeer) {
    let peer = serve(&Serving::of(&honest())).await;
    let another = syncing.beside().await;
    another.meet(liar).await;
    another.meet(&peer).await;
    another.sync(&by(Mode::Delta)).await.unwrap();
    another.assert_holds(&honest()).await;
    assert_eq!(another.info(&peer).penalties, 0, "the honest one is not blamed");
}

#[rstest]
// One field is wrong, and nothing else.
#[case::index(changed(|block| block.index += 1), "`hash`", Some("invalid_block"))]
#[case::timestamp(changed(|block| block.timestamp += 1), "`hash`", Some("invalid_block"))]
#[case::previous_hash(changed(|block| block.previous_hash = flipped(&block.previous_hash)), "`hash`", Some("invalid_block"))]
#[case::nonce(changed(|block| block.nonce += 1), "`hash`", Some("invalid_block"))]
#[case::target_difficulty(changed(|block| block.target_difficulty = 2), "`target`", Some("invalid_block"))]
#[case::nominated_peer_id(changed(|block| block.nominated_peer_id = "me".into()), "`hash`", Some("invalid_block"))]
#[case::miner_number(changed(|block| block.miner_number += 1), "`hash`", Some("invalid_block"))]
// One block is wrong, and others follow it as they should.
#[case::hash(
    followed(|block| MinerBlock { hash: flipped(&block.hash), ..block }),
    "`hash`",
    Some("invalid_block")
)]
#[case::hash_form(
    followed(|block| MinerBlock { hash: block.hash.to_uppercase(), ..block }),
    "`hash_form`",
    Some("invalid_block")
)]
#[case::target_not_met(
    followed(|block| (0..).map(|nonce| sealed(MinerBlock { nonce, ..block.clone() }))
        .find(|block| block.actualized_difficulty == 0).unwrap()),
    "`target`",
    Some("invalid_block")
)]
#[case::schedule_broken(
    followed(|block| mine(MinerBlock { target_difficulty: 2, ..block }, &MIDDLE)),
    "`schedule`",
    Some("invalid_block")
)]
#[case::anothers_data(
    followed(|block| {
        let other = honest().fork(AT as u64 - 1, "me").next();
        MinerBlock { nominated_peer_id: other.nominated_peer_id, data_hash: other.data_hash, ..block }
    }),
    "`hash`",
    Some("invalid_block")
)]
// Our own clock may be wrong, so that nobody is blamed.
#[case::far_future(
    followed(|block| mine(MinerBlock { timestamp: 4_000_000_000, ..block }, &LIGHT)),
    "`timestamp`",
    None
)]
// Two good chains, put together: an honest node may have lost a block, and have another one in its place.
#[case::broken_link(
    [&honest()[..AT], &honest().fork(100, "other").extend(LENGTH - 101, &LIGHT)[AT..]].concat(),
    "its chain can't be put together: block 149",
    None
)]
#[tokio::test]
async fn a_bad_block_is_refused(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] chain: Vec<MinerBlock>,
    #[case] told: &str,
    #[case] blame: Option<&str>,
) {
    let liar = serve(&Serving::of(&chain)).await;
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&liar).await;
    let (error, held) = fails(&syncing).await;
    let error = error.to_string();
    assert!(error.contains(told) && error.contains(&liar.peer_id.to_string()), "{error}");
    // What can't be put together to one chain is not begun with.
    let whole =
        chain.windows(2).all(|pair| pair[0].index + 1 == pair[1].index && pair[0].hash == pair[1].previous_hash);
    match whole {
        false => assert_eq!(held, HELD),
        true => assert!((AT - BATCH..=AT).contains(&held), "{held} blocks are kept"),
    }
    assert_blamed(&syncing, &liar, blame).await;
    assert_honest_chain_wins(&syncing, &liar).await;
}

#[rstest]
#[case::epoch(changed(|block| block.epoch += 1))]
#[case::data_hash(changed(|block| block.data_hash = flipped(&block.data_hash)))]
#[case::no_data_hash(changed(|block| block.data_hash.clear()))]
#[case::actualized_difficulty(changed(|block| block.actualized_difficulty += 1))]
#[case::orphaned(changed(|block| block.is_orphaned = true))]
#[case::seen(changed(|block| (block.seen_at, block.height_at_time) = (Some(7), Some(7))))]
#[tokio::test]
async fn derived_members_are_computed_again_and_not_penalised(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Mode::Headers, Mode::Delta)] mode: Mode,
    #[case] chain: Vec<MinerBlock>,
) {
    let sent = &chain[AT];
    let own = &honest()[AT];
    let counted = u64::from(!sent.data_hash.is_empty() && sent.data_hash != own.data_hash)
        + u64::from(sent.epoch != own.epoch)
        + u64::from(sent.actualized_difficulty != own.actualized_difficulty);
    let peer = serve(&Serving::of(&chain).headers(|_| {})).await;
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&peer).await;
    let progress = syncing.sync(&by(mode)).await.unwrap();
    syncing.assert_holds(&honest()).await;
    assert_eq!(progress.recomputed, counted);
    assert_blamed(&syncing, &peer, None).await;
}

#[rstest]
#[case::index_gap(|blocks: &mut Vec<MinerBlock>| blocks.retain(|block| block.index != AT as u64))]
#[case::duplicate(|blocks: &mut Vec<MinerBlock>| if blocks.len() > 100 { blocks.insert(100, blocks[100].clone()) })]
#[case::other_order(|blocks: &mut Vec<MinerBlock>| blocks.reverse())]
#[case::unasked(|blocks: &mut Vec<MinerBlock>| *blocks = honest().to_vec())]
#[tokio::test]
async fn a_list_in_any_order_with_blocks_too_many_or_too_few_is_put_together(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Mode::Full, Mode::Epoch, Mode::Delta)] mode: Mode,
    #[case] change: fn(&mut Vec<MinerBlock>),
) {
    let peer = serve(&Serving::of(&honest()).blocks(change)).await;
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&peer).await;
    syncing.sync(&by(mode)).await.unwrap();
    syncing.assert_holds(&honest()).await;
    assert_blamed(&syncing, &peer, None).await;
}

#[rstest]
#[case::nothing_after_half(Serving::of(&honest()).at_most(50).silent_beyond(AT as u64), None)]
#[case::nothing_at_all(Serving::of(&honest()).silent_beyond(0), None)]
#[case::endless_tiny_chunks(Serving::of(&honest()).at_most(1), Some("unreliable"))]
#[tokio::test]
async fn a_peer_with_small_answers_is_penalised_for_nothing_else(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Mode::Headers, Mode::Delta)] mode: Mode,
    #[case] node: Serving,
    #[case] blame: Option<&str>,
) {
    let liar = serve(&node).await;
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&liar).await;
    let failed = |progress: &Progress| counts(progress, &liar).failures > 0 || progress.retries > 0;
    syncing.sync_until(&by(mode), failed).await;
    beginning(&syncing).await;
    let info = syncing.info(&liar);
    assert!(info.last_penalty == blame && !info.shunned, "{info:?}");
    assert_honest_chain_wins(&syncing, &liar).await;
}

#[rstest]
#[tokio::test]
async fn blocks_received_before_a_stall_are_not_requested_again(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    // It leads, because it claims more, and it stops in the middle of a window.
    let silent = Serving::of(&honest()).info(|info| info["cumulative_difficulty"] = json!("9".repeat(30)));
    let silent = silent.at_most(50).silent_beyond(AT as u64);
    let (silent, other) = (serve(&silent).await, serve(&Serving::of(&honest())).await);
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&silent).await;
    syncing.meet(&other).await;
    syncing.sync(&by(Mode::Delta)).await.unwrap();
    syncing.assert_holds(&honest()).await;
    let of = |peer: &ScriptedPeer| {
        let ranges = peer.requests().into_iter().filter(|request| request["path"] == "/data/miner_block/range");
        ranges.filter_map(|request| request["data"]["from_index"].as_u64()).filter(|from| *from > 0).collect::<Vec<_>>()
    };
    let (first, second) = (of(&silent), of(&other));
    assert!(first.contains(&(HELD as u64)), "the silent one is asked first: {first:?}");
    assert!(second.iter().all(|from| *from > HELD as u64), "{second:?}");
}

#[rstest]
#[tokio::test]
async fn an_unlinked_answer_is_no_offence(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    // Windows have 1000 blocks; between two of them the peer may have reorganised.
    let chain = main_chain();
    let other = chain.fork(900, "other").extend(300, &LIGHT);
    let blocks = [&chain[..1_000], &other[1_000..]].concat();
    let liar = serve(&Serving::of(&blocks)).await;
    let syncing = Syncing::with(backend, &[]).await;
    syncing.meet(&liar).await;
    syncing.sync_until(&by(Mode::Delta), |progress| progress.retries > 0).await;
    syncing.assert_holds(&chain[..1_000]).await;
    assert_eq!(syncing.info(&liar).penalties, 0);
}

#[rstest]
#[tokio::test]
async fn a_wrong_difficulty_is_no_offence_where_hashes_are_not_computed(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Mode::Headers, Mode::Delta)] mode: Mode,
    // Of the sync. The blocks that the store has are at `linked`.
    #[values(Level::Linked, Level::Pow)] level: Level,
) {
    // The scheduled one follows from timestamps that somebody else may have forged. The block meets its own target.
    let chain = followed(|block| mine(MinerBlock { target_difficulty: 2, ..block }, &MIDDLE));
    let peer = serve(&Serving::of(&chain).headers(|_| {})).await;
    let mut syncing = Syncing::at(backend, &honest()[..HELD], Level::Linked).await;
    syncing.level = level;
    syncing.meet(&peer).await;
    syncing.sync_until(&by(mode), |progress| progress.retries > 0).await;
    // What the weakest blocks have.
    syncing.level = Level::Linked;
    beginning(&syncing).await;
    assert_eq!(syncing.info(&peer).penalties, 0);
}

#[rstest]
#[tokio::test]
async fn a_false_genesis_is_refused(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let mut blocks = honest().to_vec();
    blocks[0].previous_hash = flipped(&"0".repeat(64));
    let liar = serve(&Serving::of(&blocks)).await;
    let syncing = Syncing::with(backend, &[]).await;
    syncing.meet(&liar).await;
    let (error, held) = fails(&syncing).await;
    assert!(error.to_string().contains("`genesis`") && held == 0, "{error}");
    assert_blamed(&syncing, &liar, None).await;
    assert_honest_chain_wins(&syncing, &liar).await;
}

#[rstest]
#[tokio::test]
async fn a_heavier_branch_with_a_bad_block_changes_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    // It would win if it were true; the bad block comes before its work does.
    let mut branch = honest().fork(100, "heavy").extend(180, &HEAVY).to_vec();
    branch[105].nonce += 1;
    let liar = serve(&Serving::of(&branch)).await;
    let syncing = Syncing::with(backend, &honest()).await;
    let before = syncing.store.state().await.unwrap();
    syncing.meet(&liar).await;
    let error = syncing.sync(&by(Mode::Delta)).await.unwrap_err();
    assert!(error.to_string().contains("`hash`"), "{error}");
    assert_eq!(syncing.store.state().await.unwrap(), before);
    assert_blamed(&syncing, &liar, Some("invalid_block")).await;
    assert_honest_chain_wins(&syncing, &liar).await;
}

#[rstest]
#[tokio::test]
async fn work_that_one_block_makes_up_is_found_by_its_hash_before_all_others(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    // Good blocks with little work, and then one that claims more than all of the honest chain.
    let light = honest().fork(HELD as u64, "light").extend(200, &LIGHT);
    let boast = format!("{:064x}", 1u128 << 100);
    let branch = light.clone().with(MinerBlock { hash: boast, actualized_difficulty: 1 << 90, ..light.next() });
    let liar = serve(&Serving::of(&branch)).await;
    let syncing = Syncing::with(backend, &honest()).await;
    syncing.meet(&liar).await;
    let error = syncing.sync(&by(Mode::Delta)).await.unwrap_err();
    assert!(error.to_string().contains("block 221 ") && error.to_string().contains("`hash`"), "{error}");
    let job = syncing.store.jobs(1).await.unwrap().remove(0);
    let progress: Progress = serde_json::from_str(&job.progress).unwrap();
    assert_eq!(progress.blocks, 0, "none of the good ones is verified before");
    syncing.assert_holds(&honest()).await;
    assert_blamed(&syncing, &liar, Some("invalid_block")).await;
}

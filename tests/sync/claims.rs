//! Peers that claim what they don't have: work, a tip, or headers that are not those of their blocks.

use modal_gateway::{chain::MinerBlock, source::job::Mode};
use rstest::rstest;
use serde_json::json;

use super::{
    liars::{AT, HELD, LENGTH, assert_blamed, assert_honest_chain_wins, beginning, fails, flipped, honest},
    node::{Syncing, by, serve},
};
use crate::support::{chain::LIGHT, gateway::Backend, serving::Serving};

#[rstest]
#[tokio::test]
async fn work_that_is_claimed_and_not_there_is_a_false_claim(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(HELD, LENGTH)] held: usize,
) {
    // The blocks are good, and their weight is not what was said.
    let node = Serving::of(&honest()).info(|info| info["cumulative_difficulty"] = json!("9".repeat(30)));
    let liar = serve(&node).await;
    let syncing = Syncing::with(backend, &honest()[..held]).await;
    syncing.meet(&liar).await;
    let (error, held) = fails(&syncing).await;
    assert!(error.to_string().contains("less work than it claims"), "{error}");
    assert_eq!(held, LENGTH, "what is true of it is kept");
    assert_blamed(&syncing, &liar, Some("false_claim")).await;
    assert_honest_chain_wins(&syncing, &liar).await;
}

#[rstest]
#[tokio::test]
async fn a_tip_that_is_claimed_and_not_there_helps_nobody(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    // At its own height, beyond its end, and where no chain can be.
    #[values(300, 5_000, u64::MAX - 1)] height: u64,
    #[values(Mode::Full, Mode::Headers, Mode::Delta)] mode: Mode,
) {
    let liar = serve(&Serving::of(&honest()).claiming(&"9".repeat(30), height)).await;
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&liar).await;
    syncing.sync_until(&by(mode), |progress| progress.retries > 0).await;
    beginning(&syncing).await;
    // A tip may have been reorganised away meanwhile.
    let info = syncing.info(&liar);
    assert!(matches!(info.last_penalty, None | Some("false_claim" | "unreliable")) && !info.shunned, "{info:?}");
    assert_honest_chain_wins(&syncing, &liar).await;
}

/// A peer whose headers have this change at [`AT`].
fn header(change: impl Fn(&mut MinerBlock) + Send + Sync + 'static) -> Serving {
    Serving::of(&honest()).headers(move |list| list.iter_mut().filter(|it| it.index == AT as u64).for_each(&change))
}

#[rstest]
#[case::schedule(header(|it| it.target_difficulty = 2), "`schedule`", "invalid_block")]
#[case::epoch(header(|it| it.epoch += 1), "`epoch`", "invalid_block")]
#[case::target(header(|it| it.hash = "f".repeat(64)), "`target`", "invalid_block")]
#[case::link(header(|it| it.previous_hash = flipped(&it.previous_hash)), "`link`", "invalid_block")]
#[case::index(header(|it| it.index += 1), "breaks the protocol", "broken_answer")]
#[case::work(
    Serving::of(&honest()).headers(|_| {}).info(|info| info["cumulative_difficulty"] = json!("9".repeat(30))),
    "less work than it claims",
    "false_claim"
)]
#[tokio::test]
async fn a_lie_in_the_headers_is_found_before_a_block_is_fetched(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] node: Serving,
    #[case] said: &str,
    #[case] word: &str,
) {
    let liar = serve(&node).await;
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&liar).await;
    let error = syncing.sync(&by(Mode::Headers)).await.unwrap_err();
    assert!(error.to_string().contains(said), "{error}");
    assert_eq!(beginning(&syncing).await, HELD);
    assert!(liar.requests().iter().all(|request| request["path"] != "/data/miner_block/range"));
    assert_blamed(&syncing, &liar, Some(word)).await;
    assert_honest_chain_wins(&syncing, &liar).await;
}

#[rstest]
#[tokio::test]
async fn blocks_of_another_chain_than_their_headers_are_not_taken(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let other = honest().fork(HELD as u64 - 1, "other").extend(LENGTH, &LIGHT).to_vec();
    let liar = Serving::of(&honest()).headers(|_| {});
    let liar =
        serve(&liar.blocks(move |list| list.iter_mut().for_each(|it| *it = other[it.index as usize].clone()))).await;
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&liar).await;
    syncing.sync_until(&by(Mode::Headers), |progress| progress.retries > 0).await;
    assert_eq!(beginning(&syncing).await, HELD, "they are good blocks, and not those that were weighed");
    assert_eq!(syncing.info(&liar).penalties, 0, "it may have reorganised meanwhile");
}

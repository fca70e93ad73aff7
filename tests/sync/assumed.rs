//! Blocks up to the network's assume-valid block: at `linked` at once, at `pow` in the background.

use modal_gateway::{
    chain::{AssumeValid, CumulativeDifficulty, Level, MinerBlock, Network},
    source::job::{AssumedBlocks, Mode, SyncState},
    sync::{Service, Settings},
};
use rstest::rstest;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    following::announcement,
    node::{Syncing, by, counts, eventually, serve, settings},
};
use crate::support::{
    chain::{HEAVY, LIGHT, MIDDLE, main_chain, mine, work},
    gateway::{Backend, PATIENCE, chain},
    linked::{linked, network},
    peer::{Reply, ScriptedPeer},
    serving::Serving,
    until::within,
};

/// Index of the assume-valid block.
const PIN: u64 = 50;

/// The block of these at [`PIN`], with its work.
fn pin(blocks: &[MinerBlock]) -> AssumeValid {
    let upto = &blocks[..=PIN as usize];
    let work = CumulativeDifficulty::default() + work(upto);
    AssumeValid { index: PIN, hash: upto[PIN as usize].hash.clone(), work }
}

/// A service that raises eight blocks at once, on this network.
fn service(syncing: &Syncing, network: Network, pin: Option<&AssumeValid>) -> Service {
    let settings = Settings { network: Network { assume_valid: pin.cloned(), ..network }, ..settings(Level::Pow) };
    let service = Service::new(syncing.store.clone(), syncing.p2p.clone(), &settings).unwrap();
    service.with_raised_blocks(8)
}

/// Runs a service until the guard is dropped.
fn run(service: Service) -> DropGuard {
    let stop = CancellationToken::new();
    tokio::spawn(service.run(stop.clone()));
    stop.drop_guard()
}

/// Number of blocks at each level, from these indexes.
async fn levels(syncing: &Syncing, from: u64, to: u64) -> [u64; 3] {
    let mut below = [0; 3];
    for (level, count) in [Level::None, Level::Linked, Level::Pow].into_iter().zip(&mut below) {
        *count = syncing.store.count_below(level, from, to).await.unwrap();
    }
    [below[1], below[2] - below[1], to + 1 - from - below[2]]
}

async fn hashes(syncing: &Syncing) -> Vec<String> {
    syncing.chain().await.into_iter().map(|block| block.hash).collect()
}

fn hashes_of(blocks: &[MinerBlock]) -> Vec<String> {
    blocks.iter().map(|block| block.hash.clone()).collect()
}

#[rstest]
#[case::without_a_restart(Backend::Sqlite, false)]
#[case::with_a_restart(Backend::Postgres, true)]
#[tokio::test(flavor = "multi_thread")]
async fn a_real_chain_is_there_at_once_and_proven_later(#[case] backend: Backend, #[case] restart: bool) {
    let blocks = chain();
    let pin = pin(&blocks);
    let peer = serve(&Serving::of(&blocks)).await;
    let syncing = Syncing::with(backend, &[]).await;
    syncing.meet(&peer).await;
    let left = async |few: u64| {
        within(6 * PATIENCE, async || {
            let assumed = AssumedBlocks::read(&*syncing.store, &pin).await.unwrap();
            assert_eq!(assumed.failure, None);
            assumed.blocks_left.filter(|left| *left <= few)
        })
        .await
    };

    let progress = service(&syncing, Network::devnet(), Some(&pin));
    let progress = progress.sync_once(&by(Mode::Delta), &CancellationToken::new(), |_| {}).await.unwrap();
    assert_eq!((progress.blocks, progress.assumed), (61, 51));
    assert_eq!(hashes(&syncing).await, hashes_of(&blocks));
    assert_eq!(levels(&syncing, 0, PIN).await, [0, 51, 0]);
    assert_eq!(levels(&syncing, PIN + 1, 60).await, [0, 0, 10]);
    assert_eq!(left(51).await, 51);

    let running = run(service(&syncing, Network::devnet(), Some(&pin)));
    let after_first = left(43).await;
    assert!(after_first > 0, "the first blocks that are raised are not all");
    if restart {
        drop(running);
        // Nothing is forgotten, and the newest blocks came first.
        let (oldest, newest) = (levels(&syncing, 0, 10).await, levels(&syncing, PIN - 7, PIN).await);
        assert_eq!((oldest, newest), ([0, 11, 0], [0, 0, 8]));
        let lease = eventually(async || syncing.store.lease().await.unwrap()).await;
        drop(lease);
        let _running = run(service(&syncing, Network::devnet(), Some(&pin)));
        left(0).await;
    } else {
        left(0).await;
    }
    assert_eq!(levels(&syncing, 0, 60).await, [0, 0, 61]);
    let state = syncing.store.state().await.unwrap();
    assert_eq!((state.level, state.cumulative_difficulty.to_string()), (Some(Level::Pow), work(&blocks).to_string()));
}

#[rstest]
#[case::another_hash(|pin: AssumeValid| Some(AssumeValid { hash: "ab".repeat(32), ..pin }))]
#[case::wrong_work(|pin: AssumeValid| Some(AssumeValid { work: pin.work + 1, ..pin }))]
#[case::beyond_the_chain(|pin: AssumeValid| Some(AssumeValid { index: 61, ..pin }))]
#[case::switched_off(|_| None)]
#[tokio::test]
async fn a_chain_without_the_block_is_verified_in_full(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] change: fn(AssumeValid) -> Option<AssumeValid>,
) {
    let blocks = main_chain().first(61);
    let pin = change(pin(&blocks));
    let peer = serve(&Serving::of(&blocks)).await;
    let syncing = Syncing::with(backend, &[]).await;
    syncing.meet(&peer).await;
    let service = service(&syncing, network(), pin.as_ref());
    let progress = service.sync_once(&by(Mode::Delta), &CancellationToken::new(), |_| {}).await.unwrap();
    assert_eq!(progress.assumed, 0);
    syncing.assert_holds(&blocks).await;
    assert_eq!(syncing.info(&peer).penalties, 0, "to be on another chain is no offence");
}

#[rstest]
#[tokio::test]
async fn a_forged_chain_under_the_right_hash_is_never_canonical(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    // Cheap hashes with any work, and the true hash where it is asked for alone.
    let (true_chain, forged) = (main_chain().first(61), linked(None, 101, "forged"));
    let pin = pin(&true_chain);
    let hash = pin.hash.clone();
    let forger = Serving::of(&forged).blocks(move |list| {
        if let [block] = &mut list[..]
            && block.index == PIN
        {
            block.hash = hash.clone();
        }
    });
    let forger = serve(&forger).await;
    let syncing = Syncing::with(backend, &[]).await;
    syncing.meet(&forger).await;
    // Several plans: the first ones end before the lie shows.
    let sync = service(&syncing, network(), Some(&pin)).with_plan_blocks(10);
    let error = sync.sync_once(&by(Mode::Delta), &CancellationToken::new(), |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("rule `hash`"), "{error}");
    let state = syncing.store.state().await.unwrap();
    assert_eq!((state.version, state.total_blocks), (0, 0));
    assert_eq!(syncing.store.staged().await.unwrap(), None);
    assert!(syncing.info(&forger).penalties > 0);
}

#[rstest]
#[tokio::test]
async fn a_block_with_a_bad_proof_of_work_is_found_and_reported(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let honest = main_chain().first(61);
    let pin = pin(&honest);
    // Its hash is the one that the next block names, its header is another one.
    let mut forged = honest.to_vec();
    forged[30].nominated_peer_id = "forger".into();
    forged[30].data_hash = forged[30].expected_data_hash();
    let peer = serve(&Serving::of(&forged)).await;
    let syncing = Syncing::with(backend, &[]).await;
    syncing.meet(&peer).await;
    let _running = run(service(&syncing, network(), Some(&pin)));
    let assumed = eventually(async || {
        let assumed = AssumedBlocks::read(&*syncing.store, &pin).await.unwrap();
        Some(assumed).filter(|assumed| assumed.failure.is_some())
    })
    .await;
    let failure = assumed.failure.unwrap();
    assert!(failure.starts_with("block 30 (") && failure.contains("violates rule `hash`"), "{failure}");
    // What is above the bad block is proven, what is below stays as it is.
    assert_eq!(assumed.blocks_left, Some(31));
    assert_eq!(levels(&syncing, 0, 30).await, [0, 31, 0]);
    assert_eq!(levels(&syncing, 31, 60).await, [0, 0, 30]);
    assert_eq!(hashes(&syncing).await, hashes_of(&honest), "no block is removed");
    syncing.wait_for(SyncState::Synced).await;
}

#[rstest]
#[tokio::test]
async fn a_branch_that_wins_only_above_the_block_is_assumed_over_several_plans(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    // A plan for the whole, and plans that end below the block, at it and above.
    #[values(1000, 7, 10)] plan: u64,
) {
    let ours = main_chain().fork(20, "ours").extend(60, &MIDDLE);
    let theirs = main_chain().fork(20, "theirs").extend(50, &LIGHT).extend(30, &HEAVY);
    let pin = pin(&theirs);
    assert!(theirs.first(71).work() < ours.work() && ours.work() < theirs.work());
    let peer = serve(&Serving::of(&theirs)).await;
    let syncing = Syncing::with(backend, &ours).await;
    syncing.meet(&peer).await;
    let sync = service(&syncing, network(), Some(&pin)).with_plan_blocks(plan);
    let progress = sync.sync_once(&by(Mode::Delta), &CancellationToken::new(), |_| {}).await.unwrap();
    assert_eq!((progress.blocks, progress.assumed), (80, 30));
    assert_eq!(hashes(&syncing).await, hashes_of(&theirs));
    assert_eq!(levels(&syncing, 0, 20).await, [0, 0, 21], "what was proven before stays so");
    assert_eq!(levels(&syncing, 21, PIN).await, [0, 30, 0]);
    assert_eq!(levels(&syncing, PIN + 1, 100).await, [0, 0, 50]);
    assert_eq!(AssumedBlocks::read(&*syncing.store, &pin).await.unwrap().blocks_left, Some(30));
}

#[tokio::test]
async fn one_peer_gives_the_blocks() {
    let blocks = main_chain();
    let pin = pin(blocks);
    let syncing = Syncing::with(Backend::Sqlite, &[]).await;
    let peers = [serve(&Serving::of(blocks)).await, serve(&Serving::of(blocks)).await];
    for peer in &peers {
        syncing.meet(peer).await;
    }
    let sync = service(&syncing, network(), Some(&pin));
    let progress = sync.sync_once(&by(Mode::Delta), &CancellationToken::new(), |_| {}).await.unwrap();
    let mut given = peers.each_ref().map(|peer| counts(&progress, peer).blocks);
    given.sort_unstable();
    assert_eq!((given[0], progress.assumed), (0, 51), "{progress:?}");
    assert!(given[1] >= 1201, "{progress:?}");
}

#[rstest]
#[tokio::test]
async fn a_branch_from_below_waits_until_its_root_is_proven(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let ours = main_chain().first(61);
    let heavy = ours.fork(30, "heavy").extend(40, &HEAVY);
    let pin = pin(&ours);
    let peer = serve(&Serving::of(&heavy)).await;
    let syncing = Syncing::at(backend, &ours, Level::Linked).await;
    syncing.meet(&peer).await;
    let sync = || service(&syncing, network(), Some(&pin));
    let error = sync().sync_once(&by(Mode::Delta), &CancellationToken::new(), |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("leaves ours at block 30, whose proof of work is not verified yet"), "{error}");
    assert_eq!(hashes(&syncing).await, hashes_of(&ours));
    let mut writer = syncing.store.write().await.unwrap();
    writer.raise(0, 60, Level::Pow).await.unwrap();
    writer.commit().await.unwrap();
    // It is no checkpoint.
    sync().sync_once(&by(Mode::Delta), &CancellationToken::new(), |_| {}).await.unwrap();
    assert_eq!(hashes(&syncing).await, hashes_of(&heavy));
}

/// The same for a block that is announced. The blocks below a forged one are never proven.
#[rstest]
#[tokio::test]
async fn an_announced_block_leaves_the_chain_at_no_unproven_block(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let honest = main_chain().first(61);
    let pin = pin(&honest);
    let mut ours = honest.to_vec();
    ours[PIN as usize - 1].nominated_peer_id = "forger".into();
    ours[PIN as usize - 1].data_hash = ours[PIN as usize - 1].expected_data_hash();
    let parent = PIN - 2;
    let heavy = mine(honest.fork(parent, "heavy").next(), &(13..=20));
    assert!(heavy.actualized_difficulty > work(&honest[parent as usize + 1..]));
    let peer = serve(&Serving::of(&ours)).await;
    let syncing = Syncing::at(backend, &ours, Level::Linked).await;
    syncing.meet(&peer).await;
    let _running = run(service(&syncing, network(), Some(&pin)));
    syncing.wait_for(SyncState::Synced).await;
    peer.publish(announcement(&heavy));
    let found = eventually(async || syncing.store.get(&heavy.hash).await.unwrap()).await;
    assert!(!found.canonical, "it is kept beside the chain");
    assert_eq!(hashes(&syncing).await, hashes_of(&honest));
}

#[rstest]
#[tokio::test]
async fn what_extends_the_chain_is_invisible_until_the_block_is_there(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    // Blocks that are there before.
    #[values(0, 21)] length: u64,
) {
    let blocks = main_chain().first(61);
    let pin = pin(&blocks);
    // It says that it has the block, and does not give those before it.
    let node = Serving::of(&blocks);
    let peer = ScriptedPeer::start(move |request: Value| {
        let [from, to] = ["from_index", "to_index"].map(|name| request["data"][name].as_u64());
        if from < to && to > Some(length + 20) { Reply::Silence } else { node.answer(&request) }
    })
    .await;
    let syncing = Syncing::with(backend, &blocks[..length as usize]).await;
    syncing.meet(&peer).await;
    let (sync, stop) = (service(&syncing, network(), Some(&pin)).with_plan_blocks(10), CancellationToken::new());
    let job = tokio::spawn({
        let stop = stop.clone();
        async move { sync.sync_once(&by(Mode::Delta), &stop, |_| {}).await.map(|_| ()) }
    });
    let staged = async || syncing.store.staged().await.unwrap().filter(|staged| staged.end.index == length + 19);
    let staged = eventually(staged).await;
    assert_eq!((staged.level, syncing.store.state().await.unwrap().length), (Level::Linked, length));
    stop.cancel();
    job.await.unwrap().unwrap_err();

    // The next job goes on with what is staged.
    let peer = serve(&Serving::of(&blocks)).await;
    let again = syncing.beside().await;
    again.meet(&peer).await;
    let sync = service(&again, network(), Some(&pin));
    let progress = sync.sync_once(&by(Mode::Delta), &CancellationToken::new(), |_| {}).await.unwrap();
    assert_eq!((progress.blocks, progress.assumed), (41 - length, 31 - length));
    assert_eq!(levels(&again, 0, PIN).await, [0, 51 - length, length]);
    assert_eq!(levels(&again, PIN + 1, 60).await, [0, 0, 10]);
    assert_eq!(hashes(&again).await, hashes_of(&blocks));
}

//! A network without a pinned genesis: the first sync takes that of the trusted peers, and the store keeps it.

use std::path::Path;

use modal_gateway::{
    p2p::Standing,
    source::job::{Genesis, GenesisSource, Mode, SyncState},
    sync::SyncError,
};
use rstest::rstest;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::node::{Syncing, by, eventually, serve};
use crate::support::{
    chain::{Chain, HEAVY, main_chain},
    gateway::{Backend, TestStore},
    linked::NETWORK_FILE,
    process::program,
    serving::Serving,
};

/// The longer chain, which weighs less than [`heavy`].
fn long() -> Chain {
    main_chain().first(60)
}

/// A shorter chain on another genesis, under more work.
fn heavy() -> Chain {
    Chain::genesis(1).extend(30, &HEAVY)
}

/// The genesis that the store has settled for.
async fn settled(syncing: &Syncing) -> Option<Genesis> {
    Genesis::read(&*syncing.store, None).await.unwrap()
}

fn first_sync(chain: &Chain) -> Option<(String, GenesisSource)> {
    Some((chain[0].hash.clone(), GenesisSource::FirstSync))
}

async fn assert_settled(syncing: &Syncing, chain: &Chain) {
    let found = settled(syncing).await.map(|genesis| (genesis.hash, genesis.source));
    assert_eq!(found, first_sync(chain));
}

/// Tries to import a chain into a store; what the program says.
fn import(folder: &Path, url: &str, chain: &Chain) -> (bool, String) {
    std::fs::write(folder.join("network.toml"), NETWORK_FILE).unwrap();
    let lines: Vec<_> = chain.iter().map(|block| serde_json::to_string(block).unwrap()).collect();
    std::fs::write(folder.join("blocks.ndjson"), lines.join("\n")).unwrap();
    let args = ["import", "blocks.ndjson", "--network", "network.toml", "--verify", "pow", "--database-url", url];
    let output = program(folder, args).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[rstest]
#[tokio::test]
async fn of_two_geneses_the_one_under_the_most_verified_work_is_kept_for_good(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    // Whether the chain that weighs less claims to weigh the most, so that its genesis is stored first.
    #[values(false, true)] boasts: bool,
) {
    let store = TestStore::create(backend).await;
    let (url, folder) = (store.url.clone(), tempfile::tempdir().unwrap());
    let (long, heavy) = (long(), heavy());
    assert!(heavy.work() > long.work() && heavy.len() < long.len());
    let boast = move |info: &mut serde_json::Value| {
        if boasts {
            info["cumulative_difficulty"] = json!("9".repeat(30));
        }
    };
    let peers = [serve(&Serving::of(&long).info(boast)).await, serve(&Serving::of(&heavy)).await];
    let syncing = Syncing::on(store).await;
    for peer in &peers {
        syncing.meet(peer).await;
    }
    syncing.sync(&by(Mode::Delta)).await.unwrap();
    syncing.assert_holds(&heavy).await;
    assert_settled(&syncing, &heavy).await;
    let peer_id = settled(&syncing).await.unwrap().peer_id;
    assert_eq!(peer_id, Some(peers[1].peer_id.to_string()), "from whom it was taken");

    // From now on no weight helps another one, whether peers bring it or a file.
    let other = Chain::genesis(2).extend(60, &HEAVY);
    assert!(other.work() > heavy.work());
    let stranger = serve(&Serving::of(&other)).await;
    syncing.meet(&stranger).await;
    syncing.sync(&by(Mode::Delta)).await.unwrap();
    syncing.assert_holds(&heavy).await;
    let info = syncing.info(&stranger);
    assert_eq!(info.chain.map(|chain| chain.standing), Some(Standing::OtherGenesis));
    assert_eq!(info.penalties, 0, "to be on another network is no offence");

    let restarted = syncing.beside().await;
    restarted.meet(&stranger).await;
    let error = restarted.sync(&by(Mode::Delta)).await.unwrap_err().to_string();
    let named = format!("another genesis, {} instead of {}", other[0].hash, heavy[0].hash);
    assert!(error.contains(&named), "{error}");
    restarted.assert_holds(&heavy).await;

    let (imported, told) = import(folder.path(), &url, &other);
    assert!(!imported && [&other, &heavy].iter().all(|chain| told.contains(&chain[0].hash)), "{told}");
    restarted.assert_holds(&heavy).await;
    assert_settled(&restarted, &heavy).await;
}

#[rstest]
#[tokio::test]
async fn a_first_sync_that_is_interrupted_leaves_the_genesis_open(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    // Whether a chain on another genesis, under more work, is met after the restart.
    #[values(false, true)] heavier: bool,
) {
    let long = main_chain().first(301);
    let other = Chain::genesis(1).extend(60, &HEAVY);
    assert!(other.work() > long.work());
    let syncing = Syncing::with(backend, &[]).await;
    let peer = serve(&Serving::of(&long).silent_beyond(199)).await;
    syncing.meet(&peer).await;
    let (stop, spec, service) = (CancellationToken::new(), by(Mode::Delta), syncing.service().with_plan_blocks(100));
    let far = eventually(async || (syncing.store.state().await.unwrap().length >= 200).then(|| stop.cancel()));
    let (ended, ()) = tokio::join!(service.sync_once(&spec, &stop, |_| {}), far);
    assert!(matches!(ended, Err(SyncError::Cancelled)), "{ended:?}");
    assert_eq!(syncing.chain().await.len(), 200);
    assert_eq!(settled(&syncing).await, None);

    let restarted = syncing.beside().await;
    assert_eq!(settled(&restarted).await, None);
    let whole = serve(&Serving::of(&long)).await;
    restarted.meet(&whole).await;
    let rival = serve(&Serving::of(&other)).await;
    if heavier {
        restarted.meet(&rival).await;
    }
    restarted.sync(&by(Mode::Delta)).await.unwrap();
    let expected = if heavier { other } else { long };
    restarted.assert_holds(&expected).await;
    assert_settled(&restarted, &expected).await;
}

#[rstest]
#[tokio::test]
async fn a_genesis_that_was_left_open_is_settled_where_nothing_is_to_be_fetched(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let chain = long();
    let syncing = Syncing::with(backend, &chain).await;
    // The process ended after the last block and before the note.
    Genesis::open(&*syncing.store).await.unwrap();
    let peer = serve(&Serving::of(&chain)).await;
    syncing.meet(&peer).await;
    let _running = syncing.run();
    syncing.wait_for(SyncState::Synced).await;
    eventually(async || settled(&syncing).await).await;
    assert_settled(&syncing, &chain).await;
}

#[rstest]
#[tokio::test]
async fn the_status_names_the_peer_of_the_genesis(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    // Both claim far more than they have, so that the lighter chain is weighed as well, and last.
    let boasting = |chain: &Chain, digits| {
        Serving::of(chain).info(move |info| info["cumulative_difficulty"] = json!("9".repeat(digits)))
    };
    let giver = serve(&boasting(&heavy(), 31)).await;
    let other = serve(&boasting(&long(), 30)).await;
    let syncing = Syncing::with(backend, &[]).await;
    syncing.meet(&giver).await;
    syncing.meet(&other).await;
    syncing.sync(&by(Mode::Delta)).await.unwrap();
    syncing.assert_holds(&heavy()).await;
    let peer_id = settled(&syncing).await.unwrap().peer_id;
    assert_eq!(peer_id, Some(giver.peer_id.to_string()));
}

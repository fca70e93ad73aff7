//! Each of three real nodes, as recorded, as the only peer: in every mode, into both stores, verified to proof of work.

use std::process::Output;

use modal_gateway::{
    chain::{Level, Network, PowOptions, Verifier},
    source::job::Mode,
    sync::{Service, Settings},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    node::{Syncing, by, settings},
    support::{
        gateway::{Backend, TestStore},
        process::program,
        simulator::{Recording, Setup, Simulator, Switches},
    },
};

/// The network of the three, for `--network`.
const NETWORK: &str = "name = 'recorded'\ninitial_difficulty = 1\ntarget_block_time = 60\n\
                       genesis_hash = 'any'\ndifficulty_schedule = 'report'\npublic = false\n";

/// Its tip, and how many blocks it has.
const TIP: &str = "0033a4e71996fd2e438896a6f79e164b45b3a70bab7d8c4a76b5fb3af2c49409";
const LENGTH: u64 = 47;

async fn node(name: &str) -> Simulator {
    let switches = Switches { service_time: std::time::Duration::from_millis(5), ..Switches::default() };
    let blocks = Recording::of(name).blocks;
    Simulator::start(Setup { switches, blocks, ..Setup::default() }).await
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `export` writes of a store.
fn export(store: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let output = program(folder.path(), ["export", "-", "--database-url", store]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    output.stdout
}

/// A verifier that has hashed: as long as it is there, the others of this process share its cache.
fn hashing(network: &Network) -> Verifier {
    let blocks = Recording::of("first-miner").blocks;
    let blocks = blocks[..2].iter().map(|block| serde_json::from_value(json!(block)).unwrap()).collect();
    let verifier = Verifier::new(network, Level::Pow, PowOptions::default()).unwrap();
    verifier.verify(None, blocks).unwrap();
    verifier
}

/// One process, since the hashes' cache takes half as long as the hashes of the chain.
#[tokio::test(flavor = "multi_thread")]
async fn every_mode_ends_with_the_same_chain() {
    let settings = Settings { network: toml::from_str::<Network>(NETWORK).unwrap(), ..settings(Level::Pow) };
    let _shared = hashing(&settings.network);
    // Of the first of them, which mined every block and tells each as it should be.
    let mut first: Option<Vec<u8>> = None;
    for name in Recording::NAMES {
        let node = node(name).await;
        for backend in [Backend::Sqlite, Backend::Postgres] {
            for mode in Mode::ALL {
                let what = format!("{name}, {backend:?}, {mode}");
                let store = TestStore::create(backend).await;
                let url = store.url.clone();
                let syncing = Syncing::on(store).await;
                syncing.meet_at(node.address.clone()).await;
                let service = Service::new(syncing.store.clone(), syncing.p2p.clone(), &settings).unwrap();
                let done = service.sync_once(&by(mode), &CancellationToken::new(), |_| {}).await;
                done.unwrap_or_else(|error| panic!("{what}: {error}"));

                let state = syncing.store.state().await.unwrap();
                assert_eq!((state.length, state.level), (LENGTH, Some(Level::Pow)), "{what}");
                assert_eq!(state.tip.map(|tip| tip.hash).as_deref(), Some(TIP), "{what}");
                let id = node.peer_id.to_string();
                let peers = syncing.p2p.peers();
                let peer = peers.iter().find(|peer| peer.peer_id.as_ref() == Some(&id)).unwrap();
                assert_eq!((peer.score, peer.penalties, peer.last_penalty), (0.0, 0, None), "{what}");
                let export = export(&url);
                let expected = first.get_or_insert_with(|| export.clone());
                assert!(export == *expected, "{what}: another export than the first");
            }
        }
        assert_eq!(node.death(), None, "{name}");
    }
}

/// The program itself, from the messiest of them.
#[tokio::test(flavor = "multi_thread")]
async fn the_sync_command_follows_such_a_node() {
    let (node, folder) = (node("second-miner").await, tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("network.toml"), NETWORK).unwrap();
    let shared = ["--network", "network.toml", "--database-url", "sqlite://store.db"];
    let address = node.address.to_string();
    let sync = program(folder.path(), [&["sync", &address], &shared[..]].concat()).output().unwrap();
    let told = said(&sync);
    assert!(sync.status.success() && told.contains("synced 47 blocks, verified to pow, tip 46 0033a4e7"), "{told}");
    let audit = program(folder.path(), [&["verify"], &shared[..]].concat()).output().unwrap();
    assert!(audit.status.success() && said(&audit).contains("verified 47 blocks to pow"), "{}", said(&audit));
    crate::world::assert_lives(&node).await;
}

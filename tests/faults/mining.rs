//! A miner whose database doesn't say whether a block is there: it looks, and tells the others of it.

use std::sync::Arc;

use libp2p::identity::Keypair;
use modal_gateway::{
    chain::{Enforcement, Network, PowOptions},
    p2p::{self, P2pClient, P2pConfig},
    store::{self, OpenOptions},
    sync::{Mining, mining::mine},
};
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    support::{
        cluster::Cluster,
        gateway::{EmptyResponder, PATIENCE},
        hole::Hole,
        linked::network,
    },
    world::alone,
};

/// Blocks that are heard of after the one whose commit was not answered.
const MORE: u64 = 5;

async fn node(listen: &[&str], running: &CancellationToken) -> P2pClient {
    let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
    let config = P2pConfig { listen, target_peers: 0, ..P2pConfig::new(Keypair::generate_ed25519()) };
    p2p::start(config, Arc::new(EmptyResponder), running.clone()).await.unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_block_whose_commit_was_not_answered_is_sent_as_an_event() {
    let _alone = alone().await;
    let cluster = Cluster::start();
    let hole = Hole::before(cluster.address).await;
    let store = store::open(&cluster.url(hole.address, "postgres"), &OpenOptions::default()).await.unwrap();
    let running = CancellationToken::new();
    let _running = running.clone().drop_guard();
    let (miner, listener) = (node(&["/ip4/127.0.0.1/tcp/0"], &running).await, node(&[], &running).await);
    listener.dial(miner.dial_addresses().remove(0)).await.unwrap();
    let mut heard = listener.gossip().unwrap();
    // Some 25,000 hashes of SHA-256 a block.
    let network = Network { initial_difficulty: 100, difficulty_schedule: Enforcement::Off, ..network() };
    let pow = PowOptions { threads: 1, ..PowOptions::default() };
    let mining = Mining { nominee: miner.local_peer_id().to_string(), pow, after_sync: false };
    let (stop, mined) = (running.clone(), store.clone());
    let mining = tokio::spawn(async move { mine(mined, miner, &network, &mining, stop).await });
    let mut next = async || {
        let message = timeout(PATIENCE, heard.recv()).await.expect("blocks are told").unwrap();
        serde_json::from_slice::<Value>(&message.data).unwrap()["index"].as_u64().unwrap()
    };

    let first = next().await;
    hole.lose_commit();
    for index in first + 1..=first + MORE {
        assert_eq!(next().await, index, "each block is told once");
    }
    running.cancel();
    mining.await.unwrap().unwrap();
    assert!(store.state().await.unwrap().length > first + MORE);
}

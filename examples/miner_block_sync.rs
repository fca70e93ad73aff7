//! Two nodes, each with its own store: Node 2 asks Node 1 for its miner blocks over libp2p and keeps them.
//!
//! `cargo run --example miner_block_sync` does it over TCP, `… -- --ws` over WebSocket.

use std::{error::Error, path::Path, process::ExitCode, sync::Arc};

use libp2p::{Multiaddr, identity::Keypair};
use modal_gateway::{
    app::Node,
    chain::{EpochNumbering, Level, MinerBlock, Network, PowOptions, Verifier, VerifyError},
    config::Config,
    protocol::{
        Query,
        answer::{CanonicalData, EpochData, RangeData},
    },
    source::{Origin, SourceError},
    store::{self, BlockStore, OpenOptions, StoreError},
};
use serde::de::DeserializeOwned;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const WEBSOCKET: &str = "/ip4/127.0.0.1/tcp/0/ws";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let listen = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => TCP,
        ["--ws"] => WEBSOCKET,
        _ => {
            eprintln!("usage: miner_block_sync [--ws]");
            return ExitCode::from(2);
        }
    };
    match run(listen).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(listen: &str) -> Result<(), Box<dyn Error>> {
    println!("=== Miner Block Sync Example ===\n");

    println!("📦 Setting up datastores...");
    let folder = tempfile::tempdir()?;
    let store1 = open(&folder.path().join("node1.db")).await?;
    let store2 = open(&folder.path().join("node2.db")).await?;
    println!("  ✓ Datastores created\n");

    println!("⛏  Creating miner blocks in Node 1's datastore...");
    let blocks: Vec<MinerBlock> = (0..=10).map(block).collect();
    for block in &blocks {
        match block.index {
            0 => println!("  ✓ Genesis block: hash={}", block.hash),
            index => println!("  ✓ Block {index}: hash={}, peer={}", block.hash, block.nominated_peer_id),
        }
    }
    let count = blocks.len();
    keep(&*store1, blocks).await?;
    println!("  ✓ Total blocks created: {count} (0-{})\n", count - 1);

    println!("🌐 Creating network nodes...");
    let node1 = start("Node 1", listen, store1).await?;
    let node2 = start("Node 2", listen, store2.clone()).await?;

    println!("\n🔗 Connecting Node 2 to Node 1...");
    let address = node1.addresses().into_iter().next().ok_or("Node 1 listens nowhere")?;
    let peer = Origin::Peer(node2.p2p.dial(address).await?);
    println!("  ✓ Nodes connected\n");

    println!("🔄 Syncing miner blocks from Node 1 to Node 2...");
    let CanonicalData { blocks, count } = ask(&node2, Query::Canonical, &peer).await?;
    println!("  ✓ Received {count} blocks from Node 1\n");
    keep(&*store2, blocks).await?;

    println!("📊 Synced Blocks:");
    // What Node 2 answers now comes out of its own store.
    let CanonicalData { blocks, .. } = ask(&node2, Query::Canonical, &Origin::Local).await?;
    list(&blocks);
    println!("\n✅ Sync completed successfully!");

    println!("\n🔎 Asking Node 1 for epoch 0...");
    let EpochData { epoch, blocks, count } = ask(&node2, Query::Epoch { epoch: 0 }, &peer).await?;
    println!("  ✓ Epoch {epoch}: {count} blocks");
    list(&blocks);

    println!("\n🔎 Asking Node 1 for blocks 3 to 7...");
    let range = Query::Range { from_index: 3, to_index: 7, chunk_size: 1000 };
    let RangeData { from_index, to_index, blocks, count, .. } = ask(&node2, range, &peer).await?;
    println!("  ✓ Range {from_index}-{to_index}: {count} blocks");
    list(&blocks);

    node2.stop().await;
    node1.stop().await;
    Ok(())
}

/// Block `index` of a made-up chain. Its hashes are plain text, as in the protocol's own document: such blocks pass
/// [`Level::None`] only.
fn block(index: u64) -> MinerBlock {
    MinerBlock {
        hash: format!("block_hash_{index:03}"),
        index,
        epoch: EpochNumbering::Plain.epoch(index),
        timestamp: 60 * index.cast_signed(),
        previous_hash: index.checked_sub(1).map_or("0".into(), |parent| format!("block_hash_{parent:03}")),
        data_hash: format!("data_hash_{index:03}"),
        nonce: (12_345 + index).into(),
        target_difficulty: 1000,
        actualized_difficulty: 1000,
        nominated_peer_id: format!("QmMiner{:02}", index % 10),
        miner_number: index,
        is_canonical: true,
        ..MinerBlock::default()
    }
}

async fn open(path: &Path) -> Result<Arc<dyn BlockStore>, StoreError> {
    store::open(&format!("sqlite://{}", path.display()), &OpenOptions::default()).await
}

/// Verifies and stores a whole chain. A real program verifies to [`Level::Pow`], and in a blocking thread.
async fn keep(store: &dyn BlockStore, blocks: Vec<MinerBlock>) -> Result<(), Box<dyn Error>> {
    let network = Network { genesis_hash: None, ..Network::default() };
    let verifier = Verifier::new(&network, Level::None, PowOptions::default()).map_err(VerifyError::from)?;
    let mut writer = store.write().await?;
    writer.append(verifier.verify(None, blocks)?).await?;
    writer.commit().await?;
    Ok(())
}

async fn start(name: &str, listen: &str, store: Arc<dyn BlockStore>) -> Result<Node, Box<dyn Error>> {
    let listen: Multiaddr = listen.parse()?;
    let config = Config { listen: vec![listen], ..Config::default() };
    let node = Node::start_with(&config, store, Keypair::generate_ed25519()).await?;
    println!("  ✓ {name}:");
    println!("    Peer ID: {}", node.p2p.local_peer_id());
    for address in node.p2p.listen_addresses() {
        println!("    Listening: {address}");
    }
    Ok(node)
}

/// The answer's `data`. It comes checked: the blocks asked for, in order, each once.
async fn ask<T: DeserializeOwned>(node: &Node, query: Query, origin: &Origin) -> Result<T, Box<dyn Error>> {
    let served = node.source.answer(query, origin, 0).await;
    let served = served.map_err(|SourceError { failure, answered_by }| format!("{answered_by}: {failure}"))?;
    Ok(serde_json::from_slice(served.data())?)
}

fn list(blocks: &[MinerBlock]) {
    for MinerBlock { index, epoch, nominated_peer_id, hash, .. } in blocks {
        println!("  Block {index:2}: epoch={epoch}, peer={nominated_peer_id}, hash={hash}");
    }
}

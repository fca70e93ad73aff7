//! The `demo` command: a node that mines and a gateway that follows it in one process, joined by real libp2p, each with
//! the bundled chain.

use std::{
    io::{self, Write},
    net::Ipv4Addr,
    path::Path,
    sync::Arc,
};

use libp2p::{Multiaddr, identity::Keypair, multiaddr::Protocol};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_util::sync::CancellationToken;

use super::{
    error::AppError,
    gateway::{Gateway, bind},
    node::{Mine, Node},
};
use crate::{
    chain::{MinerBlock, Network, VerifiedBlocks, Verifier},
    config::Config,
    p2p::{PeerAddress, Trust},
    store::{self, BlockStore, OpenOptions},
    telemetry::{self, notice},
};

/// Blocks 0 to 60 of a chain that the network's own miner made, one a line.
pub const BUNDLED_CHAIN: &str = include_str!("../../tests/fixtures/randomx-chain-61.ndjson");

/// What a path in a `sqlite://` URL has percent-encoded besides all that is not ASCII.
const NOT_IN_A_PATH: AsciiSet = NON_ALPHANUMERIC.remove(b'/');

/// Runs a node and a gateway until `shutdown`, on stores of their own that are gone afterwards. The network is that of
/// the bundled chain, and both sync with each other, whatever the settings say.
///
/// # Errors
/// Whatever keeps them from starting or ends them early.
pub async fn demo(config: Config, shutdown: CancellationToken) -> Result<(), AppError> {
    let config = Config { network: Network::devnet(), sync: true, trust: Trust::Open, ..config };
    let listeners = bind(&config).await?;
    notice(format_args!("verifying the bundled chain to `{}` ...", config.verify));
    let Some(chain) = shutdown.run_until_cancelled(verified_chain(&config)).await else { return Ok(()) };
    let chain = chain?;
    let folder = tempfile::tempdir().map_err(|error| AppError::Bundled(error.to_string()))?;

    let loopback = Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(0));
    let node_config = Config { listen: vec![loopback], peer: Vec::new(), ..config.clone() };
    let node_store = store_with(&folder.path().join("node.db"), chain.clone()).await?;
    let mut node = Node::start_with(&node_config, node_store, Keypair::generate_ed25519()).await?;

    let mut peers = config.peer.clone();
    for address in node.addresses() {
        peers.push(PeerAddress { alias: Some("node".into()), address });
    }
    let gateway_config = Config { listen: Vec::new(), peer: peers, ..config };
    let gateway_store = store_with(&folder.path().join("gateway.db"), chain).await?;
    let gateway_node = Node::start_with(&gateway_config, gateway_store, Keypair::generate_ed25519()).await?;
    let connected = gateway_node.p2p.wait_connected("node", gateway_config.peer_timeout);
    shutdown.run_until_cancelled(connected).await.transpose()?;
    let gateway = Gateway::open(gateway_node, listeners, &gateway_config);

    // Both stop at once after a shutdown during the start.
    if !shutdown.is_cancelled() {
        node.announce();
        // The addresses first: on a terminal they stand above the guide.
        telemetry::flush();
        print_guide(&gateway);
        node.mine(&node_config, &Mine { nominee: None, threads: 1 });
    }
    let node = tokio::spawn(node.run(shutdown.clone()));
    gateway.run(shutdown.clone()).await?;
    shutdown.cancel();
    node.await.unwrap_or(Err(AppError::Ended("node")))
}

async fn verified_chain(config: &Config) -> Result<VerifiedBlocks, AppError> {
    let (network, level, pow) = (config.network.clone(), config.verify, config.pow());
    let verify = move || {
        let blocks: Result<Vec<MinerBlock>, _> = BUNDLED_CHAIN.lines().map(serde_json::from_str).collect();
        let blocks = blocks.map_err(|error| error.to_string())?;
        let verifier = Verifier::new(&network, level, pow).map_err(|error| error.to_string())?;
        verifier.verify(None, blocks).map_err(|error| error.to_string())
    };
    let verified = tokio::task::spawn_blocking(verify).await;
    verified.unwrap_or_else(|error| Err(error.to_string())).map_err(AppError::Bundled)
}

async fn store_with(path: &Path, chain: VerifiedBlocks) -> Result<Arc<dyn BlockStore>, AppError> {
    let path = path.to_string_lossy();
    let url = format!("sqlite://{}", utf8_percent_encode(&path, &NOT_IN_A_PATH));
    let store = store::open(&url, &OpenOptions::default()).await?;
    let mut writer = store.write().await?;
    writer.append(chain).await?;
    writer.commit().await?;
    Ok(store)
}

fn print_guide(gateway: &Gateway) {
    let base = gateway.base();
    let hash = "0098469404e2f8e97f63bf0585b74495586e49001b7c00428b71a22d64a698f8";
    // It helps people; the demo runs on without a reader.
    let _ = writeln!(
        io::stdout(),
        "A node and a gateway are running, joined by libp2p, on a real chain of 61 blocks. The node mines another one every\n\
         few seconds, and the gateway follows.\n\
         \n  gateway  {base}\n  explorer {base}/\n  docs     {base}/docs\n  admin    http://{}\n\
         \nTry:\n\
         \n  curl '{base}/data/miner_block/epoch?epoch=0'\
         \n  curl -i '{base}/data/miner_block/range?from_index=3&to_index=7&peer=any'\
         \n  curl '{base}/data/miner_block/get?hash={hash}'\
         \n  curl -H 'accept: application/x-ndjson' '{base}/data/miner_block/canonical'\
         \n  curl '{base}/status'\
         \n  curl '{base}/sync'\
         \n  curl -N '{base}/events'\n\
         \nCtrl-C stops both.",
        gateway.admin
    );
}

//! The composition root: what starts, in which order; what stops, in reverse.
//!
//! A node is a store, a source, a swarm and what keeps the store in sync with the network; a gateway is a node with an HTTP
//! door. Each is started by a function that returns once every address is bound, so that tests run on port 0 and know
//! where.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    chain::{Network, PowError},
    config::Config,
    http::server::TlsError,
    p2p::{IdentityError, P2pError},
    store::StoreError,
    sync::MiningError,
};

mod demo;
mod gateway;
mod node;
mod reputation;

pub use demo::{BUNDLED_CHAIN, demo};
pub use gateway::Gateway;
pub(crate) use node::sync_settings;
pub use node::{Mine, Node};

/// How long a part may take to stop: requests in progress to finish, a transaction to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Why a node or gateway did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store can't be opened or written.
    #[error("store")]
    Store(#[from] StoreError),
    /// The identity file can't be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The swarm did not start.
    #[error(transparent)]
    P2p(#[from] P2pError),
    /// Proof of work can't be computed with these settings.
    #[error(transparent)]
    Pow(#[from] PowError),
    /// Mining has stopped by itself.
    #[error("mining")]
    Mining(#[from] MiningError),
    /// An address of ours is taken, or not ours.
    #[error("can't listen on {address} for {what}")]
    Bind {
        /// Which listener.
        what: &'static str,
        /// Its address as configured.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The admin listener would be open to others.
    #[error("admin: {0} is no loopback address: set admin_token or admin_token_file")]
    AdminNotLoopback(SocketAddr),
    /// The admin listener's token can't be used.
    #[error("admin_token_file: {} {problem}", path.display())]
    AdminToken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it. Never what it holds.
        problem: String,
    },
    /// The public door's certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A part that must run has ended.
    #[error("the {0} task ended unexpectedly")]
    Ended(&'static str),
    /// The bundled chain can't be put into a store.
    #[error("the bundled chain: {0}")]
    Bundled(String),
}

/// The `serve` command: a gateway until `shutdown`.
///
/// # Errors
/// Whatever keeps it from starting or ends it early.
pub async fn serve(config: Config, shutdown: CancellationToken) -> Result<(), AppError> {
    let gateway = Gateway::start(&config).await?;
    introduce(&config.network);
    eprintln!("http {}", gateway.base());
    eprintln!("admin http://{}", gateway.admin);
    announce(&gateway.node);
    gateway.run(shutdown).await
}

/// The `node` command: a node without HTTP until `shutdown`, which mines if it is told how.
///
/// # Errors
/// Whatever keeps it from starting or ends it early.
pub async fn node(config: Config, mine: Option<Mine>, shutdown: CancellationToken) -> Result<(), AppError> {
    let mut node = Node::start(&config).await?;
    if let Some(mine) = mine {
        node.mine(&config, &mine);
    }
    introduce(&config.network);
    announce(&node);
    node.run(shutdown).await
}

/// Says which network it is, and how to join the public one.
fn introduce(network: &Network) {
    match network.name.as_str() {
        "devnet" => {
            eprintln!("network devnet, that of the bundled chain; --network testnet joins the public test network")
        }
        name => eprintln!("network {name}"),
    }
}

/// Prints the addresses really bound, one a line.
fn announce(node: &Node) {
    for address in node.addresses() {
        eprintln!("libp2p {address}");
    }
    eprintln!("peer-id {}", node.p2p.local_peer_id());
}

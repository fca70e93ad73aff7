//! The composition root: what starts, in which order; what stops, in reverse.
//!
//! A node is a store, a source, a swarm and a sync with the network; a gateway is a node with an HTTP listener. Each is
//! started by a function that returns once every address is bound, so that tests run on port 0 and know where.

use tokio_util::sync::CancellationToken;

use crate::{chain::Network, config::Config, telemetry::notice};

mod demo;
mod error;
mod gateway;
mod node;
mod reputation;

pub use demo::{BUNDLED_CHAIN, demo};
pub use error::AppError;
pub use gateway::Gateway;
pub use node::{Mine, Node};
pub(crate) use node::{sync_settings, warn_of_other_network};

/// The `serve` command: a gateway until `shutdown`.
///
/// # Errors
/// Whatever keeps it from starting or ends it early.
pub async fn serve(config: Config, shutdown: CancellationToken) -> Result<(), AppError> {
    let Some(started) = shutdown.run_until_cancelled(Gateway::start(&config)).await else { return Ok(()) };
    let gateway = started?;
    introduce(&config.network);
    if config.sync && config.peers().is_empty() && !config.mdns {
        tracing::warn!(
            "no peer is configured: the chain in the store grows only if another node connects; name one with --peer, or a \
             network that has bootstrap peers with --network"
        );
    }
    notice(format_args!("http {}", gateway.base()));
    notice(format_args!("admin http://{}", gateway.admin));
    gateway.node.announce();
    gateway.run(shutdown).await
}

/// The `node` command: a node without HTTP until `shutdown`, which mines if `mine` says how.
///
/// # Errors
/// Whatever keeps it from starting or ends it early.
pub async fn node(config: Config, mine: Option<Mine>, shutdown: CancellationToken) -> Result<(), AppError> {
    let Some(started) = shutdown.run_until_cancelled(Node::start(&config)).await else { return Ok(()) };
    let mut node = started?;
    if let Some(mine) = mine {
        node.mine(&config, &mine);
    }
    introduce(&config.network);
    node.announce();
    node.run(shutdown).await
}

/// Says which network it is, and how to join the public one.
fn introduce(network: &Network) {
    match network.name.as_str() {
        "devnet" => {
            notice("network devnet, that of the bundled chain; --network testnet joins the public test network")
        }
        name => notice(format_args!("network {name}")),
    }
}

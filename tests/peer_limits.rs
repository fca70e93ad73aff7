//! The limits of the libp2p listeners against floods, private addresses, false claims and too many requests.

mod support;

#[path = "peer_limits/address_forms.rs"]
mod address_forms;
#[path = "peer_limits/admin.rs"]
mod admin;
#[path = "peer_limits/connection_counter.rs"]
mod connection_counter;
#[path = "peer_limits/flood.rs"]
mod flood;
#[path = "peer_limits/hostile_peer.rs"]
mod hostile_peer;
#[path = "peer_limits/private_addresses.rs"]
mod private_addresses;
#[path = "peer_limits/requests.rs"]
mod requests;
#[path = "peer_limits/requests_to_nodes.rs"]
mod requests_to_nodes;
#[path = "peer_limits/trust.rs"]
mod trust;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use modal_gateway::p2p::{self, Accepted, P2pClient, P2pConfig, Responder};
use tokio_util::sync::{CancellationToken, DropGuard};

use support::gateway::PATIENCE;

/// Answers with as many bytes as it is asked for, at once.
struct Long;

impl Responder for Long {
    fn accept(self: Arc<Self>, request: Bytes) -> Accepted {
        let length = std::str::from_utf8(&request).ok().and_then(|text| text.parse().ok());
        let answer = async move { length.map_or(request, |length| vec![b'x'; length].into()) };
        Accepted { cost: length.unwrap_or(0), answer: Box::pin(answer) }
    }
}

/// A node that runs until it is dropped.
struct Node {
    client: P2pClient,
    _running: DropGuard,
}

impl Node {
    async fn start(change: impl FnOnce(&mut P2pConfig)) -> Self {
        let mut config = P2pConfig::new(Keypair::generate_ed25519());
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        config.redial_min = Duration::from_millis(20);
        config.redial_max = Duration::from_millis(200);
        config.discovery_interval = Duration::from_millis(20);
        change(&mut config);
        let running = CancellationToken::new();
        let (client, _) = p2p::start(config, Arc::new(Long), running.clone()).await.unwrap();
        Self { client, _running: running.drop_guard() }
    }

    fn id(&self) -> PeerId {
        self.client.local_peer_id()
    }

    fn address(&self) -> Multiaddr {
        self.client.dial_addresses()[0].clone()
    }

    /// Connects, and waits until both know what the other speaks.
    async fn meet(&self, other: &Node) {
        self.client.dial(other.address()).await.unwrap();
        self.client.wait_connected(&other.id().to_string(), PATIENCE).await.unwrap();
        until("the other knows us", async || {
            other.client.peers().iter().any(|peer| peer.peer_id == Some(self.id().to_string()) && peer.agent.is_some())
        })
        .await;
    }

    fn is_connected(&self, other: &Node) -> bool {
        let id = Some(other.id().to_string());
        self.client.peers().iter().any(|peer| peer.peer_id == id && peer.connected)
    }
}

/// Looks again and again until it holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let looking = async {
        while !holds().await {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("in time: {what}"));
}

//! Our node among real peers: two of ours, and scripted ones that misbehave.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use modal_gateway::p2p::{self, Accepted, P2pClient, P2pConfig, P2pError, Responder};
use modal_gateway::protocol::MAX_RESPONSE_BYTES;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[path = "support/bytes_codec.rs"]
mod bytes_codec;
#[path = "support/clock.rs"]
mod clock;
#[path = "p2p/closing.rs"]
mod closing;
#[path = "p2p/compressed.rs"]
mod compressed;
#[path = "p2p/delayed.rs"]
mod delayed;
#[path = "p2p/dialling.rs"]
mod dialling;
#[path = "p2p/discovery.rs"]
mod discovery;
#[path = "p2p/gossip.rs"]
mod gossip;
#[path = "support/hole.rs"]
#[allow(dead_code, reason = "this program does not use all of it")]
mod hole;
#[path = "support/peer.rs"]
#[allow(dead_code, reason = "this program does not use all of it")]
mod peer;
#[path = "support/ports.rs"]
mod ports;
#[path = "p2p/requests.rs"]
mod requests;
#[path = "p2p/turns.rs"]
mod turns;

/// Longer than anything here takes, so that a test that fails does so by its assertion.
const PATIENCE: Duration = Duration::from_secs(20);
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const WEBSOCKET: &str = "/ip4/127.0.0.1/tcp/0/ws";

/// Answers with the request; `wait…` only after a permit; `long` with more than the protocol allows. Knows the swarm's
/// task.
struct Echo(Arc<Semaphore>, Arc<OnceLock<tokio::task::Id>>);

impl Responder for Echo {
    fn accept(self: Arc<Self>, request: Bytes) -> Accepted {
        // Called by the swarm's own task.
        assert_ne!(&request[..], b"die", "the swarm of a test");
        Accepted::short(async move {
            if request.starts_with(b"wait") {
                self.0.acquire().await.unwrap().forget();
            }
            match &request[..] {
                b"long" => vec![b'x'; MAX_RESPONSE_BYTES + 1].into(),
                b"full" => vec![b'x'; MAX_RESPONSE_BYTES].into(),
                b"panic" => panic!("the responder of a test"),
                _ => {
                    let own = tokio::task::try_id() == self.1.get().copied();
                    assert!(!own || request.len() <= 32 << 10, "long ones keep the swarm's task from its work");
                    request
                }
            }
        })
    }
}

struct Node {
    client: P2pClient,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
    gate: Arc<Semaphore>,
}

impl Node {
    async fn try_start(change: impl FnOnce(&mut P2pConfig)) -> Result<Self, P2pError> {
        let mut config = P2pConfig::new(Keypair::generate_ed25519());
        config.redial_min = Duration::from_millis(20);
        config.discovery_interval = Duration::from_millis(20);
        change(&mut config);
        let (shutdown, gate) = (CancellationToken::new(), Arc::new(Semaphore::new(0)));
        let own = Arc::new(OnceLock::new());
        let (client, task) = p2p::start(config, Arc::new(Echo(gate.clone(), own.clone())), shutdown.clone()).await?;
        own.set(task.id()).unwrap();
        Ok(Self { client, task, shutdown, gate })
    }

    async fn start(change: impl FnOnce(&mut P2pConfig)) -> Self {
        Self::try_start(change).await.unwrap()
    }

    async fn listening(on: &str) -> Self {
        Self::start(|config| config.listen = vec![on.parse().unwrap()]).await
    }

    /// A node that knows `address` as `alias`, connected with it.
    async fn knowing(alias: &str, address: &Multiaddr) -> Self {
        let node = Self::start(|config| config.peers = vec![format!("{alias}={address}").parse().unwrap()]).await;
        node.client.wait_connected(alias, PATIENCE).await.unwrap();
        node
    }

    fn address(&self) -> Multiaddr {
        self.client.dial_addresses()[0].clone()
    }

    async fn ask(&self, alias: &str, request: impl Into<Bytes>) -> Result<Bytes, P2pError> {
        self.client.request(self.client.find(alias).unwrap(), request.into(), PATIENCE).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// Waits for `condition` to hold, looking again whenever a peer comes or goes.
async fn until(client: &P2pClient, condition: impl Fn(&P2pClient) -> bool) {
    let mut changes = client.changes();
    tokio::time::timeout(PATIENCE, async {
        while !condition(client) {
            changes.changed().await.unwrap();
        }
    })
    .await
    .expect("the condition came to hold");
}

/// Tries until `attempt` gives something.
async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let tried = async {
        loop {
            if let Some(result) = attempt().await {
                return result;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, tried).await.expect("it happens in time")
}

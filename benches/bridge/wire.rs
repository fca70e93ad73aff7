//! Requests over libp2p: our client asks our nodes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use libp2p::{Multiaddr, identity::Keypair};
use modal_gateway::{
    app::Node,
    config::Config,
    p2p::{self, Accepted, P2pClient, P2pConfig, PeerAddress, Responder},
    protocol::{Query, encode_request},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{KINDS, Kind, LENGTHS, QUESTIONS, Stores},
    measure::{Ask, Contender, Outcome, Pace, Rates, Table, Target, contender, thousands},
};

/// Requests in flight that are measured.
pub const IN_FLIGHT: [usize; 2] = [4, 32];
/// Longest wait for a connection or an answer.
const WAIT: Duration = Duration::from_secs(20);

/// Whether a node keeps encoded answers: as it does by default, or not at all.
#[derive(Clone, Copy, PartialEq)]
pub enum Cache {
    Default,
    Off,
}

/// A node over each store with the default cache, and another one without; and a client that is connected to all.
pub struct Nodes {
    nodes: Vec<(Kind, usize, Cache, Node)>,
    client: P2pClient,
    shutdown: CancellationToken,
    swarm: JoinHandle<()>,
}

/// Nobody asks the client.
pub struct Mute;

impl Responder for Mute {
    fn accept(self: Arc<Self>, _: Bytes) -> Accepted {
        Accepted::short(async { Bytes::new() })
    }
}

impl Nodes {
    /// Starts them on loopback and waits until they know each other.
    pub async fn start(stores: &Stores) -> Outcome<Self> {
        let listen: Vec<Multiaddr> = vec!["/ip4/127.0.0.1/tcp/0".parse()?];
        let (mut nodes, mut peers) = (Vec::new(), Vec::new());
        for (kind, _) in KINDS {
            for length in LENGTHS {
                for cache in [Cache::Default, Cache::Off] {
                    // What one peer may have is nothing to measure here.
                    let default = Config { listen: listen.clone(), peer_rate_limit: 0, ..Config::default() };
                    let config = match cache {
                        Cache::Default => default,
                        Cache::Off => Config { cache_mib: 0, ..default },
                    };
                    let store = stores.get(kind, length)?;
                    let node = Node::start_with(&config, store, Keypair::generate_ed25519()).await?;
                    peers.extend(node.addresses().into_iter().map(|address| PeerAddress { alias: None, address }));
                    nodes.push((kind, length, cache, node));
                }
            }
        }
        let shutdown = CancellationToken::new();
        let config = P2pConfig { peers, ..P2pConfig::new(Keypair::generate_ed25519()) };
        let (client, swarm) = p2p::start(config, Arc::new(Mute), shutdown.clone()).await?;
        for (.., node) in &nodes {
            client.wait_connected(&node.p2p.local_peer_id().to_string(), WAIT).await?;
        }
        Ok(Self { nodes, client, shutdown, swarm })
    }

    /// The node over this store.
    pub fn get(&self, kind: Kind, length: usize, cache: Cache) -> Outcome<&Node> {
        let mut nodes = self.nodes.iter();
        let found = nodes.find(|(is, has, with, _)| (*is, *has, *with) == (kind, length, cache));
        Ok(&found.ok_or("no such node")?.3)
    }

    /// Our client, asking `node`.
    pub fn contender(
        &self,
        node: &Node,
        in_flight: usize,
        asker: impl Fn() -> Query + Send + Sync + 'static,
    ) -> Contender {
        let (client, peer) = (self.client.clone(), node.p2p.local_peer_id());
        let ask: Ask = Arc::new(move || {
            let (client, request) = (client.clone(), encode_request(&asker()));
            Box::pin(async move {
                let answer = client.request(peer, request, WAIT).await?;
                if answer.starts_with(br#"{"ok":true,"#) { Ok(()) } else { Err("a request was declined".into()) }
            })
        });
        contender(in_flight, ask)
    }

    /// Stops the nodes, and closes their stores.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let _ = self.swarm.await;
        for (.., node) in self.nodes {
            node.stop().await;
        }
    }
}

/// Requests per second over the length of the chain.
pub async fn run(stores: &Stores, nodes: &Nodes, pace: Pace) -> Outcome<String> {
    let mut target = Target::at_most(1.3);
    let uncached = table(stores, nodes, pace, Cache::Off, |ratio| target.check(ratio)).await?;
    let cached = table(stores, nodes, pace, Cache::Default, |ratio| format!("{ratio:.2}")).await?;
    Ok(format!(
        "#### Over libp2p, every answer read from the store: requests a second, by blocks in the chain\n\n{uncached}\n\
         Hashes, epochs and indexes at random over the whole chain. {target}\n\n\
         #### Over libp2p, default cache of 32 MiB: requests a second, by blocks in the chain\n\n{cached}\n\
         Likewise at random over the whole chain: of the short one all answers are soon in the cache, of the long one most \
         never are. The last column is what a cached answer saves, not what a longer chain costs.\n"
    ))
}

async fn table(
    stores: &Stores,
    nodes: &Nodes,
    pace: Pace,
    cache: Cache,
    mut show: impl FnMut(f64) -> String,
) -> Outcome<Table> {
    let columns = ["store", "request", "in flight", "1,000", "10,000", "100,000", "cost 100,000 : 1,000"];
    let mut table = Table::new(2, &columns);
    for (kind, store_name) in KINDS {
        for (question, name) in QUESTIONS {
            for in_flight in IN_FLIGHT {
                let mut contenders = Vec::new();
                for length in LENGTHS {
                    let node = nodes.get(kind, length, cache)?;
                    contenders.push(nodes.contender(node, in_flight, stores.asker(question, length)));
                }
                let rates = Rates::measure(&contenders, pace).await?;
                let mut row = vec![store_name.to_owned(), name.to_owned(), in_flight.to_string()];
                row.extend((0..LENGTHS.len()).map(|length| thousands(rates.of(length))));
                row.push(show(rates.ratio(0, LENGTHS.len() - 1)));
                table.row(row);
            }
        }
    }
    Ok(table)
}

//! A peer that is real libp2p and tells lies about where nodes are.

use futures::StreamExt;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, SwarmBuilder, identify, kad, noise, tcp, yamux};
use modal_gateway::protocol::IDENTIFY_PROTOCOL;
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    kad: kad::Behaviour<kad::store::MemoryStore>,
}

/// Gone when dropped.
pub struct Hostile {
    pub address: Multiaddr,
    pub id: PeerId,
    _stop: DropGuard,
}

impl Hostile {
    /// A node that says of itself that it listens on `own`, and of nodes that nobody knows that they are at `others`.
    pub async fn start(own: &[Multiaddr], others: &[Multiaddr]) -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key| {
                let id = key.public().to_peer_id();
                let mut kad = kad::Behaviour::new(id, kad::store::MemoryStore::new(id));
                kad.set_mode(Some(kad::Mode::Server));
                // Each node has a few: an answer has room for twenty nodes.
                for addresses in others.chunks(others.len().div_ceil(16).max(1)) {
                    let fake = PeerId::random();
                    for address in addresses {
                        kad.add_address(&fake, address.clone());
                    }
                }
                let identify = identify::Config::new(IDENTIFY_PROTOCOL.into(), key.public());
                // It never dials: else it would look for those of whom it tells.
                let limits = ConnectionLimits::default().with_max_pending_outgoing(Some(0));
                Behaviour {
                    limits: connection_limits::Behaviour::new(limits),
                    identify: identify::Behaviour::new(identify),
                    kad,
                }
            })
            .unwrap()
            .build();
        for address in own {
            swarm.add_external_address(address.clone());
        }
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let id = *swarm.local_peer_id();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.with_p2p(id).unwrap();
            }
        };
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                swarm.select_next_some().await;
            }
        }));
        Self { address, id, _stop: guard }
    }
}

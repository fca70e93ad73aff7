//! Peers to sync from: one of the network's own protocol and nothing else, over a bare swarm, and one of our nodes.

use std::sync::Arc;

use futures::prelude::*;
use libp2p::{
    Multiaddr, StreamProtocol, SwarmBuilder, identify,
    identity::Keypair,
    noise,
    request_response::{self, Event, Message, ProtocolSupport},
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use modal_gateway::{
    app::Node,
    config::Config,
    p2p::Responder,
    protocol::{IDENTIFY_PROTOCOL, PROTOCOL},
    source::LocalSource,
    store::BlockStore,
};
use tokio::task::JoinHandle;

use crate::{bytes_codec::BytesCodec, measure::Outcome};

#[derive(NetworkBehaviour)]
struct Behaviour {
    requests: request_response::Behaviour<BytesCodec>,
    identify: identify::Behaviour,
}

/// Answers from `source`. Gone when dropped.
pub struct Plain {
    /// Where it listens, with its id.
    pub address: Multiaddr,
    task: JoinHandle<()>,
}

impl Plain {
    /// Starts on a free port of loopback.
    pub async fn start(source: Arc<LocalSource>) -> Outcome<Self> {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
            .with_behaviour(|key| Behaviour {
                requests: request_response::Behaviour::new(
                    [(StreamProtocol::new(PROTOCOL), ProtocolSupport::Full)],
                    request_response::Config::default(),
                ),
                identify: identify::Behaviour::new(identify::Config::new(IDENTIFY_PROTOCOL.into(), key.public())),
            })?
            .with_swarm_config(|config| config.with_idle_connection_timeout(std::time::Duration::from_secs(3600)))
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.with_p2p(*swarm.local_peer_id()).map_err(|_| "an address with an id")?;
            }
        };
        let task = tokio::spawn(async move {
            let (finished, mut answers) = tokio::sync::mpsc::channel(64);
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => {
                        if let SwarmEvent::Behaviour(BehaviourEvent::Requests(Event::Message {
                            message: Message::Request { request, channel, .. }, ..
                        })) = event {
                            let (source, finished) = (source.clone(), finished.clone());
                            tokio::spawn(async move {
                                let _ = finished.send((channel, source.accept(request).answer.await)).await;
                            });
                        }
                    }
                    Some((channel, answer)) = answers.recv() => {
                        // Whoever asked may be gone.
                        let _ = swarm.behaviour_mut().requests.send_response(channel, answer);
                    }
                }
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A node that serves `store`, which it closes when it stops, and does nothing else. One peer may have as much as it
/// can take.
pub async fn serving(store: Arc<dyn BlockStore>) -> Outcome<Node> {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse()?];
    let config = Config { listen, sync: false, peer_rate_limit: 0, ..Config::default() };
    Ok(Node::start_with(&config, store, Keypair::generate_ed25519()).await?)
}

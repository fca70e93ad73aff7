//! Peers that do as a test says: real libp2p, on a swarm of its own that shares nothing with ours but the library.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::prelude::*;
use libp2p::request_response::{self, Message, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, SwarmBuilder, identify, noise, tcp, yamux};
use modal_gateway::protocol::{IDENTIFY_PROTOCOL, PROTOCOL};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::bytes_codec::BytesCodec;

/// What a scripted peer does with a request.
pub enum Reply {
    /// Answers with this document.
    Json(Value),
    /// Answers with these bytes: garbage, half a document, or more than the protocol allows.
    Raw(Bytes),
    /// Never answers, and keeps the stream open.
    Silence,
    /// Ends the stream without an answer.
    Close,
}

/// A peer that answers each request as its script says. Gone when dropped.
pub struct ScriptedPeer {
    /// Its id.
    pub peer_id: PeerId,
    /// Where it listens, `/p2p/ID` included.
    pub address: Multiaddr,
    requests: Arc<Mutex<Vec<Value>>>,
    _stop: DropGuard,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    requests: request_response::Behaviour<BytesCodec>,
    identify: identify::Behaviour,
}

impl ScriptedPeer {
    /// A peer of the network's protocol on a free port of 127.0.0.1.
    pub async fn start(script: impl Fn(Value) -> Reply + Send + Sync + 'static) -> Self {
        Self::speaking(PROTOCOL, script).await
    }

    /// A peer that speaks another protocol.
    pub async fn speaking(protocol: &'static str, script: impl Fn(Value) -> Reply + Send + Sync + 'static) -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key| Behaviour {
                requests: request_response::Behaviour::new(
                    [(StreamProtocol::new(protocol), ProtocolSupport::Full)],
                    request_response::Config::default(),
                ),
                identify: identify::Behaviour::new(identify::Config::new(IDENTIFY_PROTOCOL.into(), key.public())),
            })
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(std::time::Duration::from_secs(60)))
            .build();
        let peer_id = *swarm.local_peer_id();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.with_p2p(peer_id).unwrap();
            }
        };
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, stop) = (Arc::clone(&requests), CancellationToken::new());
        let guard = stop.clone().drop_guard();
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            let mut silent = Vec::new();
            loop {
                let event = swarm.select_next_some().await;
                let SwarmEvent::Behaviour(BehaviourEvent::Requests(request_response::Event::Message {
                    message: Message::Request { request, channel, .. },
                    ..
                })) = event
                else {
                    continue;
                };
                let request = serde_json::from_slice(&request)
                    .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&request).into()));
                log.lock().unwrap().push(request.clone());
                let answer = match script(request) {
                    Reply::Json(value) => Bytes::from(serde_json::to_vec(&value).unwrap()),
                    Reply::Raw(bytes) => bytes,
                    Reply::Silence => {
                        silent.push(channel);
                        continue;
                    }
                    Reply::Close => continue,
                };
                // The other side may be gone; that is its business.
                let _ = swarm.behaviour_mut().requests.send_response(channel, answer);
            }
        }));
        Self { peer_id, address, requests, _stop: guard }
    }

    /// The requests received so far, in order; what is no JSON as a string.
    pub fn requests(&self) -> Vec<Value> {
        self.requests.lock().unwrap().clone()
    }
}

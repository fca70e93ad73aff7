//! Peers that do as a test says: real libp2p, on a swarm of its own that shares nothing with ours but the library.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::prelude::*;
use libp2p::request_response::{self, Message, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, gossipsub, identify, noise, tcp, yamux};
use modal_gateway::protocol::{IDENTIFY_PROTOCOL, PROTOCOL};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
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
    publish: mpsc::UnboundedSender<Value>,
    heard: watch::Receiver<Vec<Value>>,
    _stop: DropGuard,
}

/// Where the network's nodes tell each other of new blocks.
const TOPIC: &str = "/miner/block";

#[derive(NetworkBehaviour)]
struct Behaviour {
    requests: request_response::Behaviour<BytesCodec>,
    identify: identify::Behaviour,
    gossip: gossipsub::Behaviour,
}

impl ScriptedPeer {
    /// A peer of the network's protocol on a free port of 127.0.0.1.
    pub async fn start(script: impl Fn(Value) -> Reply + Send + Sync + 'static) -> Self {
        Self::speaking(PROTOCOL, script).await
    }

    /// A peer that speaks another protocol.
    pub async fn speaking(protocol: &'static str, script: impl Fn(Value) -> Reply + Send + Sync + 'static) -> Self {
        let mut swarm = swarm(protocol);
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
        let (publish, publications) = mpsc::unbounded_channel();
        let (tell, heard) = watch::channel(Vec::new());
        let answer = move |request: Bytes| {
            let request = serde_json::from_slice(&request)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&request).into()));
            log.lock().unwrap().push(request.clone());
            script(request)
        };
        tokio::spawn(stop.run_until_cancelled_owned(run(swarm, answer, publications, tell)));
        Self { peer_id, address, requests, publish, heard, _stop: guard }
    }

    /// Tells a block to whoever listens, now or as soon as somebody does.
    pub fn publish(&self, message: Value) {
        self.publish.send(message).unwrap();
    }

    /// What others told, or passed on.
    pub fn heard(&self) -> watch::Receiver<Vec<Value>> {
        self.heard.clone()
    }

    /// The requests received so far, in order; what is no JSON as a string.
    pub fn requests(&self) -> Vec<Value> {
        self.requests.lock().unwrap().clone()
    }
}

async fn run(
    mut swarm: Swarm<Behaviour>,
    answer: impl Fn(Bytes) -> Reply,
    mut publications: mpsc::UnboundedReceiver<Value>,
    tell: watch::Sender<Vec<Value>>,
) {
    let (mut silent, mut unsent) = (Vec::new(), Vec::new());
    loop {
        let event = tokio::select! {
            event = swarm.select_next_some() => event,
            Some(message) = publications.recv() => {
                unsent.push(message);
                send(&mut swarm, &mut unsent);
                continue;
            }
        };
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Requests(request_response::Event::Message {
                message: Message::Request { request, channel, .. },
                ..
            })) => {
                let bytes = match answer(request) {
                    Reply::Json(value) => Bytes::from(serde_json::to_vec(&value).unwrap()),
                    Reply::Raw(bytes) => bytes,
                    Reply::Silence => {
                        silent.push(channel);
                        continue;
                    }
                    Reply::Close => continue,
                };
                // The other side may be gone; that is its business.
                let _ = swarm.behaviour_mut().requests.send_response(channel, bytes);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Subscribed { .. })) => {
                send(&mut swarm, &mut unsent);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Message { message, .. })) => {
                let text = || Value::String(String::from_utf8_lossy(&message.data).into());
                tell.send_modify(|heard| heard.push(serde_json::from_slice(&message.data).unwrap_or_else(|_| text())));
            }
            _ => {}
        }
    }
}

/// Publishes what waits, if somebody listens.
fn send(swarm: &mut Swarm<Behaviour>, unsent: &mut Vec<Value>) {
    unsent.retain(|message| {
        let data = serde_json::to_vec(message).unwrap();
        swarm.behaviour_mut().gossip.publish(gossipsub::IdentTopic::new(TOPIC), data).is_err()
    });
}

fn swarm(protocol: &'static str) -> Swarm<Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| {
            let author = gossipsub::MessageAuthenticity::Signed(key.clone());
            let mut gossip = gossipsub::Behaviour::new(author, gossipsub::Config::default()).unwrap();
            gossip.subscribe(&gossipsub::IdentTopic::new(TOPIC)).unwrap();
            Behaviour {
                requests: request_response::Behaviour::new(
                    [(StreamProtocol::new(protocol), ProtocolSupport::Full)],
                    request_response::Config::default(),
                ),
                identify: identify::Behaviour::new(identify::Config::new(IDENTIFY_PROTOCOL.into(), key.public())),
                gossip,
            }
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(std::time::Duration::from_secs(60)))
        .build()
}

/// The answer to a request from a node that knows the network's protocol and no other.
pub async fn ask_plainly(address: &Multiaddr, request: Bytes) -> Bytes {
    let mut swarm = swarm(PROTOCOL);
    swarm.dial(address.clone()).unwrap();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                swarm.behaviour_mut().requests.send_request(&peer_id, request.clone());
            }
            SwarmEvent::Behaviour(BehaviourEvent::Requests(request_response::Event::Message {
                message: Message::Response { response, .. },
                ..
            })) => return response,
            SwarmEvent::Behaviour(BehaviourEvent::Requests(request_response::Event::OutboundFailure {
                error, ..
            })) => panic!("{error}"),
            _ => {}
        }
    }
}

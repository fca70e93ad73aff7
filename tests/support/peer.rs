//! Peers that do as a test says: real libp2p, on a swarm of its own that shares nothing with ours but the library.

use std::collections::VecDeque;
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
    /// Answers with this document once it is [released](ScriptedPeer::release).
    Held(Value),
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
    release: mpsc::UnboundedSender<usize>,
    figures: watch::Receiver<Figures>,
    _stop: DropGuard,
}

/// What happened to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Connections that stand.
    pub connections: usize,
    /// Requests that it has not answered.
    pub open: usize,
    /// The most of them at once.
    pub most_open: usize,
    /// Answers that it could not give any more, for the connection was gone: each ends a real node for good.
    pub lost: usize,
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
        let (release, released) = mpsc::unbounded_channel();
        let (count, figures) = watch::channel(Figures::default());
        let answer = move |request: Bytes| {
            let request = serde_json::from_slice(&request)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&request).into()));
            log.lock().unwrap().push(request.clone());
            script(request)
        };
        tokio::spawn(stop.run_until_cancelled_owned(run(swarm, answer, publications, tell, released, count)));
        Self { peer_id, address, requests, publish, heard, release, figures, _stop: guard }
    }

    /// Tells a block to whoever listens, now or as soon as somebody does.
    pub fn publish(&self, message: Value) {
        self.publish.send(message).unwrap();
    }

    /// What others told, or passed on.
    pub fn heard(&self) -> watch::Receiver<Vec<Value>> {
        self.heard.clone()
    }

    /// Gives so many of the answers that are held, the oldest first; those as well that are yet to be asked for.
    pub fn release(&self, count: usize) {
        self.release.send(count).unwrap();
    }

    /// What happened so far.
    pub fn figures(&self) -> Figures {
        *self.figures.borrow()
    }

    /// Waits until this holds of what happened.
    pub async fn until(&self, holds: impl Fn(&Figures) -> bool) {
        let mut figures = self.figures.clone();
        let told = tokio::time::timeout(std::time::Duration::from_secs(20), figures.wait_for(holds)).await;
        told.unwrap_or_else(|_| panic!("it comes to hold in time: {:?}", self.figures())).unwrap();
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
    mut released: mpsc::UnboundedReceiver<usize>,
    figures: watch::Sender<Figures>,
) {
    let (mut silent, mut unsent) = (Vec::new(), Vec::new());
    let (mut held, mut credit) = (VecDeque::new(), 0);
    loop {
        let event = tokio::select! {
            event = swarm.select_next_some() => event,
            Some(more) = released.recv() => {
                credit += more;
                give(&mut swarm, &mut held, &mut credit, &figures);
                continue;
            }
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
                figures.send_modify(|figures| {
                    figures.open += 1;
                    figures.most_open = figures.most_open.max(figures.open);
                });
                let bytes = match answer(request) {
                    Reply::Held(value) => {
                        held.push_back((channel, Bytes::from(serde_json::to_vec(&value).unwrap())));
                        give(&mut swarm, &mut held, &mut credit, &figures);
                        continue;
                    }
                    Reply::Json(value) => Bytes::from(serde_json::to_vec(&value).unwrap()),
                    Reply::Raw(bytes) => bytes,
                    Reply::Silence => {
                        silent.push(channel);
                        continue;
                    }
                    Reply::Close => {
                        figures.send_modify(|figures| figures.open -= 1);
                        continue;
                    }
                };
                held.push_front((channel, bytes));
                give(&mut swarm, &mut held, &mut 1, &figures);
            }
            SwarmEvent::ConnectionEstablished { .. } => figures.send_modify(|figures| figures.connections += 1),
            SwarmEvent::ConnectionClosed { .. } => figures.send_modify(|figures| figures.connections -= 1),
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

type Channel = request_response::ResponseChannel<Bytes>;

/// Gives as many of the answers as there is credit for.
fn give(
    swarm: &mut Swarm<Behaviour>,
    held: &mut VecDeque<(Channel, Bytes)>,
    credit: &mut usize,
    figures: &watch::Sender<Figures>,
) {
    while *credit > 0 {
        let Some((channel, bytes)) = held.pop_front() else { break };
        *credit -= 1;
        // The other side may be gone.
        let lost = swarm.behaviour_mut().requests.send_response(channel, bytes).is_err();
        figures.send_modify(|figures| {
            figures.open -= 1;
            figures.lost += usize::from(lost);
        });
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

//! The swarm, and the one task that does everything with it, as in a real node: while it works at a request, all else
//! waits; when it ends, nothing does its work any more.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, gossipsub, identify,
    identity::Keypair,
    kad,
    multiaddr::Protocol,
    noise, ping,
    request_response::{self, Message, OutboundRequestId, ProtocolSupport, ResponseChannel, json},
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{GossipBlock, Heard, Request, Response, Role, Setup, Store, Switches, Transport, hear, syncing};

const PROTOCOL: &str = "/modality-network/reqres/0.0.1";
const TOPIC: &str = "/miner/block";

/// Events of a connection that wait for the task. libp2p's default, which real nodes have, is 7: what is in flight
/// beyond waits in the connection, and only some of it kills the node when that closes, by chance. Here all of it does.
const EVENTS: usize = 256;

/// How long a node waits before it asks the sender of an orphan; the least of what it draws. Its networking waits with
/// it.
const ORPHAN_DELAY: Duration = Duration::from_millis(100);

/// What has ended a node's networking for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Death {
    /// The asker of a request on this path was gone when it was to be answered.
    AskerLeft(String),
    /// A gossip message that is no block.
    Unreadable(String),
    /// A request on which the node fails.
    Panicked(&'static str),
}

/// What the task shares with the test.
pub(super) struct Shared {
    pub(super) store: Mutex<Store>,
    pub(super) switches: Switches,
    pub(super) changed: watch::Sender<u64>,
    pub(super) heard: watch::Sender<Vec<Value>>,
    pub(super) requests: watch::Sender<Vec<Request>>,
    pub(super) listeners: watch::Sender<HashSet<PeerId>>,
    pub(super) death: watch::Sender<Option<Death>>,
    pub(super) most_at_once: AtomicUsize,
}

impl Shared {
    pub(super) fn new(store: Store, setup: &Setup) -> Self {
        Self {
            store: Mutex::new(store),
            switches: setup.switches.clone(),
            changed: watch::Sender::default(),
            heard: watch::Sender::default(),
            requests: watch::Sender::default(),
            listeners: watch::Sender::default(),
            death: watch::Sender::default(),
            most_at_once: AtomicUsize::default(),
        }
    }

    /// Tells whoever waits for it that the store has changed.
    pub(super) fn change(&self) {
        self.changed.send_modify(|version| *version += 1);
    }
}

/// What the rest of the node wants of its networking.
pub(super) enum Command {
    Publish(Vec<u8>),
    Ask { peer: PeerId, request: Request, reply: oneshot::Sender<Response> },
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    requests: json::Behaviour<Request, Response>,
    gossip: gossipsub::Behaviour,
    kademlia: kad::Behaviour<kad::store::MemoryStore>,
}

/// Starts the task; where it listens.
pub(super) async fn start(
    key: Keypair,
    setup: &Setup,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> (mpsc::UnboundedSender<Command>, Multiaddr) {
    let mut swarm = swarm(key, setup).await;
    let listen = match setup.transport {
        Transport::Tcp => "/ip4/127.0.0.1/tcp/0",
        Transport::WebSocket => "/ip4/127.0.0.1/tcp/0/ws",
    };
    swarm.listen_on(listen.parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    swarm.add_external_address(address.clone());
    let address = address.with_p2p(*swarm.local_peer_id()).unwrap();
    let mut bootstrap = Vec::new();
    for address in &setup.bootstrap {
        let Some(Protocol::P2p(peer)) = address.iter().last() else { panic!("{address}: no peer id") };
        swarm.add_peer_address(peer, address.clone());
        swarm.behaviour_mut().kademlia.add_address(&peer, address.clone());
        // Whoever isn't there yet is dialled when it is asked.
        let _ = swarm.dial(address.clone());
        bootstrap.push(peer);
    }
    let (commands, wishes) = mpsc::unbounded_channel();
    let (sync, wanted) = mpsc::unbounded_channel();
    let node = Node {
        swarm,
        shared: shared.clone(),
        bootstrap: bootstrap.clone(),
        sync,
        asked: HashMap::new(),
        working: FuturesUnordered::new(),
    };
    tokio::spawn(stop.clone().run_until_cancelled_owned(node.run(wishes)));
    tokio::spawn(stop.run_until_cancelled_owned(syncing::run(wanted, setup.role, bootstrap, shared, commands.clone())));
    (commands, address)
}

struct Node {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    bootstrap: Vec<PeerId>,
    sync: mpsc::UnboundedSender<PeerId>,
    asked: HashMap<OutboundRequestId, oneshot::Sender<Response>>,
    /// Requests at work, where there may be several.
    working: FuturesUnordered<BoxFuture<'static, (Request, ResponseChannel<Response>)>>,
}

impl Node {
    async fn run(mut self, mut wishes: mpsc::UnboundedReceiver<Command>) {
        let Err(death) = self.work(&mut wishes).await;
        self.shared.death.send_replace(Some(death));
        // Its sockets and connections stay as they are: nobody looks after them any more.
        std::future::pending::<()>().await;
        drop(self);
    }

    async fn work(&mut self, wishes: &mut mpsc::UnboundedReceiver<Command>) -> Result<std::convert::Infallible, Death> {
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event).await?,
                Some(wish) = wishes.recv() => self.on_wish(wish),
                Some((request, channel)) = self.working.next() => self.answer(request, channel)?,
            }
        }
    }

    fn on_wish(&mut self, wish: Command) {
        match wish {
            Command::Publish(data) => {
                // As in a real node: who publishes to nobody is not told.
                let _ = self.swarm.behaviour_mut().gossip.publish(gossipsub::IdentTopic::new(TOPIC), data);
            }
            Command::Ask { peer, request, reply } => {
                let id = self.swarm.behaviour_mut().requests.send_request(&peer, request);
                self.asked.insert(id, reply);
            }
        }
    }

    async fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) -> Result<(), Death> {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Requests(event)) => match event {
                request_response::Event::Message { message: Message::Request { request, channel, .. }, .. } => {
                    return self.on_request(request, channel).await;
                }
                request_response::Event::Message { message: Message::Response { request_id, response }, .. } => {
                    if let Some(reply) = self.asked.remove(&request_id) {
                        // Whoever asked may have given up.
                        let _ = reply.send(response);
                    }
                }
                request_response::Event::OutboundFailure { request_id, .. } => drop(self.asked.remove(&request_id)),
                _ => {}
            },
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => match event {
                gossipsub::Event::Message { message, .. } => return self.on_gossip(message).await,
                gossipsub::Event::Subscribed { peer_id, .. } => {
                    self.shared.listeners.send_if_modified(|listeners| listeners.insert(peer_id));
                }
                gossipsub::Event::Unsubscribed { peer_id, .. } => {
                    self.shared.listeners.send_if_modified(|listeners| listeners.remove(&peer_id));
                }
                _ => {}
            },
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.shared.listeners.send_if_modified(|listeners| listeners.remove(&peer_id));
            }
            _ => {}
        }
        Ok(())
    }

    async fn on_request(&mut self, request: Request, channel: ResponseChannel<Response>) -> Result<(), Death> {
        self.shared.requests.send_modify(|requests| requests.push(request.clone()));
        // What a request costs a real node: the time itself is what is simulated, and no test waits for it.
        let time = self.shared.switches.service_time;
        if self.shared.switches.one_at_a_time {
            self.shared.most_at_once.fetch_max(1, Ordering::Relaxed);
            tokio::time::sleep(time).await;
            return self.answer(request, channel);
        }
        self.working.push(Box::pin(async move {
            tokio::time::sleep(time).await;
            (request, channel)
        }));
        self.shared.most_at_once.fetch_max(self.working.len(), Ordering::Relaxed);
        Ok(())
    }

    fn answer(&mut self, request: Request, channel: ResponseChannel<Response>) -> Result<(), Death> {
        let answer = self.shared.store.lock().unwrap().answer(&request, &self.shared.switches);
        let response = answer.map_err(|fault| Death::Panicked(fault.0))?;
        let sent = self.swarm.behaviour_mut().requests.send_response(channel, response);
        if sent.is_err() && self.shared.switches.dies_when_an_asker_leaves {
            return Err(Death::AskerLeft(request.path));
        }
        Ok(())
    }

    async fn on_gossip(&mut self, message: gossipsub::Message) -> Result<(), Death> {
        let text = String::from_utf8_lossy(&message.data).into_owned();
        let value = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.clone()));
        self.shared.heard.send_modify(|heard| heard.push(value));
        let told: GossipBlock = serde_json::from_str(&text).map_err(|_| Death::Unreadable(text))?;
        let block = told.into_block(&self.shared.switches);
        let heard = hear(&mut self.shared.store.lock().unwrap(), block);
        match heard {
            Heard::Extended | Heard::Replaced => self.shared.change(),
            Heard::Orphan => {
                if let Some(author) = message.source.filter(|author| self.bootstrap.contains(author)) {
                    // A real node pauses here, and does nothing else meanwhile.
                    tokio::time::sleep(ORPHAN_DELAY).await;
                    // Ends with this task.
                    let _ = self.sync.send(author);
                }
            }
            Heard::Known | Heard::Lost | Heard::Refused => {}
        }
        Ok(())
    }
}

async fn swarm(key: Keypair, setup: &Setup) -> Swarm<Behaviour> {
    let role = match setup.role {
        Role::Miner => "Miner",
        Role::Observer => "Observer",
    };
    let agent = format!("modal-node/0.1.0;status_url=http://127.0.0.1:1;role={role}");
    let timeout = setup.switches.request_timeout;
    let author = key.clone();
    SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_dns()
        .unwrap()
        .with_websocket(noise::Config::new, yamux::Config::default)
        .await
        .unwrap()
        .with_behaviour(|key| {
            let id = key.public().to_peer_id();
            let config = gossipsub::ConfigBuilder::default()
                .heartbeat_interval(Duration::from_secs(10))
                .validation_mode(gossipsub::ValidationMode::Strict)
                .allow_self_origin(true)
                .build()
                .unwrap();
            let author = gossipsub::MessageAuthenticity::Signed(author);
            let mut gossip = gossipsub::Behaviour::new(author, config).unwrap();
            gossip.subscribe(&gossipsub::IdentTopic::new(TOPIC)).unwrap();
            Behaviour {
                ping: ping::Behaviour::new(ping::Config::new()),
                identify: identify::Behaviour::new(
                    identify::Config::new("/ipfs/id/1.0.0".into(), key.public()).with_agent_version(agent),
                ),
                requests: json::Behaviour::new(
                    [(StreamProtocol::new(PROTOCOL), ProtocolSupport::Full)],
                    request_response::Config::default().with_request_timeout(timeout),
                ),
                gossip,
                kademlia: kad::Behaviour::new(id, kad::store::MemoryStore::new(id)),
            }
        })
        .unwrap()
        .with_swarm_config(|config| {
            config.with_idle_connection_timeout(Duration::from_secs(60)).with_per_connection_event_buffer_size(EVENTS)
        })
        .build()
}

//! libp2p and nothing else: the protocol's streams, with a server that has its answer ready and a client without
//! queues.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::prelude::*;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise,
    request_response::{self, Event, Message, ProtocolSupport},
    swarm::SwarmEvent,
    tcp, yamux,
};
use modal_gateway::{
    app::Node,
    protocol::{PROTOCOL, Query, encode_request},
};
use tokio::{sync::Mutex, task::JoinHandle};

use crate::{
    bytes_codec::BytesCodec,
    measure::{Contender, Outcome},
};

type Behaviour = request_response::Behaviour<BytesCodec>;

/// A swarm with the settings of our nodes as far as they matter for speed: no Nagle, buffers, number of streams.
fn swarm() -> Outcome<Swarm<Behaviour>> {
    let protocols = [(StreamProtocol::new(PROTOCOL), ProtocolSupport::Full)];
    let config = request_response::Config::default().with_max_concurrent_streams(320);
    let buffer = 64.try_into()?;
    Ok(SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| Behaviour::new(protocols, config))?
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(Duration::from_secs(3600))
                .with_notify_handler_buffer_size(buffer)
                .with_per_connection_event_buffer_size(64)
                .with_max_negotiating_inbound_streams(256)
        })
        .build())
}

/// Answers every request with the same bytes. Gone when dropped.
pub struct Echo {
    peer: PeerId,
    address: Multiaddr,
    task: JoinHandle<()>,
}

impl Echo {
    /// Starts on a free port of loopback.
    pub async fn start(answer: Bytes) -> Outcome<Self> {
        let mut swarm = swarm()?;
        let peer = *swarm.local_peer_id();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        let task = tokio::spawn(async move {
            loop {
                if let SwarmEvent::Behaviour(Event::Message { message: Message::Request { channel, .. }, .. }) =
                    swarm.select_next_some().await
                {
                    // Whoever asked may be gone.
                    let _ = swarm.behaviour_mut().send_response(channel, answer.clone());
                }
            }
        });
        Ok(Self { peer, address, task })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client of one peer.
#[derive(Clone)]
pub struct Client {
    swarm: Arc<Mutex<Swarm<Behaviour>>>,
    peer: PeerId,
}

impl Client {
    /// Of a bare server.
    pub async fn of_echo(echo: &Echo) -> Outcome<Self> {
        Self::connect(echo.peer, echo.address.clone()).await
    }

    /// Of a node of ours.
    pub async fn of_node(node: &Node) -> Outcome<Self> {
        let address = node.addresses().into_iter().next().ok_or("the node listens nowhere")?;
        Self::connect(node.p2p.local_peer_id(), address).await
    }

    async fn connect(peer: PeerId, address: Multiaddr) -> Outcome<Self> {
        let mut swarm = swarm()?;
        swarm.dial(address)?;
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => break,
                SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
                _ => {}
            }
        }
        Ok(Self { swarm: Arc::new(Mutex::new(swarm)), peer })
    }

    /// Asks with so many requests in flight.
    pub fn contender(&self, in_flight: usize, asker: impl Fn() -> Query + Send + Sync + Clone + 'static) -> Contender {
        let client = self.clone();
        Box::new(move |round| {
            let (client, asker) = (client.clone(), asker.clone());
            // As a task, so that it is on the same threads as every other contender.
            let round = tokio::spawn(async move { client.round(round, in_flight, asker).await });
            Box::pin(async move { round.await? })
        })
    }

    async fn round(self, round: Duration, in_flight: usize, asker: impl Fn() -> Query) -> Outcome<f64> {
        let mut swarm = self.swarm.lock().await;
        let start = Instant::now();
        let (mut answered, mut open) = (0u64, 0usize);
        for _ in 0..in_flight {
            swarm.behaviour_mut().send_request(&self.peer, encode_request(&asker()));
            open += 1;
        }
        while open > 0 {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(Event::Message { message: Message::Response { response, .. }, .. }) => {
                    if !response.starts_with(br#"{"ok":true,"#) {
                        return Err("a request was declined".into());
                    }
                    answered += 1;
                    if start.elapsed() < round {
                        swarm.behaviour_mut().send_request(&self.peer, encode_request(&asker()));
                    } else {
                        open -= 1;
                    }
                }
                SwarmEvent::Behaviour(Event::OutboundFailure { error, .. }) => return Err(error.into()),
                SwarmEvent::ConnectionClosed { .. } => return Err("the connection closed".into()),
                _ => {}
            }
        }
        Ok(answered as f64 / start.elapsed().as_secs_f64())
    }
}

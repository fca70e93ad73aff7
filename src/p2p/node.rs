//! The running node: the [`worker`] owns the swarm, and each [`client`] is a handle to the worker.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, RwLock};

use libp2p::{Swarm, swarm};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, memory};
use super::behaviour::gossip::GOSSIP_QUEUE;
use super::behaviour::{Behaviour, IDLE_TIMEOUT};
use super::config::P2pConfig;
use super::error::P2pError;
use super::peers::PeerBook;
use super::shared::{Shared, Stats};
use super::transport;
use crate::telemetry::Durations;

pub(super) mod client;
mod dialer;
mod discovery;
mod outbound;
mod queue;
pub(super) mod worker;

use client::P2pClient;
use worker::{Responder, Worker};

/// Messages buffered between the swarm and one connection, in either direction. With libp2p's default of 8, the swarm
/// sleeps on every burst of requests.
const CONNECTION_BUFFER: usize = 64;

/// Inbound streams of one connection whose protocol is being negotiated; more are reset.
const MAX_NEGOTIATING: usize = 128;

/// Starts a node. Returns once every address of `config.listen` is bound; the task ends after `shutdown`, as soon as
/// everything in flight is answered, after at most 10 s.
///
/// # Errors
/// [`P2pError::Listen`] when an address is taken or unsupported, [`P2pError::DuplicateAlias`], [`P2pError::Identity`],
/// [`P2pError::Setup`].
pub async fn start(
    config: P2pConfig,
    responder: Arc<dyn Responder>,
    shutdown: CancellationToken,
) -> Result<(P2pClient, JoinHandle<()>), P2pError> {
    let (client, mut worker) = build(&config, responder)?;
    worker.listen(&config.listen).await?;
    Ok((client, tokio::spawn(worker.run(shutdown))))
}

/// Builds a node that neither listens nor runs yet.
fn build(config: &P2pConfig, responder: Arc<dyn Responder>) -> Result<(P2pClient, Worker), P2pError> {
    let mut aliases = HashSet::new();
    for alias in config.peers.iter().filter_map(|peer| peer.alias.as_deref()) {
        if !aliases.insert(alias) {
            return Err(P2pError::DuplicateAlias(alias.into()));
        }
    }
    let (gossip_sender, gossip) = mpsc::channel(GOSSIP_QUEUE);
    let shared = Arc::new(Shared {
        local: config.keypair.public().to_peer_id(),
        book: RwLock::new(PeerBook::new(&config.peers).with_trust(config.trust.clone())),
        listen: watch::Sender::default(),
        stats: Mutex::new(Stats::new()),
        request_durations: Durations::default(),
        gossip: Mutex::new(config.gossip.then_some(gossip)),
        gossip_missed: Notify::new(),
        changes: watch::Sender::default(),
    });
    let (commands, queue) = mpsc::channel(config.command_queue.max(1));
    let swarm = swarm(config, Arc::clone(&shared))?;
    let worker = Worker::new(config, swarm, Arc::clone(&shared), responder, queue, gossip_sender);
    Ok((P2pClient::new(commands, shared), worker))
}

/// Builds the swarm, without listeners and connections.
fn swarm(config: &P2pConfig, shared: Arc<Shared>) -> Result<Swarm<Admission>, P2pError> {
    let transport = transport::build(config).map_err(|error| P2pError::Identity(error.to_string()))?;
    let settings = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_TIMEOUT)
        .with_notify_handler_buffer_size(NonZeroUsize::new(CONNECTION_BUFFER).unwrap_or(NonZeroUsize::MIN))
        .with_per_connection_event_buffer_size(CONNECTION_BUFFER)
        .with_max_negotiating_inbound_streams(MAX_NEGOTIATING);
    let local = shared.local;
    let behaviour = Behaviour::new(config, memory::limit(config.memory_limit))?;
    Ok(Swarm::new(transport, Admission::new(behaviour, config, shared), local, settings))
}

//! The libp2p node: our identity, our peers, requests to them and theirs to us.
//!
//! One task owns the swarm ([`worker`]); everybody else holds a [`P2pClient`]. Requests and answers travel as encoded
//! JSON documents; this module never looks inside.
//!
//! Whom we dial: the configured peers, and what the operator's commands name. A request never makes us dial an
//! address that came from the network; only Kademlia's own queries do that, through its routing table.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;

mod address;
mod behaviour;
mod connections;
mod dialer;
mod identity;
mod keep_alive;
mod peers;
mod swarm;
mod worker;

pub use address::{AddressError, PeerAddress};
pub use identity::{IdentityError, load_or_create};
pub use peers::PeerInfo;

use peers::PeerBook;
use worker::{Command, Worker};

/// How long [`P2pClient::dial`] waits: two attempts of the transport, which gives up after 10 s each.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// Settings of a node.
#[derive(Clone)]
pub struct P2pConfig {
    /// Our identity.
    pub keypair: Keypair,
    /// Addresses to listen on; default none. Port 0 takes a free port.
    pub listen: Vec<Multiaddr>,
    /// Peers to stay connected with; default none.
    pub peers: Vec<PeerAddress>,
    /// What we call ourselves in identify; default `modal-gateway/<version>`.
    pub agent: String,
    /// Longest life of any request, ours and others'; default 60 s, as the network's nodes have it.
    pub request_timeout: Duration,
    /// Requests of others answered at once, over all peers; what exceeds it gets no answer. Default 256.
    pub max_inbound: usize,
    /// Requests of ours in flight to one peer; what exceeds it is [`P2pError::Busy`]. Default 64.
    pub max_outbound_per_peer: usize,
    /// Requests that wait for the swarm's task; what exceeds it is [`P2pError::Busy`]. Default 1024.
    pub command_queue: usize,
    /// Delay before a lost configured peer is dialled again; doubles with each failure. Default 1 s.
    pub redial_min: Duration,
    /// Longest delay between two dials of a configured peer. Default 60 s.
    pub redial_max: Duration,
}

impl P2pConfig {
    /// The defaults, for this identity: listens nowhere and knows nobody.
    pub fn new(keypair: Keypair) -> Self {
        Self {
            keypair,
            listen: Vec::new(),
            peers: Vec::new(),
            agent: concat!("modal-gateway/", env!("CARGO_PKG_VERSION")).into(),
            request_timeout: Duration::from_secs(60),
            max_inbound: 256,
            max_outbound_per_peer: 64,
            command_queue: 1024,
            redial_min: Duration::from_secs(1),
            redial_max: Duration::from_secs(60),
        }
    }
}

/// Answers the requests of others.
#[async_trait::async_trait]
pub trait Responder: Send + Sync + 'static {
    /// The answer to an encoded request, at most [`MAX_RESPONSE_BYTES`](crate::protocol::MAX_RESPONSE_BYTES) long: a
    /// longer one is not sent, and the peer sees the stream end.
    ///
    /// The future is polled once on the swarm's own task, so that an answer which is ready (from a cache) costs no
    /// task; it goes on elsewhere. Work that takes long belongs behind its first `await`.
    async fn respond(&self, peer: PeerId, request: Bytes) -> Bytes;
}

/// Why a request, or the node, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum P2pError {
    /// We know nobody of this id or name.
    #[error("unknown peer")]
    UnknownPeer,
    /// There is no connection, and none could be made. The reason may name addresses: for the operator only.
    #[error("the peer can't be reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("the peer did not answer in time")]
    Timeout,
    /// The request or the answer exceeds the protocol's limit.
    #[error("longer than the protocol allows")]
    TooLarge,
    /// The stream ended or broke before an answer. For the operator only.
    #[error("the peer broke the protocol: {0}")]
    BadAnswer(String),
    /// The peer does not speak the protocol.
    #[error("the peer does not speak the sync protocol")]
    Unsupported,
    /// Too many requests wait already, for this peer or for the node.
    #[error("too many requests are in flight")]
    Busy,
    /// An address can't be listened on.
    #[error("can't listen on {address}: {reason}")]
    Listen {
        /// The address as configured.
        address: Multiaddr,
        /// What the system, or libp2p, says.
        reason: String,
    },
    /// Two configured peers have the same alias.
    #[error("two peers have the alias `{0}`")]
    DuplicateAlias(String),
    /// The key pair can't be used.
    #[error("identity: {0}")]
    Identity(String),
    /// The node has been shut down.
    #[error("the node has stopped")]
    Stopped,
}

impl P2pError {
    /// Stable name of the error, in snake case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownPeer => "unknown_peer",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::BadAnswer(_) => "bad_answer",
            Self::Unsupported => "unsupported",
            Self::Busy => "busy",
            Self::Listen { .. } => "listen",
            Self::DuplicateAlias(_) => "duplicate_alias",
            Self::Identity(_) => "identity",
            Self::Stopped => "stopped",
        }
    }
}

/// What happened to the requests of others since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct InboundStats {
    /// Requests read.
    pub requests: u64,
    /// Answers handed to the connection.
    pub answered: u64,
    /// Requests dropped because `max_inbound` were being answered.
    pub dropped: u64,
    /// Requests whose answer did not get out: timeout, lost connection, too large, or a panic in the responder.
    pub failed: u64,
}

#[derive(Default)]
struct InboundCounters {
    requests: AtomicU64,
    answered: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// What the worker writes and clients read, without a round trip through the worker.
struct Shared {
    local: PeerId,
    book: RwLock<PeerBook>,
    listen: RwLock<Vec<Multiaddr>>,
    inbound: InboundCounters,
    /// Counts connections made and lost, and identifications.
    changes: watch::Sender<u64>,
}

impl Shared {
    // The book stays consistent whatever panics: no call leaves it half changed.
    fn book(&self) -> RwLockReadGuard<'_, PeerBook> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn book_mut(&self) -> RwLockWriteGuard<'_, PeerBook> {
        self.book.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a node. Returns once every address of `config.listen` is bound; the task ends after `shutdown`.
///
/// # Errors
/// [`P2pError::Listen`] when an address is taken or unsupported, [`P2pError::DuplicateAlias`], [`P2pError::Identity`].
pub async fn start(
    config: P2pConfig,
    responder: Arc<dyn Responder>,
    shutdown: CancellationToken,
) -> Result<(P2pClient, JoinHandle<()>), P2pError> {
    let mut aliases = HashMap::new();
    for alias in config.peers.iter().filter_map(|peer| peer.alias.as_deref()) {
        if aliases.insert(alias, ()).is_some() {
            return Err(P2pError::DuplicateAlias(alias.into()));
        }
    }
    let shared = Arc::new(Shared {
        local: config.keypair.public().to_peer_id(),
        book: RwLock::new(PeerBook::new(&config.peers)),
        listen: RwLock::default(),
        inbound: InboundCounters::default(),
        changes: watch::Sender::new(0),
    });
    let (commands, queue) = mpsc::channel(config.command_queue.max(1));
    let mut worker = Worker::new(&config, Arc::clone(&shared), responder, queue)?;
    worker.listen(&config.listen).await?;
    let task = tokio::spawn(worker.run(shutdown));
    Ok((P2pClient { commands, shared }, task))
}

/// A handle to the node: cheap to clone, usable from any task. Reads are answered from memory at once.
#[derive(Clone)]
pub struct P2pClient {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl P2pClient {
    /// Our own id.
    pub fn local_peer_id(&self) -> PeerId {
        self.shared.local
    }

    /// The addresses really bound: port 0 resolved, `0.0.0.0` replaced by the interfaces' addresses.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.shared.listen.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// [`listen_addresses`](Self::listen_addresses) with our id (`/p2p/ID`): what another node is given to reach us.
    pub fn dial_addresses(&self) -> Vec<Multiaddr> {
        self.listen_addresses().into_iter().map(|address| address.with(Protocol::P2p(self.shared.local))).collect()
    }

    /// The id behind `name`: a configured alias whose id is known, or the base58 id of a peer that is configured,
    /// connected, or was connected lately. Never ourselves.
    pub fn resolve(&self, name: &str) -> Option<PeerId> {
        self.shared.book().resolve(name)
    }

    /// Like [`resolve`](Self::resolve), with the reason.
    ///
    /// # Errors
    /// [`P2pError::UnknownPeer`]; [`P2pError::Unreachable`] for an alias whose address was given without an id and
    /// has not been reached yet.
    pub fn find(&self, name: &str) -> Result<PeerId, P2pError> {
        self.shared.book().find(name)
    }

    /// Sends an encoded request and waits for the encoded answer, for `timeout` at most (and never longer than the
    /// configured request timeout). A peer of the operator's that is not connected is dialled first. Dropping the
    /// future leaves the stream to its timeout.
    ///
    /// # Errors
    /// Any [`P2pError`] but the ones of starting.
    pub async fn request(&self, peer: PeerId, request: Bytes, timeout: Duration) -> Result<Bytes, P2pError> {
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + timeout;
        self.commands.try_send(Command::Request { peer, request, deadline, reply }).map_err(rejected)?;
        match timeout_at(deadline.into(), answer).await {
            Ok(answer) => answer.unwrap_or(Err(P2pError::Stopped)),
            Err(_) => Err(P2pError::Timeout),
        }
    }

    /// Peers worth asking, best first: those that speak the protocol (identify said so) and are connected, then
    /// configured ones that hung up and may be dialled; among them fewest recent failures, then lowest latency.
    pub fn candidates(&self) -> Vec<PeerId> {
        self.shared.book().candidates(Instant::now())
    }

    /// Connects to an address, and returns who is there. For the operator's own commands: never hand it an address
    /// that a client or a peer sent. At once when the address names a peer that is connected.
    ///
    /// # Errors
    /// [`P2pError::Unreachable`] with the reason, [`P2pError::Timeout`] after 20 s, [`P2pError::Busy`],
    /// [`P2pError::Stopped`].
    pub async fn dial(&self, address: Multiaddr) -> Result<PeerId, P2pError> {
        let (reply, connected) = oneshot::channel();
        self.commands.try_send(Command::Dial { address, reply }).map_err(rejected)?;
        match timeout(DIAL_TIMEOUT, connected).await {
            Ok(connected) => connected.unwrap_or(Err(P2pError::Stopped)),
            Err(_) => Err(P2pError::Timeout),
        }
    }

    /// Everybody we know: configured peers first, in the operator's order.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.shared.book().infos()
    }

    /// What happened to the requests of others.
    pub fn inbound(&self) -> InboundStats {
        let counters = &self.shared.inbound;
        InboundStats {
            requests: counters.requests.load(Ordering::Relaxed),
            answered: counters.answered.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
        }
    }

    /// Changes whenever a peer connects, leaves, or identifies itself: [`peers`](Self::peers) is worth another look.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Waits until the peer of this alias or id is connected and has identified itself.
    ///
    /// # Errors
    /// [`P2pError::Timeout`], [`P2pError::Stopped`].
    pub async fn wait_connected(&self, name: &str, limit: Duration) -> Result<PeerId, P2pError> {
        let mut changes = self.changes();
        let ready = async {
            loop {
                {
                    let book = self.shared.book();
                    if let Some(peer) = book.resolve(name).filter(|peer| book.is_ready(peer)) {
                        return Ok(peer);
                    }
                }
                tokio::select! {
                    _ = changes.changed() => {}
                    () = self.commands.closed() => return Err(P2pError::Stopped),
                }
            }
        };
        timeout(limit, ready).await.unwrap_or(Err(P2pError::Timeout))
    }
}

fn rejected(error: mpsc::error::TrySendError<Command>) -> P2pError {
    match error {
        mpsc::error::TrySendError::Full(_) => P2pError::Busy,
        mpsc::error::TrySendError::Closed(_) => P2pError::Stopped,
    }
}

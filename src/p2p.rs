//! The libp2p node: our identity, our peers, requests to them and theirs to us, and gossip.
//!
//! One task owns the swarm ([`worker`]); everybody else holds a [`P2pClient`]. Requests and answers travel as encoded
//! JSON documents; this module never looks inside, nor into gossip.
//!
//! Whom we dial: the configured peers, what the operator's commands name, and peers that the network tells of
//! ([`discovery`]) until there are enough. A request never makes us dial an address that came from the network.
//!
//! What this node asks of others is bounded as well ([`asking`]): few requests are in flight to a node of the network, the
//! rest wait for their turn ([`queue`]), and no connection is closed while an answer is on its way to it ([`parting`]).
//!
//! What others may do is bounded in five places: every connection and dial passes the [`guard`], which knows whom we
//! have to do with ([`trust`], and scores in [`peers`]), who finds a place ([`entrance`]) and where the network may
//! send us ([`dials`], [`place`]); every request is held by [`inbound`] until its answer is out, or waits in [`delayed`]
//! for room; the codec bounds what arrives, [`muxer`] what nobody has read yet, at either end, and [`socket`] how long a
//! peer may be silent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod address;
mod asking;
mod behaviour;
mod client;
mod config;
mod connections;
mod delayed;
mod dialer;
mod dials;
mod discovery;
mod entrance;
mod gossip;
mod guard;
mod identity;
mod inbound;
mod keep_alive;
mod memory;
mod muxer;
mod operator;
mod outbound;
mod parting;
mod peers;
mod place;
mod queue;
mod rate;
mod serving;
mod socket;
mod stats;
mod swarm;
mod trust;
mod worker;

pub use address::{AddressError, PeerAddress};
pub use client::P2pClient;
pub use config::P2pConfig;
pub use gossip::{Gossip, MAX_GOSSIP_BYTES, Verdict};
pub use identity::{IdentityError, load_or_create};
pub use inbound::BLOCK_BYTES;
pub use peers::{Offence, PeerChain, PeerInfo, Reputation, Standing};
pub use stats::{DoorStats, GossipStats, InboundStats};
pub use trust::{Trust, TrustList};

use gossip::GOSSIP_QUEUE;
use peers::PeerBook;
use queue::OnBehalf;
use stats::Counters;
use worker::Worker;

/// Answers the requests of others.
#[async_trait::async_trait]
pub trait Responder: Send + Sync + 'static {
    /// The answer to an encoded request, at most [`MAX_RESPONSE_BYTES`](crate::protocol::MAX_RESPONSE_BYTES) long: a
    /// longer one is not sent, and the peer sees the stream end.
    ///
    /// For a request of at most 32 KiB the future is polled once on the swarm's own task, so that an answer which is
    /// ready (from a cache) costs no task; it goes on elsewhere. Work that takes long belongs behind its first `await`.
    async fn respond(&self, peer: PeerId, request: Bytes) -> Bytes;

    /// Bytes that the answer to a request may have, about: they are set aside before any work is done. An answer that turns
    /// out longer is sent where there is room for it then. Called on the swarm's own task, so it must not take long over a
    /// request of 1 MiB. Default 0: short answers.
    fn weight(&self, _request: &Bytes) -> usize {
        0
    }
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
    /// Too many requests wait already, for this peer or for the node: this one was not sent.
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
    /// A part of the node can't start.
    #[error("can't start {part}: {reason}")]
    Setup {
        /// Which part.
        part: &'static str,
        /// What the system, or libp2p, says.
        reason: String,
    },
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
            Self::Setup { .. } => "setup",
            Self::Stopped => "stopped",
        }
    }
}

/// What the worker writes and clients read, without a round trip through the worker.
struct Shared {
    local: PeerId,
    book: RwLock<PeerBook>,
    listen: RwLock<Vec<Multiaddr>>,
    counters: Counters,
    /// Until somebody takes it.
    gossip: Mutex<Option<mpsc::Receiver<Gossip>>>,
    /// Its other end, to see how full it is; `None` where gossip is off.
    heard: Option<mpsc::WeakSender<Gossip>>,
    /// A message was dropped.
    missed: Notify,
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

/// Starts a node. Returns once every address of `config.listen` is bound; the task ends after `shutdown`, as soon as
/// everything in flight is answered, within 10 s.
///
/// # Errors
/// [`P2pError::Listen`] when an address is taken or unsupported, [`P2pError::DuplicateAlias`], [`P2pError::Identity`],
/// [`P2pError::Setup`].
pub async fn start(
    config: P2pConfig,
    responder: Arc<dyn Responder>,
    shutdown: CancellationToken,
) -> Result<(P2pClient, JoinHandle<()>), P2pError> {
    let listen = config.listen.clone();
    let (client, mut worker) = build(config, responder)?;
    worker.listen(&listen).await?;
    Ok((client, tokio::spawn(worker.run(shutdown))))
}

/// A node that neither listens nor runs yet.
fn build(config: P2pConfig, responder: Arc<dyn Responder>) -> Result<(P2pClient, Worker), P2pError> {
    let mut aliases = HashMap::new();
    for alias in config.peers.iter().filter_map(|peer| peer.alias.as_deref()) {
        if aliases.insert(alias, ()).is_some() {
            return Err(P2pError::DuplicateAlias(alias.into()));
        }
    }
    let (heard, gossip) = mpsc::channel(GOSSIP_QUEUE);
    let shared = Arc::new(Shared {
        local: config.keypair.public().to_peer_id(),
        book: RwLock::new(PeerBook::new(&config.peers).trusting(config.trust.clone())),
        listen: RwLock::default(),
        counters: Counters::default(),
        heard: config.gossip.then(|| heard.downgrade()),
        gossip: Mutex::new(config.gossip.then_some(gossip)),
        missed: Notify::new(),
        changes: watch::Sender::new(0),
    });
    let (commands, queue) = mpsc::channel(config.command_queue.max(1));
    let worker = Worker::new(&config, Arc::clone(&shared), responder, queue, heard)?;
    Ok((P2pClient { commands, shared, room: None, asker: OnBehalf::Own }, worker))
}

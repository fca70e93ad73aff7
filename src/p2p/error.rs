//! Errors of the node, and the reasons for which it refuses connections.

use libp2p::Multiaddr;
use libp2p::memory_connection_limits::MemoryUsageLimitExceeded;
use libp2p::swarm::ConnectionDenied;

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

/// Why a connection, or a dial, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("too many connections")]
    Full,
    #[error("too many connections from one subnet")]
    Subnet,
    #[error("the peer is on the deny-list")]
    Denied,
    #[error("the peer is banned")]
    Banned,
    #[error("the peer is a stranger")]
    Stranger,
    #[error("no address that may be dialled")]
    Address,
    #[error("too little memory")]
    Memory,
}

impl Refused {
    /// Each once.
    pub const ALL: [Self; 7] =
        [Self::Full, Self::Subnet, Self::Denied, Self::Banned, Self::Stranger, Self::Address, Self::Memory];

    /// Its name in figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "limit",
            Self::Subnet => "subnet",
            Self::Denied => "denied",
            Self::Banned => "banned",
            Self::Stranger => "stranger",
            Self::Address => "address",
            Self::Memory => "memory",
        }
    }

    /// What the guard, or libp2p's behaviour that keeps a limit, meant.
    pub fn of(cause: &ConnectionDenied) -> Option<Self> {
        let memory = cause.downcast_ref::<MemoryUsageLimitExceeded>().map(|_| Self::Memory);
        memory.or_else(|| cause.downcast_ref::<Self>().copied())
    }
}

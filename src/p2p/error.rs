//! Errors of the node, and the reasons for which it refuses connections.

use libp2p::Multiaddr;
use libp2p::memory_connection_limits::MemoryUsageLimitExceeded;
use libp2p::swarm::ConnectionDenied;

/// Failure of a request or of the node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum P2pError {
    /// No known peer has this id or name.
    #[error("unknown peer")]
    UnknownPeer,
    /// No connection exists or could be made. The reason may name addresses: for the operator only.
    #[error("the peer can't be reached: {0}")]
    Unreachable(String),
    /// The answer did not arrive in time.
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
    /// The queue for this peer or for the node is full: the request was not sent.
    #[error("too many requests are in flight")]
    Busy,
    /// Listening on an address failed.
    #[error("can't listen on {address}: {reason}")]
    Listen {
        /// The address as configured.
        address: Multiaddr,
        /// Error text of the system or of libp2p.
        reason: String,
    },
    /// Two configured peers have the same alias.
    #[error("two peers have the alias `{0}`")]
    DuplicateAlias(String),
    /// The key pair can't be used.
    #[error("identity: {0}")]
    Identity(String),
    /// A component of the node can't start.
    #[error("can't start {part}: {reason}")]
    Setup {
        /// Name of the component.
        part: &'static str,
        /// Error text of the system or of libp2p.
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

/// Reason for which a connection or a dial is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("too many connections")]
    LimitExceeded,
    #[error("too many connections from one subnet")]
    SubnetLimitExceeded,
    #[error("the peer is on the deny-list")]
    Denied,
    #[error("the peer is banned")]
    Banned,
    #[error("the peer is not trusted")]
    Untrusted,
    #[error("no address that may be dialled")]
    AddressNotAllowed,
    #[error("too little memory")]
    MemoryLimitExceeded,
}

impl Refusal {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::LimitExceeded,
        Self::SubnetLimitExceeded,
        Self::Denied,
        Self::Banned,
        Self::Untrusted,
        Self::AddressNotAllowed,
        Self::MemoryLimitExceeded,
    ];

    /// Label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LimitExceeded => "limit",
            Self::SubnetLimitExceeded => "subnet",
            Self::Denied => "denied",
            Self::Banned => "banned",
            Self::Untrusted => "stranger",
            Self::AddressNotAllowed => "address",
            Self::MemoryLimitExceeded => "memory",
        }
    }

    /// Reads the reason from the error of [`Admission`](super::admission::Admission) or of libp2p's memory limit.
    pub fn of(cause: &ConnectionDenied) -> Option<Self> {
        let memory = cause.downcast_ref::<MemoryUsageLimitExceeded>().map(|_| Self::MemoryLimitExceeded);
        memory.or_else(|| cause.downcast_ref::<Self>().copied())
    }
}

impl From<Refusal> for ConnectionDenied {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal)
    }
}

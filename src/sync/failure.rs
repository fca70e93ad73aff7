//! What may go wrong in a sync: a peer's fault, and what comes between a plan and its end. The texts are for everybody: no
//! address, no words of the database.

use std::sync::Arc;

use libp2p::PeerId;

use super::peers::block_set::Hole;
use crate::{
    chain::{PowError, Violation},
    p2p::{Offence, P2pError},
    protocol::{Code, Failure, peers_words},
    store::StoreError,
};

/// Why a peer did not give what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// There was no answer.
    #[error("{}", silence(.0))]
    Silent(P2pError),
    /// The answer breaks the protocol.
    #[error("its answer breaks the protocol: {0}")]
    Broken(String),
    /// The answer is an error.
    #[error("it answered: {0}")]
    Refused(Failure),
    /// It lacks a block below its own tip.
    #[error("it has no block {0}, though its tip is higher")]
    Missing(u64),
    /// It does not have the block that it calls its tip.
    #[error("it does not have the block that it calls its tip")]
    NoTip,
    /// The way down from its tip ends at a block that it doesn't have.
    #[error("its chain can't be put together: block {} ({}) is missing", .0.index, peers_words(&.0.hash))]
    Unlinked(Box<Hole>),
    /// Which of its blocks are on its chain does not show.
    #[error("its chain can't be put together: it has several branches at block {0}")]
    Tangled(u64),
    /// It gives so little at a time that others are better asked.
    #[error("it gives less than {0} blocks a request")]
    Tiny(usize),
    /// Its blocks are not those whose headers were verified.
    #[error("its blocks from {0} on are of another chain than the headers")]
    OtherBlocks(u64),
    /// Two of its answers don't link: it has reorganised between them, or lies.
    #[error("its blocks from {0} on are of another chain than those that it gave before")]
    Moved(u64),
    /// It gives its blocks so slowly that others are better asked.
    #[error("it gives its blocks too slowly")]
    Slow,
}

impl Fault {
    /// What can be held against the peer: silence and slowness may be the network's fault, missing and other blocks a
    /// reorganisation's, and honest nodes keep a messy store.
    pub fn offence(&self) -> Option<Offence> {
        match self {
            Self::Broken(_) => Some(Offence::BrokenAnswer),
            Self::Tiny(_) => Some(Offence::Unreliable),
            Self::Silent(_)
            | Self::Refused(_)
            | Self::Missing(_)
            | Self::NoTip
            | Self::Unlinked(_)
            | Self::Tangled(_)
            | Self::OtherBlocks(_)
            | Self::Moved(_)
            | Self::Slow => None,
        }
    }

    /// Why its chain can't be put together, if it is that: what is told of the peer.
    pub fn problem(&self) -> Option<String> {
        matches!(self, Self::Missing(_) | Self::NoTip | Self::Unlinked(_) | Self::Tangled(_)).then(|| self.to_string())
    }

    /// Whether it is to be asked again later: the peer says so, or too much waits for it here.
    pub fn is_slow_down(&self) -> bool {
        match self {
            Self::Refused(failure) => failure.code == Code::Busy,
            Self::Silent(error) => matches!(error, P2pError::Busy),
            _ => false,
        }
    }

    /// Whether the peer does not know the path.
    pub fn is_unknown_path(&self) -> bool {
        matches!(self, Self::Refused(failure) if failure.code == Code::UnknownPath)
    }

    /// A description may quote the answer.
    pub fn broken(what: String) -> Self {
        Self::Broken(peers_words(&what))
    }
}

/// Why there was no answer, without the addresses that the error may name.
fn silence(error: &P2pError) -> String {
    match error {
        P2pError::Unreachable(_) => "it can't be reached".into(),
        P2pError::BadAnswer(_) => "its answer broke off".into(),
        error => error.to_string(),
    }
}

/// What came between a plan and its end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Setback {
    /// A peer did not give what it was asked for.
    #[error("peer {0}: {1}")]
    Peer(PeerId, Fault),
    /// A peer gave a block that breaks a rule.
    #[error("peer {0}: {1}")]
    Invalid(PeerId, Violation),
    /// The windows of two peers, or two of one, don't link: proves nothing.
    #[error("peer {peer}: its blocks do not follow those that came before")]
    Seam {
        /// Who gave the later window.
        peer: PeerId,
        /// Who gave the earlier one; `None` where that is our own chain.
        before: Option<PeerId>,
    },
    /// A peer's chain begins otherwise.
    #[error("peer {peer}: another genesis, {theirs} instead of {ours}: it is on another network")]
    OtherGenesis {
        /// The peer.
        peer: PeerId,
        /// Hash of its genesis.
        theirs: String,
        /// Hash of ours.
        ours: String,
    },
    /// A peer's chain leaves ours below a checkpoint of the network's that ours holds.
    #[error("peer {peer}: its chain leaves ours before the network's checkpoint at {index}")]
    Checkpoint {
        /// The peer.
        peer: PeerId,
        /// Index of the checkpoint.
        index: u64,
    },
    /// A peer's chain has another block at a checkpoint of the network's.
    #[error("peer {peer}: its chain has another block at the network's checkpoint at {index}")]
    OffCheckpoint {
        /// The peer.
        peer: PeerId,
        /// Index of the checkpoint.
        index: u64,
    },
    /// Our own chain changed meanwhile.
    #[error("the chain changed meanwhile")]
    Moved,
    /// The store.
    #[error("the store can't be used")]
    Store(Arc<StoreError>),
    /// Proof of work can't be computed.
    #[error("proof of work can't be computed here")]
    Pow(PowError),
    /// A part of the pipeline has panicked.
    #[error("a stage of the sync has stopped")]
    Stopped,
}

impl From<StoreError> for Setback {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "the sync can't use the store");
        Self::Store(Arc::new(error))
    }
}

impl From<PowError> for Setback {
    fn from(error: PowError) -> Self {
        tracing::error!(%error, "proof of work can't be computed");
        Self::Pow(error)
    }
}

/// Why a job failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// Nobody told its tip.
    #[error("no useful peer{}", .0.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default())]
    NoPeer(Option<String>),
    /// The last setback of a peer that claims a better chain, or of our own.
    #[error("{0}")]
    Setback(String),
}

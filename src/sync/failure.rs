//! Faults of a peer, and failures of a plan. Their texts are public: no addresses, no text of the database.

use std::sync::Arc;

use libp2p::PeerId;

use super::peers::block_set::Gap;
use crate::{
    chain::{PowError, Violation, Weight},
    p2p::{Offence, P2pError},
    protocol::{Code, Failure, peers_words},
    store::StoreError,
};

/// Why a peer did not answer a request as it should.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerFault {
    /// There was no answer.
    #[error("{}", no_answer_text(.0))]
    NoAnswer(P2pError),
    /// The answer breaks the protocol.
    #[error("its answer breaks the protocol: {0}")]
    BrokenProtocol(String),
    /// The answer is an error.
    #[error("it answered: {0}")]
    ErrorAnswer(Failure),
    /// The peer lacks a block below its own tip.
    #[error("it has no block {0}, though its tip is higher")]
    Missing(u64),
    /// The peer lacks the block that it calls its tip.
    #[error("it does not have the block that it calls its tip")]
    MissingTip,
    /// The links down from the peer's tip end at a block that it lacks.
    #[error("its chain can't be put together: block {} ({}) is missing", .0.index, peers_words(&.0.hash))]
    Unlinked(Box<Gap>),
    /// The peer has several blocks at an index, and which is on its chain can't be found out.
    #[error("its chain can't be put together: it has several branches at block {0}")]
    Ambiguous(u64),
    /// The peer sends too few blocks in one answer.
    #[error("it gives less than {0} blocks a request")]
    TooFewBlocks(usize),
    /// The peer's blocks are longer than ours may be. The network's nodes have no such limit.
    #[error("its blocks from {0} on are too long")]
    TooLong(u64),
    /// The blocks are not those whose headers were verified.
    #[error("its blocks from {0} on are of another chain than the headers")]
    HeaderMismatch(u64),
    /// Two answers don't link: the peer has reorganised between them, or lies.
    #[error("its blocks from {0} on are of another chain than those that it gave before")]
    Reorganised(u64),
    /// The peer sends its blocks too slowly.
    #[error("it gives its blocks too slowly")]
    Slow,
}

impl PeerFault {
    /// The offence to penalise, if any. Silence and slowness may be the network's fault, and missing or other blocks a
    /// reorganisation's; honest nodes keep stale blocks, and take long ones from their miners.
    pub fn offence(&self) -> Option<Offence> {
        match self {
            Self::BrokenProtocol(_) => Some(Offence::BrokenAnswer),
            Self::TooFewBlocks(_) => Some(Offence::Unreliable),
            Self::NoAnswer(_)
            | Self::ErrorAnswer(_)
            | Self::Missing(_)
            | Self::MissingTip
            | Self::Unlinked(_)
            | Self::Ambiguous(_)
            | Self::TooLong(_)
            | Self::HeaderMismatch(_)
            | Self::Reorganised(_)
            | Self::Slow => None,
        }
    }

    /// Why the peer's chain can't be put together, if that is the fault. Shown with the peer.
    pub fn problem(&self) -> Option<String> {
        matches!(self, Self::Missing(_) | Self::MissingTip | Self::Unlinked(_) | Self::Ambiguous(_) | Self::TooLong(_))
            .then(|| self.to_string())
    }

    /// Whether to retry later: the peer is busy, or too many requests to it are queued here.
    pub fn is_slow_down(&self) -> bool {
        match self {
            Self::ErrorAnswer(failure) => failure.code == Code::Busy,
            Self::NoAnswer(error) => matches!(error, P2pError::Busy),
            _ => false,
        }
    }

    /// Whether the peer does not know the path.
    pub fn is_unknown_path(&self) -> bool {
        matches!(self, Self::ErrorAnswer(failure) if failure.code == Code::UnknownPath)
    }

    /// A broken protocol; the text may quote the answer.
    pub fn broken(text: String) -> Self {
        Self::BrokenProtocol(peers_words(&text))
    }
}

/// The reason without an answer, without the addresses that the error may name.
fn no_answer_text(error: &P2pError) -> String {
    match error {
        P2pError::Unreachable(_) => "it can't be reached".into(),
        P2pError::BadAnswer(_) => "its answer broke off".into(),
        error => error.to_string(),
    }
}

/// Why a plan failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SyncFailure {
    /// A peer's fault.
    #[error("peer {0}: {1}")]
    Peer(PeerId, PeerFault),
    /// A peer gave a block that breaks a rule.
    #[error("peer {0}: {1}")]
    Invalid(PeerId, Violation),
    /// Blocks of two peers, or two answers of one, don't link. That proves nothing against either.
    #[error("peer {peer}: its blocks do not follow those that came before")]
    Mismatch {
        /// The peer that sent the later blocks.
        peer: PeerId,
        /// The peer that sent the earlier ones; `None` for the chain in the store.
        before: Option<PeerId>,
    },
    /// A peer's chain has another genesis.
    #[error("peer {peer}: another genesis, {theirs} instead of {ours}: the peer, or this store, is of another network")]
    OtherGenesis {
        /// The peer.
        peer: PeerId,
        /// Hash of its genesis.
        theirs: String,
        /// Hash of the store's genesis.
        ours: String,
    },
    /// A peer's chain leaves the store's below a checkpoint that the store has.
    #[error("peer {peer}: its chain leaves ours before the network's checkpoint at {index}")]
    Checkpoint {
        /// The peer.
        peer: PeerId,
        /// Index of the checkpoint.
        index: u64,
    },
    /// A peer's chain has another block at a checkpoint.
    #[error("peer {peer}: its chain has another block at the network's checkpoint at {index}")]
    OffCheckpoint {
        /// The peer.
        peer: PeerId,
        /// Index of the checkpoint.
        index: u64,
    },
    /// Blocks were verified to `linked` at first, and then the chain did not contain the assume-valid block.
    #[error("the chain does not contain the assume-valid block at {0}: it is verified in full")]
    NotAssumed(u64),
    /// A peer's chain leaves the store's at a block that is only assumed valid: how much work it has up to there is not
    /// proven yet.
    #[error("peer {peer}: its chain leaves ours at block {index}, whose proof of work is not verified yet")]
    Unproven {
        /// The peer.
        peer: PeerId,
        /// Index of the last block that both chains share.
        index: u64,
    },
    /// The planned chain, as the headers of its peer show it, weighs no more than the store's.
    #[error("it weighs no more than ours")]
    Lighter(Weight),
    /// The chain in the store changed during the plan.
    #[error("the chain changed meanwhile")]
    ChainChanged,
    /// The store can't be used.
    #[error("the store can't be used")]
    Store(Arc<StoreError>),
    /// Proof of work can't be computed.
    #[error("proof of work can't be computed here")]
    Pow(PowError),
    /// A stage of the pipeline has panicked.
    #[error("a stage of the sync has stopped")]
    Stopped,
}

impl From<StoreError> for SyncFailure {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "the sync can't use the store");
        Self::Store(Arc::new(error))
    }
}

impl From<PowError> for SyncFailure {
    fn from(error: PowError) -> Self {
        tracing::error!(%error, "proof of work can't be computed");
        Self::Pow(error)
    }
}

/// Why a job failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// No peer answered with its tip.
    #[error("no useful peer{}", .0.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default())]
    NoPeer(Option<String>),
    /// The last failure of a plan.
    #[error("{0}")]
    Failed(String),
}

impl From<SyncFailure> for RunError {
    fn from(failure: SyncFailure) -> Self {
        Self::Failed(failure.to_string())
    }
}

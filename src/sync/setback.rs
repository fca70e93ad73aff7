//! What comes between a plan and its end. The texts are for everybody: no address, no words of the database.

use std::sync::Arc;

use libp2p::PeerId;

use super::fault::Fault;
use crate::{
    chain::{PowError, Violation},
    store::StoreError,
};

/// What came between a plan and its end.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Setback {
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

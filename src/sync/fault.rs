//! What may be wrong with a peer, or with what it answers.

use super::links::Hole;
use crate::{
    p2p::{Offence, P2pError},
    protocol::{Code, Failure, peers_words},
};

/// Why a peer did not give what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Fault {
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
    /// Which headers are on its chain does not show: of an index it gives none or several.
    #[error("its headers from {0} on are not one for each block")]
    UnclearHeaders(u64),
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
            | Self::UnclearHeaders(_)
            | Self::OtherBlocks(_)
            | Self::Moved(_)
            | Self::Slow => None,
        }
    }

    /// Why its chain can't be put together, if it is that: what is told of the peer.
    pub fn problem(&self) -> Option<String> {
        matches!(self, Self::Missing(_) | Self::NoTip | Self::Unlinked(_) | Self::Tangled(_)).then(|| self.to_string())
    }

    /// Whether to ask again later: the peer says so, or our own queue for it is full.
    pub fn is_slow_down(&self) -> bool {
        match self {
            Self::Silent(P2pError::Busy) => true,
            Self::Refused(failure) => failure.code == Code::Busy,
            _ => false,
        }
    }

    /// Whether the peer does not know the path.
    pub fn is_unknown_path(&self) -> bool {
        matches!(self, Self::Refused(failure) if failure.code == Code::UnknownPath)
    }

    /// Whether the peer can give blocks, but no headers that are of use.
    pub fn lacks_headers(&self) -> bool {
        self.is_unknown_path() || matches!(self, Self::UnclearHeaders(_))
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

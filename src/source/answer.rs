//! Whom a question is put to, and what came of it: a good answer, or why there is none.

use std::{fmt, sync::OnceLock};

use bytes::Bytes;
use libp2p::PeerId;
use sha2::{Digest, Sha256};

use crate::{
    chain::Level,
    protocol::{Answer, CLOSING, Code, Failure, MAX_RESPONSE_BYTES, OPENING},
    store::{ChainState, Tip},
};

/// Who is to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The store.
    Local,
    /// This peer.
    Peer(PeerId),
    /// The best peer.
    Any,
    /// The store and, where it lacks the answer, the best peer.
    Auto,
}

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answerer {
    /// The store.
    Local,
    /// A peer.
    Peer(PeerId),
}

impl fmt::Display for Answerer {
    /// `local` or `peer:<id>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Peer(id) => write!(f, "peer:{id}"),
        }
    }
}

/// A good answer, encoded, and where it came from.
#[derive(Debug)]
pub struct Served {
    /// The whole envelope.
    pub body: Bytes,
    /// Who answered.
    pub answerer: Answerer,
    /// The store's tip when it was answered.
    pub tip: Option<Tip>,
    /// How far the blocks in it are verified: the weakest. `None` where it holds none.
    pub level: Option<Level>,
    /// Whether every block that it can hold is deeper than the finality depth.
    pub settled: bool,
    /// See [`Self::tag`].
    pub(super) tag: OnceLock<String>,
    /// The version of the chain that it is true of; 0 where it is not of the store's.
    pub(super) version: u64,
    /// Whether the store had all that was asked for.
    pub(super) complete: bool,
}

impl Served {
    /// The JSON text of `data`.
    pub fn data(&self) -> &[u8] {
        &self.body[OPENING.len()..self.body.len() - CLOSING.len()]
    }

    /// Changes when [`body`](Self::body) does: the start of its SHA-256 in hex. Computed when it is first asked for,
    /// which libp2p never does.
    pub fn tag(&self) -> &str {
        self.tag.get_or_init(|| hex::encode(&Sha256::digest(&self.body)[..16]))
    }

    /// Whether it was read from the chain that `state` is of.
    pub(super) fn is_of(&self, state: &ChainState) -> bool {
        (self.version, &self.tip) == (state.version, &state.tip)
    }

    pub(super) fn new(answer: &Answer, answerer: Answerer, tip: Option<Tip>) -> Result<Self, Failure> {
        let body = answer.encode();
        if body.len() > MAX_RESPONSE_BYTES {
            return Err(Failure::new(Code::AnswerTooLarge));
        }
        let (body, tag) = (body.into(), OnceLock::new());
        Ok(Self { body, answerer, tip, level: None, settled: false, tag, version: 0, complete: true })
    }
}

/// Why there is no answer, and who said so.
#[derive(Debug, Clone)]
pub struct Declined {
    /// What went wrong.
    pub failure: Failure,
    /// Who said so.
    pub answerer: Answerer,
}

impl From<Failure> for Declined {
    fn from(failure: Failure) -> Self {
        Self { failure, answerer: Answerer::Local }
    }
}

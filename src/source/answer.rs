//! Where a query goes, and the result: an encoded answer, or an error with its origin.

use std::{fmt, sync::OnceLock};

use bytes::Bytes;
use libp2p::PeerId;
use sha2::{Digest, Sha256};

use crate::{
    protocol::{Answer, CLOSING, Code, Failure, MAX_RESPONSE_BYTES, OPENING},
    store::Snapshot,
};

/// Where a query goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The store.
    Local,
    /// This peer.
    Peer(PeerId),
    /// The best peer that is connected.
    Any,
    /// The store and, where it lacks the answer, the best peer.
    Auto,
}

/// Where an answer or an error came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweredBy {
    /// The store.
    Local,
    /// A peer.
    Peer(PeerId),
}

impl fmt::Display for AnsweredBy {
    /// `local` or `peer:<id>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Peer(id) => write!(f, "peer:{id}"),
        }
    }
}

/// A successful answer, encoded.
#[derive(Debug)]
pub struct EncodedAnswer {
    /// The whole envelope as JSON.
    pub body: Bytes,
    /// Where it came from.
    pub answered_by: AnsweredBy,
    /// The store's chain at the time of the answer, and how far the answer's blocks are verified. The version is 0 for
    /// a peer's answer.
    pub snapshot: Snapshot,
    /// Whether every block that the answer can hold is deeper than the finality depth.
    pub settled: bool,
    /// See [`Self::tag`].
    pub(super) tag: OnceLock<Bytes>,
    /// See [`Self::tip_text`].
    pub(super) tip_text: OnceLock<Option<Bytes>>,
    /// Whether the store had everything that was requested.
    pub(super) complete: bool,
}

impl EncodedAnswer {
    /// The JSON text of `data`.
    pub fn data(&self) -> &[u8] {
        &self.body[OPENING.len()..self.body.len() - CLOSING.len()]
    }

    /// The start of the SHA-256 of [`body`](Self::body) in hex, in quotes: the entity tag. Computed on first use:
    /// libp2p never needs it.
    pub fn tag(&self) -> &Bytes {
        self.tag.get_or_init(|| format!("\"{}\"", hex::encode(&Sha256::digest(&self.body)[..16])).into())
    }

    /// The tip of [`snapshot`](Self::snapshot) as text: index, colon, hash. Made on first use.
    pub fn tip_text(&self) -> Option<&Bytes> {
        self.tip_text.get_or_init(|| self.snapshot.tip.as_ref().map(|tip| tip.to_string().into())).as_ref()
    }

    pub(super) fn new(answer: &Answer, answered_by: AnsweredBy, snapshot: Snapshot) -> Result<Self, Failure> {
        Self::of_body(answer.encode(), answered_by, snapshot)
    }

    /// An answer with this JSON text as `data`.
    pub(super) fn of_data(data: &str, answered_by: AnsweredBy, snapshot: Snapshot) -> Result<Self, Failure> {
        Self::of_body(format!("{OPENING}{data}{CLOSING}"), answered_by, snapshot)
    }

    fn of_body(body: String, answered_by: AnsweredBy, snapshot: Snapshot) -> Result<Self, Failure> {
        if body.len() > MAX_RESPONSE_BYTES {
            return Err(Failure::new(Code::AnswerTooLarge));
        }
        let (body, tag, tip_text) = (body.into(), OnceLock::new(), OnceLock::new());
        Ok(Self { body, answered_by, snapshot, settled: false, tag, tip_text, complete: true })
    }
}

/// A failed query.
#[derive(Debug, Clone)]
pub struct SourceError {
    /// The failure, as the client gets it.
    pub failure: Failure,
    /// Where it came from.
    pub answered_by: AnsweredBy,
}

impl From<Failure> for SourceError {
    fn from(failure: Failure) -> Self {
        Self { failure, answered_by: AnsweredBy::Local }
    }
}

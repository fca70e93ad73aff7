//! Answers to every query, from the local store or from a peer. HTTP and libp2p hand in the same typed query and get
//! the same bytes.
//!
//! * `dispatch`: [`Source`]: sends a query to the store, to a peer, or to both in turn
//! * `local`: [`LocalSource`]: encoded and cached answers from the store; the one for libp2p peers
//! * `store_answers`: reads an answer from the store
//! * `peer`: requests an answer from a peer
//! * `answer`: an encoded answer, its origin, and a failed query
//! * [`view`]: the chain for those who explore it: epochs, nominees, the network's figures
//! * `events`: events of the canonical chain, of the sync and of the peers
//! * `watch`: what is known of the chain without a read; `watching` keeps it current
//! * `seen`: tips that clients have seen
//! * `cost`: the estimated length of an answer
//! * [`job`]: sync jobs and the sync's status, as the store keeps them

mod answer;
mod cost;
mod dispatch;
mod events;
pub mod job;
mod local;
mod peer;
mod seen;
mod store_answers;
pub mod view;
mod watch;
mod watching;

pub use answer::{AnsweredBy, EncodedAnswer, Origin, SourceError};
pub use dispatch::{Source, Stats};
pub use events::{
    ChangedEpochs, Cursor, EventBatch, EventBlocks, ExtendedEvent, Feeds, Followed, FollowedPeer, MalformedCursor,
    PeerEvent, PeersEvent, ReorganisedEvent, ResetEvent, ResetReason, SyncEvent, Update,
};
pub use local::{LocalSource, Settings, with_deadline};
pub use peer::parse_blocking;
pub use seen::ClientTip;
pub use watch::{ChainWatch, Freshness};
pub use watching::StoreFigures;

#[cfg(test)]
mod tests;

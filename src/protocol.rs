//! The sync protocol, without any transport: what a request and an answer are, and how they are written.
//!
//! * [`limits`]: protocol ids, limits of size
//! * [`envelope`]: a request and an answer around what they carry
//! * [`failure`]: the errors of the protocol, verbatim, with stable codes
//! * [`query`]: one typed query per path; path ↔ query in one table
//! * [`answer`]: one typed answer per path; written once, read in either dialect
//! * [`schema`]: how all this looks in the OpenAPI document
//! * [`gossip`]: a mined block as the gossip topic carries it
//! * [`codec`]: carries encoded documents over a libp2p stream
//!
//! A request is `{"path": string, "data": any}`, an answer the envelope `{"ok": bool, "data": any, "errors": any}`.

pub mod answer;
pub mod codec;
pub mod envelope;
pub mod failure;
pub mod gossip;
pub mod limits;
pub mod query;
pub mod schema;

pub use answer::{Answer, BlockList};
pub use envelope::{Request, encode_request, open_envelope};
pub use failure::{Ancestor, Code, Failure, peers_words};
pub use limits::{
    CLOSING, COMPRESSED_PROTOCOL, IDENTIFY_PROTOCOL, MAX_CHUNK, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, OPENING,
    PROTOCOL,
};
pub use query::Query;

//! The sync protocol, without any transport: what a request and an answer are, and how they are written.
//!
//! * [`failure`]: the errors of the protocol, verbatim, with stable codes
//! * [`query`]: one typed query per path; path ↔ query in one table
//! * [`answer`]: one typed answer per path; written once, read in either dialect
//! * [`schema`]: how all this looks in the OpenAPI document
//! * [`gossip`]: a mined block as it is told on the gossip topic
//! * [`codec`]: carries encoded documents over a libp2p stream
//!
//! A request is `{"path": string, "data": any}`, an answer the envelope `{"ok": bool, "data": any, "errors": any}`.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub mod answer;
pub mod codec;
pub mod failure;
pub mod gossip;
pub mod query;
pub mod schema;

pub use answer::{Answer, BlockList};
pub use failure::{Ancestor, Code, Failure, peers_words};
pub use query::Query;

/// Protocol id of the network's request-response protocol.
pub const PROTOCOL: &str = "/modality-network/reqres/0.0.1";
/// Protocol id of the same documents, compressed with zstd in either direction: what gateways speak among themselves.
/// Whoever does not know it is asked by [`PROTOCOL`].
pub const COMPRESSED_PROTOCOL: &str = "/modal-gateway/reqres/1.0.0";
/// Protocol version that the network's nodes send in `identify`.
pub const IDENTIFY_PROTOCOL: &str = "/ipfs/id/1.0.0";
/// Longest request that the network's codec reads: 1 MiB.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Longest answer that the network's codec reads: 10 MiB. A longer one is cut there and can't be parsed.
pub const MAX_RESPONSE_BYTES: usize = 10 << 20;
/// Most blocks in one answer of `range` and `chain_info`: what current nodes allow.
pub const MAX_CHUNK: u64 = 1000;

/// What stands before and behind the `data` of a good answer.
pub const OPENING: &str = r#"{"ok":true,"data":"#;
/// See [`OPENING`].
pub const CLOSING: &str = r#","errors":null}"#;

/// A request as it travels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request<'a> {
    /// Path of the question, such as `/data/miner_block/get`.
    #[serde(borrow)]
    pub path: Cow<'a, str>,
    /// Its parameters; absent is the same as null.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

impl Request<'_> {
    /// Reads a request's bytes.
    ///
    /// # Errors
    /// [`Code::MalformedBody`] with what the JSON parser says.
    pub fn parse(bytes: &[u8]) -> Result<Request<'_>, Failure> {
        serde_json::from_slice(bytes).map_err(|e| Failure::with_detail(Code::MalformedBody, e.to_string()))
    }

    /// The typed query that this request asks.
    ///
    /// # Errors
    /// See [`Query::parse`].
    pub fn query(&self) -> Result<Query, Failure> {
        Query::parse(&self.path, self.data)
    }
}

/// Encodes the request that asks `query`.
pub fn encode_request(query: &Query) -> Bytes {
    let path = query.path();
    Bytes::from(format!(r#"{{"path":"{path}","data":{}}}"#, query.data()))
}

#[derive(Deserialize)]
struct Envelope<'a> {
    ok: bool,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    errors: Option<&'a RawValue>,
}

/// Takes a peer's answer out of its envelope: the JSON text of `data`, or the failure that the peer reports.
///
/// # Errors
/// The outer error says why the bytes are no envelope.
pub fn open_envelope(bytes: &[u8]) -> Result<Result<&str, Failure>, String> {
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if envelope.ok {
        return Ok(Ok(envelope.data.map_or("null", RawValue::get)));
    }
    Ok(Err(Failure::from_peer(envelope.errors.map_or("null", RawValue::get))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_and_written_alike() {
        let query = Query::Epoch { epoch: 7 };
        let bytes = encode_request(&query);
        assert_eq!(&bytes[..], br#"{"path":"/data/miner_block/epoch","data":{"epoch":7}}"#);
        assert_eq!(Request::parse(&bytes).unwrap().query().unwrap(), query);
    }

    #[test]
    fn a_request_without_data_is_a_request_with_null() {
        let request = Request::parse(br#"{"path":"/data/miner_block/canonical"}"#).unwrap();
        assert_eq!(request.query().unwrap(), Query::Canonical);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bad in [&b""[..], b"{", b"[]", b"{\"data\":null}", b"{\"path\":3}", b"\xff\xfe"] {
            assert_eq!(Request::parse(bad).unwrap_err().code, Code::MalformedBody, "{bad:?}");
        }
    }

    #[test]
    fn an_envelope_is_opened() {
        assert_eq!(open_envelope(br#"{"ok":true,"data":{"a":1},"errors":null}"#).unwrap().unwrap(), r#"{"a":1}"#);
        let failure = open_envelope(br#"{"ok":false,"data":null,"errors":{"error":"Block not found"}}"#).unwrap();
        assert_eq!(failure.unwrap_err().code, Code::BlockNotFound);
        assert!(open_envelope(b"{\"ok\":true,\"data\":{").is_err());
        assert!(open_envelope(b"null").is_err());
    }
}

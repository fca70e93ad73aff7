//! What stands around a query and around an answer on the wire.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    failure::{Code, Failure},
    query::Query,
};

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
/// The outer error says why the bytes are no envelope; [`serde_json::Error::is_eof`] if they are the beginning of one.
pub fn open_envelope(bytes: &[u8]) -> Result<Result<&str, Failure>, serde_json::Error> {
    let envelope: Envelope<'_> = serde_json::from_slice(bytes)?;
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

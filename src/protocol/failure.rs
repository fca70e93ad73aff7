//! Errors as HTTP and libp2p report them: the network's own text, a stable code, and where it helps a detail.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Longest piece of a peer's own words that is passed on or kept, in characters.
const MAX_PEER_TEXT: usize = 200;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $text:literal;)*) => {
        /// What went wrong, as a stable word. Clients may branch on it; the texts are the network's and may change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Code] = &[$(Code::$variant,)*];

            /// The word that stands in `errors.code`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// The text that stands in `errors.error` where the path has none of its own.
            pub fn text(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }
        }
    };
}

codes! {
    /// No block has the hash.
    BlockNotFound = "block_not_found", "Block not found";
    /// A required parameter is missing or of the wrong type; the text names it.
    MissingParameter = "missing_parameter", "Missing parameter";
    /// A parameter has a value that it can't have.
    InvalidParameter = "invalid_parameter", "Invalid parameter";
    /// A parameter that this path doesn't know.
    UnknownParameter = "unknown_parameter", "Unknown parameter";
    /// `from_index` is greater than `to_index`.
    InvalidRange = "invalid_range", "from_index must be <= to_index";
    /// A check point is not `{index, hash}`.
    InvalidCheckPoint = "invalid_check_point", "Invalid check_point format";
    /// No such path.
    UnknownPath = "unknown_path", "Unknown path";
    /// The body is not the JSON that it should be.
    MalformedBody = "malformed_body", "Malformed request";
    /// The query string is not UTF-8, or not `name=value` pairs.
    MalformedQuery = "malformed_query", "Malformed query string";
    /// `Host` is missing, malformed, or there twice.
    InvalidHost = "invalid_host", "Invalid Host header";
    /// The body has a transfer coding other than `chunked`.
    UnsupportedTransferCoding = "unsupported_transfer_coding", "Unsupported transfer coding";
    /// The path answers other methods only.
    MethodNotAllowed = "method_not_allowed", "Method not allowed";
    /// Neither JSON nor, for lists, NDJSON is accepted by the client.
    NotAcceptable = "not_acceptable", "Not acceptable";
    /// The anchor block is no longer canonical.
    AnchorNotCanonical = "anchor_not_canonical", "Anchor block is no longer canonical";
    /// `If-Match` names no current entity tag, or `If-None-Match` of a `POST` names the current one.
    PreconditionFailed = "precondition_failed", "Precondition failed";
    /// The request is too large.
    RequestTooLarge = "request_too_large", "Request too large";
    /// The address is too long.
    UriTooLong = "uri_too_long", "Request address too long";
    /// The body is not declared as JSON.
    UnsupportedMediaType = "unsupported_media_type", "Unsupported media type";
    /// The answer would not fit 10 MiB.
    AnswerTooLarge = "answer_too_large", "Answer over 10 MiB: ask for less with /data/miner_block/range";
    /// The client asked for more than its share.
    RateLimited = "rate_limited", "Too many requests";
    /// The request's body did not arrive in time.
    RequestTimeout = "request_timeout", "Request not received in time";
    /// The admin listener wants its bearer token.
    Unauthorized = "unauthorized", "Bearer token missing or wrong";
    /// The store can't answer now.
    StoreUnavailable = "store_unavailable", "Store unavailable";
    /// Too much is going on here to take one more request.
    Busy = "busy", "Too many requests in progress";
    /// No peer of this id or alias is known.
    UnknownPeer = "unknown_peer", "Unknown peer";
    /// No peer could be asked.
    NoPeer = "no_peer", "No peer available";
    /// The peer can't be reached.
    PeerUnreachable = "peer_unreachable", "Peer unreachable";
    /// The peer did not answer in time.
    PeerTimeout = "peer_timeout", "Peer did not answer in time";
    /// The peer's answer breaks the protocol.
    PeerBrokeProtocol = "peer_broke_protocol", "Peer broke the protocol";
    /// The peer refused the request with an error of its own.
    PeerError = "peer_error", "Peer answered with an error";
    /// No such sync job, or it is finished.
    UnknownJob = "unknown_job", "Unknown job";
    /// The store is not in sync with the network.
    NotSynced = "not_synced", "Not synced";
    /// A fault of ours.
    Internal = "internal", "Internal error";
}

/// A block named by index and hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Ancestor {
    /// Index of the block.
    pub index: u64,
    /// Its hash.
    pub hash: String,
}

/// A failed answer: what stands in `errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Failure {
    /// The protocol's text.
    #[schema(value_type = String)]
    pub error: Cow<'static, str>,
    /// The stable code.
    pub code: Code,
    /// What exactly was wrong, where it helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// With `anchor_not_canonical`: the last block that the anchor's branch shares with the canonical chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub common_ancestor: Option<Ancestor>,
}

impl Failure {
    /// A failure with the code's own text.
    pub fn new(code: Code) -> Self {
        Self::with_text(code, code.text())
    }

    /// A failure with another text of the network's.
    pub fn with_text(code: Code, error: impl Into<Cow<'static, str>>) -> Self {
        Self { error: error.into(), code, detail: None, common_ancestor: None }
    }

    /// A failure with the code's own text and a detail.
    pub fn with_detail(code: Code, detail: impl Into<String>) -> Self {
        Self::new(code).detail(detail)
    }

    /// Adds a detail.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The whole answer: `{"ok":false,"data":null,"errors":{…}}`.
    pub fn encode(&self) -> Bytes {
        let errors = serde_json::to_string(self).unwrap_or_else(|_| "null".into());
        Bytes::from(format!(r#"{{"ok":false,"data":null,"errors":{errors}}}"#))
    }

    /// What a peer's `errors` mean: one of the network's texts, or [`Code::PeerError`] with the text as detail.
    pub(super) fn from_peer(errors: &str) -> Self {
        #[derive(Deserialize)]
        struct PeerErrors {
            error: String,
        }
        let text = serde_json::from_str::<PeerErrors>(errors).map_or_else(|_| errors.to_owned(), |e| e.error);
        let code = match text.as_str() {
            "Block not found" => Code::BlockNotFound,
            "from_index must be <= to_index" => Code::InvalidRange,
            "Invalid check_point format" => Code::InvalidCheckPoint,
            "Unknown path" => Code::UnknownPath,
            _ if text == Code::AnswerTooLarge.text() => Code::AnswerTooLarge,
            // Our request was too large, not our client's.
            _ if [Code::RateLimited, Code::Busy].map(Code::text).contains(&text.as_str()) => {
                return Self::with_detail(Code::Busy, "the peer asks to slow down");
            }
            _ if text.starts_with("Missing '") && text.ends_with(" parameter") && text.len() < 60 => {
                Code::MissingParameter
            }
            _ => {
                return Self::with_detail(Code::PeerError, peers_words(&text));
            }
        };
        Self::with_text(code, text)
    }
}

/// What may be passed on of a text that a peer has a say in: its first 200 characters, without those that control a
/// terminal.
pub fn peers_words(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_PEER_TEXT).collect()
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_their_names() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{}\"", code.as_str()));
        }
    }

    #[test]
    fn the_envelope_keeps_the_networks_text_and_adds_the_code() {
        let failure = Failure::new(Code::BlockNotFound);
        assert_eq!(
            failure.encode(),
            r#"{"ok":false,"data":null,"errors":{"error":"Block not found","code":"block_not_found"}}"#
        );
    }

    #[test]
    fn a_peers_own_words_are_cut_and_cleaned() {
        let words = format!(r#"{{"error":"boom\u0007{}"}}"#, "x".repeat(500));
        let failure = Failure::from_peer(&words);
        assert_eq!(failure.code, Code::PeerError);
        assert_eq!(failure.error, "Peer answered with an error");
        assert_eq!(failure.detail.unwrap(), format!("boom{}", "x".repeat(MAX_PEER_TEXT - 4)));
        assert_eq!(Failure::from_peer("null").code, Code::PeerError);
        assert_eq!(Failure::from_peer(r#"{"error":"Missing 'epoch' parameter"}"#).code, Code::MissingParameter);
    }
}

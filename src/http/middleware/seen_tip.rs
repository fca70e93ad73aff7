//! The tip that the client has seen, in the request's `x-modal-tip`.

use axum::extract::Request;

use crate::{
    http::{envelope::TIP, extract},
    protocol::{Code, Failure},
    source::ClientTip,
};

/// The tip that the answer must not be behind. Requests to a peer, and probes, have none.
///
/// # Errors
/// [`Code::InvalidParameter`] for a malformed header.
pub(super) fn of(request: &Request) -> Result<Option<ClientTip>, Failure> {
    let Some(header) = request.headers().get(TIP) else { return Ok(None) };
    if extract::is_forwarded(request.uri()) || request.uri().path().starts_with("/health/") {
        return Ok(None);
    }
    // The hash of an unverified chain may be any text, and an answer's header has it as it is.
    let parsed = str::from_utf8(header.as_bytes()).ok().and_then(|text| text.parse().ok());
    let expected = "x-modal-tip: expected that of an earlier answer: an index, `:` and a hash";
    parsed.map(Some).ok_or_else(|| Failure::with_detail(Code::InvalidParameter, expected))
}

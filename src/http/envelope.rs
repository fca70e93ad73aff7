//! The envelope of every answer, good or failed, the headers for its source, and the only table from error code to
//! status.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    protocol::{Code, Failure, query, schema::null},
    source::{AnsweredBy, SourceError},
};

/// The source of the answer: `local`, or `peer:` and its id.
pub const SOURCE: HeaderName = HeaderName::from_static("x-modal-source");
/// The tip of the gateway's store: index, colon, hash.
pub const TIP: HeaderName = HeaderName::from_static("x-modal-tip");
/// The weakest verification among the blocks in the answer: `pow`, `linked` or `none`.
pub const VERIFICATION: HeaderName = HeaderName::from_static("x-modal-verification");

/// The age of the store's tip in seconds.
pub const TIP_AGE: HeaderName = HeaderName::from_static("x-modal-tip-age");
/// The state of the sync.
pub const SYNC: HeaderName = HeaderName::from_static("x-modal-sync");
/// Names a request, in its answer and in the log.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header of W3C's trace context (<https://www.w3.org/TR/trace-context/>).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What took how long.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Headers of every answer about the gateway itself.
pub(super) const OWN: [(HeaderName, &str); 2] = [(header::CACHE_CONTROL, "no-store"), (SOURCE, "local")];

/// Headers that keep proxies from holding events back: nginx' own, and the one against compression.
pub(super) const UNBUFFERED: [(HeaderName, &str); 2] =
    [(header::CACHE_CONTROL, "no-store, no-transform"), (HeaderName::from_static("x-accel-buffering"), "no")];

/// A good answer. A failed one is an `ErrorEnvelope`.
#[derive(Serialize, ToSchema)]
pub struct Envelope<T> {
    /// Always true.
    ok: bool,
    /// The answer.
    data: T,
    /// Always null.
    #[schema(schema_with = null, required)]
    errors: Option<Failure>,
}

/// A response with `data` in the envelope and the headers of answers about the gateway itself.
pub(super) fn enveloped<T: Serialize>(data: T) -> impl IntoResponse {
    (OWN, axum::Json(Envelope { ok: true, data, errors: None }))
}

/// The value of [`SOURCE`].
pub(super) fn source_name(answered_by: AnsweredBy) -> Option<HeaderValue> {
    match answered_by {
        AnsweredBy::Local => Some(HeaderValue::from_static("local")),
        peer => HeaderValue::try_from(peer.to_string()).ok(),
    }
}

/// Seconds after which to retry a request that was refused or failed for a passing reason, where no better value is
/// known.
const RETRY_AFTER: &str = "1";

/// The methods that some path takes.
const METHODS: &str = "GET, HEAD, POST, OPTIONS";

/// The status of each error code.
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::MissingParameter
        | Code::InvalidParameter
        | Code::UnknownParameter
        | Code::InvalidRange
        | Code::InvalidCheckPoint
        | Code::MalformedBody
        | Code::MalformedQuery
        | Code::InvalidHost => StatusCode::BAD_REQUEST,
        Code::BlockNotFound | Code::UnknownPath | Code::UnknownPeer | Code::UnknownJob => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        Code::AnchorNotCanonical => StatusCode::CONFLICT,
        Code::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Code::RequestTooLarge | Code::AnswerTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UriTooLong => StatusCode::URI_TOO_LONG,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::StoreUnavailable | Code::Busy | Code::NoPeer | Code::PeerUnreachable | Code::NotSynced => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::PeerBrokeProtocol | Code::PeerError => StatusCode::BAD_GATEWAY,
        Code::PeerTimeout => StatusCode::GATEWAY_TIMEOUT,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::UnsupportedTransferCoding => StatusCode::NOT_IMPLEMENTED,
    }
}

/// A failure on its way to the client, with its source.
#[derive(Debug)]
pub struct Rejection(pub SourceError);

impl<T: Into<SourceError>> From<T> for Rejection {
    fn from(declined: T) -> Self {
        Self(declined.into())
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let SourceError { failure, answered_by } = self.0;
        let status = status(failure.code);
        let mut response = (status, Body::from(failure.encode())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        if failure.code == Code::UnsupportedTransferCoding {
            // Where the body ended is as the client and this server read it; a proxy between may differ.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(source) = source_name(answered_by) {
            headers.insert(SOURCE, source);
        }
        // For the explorer, which has pages for failures.
        response.extensions_mut().insert(failure);
        response
    }
}

/// Answers a path without a route, and what names no path: `OPTIONS *`, which asks about the server as a whole (RFC
/// 9110, section 9.3.7), and `CONNECT`.
pub(super) async fn unknown_path(request: Request) -> Response {
    match (request.method(), request.uri().path()) {
        (&Method::OPTIONS, "*") => (StatusCode::NO_CONTENT, [(header::ALLOW, METHODS)]).into_response(),
        (&Method::CONNECT, _) => ([(header::ALLOW, METHODS)], method_not_allowed(request).await).into_response(),
        _ => Rejection::from(Failure::new(Code::UnknownPath)).into_response(),
    }
}

/// Answers a method that the route doesn't have. The router adds `Allow`.
pub(super) async fn method_not_allowed(request: Request) -> Rejection {
    // find_ancestor's list doesn't fit a query string.
    let only_post = query::path(request.uri().path()).is_ok_and(|row| {
        row.parameters.is_some_and(|parameters| parameters.iter().any(|p| p.kind == query::Kind::CheckPoints))
    });
    let detail = format!("{} is not a method of this path", request.method());
    let hint = if only_post { "; it takes POST with a JSON body" } else { "" };
    Failure::with_detail(Code::MethodNotAllowed, detail + hint).into()
}

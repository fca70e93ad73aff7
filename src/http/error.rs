//! Errors at the HTTP door: the one table from code to status, and the envelope around all of them.

use std::any::Any;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::respond::{SOURCE, source_name};
use crate::{
    protocol::{Code, Failure, query},
    source::SourceError,
};

/// Seconds after which to try again what failed for want of a store, a peer, room or blocks, where nobody knows better.
const RETRY_AFTER: &str = "1";

/// The status of each error code.
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::MissingParameter
        | Code::InvalidParameter
        | Code::UnknownParameter
        | Code::InvalidRange
        | Code::InvalidCheckPoint
        | Code::MalformedBody
        | Code::MalformedQuery => StatusCode::BAD_REQUEST,
        Code::BlockNotFound | Code::UnknownPath | Code::UnknownPeer | Code::UnknownJob => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        Code::AnchorNotCanonical => StatusCode::CONFLICT,
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
    }
}

/// A failure on its way to the client, and who reported it.
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
        if let Some(source) = source_name(answered_by) {
            headers.insert(SOURCE, source);
        }
        response
    }
}

/// Answers what no route knows.
pub(super) async fn unknown_path() -> Rejection {
    Failure::new(Code::UnknownPath).into()
}

/// Answers a method that the route doesn't know. The router adds `Allow`.
pub(super) async fn method_not_allowed(request: Request) -> Rejection {
    // find_ancestor's list doesn't fit a query string.
    let only_post = query::path(request.uri().path()).is_ok_and(|row| {
        row.parameters.is_some_and(|parameters| parameters.iter().any(|p| p.kind == query::Kind::CheckPoints))
    });
    let detail = format!("{} is not a method of this path", request.method());
    let hint = if only_post { "; it takes POST with a JSON body" } else { "" };
    Failure::with_detail(Code::MethodNotAllowed, detail + hint).into()
}

/// Answers for a handler that panicked.
pub(super) fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    Rejection::from(Failure::new(Code::Internal)).into_response()
}

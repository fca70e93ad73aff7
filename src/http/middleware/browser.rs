//! Headers for browsers: preflights, and the security of our own pages.

use std::{convert::Infallible, sync::Arc, time::Instant};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, header},
    response::{IntoResponse, Response},
};

use super::head;
use crate::http::{
    counters::Route,
    envelope::{OWN, Rejection, UNBUFFERED},
    gateway::Gateway,
};

/// The content security policy of pages that have none of their own: those of Swagger UI, which load nothing from
/// elsewhere and have inline styles and images.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// HTTPS only for two years, as browsers' preload lists require.
const HTTPS_ONLY: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// Adds the security headers.
pub(in crate::http) fn secure(headers: &mut HeaderMap, tls: bool) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HTTPS_ONLY);
    }
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
        headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(PAGE_POLICY);
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
}

/// Whether a browser sends this request to follow the chain.
pub(in crate::http) fn follows(request: &Request) -> bool {
    request.method() == Method::GET
        && request.uri().path() == "/events"
        && request.headers().get(header::ACCEPT).is_some_and(|accept| accept == "text/event-stream")
}

/// The events that a browser gets in place of a refusal: it reconnects after the refusal's `retry-after`, while an
/// error would end its `EventSource` for ever.
pub(in crate::http) fn retry_events(refusal: &Response) -> Response {
    let seconds = refusal.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let status = refusal.status();
    let body = format!("retry: {}\n: refused for now: {status}\n\n", 1000 * seconds.unwrap_or(1));
    (OWN, UNBUFFERED, [(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// Whether a browser asks what a request of a page may be like.
pub(in crate::http) fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers a preflight. One of any path is answered, and counts against no limit: without its headers a page would not
/// see the status of the request.
pub(in crate::http) async fn preflight(gateway: Arc<Gateway>, request: Request) -> Result<Response, Infallible> {
    let started = Instant::now();
    let mut response = match head::check(&request) {
        Ok(()) => gateway.cors.answer_preflight(request).await?,
        Err(failure) => Rejection::from(failure).into_response(),
    };
    gateway.counters.answered(Route::default(), "none", response.status(), started.elapsed().as_secs_f64());
    secure(response.headers_mut(), gateway.settings.tls);
    Ok(response)
}

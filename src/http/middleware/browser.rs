//! Headers for browsers: CORS, and the security of our own pages.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower::ServiceExt;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{host, request_id::TRACEPARENT};
use crate::http::{
    counters::Route,
    envelope::{OWN, REQUEST_ID, SERVER_TIMING, SOURCE, SYNC, TIP, TIP_AGE, UNBUFFERED, VERIFICATION},
    gateway::Gateway,
    limits::rate::{RATELIMIT, RATELIMIT_POLICY},
};

/// The content security policy of pages that have none of their own: those of Swagger UI, which load nothing from elsewhere and
/// have inline styles and images.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// HTTPS only for two years, as browsers' preload lists require.
const HTTPS_ONLY: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// How long a browser may cache a preflight's answer, in seconds: two hours is the most that any does.
const MAX_AGE: u64 = 7200;

/// Headers that pages of other origins may read, besides those that CORS always allows.
const EXPOSED: [HeaderName; 12] = [
    SOURCE,
    TIP,
    TIP_AGE,
    SYNC,
    VERIFICATION,
    header::ETAG,
    header::RETRY_AFTER,
    RATELIMIT,
    RATELIMIT_POLICY,
    header::ALLOW,
    REQUEST_ID,
    SERVER_TIMING,
];

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

/// The events that a browser gets in place of a refusal: it reconnects after the refusal's `retry-after`, while an error would
/// end its `EventSource` for ever.
pub(in crate::http) fn retry_events(refusal: &Response) -> Response {
    let seconds = refusal.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let status = refusal.status();
    let body = format!("retry: {}\n: refused for now: {status}\n\n", 1000 * seconds.unwrap_or(1));
    (OWN, UNBUFFERED, [(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// The CORS layer for pages of these origins; `*` is any.
pub(in crate::http) fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let origins = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().cloned()),
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_headers([
            header::ACCEPT,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            HeaderName::from_static("last-event-id"),
            REQUEST_ID,
            TRACEPARENT,
            TIP,
        ])
        .expose_headers(EXPOSED)
        .max_age(std::time::Duration::from_secs(MAX_AGE))
}

/// Passes only preflights on to [`cors`], which would answer any `OPTIONS`; `router` answers the others. A preflight of any
/// path is answered, and counts against no limit: without its headers a page would not see the status of the request.
pub(in crate::http) async fn preflight(
    State((gateway, router)): State<(Arc<Gateway>, Router)>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() != Method::OPTIONS {
        return next.run(request).await;
    }
    if !request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return router.oneshot(request).await.into_response();
    }
    let started = Instant::now();
    let mut response = host::require(request, next).await;
    gateway.counters.answered(Route::default(), "none", response.status(), started.elapsed().as_secs_f64());
    secure(response.headers_mut(), gateway.settings.tls);
    response
}

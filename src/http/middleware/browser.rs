//! What browsers are told: which pages may read answers, and what our own pages may do.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower::ServiceExt;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::http::{
    envelope::{SOURCE, TIP, VERIFICATION},
    limits::rate::{RATELIMIT, RATELIMIT_POLICY},
};

/// A page loads and calls nothing but what comes from here. Swagger UI writes styles and small images into itself.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Two years of HTTPS only, as browsers' lists want it.
const HTTPS_ONLY: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// How long a browser may keep what it was told about other origins, in seconds: two hours, the most that any does.
const MAX_AGE: u64 = 7200;

/// Headers of ours that pages may read beside the few that they always may.
const EXPOSED: [HeaderName; 8] =
    [SOURCE, TIP, VERIFICATION, header::ETAG, header::RETRY_AFTER, RATELIMIT, RATELIMIT_POLICY, header::ALLOW];

/// Adds to an answer what browsers are to mind.
pub(in crate::http) fn secure(headers: &mut HeaderMap, tls: bool) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HTTPS_ONLY);
    }
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
        headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
}

/// Pages of these origins may read answers; `*` is any, and none is none.
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
            header::IF_NONE_MATCH,
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers(EXPOSED)
        .max_age(std::time::Duration::from_secs(MAX_AGE))
}

/// Lets [`cors`], which would answer any `OPTIONS`, answer those by which a browser asks whether a page may, where `router`
/// knows the path and the client has not had its share.
pub(in crate::http) async fn preflight(State(router): State<Router>, request: Request, next: Next) -> Response {
    if request.method() != Method::OPTIONS {
        return next.run(request).await;
    }
    let (parts, _) = request.into_parts();
    let answer = router.oneshot(Request::from_parts(parts.clone(), Body::empty())).await.into_response();
    let asks = parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    match asks && answer.status() == StatusCode::METHOD_NOT_ALLOWED {
        true => next.run(Request::from_parts(parts, Body::empty())).await,
        false => answer,
    }
}

//! CORS: what pages of other origins may read and send.

use std::{convert::Infallible, future};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    response::Response,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{
    envelope::{REQUEST_ID, SERVER_TIMING, SOURCE, SYNC, TIP, TIP_AGE, TRACEPARENT, VERIFICATION},
    limits::rate::{RATELIMIT, RATELIMIT_POLICY},
};

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

/// Which pages of other origins may read answers (<https://fetch.spec.whatwg.org/#http-cors-protocol>). Preflights are
/// left to the library; what is added to every answer is a few headers that hardly change, for which its layer would
/// cost more than all other headers together.
pub(super) struct Cors {
    /// Origins whose pages may read answers; `None`: any.
    origins: Option<Vec<HeaderValue>>,
    exposed: HeaderValue,
    preflights: CorsLayer,
}

impl Cors {
    /// For pages of these origins; `*` is any.
    pub fn new(origins: &[HeaderValue]) -> Self {
        let origins = (!origins.iter().any(|origin| origin == "*")).then(|| origins.to_vec());
        let allowed = origins.as_ref().map_or(AllowOrigin::any(), |origins| AllowOrigin::list(origins.iter().cloned()));
        let preflights = CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::HEAD, Method::POST])
            .allow_headers([
                header::ACCEPT,
                header::CONTENT_TYPE,
                header::IF_MATCH,
                header::IF_NONE_MATCH,
                HeaderName::from_static("last-event-id"),
                REQUEST_ID,
                TRACEPARENT,
                HeaderName::from_static("tracestate"),
                TIP,
            ])
            .max_age(std::time::Duration::from_secs(MAX_AGE));
        // Names of headers are values of headers.
        let exposed = HeaderValue::try_from(EXPOSED.map(|name| name.to_string()).join(","));
        Self { origins, exposed: exposed.unwrap_or(HeaderValue::from_static("*")), preflights }
    }

    /// Answers a preflight: what pages may send.
    pub async fn answer_preflight(&self, preflight: Request) -> Result<Response, Infallible> {
        // The layer answers by itself.
        let unasked = service_fn(|_: Request| future::ready(Ok(Response::default())));
        self.preflights.layer(unasked).oneshot(preflight).await
    }

    /// Adds the headers to an answer to a page of `origin`, which are all but a preflight's.
    pub fn add_headers(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let allowed = match &self.origins {
            None => Some(HeaderValue::from_static("*")),
            Some(origins) => {
                headers.append(header::VARY, HeaderValue::from_name(header::ORIGIN));
                origin.filter(|origin| origins.contains(origin)).cloned()
            }
        };
        if let Some(allowed) = allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        }
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, self.exposed.clone());
    }
}

//! What each answer says of its request and of the chain, and what is counted and logged of it.

#[cfg(feature = "otlp")]
use axum::http::Method;
use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use tokio::time::Instant;
use tracing::Span;

use super::{access_log::AccessLine, browser, request_id::RequestId};
#[cfg(feature = "otlp")]
use crate::telemetry::otlp;
use crate::{
    http::{
        counters::Route,
        envelope::{REQUEST_ID, SERVER_TIMING, SOURCE, SYNC, TIP, TIP_AGE},
        gateway::Gateway,
        limits::client::Client,
        respond::Details,
        timing,
    },
    source::{ChainWatch, Freshness},
};

/// A request, from when it came until it is answered.
pub(super) struct ObservedRequest {
    id: RequestId,
    pub(super) started: Instant,
    route: Route,
    line: Option<AccessLine>,
    /// Whether a browser sends it to follow the chain.
    follows: bool,
    /// The method and the span, which are exported.
    #[cfg(feature = "otlp")]
    exported: (Method, Span),
}

impl ObservedRequest {
    pub(super) fn begin(gateway: &Gateway, client: Option<Client>, request: &Request) -> Self {
        let (started, id) = (Instant::now(), RequestId::of(request.headers()));
        let wanted = gateway.settings.access_log;
        Self {
            started,
            route: Route(request.extensions().get::<MatchedPath>().cloned()),
            line: AccessLine::of(wanted, &id, client, request.method(), request.uri(), started),
            follows: browser::follows(request),
            #[cfg(feature = "otlp")]
            exported: (request.method().clone(), Span::none()),
            id,
        }
    }

    /// The span whose log lines name the request: see [`RequestId::span`].
    pub(super) fn span(&mut self, forwarded: bool) -> Span {
        let span = self.id.span(forwarded);
        #[cfg(feature = "otlp")]
        {
            self.exported.1 = span.clone();
        }
        span
    }

    /// Counts and logs the answer; adds the headers of all answers.
    pub(super) fn answered(self, gateway: &Gateway, mut response: Response) -> Response {
        let took = self.started.elapsed();
        let source = match response.headers().get(SOURCE) {
            Some(source) if source.as_bytes().starts_with(b"peer:") => "peer",
            Some(_) => "store",
            None => "none",
        };
        gateway.counters.answered(self.route.clone(), source, response.status(), took.as_secs_f64());
        if self.follows && matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        {
            response = browser::retry_events(&response);
        }
        let status = response.status();
        let part = response.extensions().get().and_then(|details: &Details| details.timing);
        #[cfg(feature = "otlp")]
        {
            let route = self.route.0.as_ref().map(MatchedPath::as_str);
            otlp::describe(&self.exported.1, self.exported.0.as_str(), route, status.as_u16());
        }
        let headers = response.headers_mut();
        if status == StatusCode::NOT_MODIFIED {
            // It would have to be that of the answer itself (RFC 9110, section 8.6).
            headers.remove(header::CONTENT_LENGTH);
        }
        browser::secure(headers, gateway.settings.tls);
        if source == "store" {
            describe_chain(headers, gateway.source.chain_watch());
        }
        headers.insert(REQUEST_ID, self.id.value().clone());
        if let Some(timing) = timing::value(part, took) {
            headers.insert(SERVER_TIMING, timing);
        }
        match self.line {
            Some(line) => line.log(self.route, source, response),
            None => response,
        }
    }
}

/// Adds the age of the tip and the state of the sync; not to an answer that any cache may keep, in which they would be
/// as old as the copy.
fn describe_chain(headers: &mut HeaderMap, watch: &ChainWatch) {
    if headers.get(header::CACHE_CONTROL).is_some_and(|caches| caches.as_bytes().starts_with(b"public")) {
        return;
    }
    let Freshness { tip_age, sync } = watch.freshness(|hash| headers.get(TIP).is_none_or(|tip| names(tip, hash)));
    if let Some(age) = tip_age {
        headers.insert(TIP_AGE, HeaderValue::from(age));
    }
    if let Some(state) = sync {
        headers.insert(SYNC, HeaderValue::from_static(state.as_str()));
    }
}

/// Whether the value of [`TIP`] is of the block with this hash: the tip may have changed since the answer was read.
fn names(tip: &HeaderValue, hash: &str) -> bool {
    tip.as_bytes().strip_suffix(hash.as_bytes()).is_some_and(|index| index.ends_with(b":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tip_is_named_by_its_whole_hash() {
        let tip = HeaderValue::from_static("60:0017cb");
        assert!(names(&tip, "0017cb"));
        assert!(!names(&tip, "17cb") && !names(&tip, "") && !names(&tip, "0017cc") && !names(&tip, "60:0017cb"));
    }
}

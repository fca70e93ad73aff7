//! A page becomes a response, and a failure a page where a browser asked.

use askama::Template;
use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use super::{
    frame::Frame,
    visit::{Trimmed, Visit, root},
};
use crate::{
    http::{
        envelope::{Rejection, SOURCE, TIP},
        gateway::Gateway,
        middleware::browser,
        negotiation::{Outcome, weighted},
    },
    protocol::{Code, Failure},
};

/// The routes of the explorer's pages.
const ROUTES: [&str; 11] = [
    "/",
    "/blocks",
    "/block/{id}",
    "/epochs",
    "/epoch/{epoch}",
    "/nominees",
    "/nominee/{peer}",
    "/network",
    "/forks",
    "/reorganisations",
    "/search",
];

/// Longest page, in bytes.
const MAX_PAGE_BYTES: usize = 100_000;

/// Pages load nothing from elsewhere, and hold neither styles nor scripts of their own.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
);

/// Also pages of final blocks name the tip and its age, which change.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Answers with a page; `frame` is what is around it.
///
/// # Errors
/// [`Code::Internal`] where it would be too long.
pub(super) fn respond(visit: &Visit, frame: &Frame, page: &impl Template) -> Result<Response, Failure> {
    let body = rendered(page)?;
    let mut headers = page_headers();
    let tag = hex::encode(&Sha256::digest(&body)[..16]);
    let tag = HeaderValue::try_from(format!("\"{tag}\"")).map_err(|_| Failure::new(Code::Internal))?;
    headers.insert(header::ETAG, tag.clone());
    headers.insert(header::CACHE_CONTROL, REVALIDATE);
    headers.insert(SOURCE, HeaderValue::from_static("local"));
    let tip = frame.state.as_ref().and_then(|state| state.tip_header.as_deref());
    if let Some(Ok(tip)) = tip.map(HeaderValue::from_str) {
        headers.insert(TIP, tip);
    }
    if let Some(seconds) = visit.refresh {
        headers.insert(header::REFRESH, HeaderValue::from(seconds));
    }
    Ok(match visit.conditions.evaluate(Some(&tag)) {
        Outcome::Answer => (headers, body).into_response(),
        Outcome::NotModified => (StatusCode::NOT_MODIFIED, headers).into_response(),
        Outcome::Failed => Rejection::from(Failure::new(Code::PreconditionFailed)).into_response(),
    })
}

fn page_headers() -> HeaderMap {
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, HTML),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::VARY, HeaderValue::from_static("accept")),
    ])
}

fn rendered(page: &impl Template) -> Result<String, Failure> {
    let body = page.render().map_err(|error| {
        tracing::error!(%error, "a page can't be rendered");
        Failure::new(Code::Internal)
    })?;
    match body.len() <= MAX_PAGE_BYTES {
        true => Ok(body),
        false => {
            tracing::error!(bytes = body.len(), "a page is too long");
            Err(Failure::new(Code::Internal))
        }
    }
}

/// The page of a failure.
#[derive(Template)]
#[template(path = "explorer/error.html")]
struct ErrorPage {
    frame: Frame,
    status: u16,
    error: String,
    detail: String,
    hint: &'static str,
}

/// A request whose failure is shown as a page: a browser asks, on one of the explorer's paths or on an unknown one.
pub(in crate::http) struct FailurePage {
    /// The path to the root from the page's.
    root: String,
}

impl FailurePage {
    /// `None` for a request whose failure is an envelope, as all others are.
    pub fn of(request: &Request) -> Option<Self> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let wants_page = is_read && accepts_pages(request.headers()) && is_page(request);
        wants_page.then(|| {
            let trimmed = request.extensions().get().map_or(0, |Trimmed(count)| *count);
            Self { root: root(request.uri().path(), trimmed) }
        })
    }

    /// The response; if it is a failure, as a page.
    pub fn show(self, gateway: &Gateway, response: Response) -> Response {
        match response.extensions().get::<Failure>() {
            Some(failure) => {
                let page = error_page(gateway, response.status(), failure, self.root);
                in_html(response, page, gateway.settings.tls)
            }
            None => response,
        }
    }
}

/// Whether the request is for a page, or for nothing that there is.
fn is_page(request: &Request) -> bool {
    let api = ["/data/", "/chain/", "/sync/", "/docs/", "/health/", "/assets/"];
    match request.extensions().get::<MatchedPath>() {
        Some(path) => ROUTES.contains(&path.as_str()),
        None => !api.iter().any(|family| request.uri().path().starts_with(family)),
    }
}

/// Whether the client names HTML, as browsers do.
fn accepts_pages(headers: &HeaderMap) -> bool {
    weighted::members(headers, header::ACCEPT).any(|(range, weight)| range == "text/html" && weight > 0.0)
}

fn error_page(gateway: &Gateway, status: StatusCode, failure: &Failure, root: String) -> ErrorPage {
    let hint = match failure.code {
        Code::BlockNotFound => {
            "The block may exist elsewhere: this gateway knows the chain that it follows, and the branches that it saw."
        }
        Code::UnknownPath | Code::UnknownPeer => "Check the address, or search for a block, an epoch or a peer.",
        Code::RateLimited => "Each client has a share of this gateway. Wait a little, then load the page again.",
        Code::StoreUnavailable | Code::Busy => "This passes. Wait a little, then load the page again.",
        _ => "",
    };
    ErrorPage {
        frame: Frame::without_state(failure.error.to_string(), gateway.settings.network.name.clone(), root),
        status: status.as_u16(),
        error: failure.error.to_string(),
        detail: failure.detail.clone().unwrap_or_default(),
        hint,
    }
}

/// The response with a page as its body.
fn in_html(response: Response, page: ErrorPage, tls: bool) -> Response {
    let Ok(body) = rendered(&page) else { return response };
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(page_headers());
    browser::secure(&mut parts.headers, tls);
    Response::from_parts(parts, body.into())
}

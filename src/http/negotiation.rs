//! What a client accepts, and conditional requests.
//!
//! * `weighted`: the form of the headers
//! * `format`: the format of an answer
//! * `coding`: content codings, and the compression
//! * `conditions`: entity tags of the client's copies

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::envelope::Rejection;
use crate::protocol::{Code, Failure};

mod coding;
mod conditions;
mod format;
pub(super) mod weighted;

pub(super) use self::{
    coding::{Coding, Codings},
    conditions::{Conditions, Outcome},
    format::{Format, preference},
};

/// Which answers a client says that it accepts, and on what conditions.
pub(super) struct Accepted {
    method: Method,
    headers: HeaderMap,
}

/// Their headers.
const HEADERS: [HeaderName; 4] = [header::ACCEPT, header::ACCEPT_ENCODING, header::IF_MATCH, header::IF_NONE_MATCH];

impl Accepted {
    /// What the client of a request accepts; `None` where it accepts anything: it does not say, or it is a probe, which
    /// is answered in any case.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let lines = HEADERS.into_iter();
        let lines = lines
            .flat_map(|name| request.headers().get_all(&name).iter().map(move |line| (name.clone(), line.clone())));
        let headers: HeaderMap = lines.collect();
        let is_silent = headers.is_empty() || request.uri().path().starts_with("/health/");
        (!is_silent).then(|| Self { method: request.method().clone(), headers })
    }

    /// What the conditions ask for where an answer has no entity tag.
    pub(super) fn untagged(&self) -> Outcome {
        Conditions::of(&self.method, &self.headers).evaluate(None)
    }

    /// Refuses an answer that the client does not accept: on routes whose answers have one format, another format, and
    /// on all of them an answer without any coding that the client takes. Evaluates the conditions for one that has no
    /// entity tag, which others have done themselves.
    pub(super) fn check(&self, response: Response) -> Response {
        if response.status() != StatusCode::OK {
            return response;
        }
        if let Err(failure) = Codings::of(&self.headers) {
            return Rejection::from(failure).into_response();
        }
        let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        match media_type.and_then(|kind| kind.split(';').next()) {
            Some(kind) if format::preference(&self.headers, kind.trim()).quality == 0.0 => {
                Rejection::from(Failure::with_detail(Code::NotAcceptable, format!("this is answered as {kind}")))
                    .into_response()
            }
            _ if response.headers().contains_key(header::ETAG) => response,
            _ => match self.untagged() {
                Outcome::Answer => response,
                Outcome::Failed => Rejection::from(Failure::new(Code::PreconditionFailed)).into_response(),
                Outcome::NotModified => {
                    let (mut parts, _) = response.into_parts();
                    parts.status = StatusCode::NOT_MODIFIED;
                    parts.headers.remove(header::CONTENT_TYPE);
                    Response::from_parts(parts, Body::empty())
                }
            },
        }
    }
}

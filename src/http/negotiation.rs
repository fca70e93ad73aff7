//! What a client accepts, and conditional requests.
//!
//! * `weighted`: the form of the headers
//! * `format`: the format of an answer
//! * `coding`: content codings, and the compression
//! * `conditions`: entity tags of the client's copies

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header},
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
    format::Format,
};

/// What a client says that it accepts.
pub(super) struct Accepted {
    headers: HeaderMap,
}

impl Accepted {
    /// What the client of a request accepts; `None` where it accepts anything: it does not say, or it is a probe, which
    /// is answered in any case.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let lines = [header::ACCEPT, header::ACCEPT_ENCODING].into_iter();
        let lines = lines
            .flat_map(|name| request.headers().get_all(&name).iter().map(move |line| (name.clone(), line.clone())));
        let headers: HeaderMap = lines.collect();
        (!headers.is_empty() && !request.uri().path().starts_with("/health/")).then_some(Self { headers })
    }

    /// Refuses an answer that the client does not accept: on routes whose answers have one format, another format, and
    /// on all of them an answer without any coding that the client takes.
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
            _ => response,
        }
    }
}

//! What a client accepts, and conditional requests.
//!
//! * `weighted`: the form of the headers
//! * `format`: the format of an answer
//! * `coding`: content codings, and the compression
//! * `conditions`: entity tags of the client's copies

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::envelope::Rejection;
use crate::protocol::{Code, Failure};

mod coding;
mod conditions;
mod format;
mod weighted;

pub(super) use self::{
    coding::{Coding, Codings},
    conditions::{Conditions, Outcome},
    format::Format,
};

/// Refuses what the client does not accept: on routes whose answers have one format, another format, and on all of them an
/// answer without any coding that the client takes. Probes are answered in any case.
pub(super) async fn acceptable(request: Request, next: Next) -> Response {
    let accept: HeaderMap = [header::ACCEPT, header::ACCEPT_ENCODING]
        .into_iter()
        .flat_map(|name| request.headers().get_all(&name).iter().map(move |line| (name.clone(), line.clone())))
        .collect();
    let is_probe = request.uri().path().starts_with("/health/");
    let response = next.run(request).await;
    if accept.is_empty() || is_probe || response.status() != StatusCode::OK {
        return response;
    }
    if let Err(failure) = Codings::of(&accept) {
        return Rejection::from(failure).into_response();
    }
    let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    match media_type.and_then(|kind| kind.split(';').next()) {
        Some(kind) if format::preference(&accept, kind.trim()).quality == 0.0 => {
            Rejection::from(Failure::with_detail(Code::NotAcceptable, format!("this is answered as {kind}")))
                .into_response()
        }
        _ => response,
    }
}

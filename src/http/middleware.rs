//! What is done for each request around its handler.
//!
//! * [`access`]: access to the admin listener
//! * `access_log`: a line for each answered request
//! * [`browser`]: preflights and security headers
//! * [`compression`]: compression of what is not kept: streams, pages, answers about the gateway itself
//! * `handler`: the handler: its deadline, its panics, and whether it is asked at all
//! * `head`: what the head of each request must have
//! * `limited`: a request under its client's limits
//! * `observed`: what each answer says of its request and of the chain, and what is counted and logged of it
//! * `request_id`: the id of a request
//! * `seen_tip`: the tip that the client has seen

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::Request,
    http::header,
    response::{IntoResponse, Response},
    routing::Route,
};
use tracing::Instrument;

pub(super) use self::handler::contain_panics;
use self::{
    compression::Compression,
    handler::run,
    limited::{Kind, LimitedRequest},
    observed::ObservedRequest,
};
use super::{envelope::Rejection, explorer::FailurePage, gateway::Gateway, server::Remote};
use crate::protocol::{Code, Failure};

pub mod access;
mod access_log;
pub(super) mod browser;
pub(super) mod compression;
mod handler;
pub(super) mod head;
mod limited;
mod observed;
mod request_id;
mod seen_tip;

/// Answers a request of the public listener by its route.
pub(super) async fn answer(gateway: Arc<Gateway>, request: Request, route: Route) -> Result<Response, Infallible> {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let (compression, page) = (Compression::of(&request), FailurePage::of(&request));
    let response = limit(&gateway, request, route).await;
    let response = match page {
        Some(page) => page.show(&gateway, response),
        None => response,
    };
    // Outside of the limits, which are for what is made, not for what is sent.
    let mut response = compression.apply(response).await;
    gateway.cors.add_headers(origin.as_ref(), response.headers_mut());
    Ok(response)
}

/// Identifies the client, enforces its limits, and counts and describes the answer.
async fn limit(gateway: &Arc<Gateway>, mut request: Request, route: Route) -> Response {
    let remote = request.extensions().get().map(|Remote(ip)| *ip);
    let client = remote.map(|ip| gateway.settings.addresses.client(ip, request.headers()));
    let mut observed = ObservedRequest::begin(gateway, client, &request);
    let (deadline, kind) = (observed.started + gateway.settings.request_timeout, Kind::of(&request));
    let answer = async {
        let Some(client) = client else {
            // Taken for loopback, a request without an address would have no limits.
            tracing::error!("a request came without its client's address");
            return Rejection::from(Failure::new(Code::Internal)).into_response();
        };
        request.extensions_mut().insert(client);
        match request.uri().path().starts_with("/health/") {
            // Probes are answered whatever else is in flight.
            true => run(gateway, deadline, request, route).await,
            false => LimitedRequest::new(gateway, client, deadline, kind).enforce(request, route).await,
        }
    };
    let response = answer.instrument(observed.span(kind.forwarded)).await;
    observed.answered(gateway, response)
}

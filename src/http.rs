//! The HTTP door: routes that mirror the protocol's paths, and what a gateway tells of itself.
//!
//! * [`client`]: who a client is
//! * [`error`]: the only table from error code to status
//! * [`extract`]: a request becomes a typed query
//! * [`respond`]: an answer becomes a response: envelope, provenance, caching, NDJSON
//! * [`miner_block`]: the mirrored routes and their documentation
//! * [`status`]: `/status`, `/peers`, `/health`
//! * [`peers`]: the operator's hand on the peers
//! * [`sync`]: the sync as a resource, `/sync`
//! * [`events`]: what becomes of the chain, `/events`
//! * [`docs`]: the OpenAPI document and the pages that show it

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::Request,
    middleware,
    response::{Redirect, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::source::Source;

pub use docs::openapi_json;

pub mod admin;
pub mod client;
pub mod docs;
pub mod error;
pub mod events;
pub mod extract;
pub mod miner_block;
pub mod peers;
pub mod respond;
pub mod status;
pub mod sync;

/// What every handler needs.
#[derive(Clone)]
pub struct Gateway {
    source: Arc<Source>,
    started: Instant,
    /// Room for streams of events.
    streams: Arc<Semaphore>,
    /// What ends them.
    closing: CancellationToken,
}

impl Gateway {
    /// A gateway that answers from `source`, started now. What has no end of its own ends with `closing`.
    pub fn new(source: Arc<Source>, closing: CancellationToken) -> Self {
        Self { source, started: Instant::now(), streams: Arc::new(Semaphore::new(events::MAX_STREAMS)), closing }
    }
}

/// Every public route.
pub fn router(gateway: Gateway) -> Router {
    let (routes, document) = docs::documented_routes().split_for_parts();
    routes
        .merge(docs::pages(&document))
        .route("/", get(|| async { Redirect::temporary("/docs/") }))
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn(server_errors))
        .layer(CatchPanicLayer::custom(error::panicked))
        .with_state(gateway)
}

/// Serves `router` on `listener` until `shutdown`; then finishes the requests in progress.
///
/// # Errors
/// The listener's own, which end the server.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> std::io::Result<()> {
    use axum::serve::ListenerExt as _;
    // A small answer must not wait for the client's delayed acknowledgement.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// Logs what went wrong on our side, once, where it is handled.
async fn server_errors(request: Request, next: middleware::Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().clone());
    let response = next.run(request).await;
    if response.status().is_server_error() {
        tracing::info!(%method, path = path.path(), status = response.status().as_u16(), "request failed");
    }
    response
}

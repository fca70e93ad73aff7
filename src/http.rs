//! The HTTP door: routes that mirror the protocol's paths, and what a gateway tells of itself.
//!
//! * [`server`]: the accept loop: connections, their deadlines and bounds, TLS
//! * [`client`]: who a client is; [`shares`]: how many of something each holds; `room`: how much there is
//! * [`rate`]: how much a client may ask
//! * `guard`: what each request passes: its client's share, room, time
//! * `pages`: what browsers are told
//! * [`access`]: who may use the admin listener
//! * [`admin`]: the admin listener; [`counters`]: what it shows of the doors
//! * [`error`]: the only table from error code to status
//! * [`extract`]: a request becomes a typed query
//! * [`respond`]: an answer becomes a response: envelope, provenance, caching, NDJSON
//! * [`miner_block`]: the mirrored routes and their documentation
//! * [`status`]: `/status`, `/peers`, `/health`
//! * [`peers`]: the operator's hand on the peers
//! * [`sync`]: the sync as a resource, `/sync`
//! * [`events`]: what becomes of the chain, `/events`
//! * [`docs`]: the OpenAPI document and the pages that show it

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    http::HeaderValue,
    middleware,
    response::{Redirect, Response},
    routing::get,
};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use self::{client::Proxies, counters::Counters, rate::RateLimit, room::Room};
use crate::{chain::Network, source::Source};

pub use docs::openapi_json;
pub use server::serve;

pub mod access;
pub mod admin;
pub mod client;
pub mod counters;
pub mod docs;
pub mod error;
pub mod events;
pub mod extract;
mod guard;
pub mod miner_block;
mod pages;
pub mod peers;
pub mod rate;
pub mod respond;
mod room;
pub mod server;
pub mod shares;
pub mod status;
pub mod sync;

/// What the public door grants its clients.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose word about a client's address is taken.
    pub proxies: Proxies,
    /// Units that a client may ask for per second; 0 is no limit. Programs on this machine have none.
    pub rate_limit: u32,
    /// Units that it may ask for at once.
    pub rate_burst: u32,
    /// Requests in progress at once.
    pub max_requests: usize,
    /// How long a request may take until its answer begins, its body included.
    pub request_timeout: Duration,
    /// Origins whose pages may read answers; `*` is any.
    pub cors_origins: Vec<HeaderValue>,
    /// Whether the door speaks TLS.
    pub tls: bool,
    /// The network whose chain it is.
    pub network: Arc<Network>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proxies: Proxies::default(),
            rate_limit: 100,
            rate_burst: 1000,
            max_requests: 256,
            request_timeout: Duration::from_secs(60),
            cors_origins: vec![HeaderValue::from_static("*")],
            tls: false,
            network: Arc::default(),
        }
    }
}

/// What every handler needs.
#[derive(Clone)]
pub struct Gateway {
    source: Arc<Source>,
    settings: Arc<Settings>,
    started: Instant,
    rate: Option<Arc<RateLimit>>,
    room: Arc<Room>,
    counters: Arc<Counters>,
    /// What ends streams of events.
    closing: CancellationToken,
}

impl Gateway {
    /// A gateway that answers from `source`, started now. What has no end of its own ends with `closing`.
    pub fn new(source: Arc<Source>, settings: Settings, closing: CancellationToken) -> Self {
        Self {
            source,
            started: Instant::now(),
            rate: RateLimit::new(settings.rate_limit, settings.rate_burst).map(Arc::new),
            room: Arc::new(Room::new(&settings)),
            counters: Arc::default(),
            settings: Arc::new(settings),
            closing,
        }
    }

    /// What both doors count.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

/// Every public route.
pub fn router(gateway: Gateway) -> Router {
    let (routes, document) = docs::documented_routes().split_for_parts();
    let cors = pages::cors(&gateway.settings.cors_origins);
    let guarded = routes
        .merge(docs::pages(&document))
        .route("/", get(|| async { Redirect::temporary("/docs/") }))
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(contain_panics(&gateway.counters))
        .layer(middleware::from_fn_with_state(gateway.clone(), guard::guard))
        .with_state(gateway);
    guarded.clone().layer(cors).layer(middleware::from_fn_with_state(guarded, pages::preflight))
}

/// A handler that panics is counted, and its client told.
fn contain_panics(
    counters: &Arc<Counters>,
) -> CatchPanicLayer<impl FnMut(Box<dyn Any + Send>) -> Response + Clone + use<>> {
    let counters = counters.clone();
    CatchPanicLayer::custom(move |panic| {
        counters.panics.add();
        error::panicked(panic)
    })
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Request};

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer_and_a_figure() {
        let counters = Arc::default();
        let broken = || async { panic!("on purpose") as &'static str };
        let router: Router = Router::new().route("/", get(broken)).layer(contain_panics(&counters));
        for count in 1..=2 {
            let request = Request::new(Body::empty());
            let response = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
            assert_eq!((response.status().as_u16(), counters.panics.get()), (500, count));
        }
    }
}

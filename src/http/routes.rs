//! Every route of both listeners. The handlers are in one file per route family.
//!
//! * `miner_block`: the paths of the sync protocol
//! * `chain`: the views of the chain under `/chain`
//! * `status`: `/status` and `/health`
//! * `peers`: `/peers`, and the operator's `POST` and `DELETE`
//! * `sync`: `/sync` and its jobs, and the operator's `POST` and `DELETE`
//! * `events`: `/events`
//! * `metrics`: the operator's `/metrics`
//! * `public`: the public listener's routes as one service: paths of any form, and what is done around each handler

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn, from_fn_with_state, map_response},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use tower::util::MapRequest;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    envelope::{Rejection, method_not_allowed, unknown_path},
    explorer,
    gateway::Gateway,
    middleware::{
        self,
        access::{self, Access},
        browser, head,
    },
    negotiation::{Accepted, Outcome},
    numbers::Numbers,
    openapi,
    server::Routes,
};
use crate::protocol::{Code, Failure};

mod chain;
mod events;
mod metrics;
mod miner_block;
mod peers;
mod public;
mod status;
mod sync;

pub use public::PublicRoutes;

/// The documented routes of the public listener. The handlers' names are the document's operation ids, and so those of
/// generated clients.
fn documented() -> OpenApiRouter<Arc<Gateway>> {
    use miner_block::*;
    OpenApiRouter::with_openapi(openapi::document())
        .routes(routes!(ping, ping_by_post))
        .routes(routes!(inspect, inspect_by_post))
        .routes(routes!(get_block, get_block_by_post))
        .routes(routes!(get_canonical_chain, get_canonical_chain_by_post))
        .routes(routes!(get_epoch, get_epoch_by_post))
        .routes(routes!(get_range, get_range_by_post))
        .routes(routes!(get_chain_info, get_chain_info_by_post))
        .routes(routes!(find_ancestor))
        .routes(routes!(debug_index, debug_index_by_post))
        .routes(routes!(chain::list_blocks))
        .routes(routes!(chain::describe_block))
        .routes(routes!(chain::list_orphans))
        .routes(routes!(chain::list_epochs))
        .routes(routes!(chain::describe_epoch))
        .routes(routes!(chain::rank_nominees))
        .routes(routes!(chain::describe_nominee))
        .routes(routes!(chain::describe_network))
        .routes(routes!(chain::list_reorganisations))
        .routes(routes!(chain::search_chain))
        .routes(routes!(status::get_status))
        .routes(routes!(peers::list_peers))
        .routes(routes!(status::check_live))
        .routes(routes!(status::check_ready))
        .routes(routes!(sync::list_sync_jobs))
        .routes(routes!(sync::get_sync_job))
        .routes(routes!(events::follow_chain))
}

/// The routes of the public listener. Each request must carry a [`Remote`](super::server::Remote), as the server adds
/// it.
pub fn public_routes(gateway: Arc<Gateway>) -> PublicRoutes {
    let (routes, document) = documented().split_for_parts();
    let routes = routes
        .merge(openapi::pages(&document))
        .merge(explorer::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(gateway.clone());
    PublicRoutes::new(gateway, routes)
}

/// The router of the admin listener: metrics, and the sync and the peers with what only the operator may do, for those
/// that `access` admits. The health routes are open to everybody who reaches the listener: probes have no token.
pub fn admin_routes(gateway: Arc<Gateway>, access: Access) -> impl Routes {
    let routes: Router = Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/sync", get(sync::list_sync_jobs).post(sync::request_sync))
        .route("/sync/{id}", get(sync::get_sync_job).delete(sync::cancel_sync))
        .route("/peers", get(peers::list_peers).post(peers::add_peer))
        .route("/peers/{id}", delete(peers::remove_peer))
        .route("/peers/{id}/penalties", delete(peers::forgive_peer))
        .route_layer(from_fn(negotiate))
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(access, access::require))
        .route("/health/live", get(status::check_live))
        .route("/health/ready", get(status::check_ready))
        .layer(from_fn_with_state(gateway.clone(), contain_panics))
        .layer(from_fn(head::require))
        .layer(map_response(|mut response: Response| async {
            browser::secure(response.headers_mut(), false);
            response
        }))
        .with_state(gateway);
    MapRequest::new(routes, public::normalised as fn(Request) -> Request)
}

/// The OpenAPI document as it is checked in: pretty-printed JSON with a newline at the end. With [`Numbers::String`],
/// that of the API with `?numbers=string`.
pub fn openapi_json(numbers: Numbers) -> String {
    openapi::text(&documented().into_openapi(), numbers)
}

/// Refuses on the admin listener what the client does not accept, and before it is done what it asks for on a condition
/// that can't be: no answer there has an entity tag.
async fn negotiate(request: Request, next: Next) -> Response {
    let Some(accepted) = Accepted::of(&request) else { return next.run(request).await };
    if !request.method().is_safe() && accepted.untagged() == Outcome::Failed {
        return Rejection::from(Failure::new(Code::PreconditionFailed)).into_response();
    }
    accepted.check(next.run(request).await)
}

/// See [`middleware::contain_panics`].
async fn contain_panics(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    middleware::contain_panics(&gateway.counters, next.run(request)).await
}

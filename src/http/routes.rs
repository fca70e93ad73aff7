//! Every route of both listeners. The handlers are in one file per route family.
//!
//! * `miner_block`: the paths of the sync protocol
//! * `chain`: the views of the chain under `/chain`
//! * `status`: `/status` and `/health`
//! * `peers`: `/peers`, and the operator's `POST` and `DELETE`
//! * `sync`: `/sync` and its jobs, and the operator's `POST` and `DELETE`
//! * `events`: `/events`
//! * `metrics`: the operator's `/metrics`

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::Request,
    http::Uri,
    middleware::{from_fn, from_fn_with_state, map_response},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use tower::{Layer, util::MapRequestLayer};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    counters::Counters,
    envelope::{Rejection, method_not_allowed, unknown_path},
    explorer::{self, Trimmed},
    gateway::Gateway,
    middleware::{
        self,
        access::{self, Access},
        browser, compression, host,
    },
    negotiation,
    numbers::Numbers,
    openapi,
};
use crate::protocol::{Code, Failure};

mod chain;
mod events;
mod metrics;
mod miner_block;
mod peers;
mod status;
mod sync;

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

/// The router of the public listener. Each request must carry a [`Remote`](super::server::Remote), as the server adds
/// it.
pub fn router(gateway: Arc<Gateway>) -> Router {
    let (routes, document) = documented().split_for_parts();
    let cors = browser::cors(&gateway.settings.cors_origins);
    let limited = routes
        .merge(openapi::pages(&document))
        .merge(explorer::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(contain_panics(&gateway.counters))
        .layer(from_fn(negotiation::acceptable))
        .layer(from_fn(host::require))
        .layer(from_fn_with_state(gateway.clone(), middleware::limit))
        .layer(from_fn_with_state(gateway.clone(), explorer::failures_as_pages))
        // Outside of the limits, which are for what is made, not for what is sent.
        .layer(from_fn(compression::compress))
        .with_state(gateway.clone());
    let preflight = from_fn_with_state((gateway, limited.clone()), browser::preflight);
    let public = limited.layer(cors).layer(preflight);
    Router::new().fallback_service(MapRequestLayer::new(normalised).layer(public))
}

/// The request with its path in the form that routes have: percent-encoded letters, digits and `-._~` decoded, which
/// RFC 3986 (6.2.2.2) takes for the same, without `.` segments, and without a slash
/// at the end. The pages under `/docs/` keep theirs.
fn normalised(mut request: Request) -> Request {
    let path = request.uri().path();
    let is_normal = !path.contains('%') && !path.contains("/./") && (path.len() == 1 || !path.ends_with('/'));
    if is_normal {
        return request;
    }
    let (mut plain, mut rest) = (String::with_capacity(path.len()), path);
    while let Some((before, encoded)) = rest.split_once('%') {
        plain.push_str(before);
        let byte = encoded.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            Some(byte) => {
                plain.push(byte.into());
                rest = &encoded[2..];
            }
            None => {
                plain.push('%');
                rest = encoded;
            }
        }
    }
    plain.push_str(rest);
    // Clients that take the document's server, `.`, for the beginning of an address ask so.
    if plain.contains("/./") {
        plain = plain.replace("/./", "/");
    }
    let whole = plain.len();
    if !plain.starts_with("/docs/") && plain.len() > 1 {
        plain.truncate(plain.trim_end_matches('/').len().max(1));
    }
    let trimmed = whole - plain.len();
    if plain != path {
        let target = request.uri().query().map_or(plain.clone(), |query| format!("{plain}?{query}"));
        let mut parts = request.uri().clone().into_parts();
        // Whatever is no path and query is answered as it came.
        if let Ok(target) = target.parse() {
            parts.path_and_query = Some(target);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
    if trimmed > 0 {
        request.extensions_mut().insert(Trimmed(trimmed));
    }
    request
}

/// The router of the admin listener: metrics, and the sync and the peers with what only the operator may do, for those
/// that `access` admits. The health routes are open to everybody who reaches the listener: probes have no token.
pub fn admin_router(gateway: Arc<Gateway>, access: Access) -> Router {
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/sync", get(sync::list_sync_jobs).post(sync::request_sync))
        .route("/sync/{id}", get(sync::get_sync_job).delete(sync::cancel_sync))
        .route("/peers", get(peers::list_peers).post(peers::add_peer))
        .route("/peers/{id}", delete(peers::remove_peer))
        .route("/peers/{id}/penalties", delete(peers::forgive_peer))
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(access, access::require))
        .route("/health/live", get(status::check_live))
        .route("/health/ready", get(status::check_ready))
        .layer(contain_panics(&gateway.counters))
        .layer(from_fn(host::require))
        .layer(map_response(|mut response: Response| async {
            browser::secure(response.headers_mut(), false);
            response
        }))
        .with_state(gateway)
}

/// The OpenAPI document as it is checked in: pretty-printed JSON with a newline at the end. With [`Numbers::String`], that of
/// the API with `?numbers=string`.
pub fn openapi_json(numbers: Numbers) -> String {
    openapi::text(&documented().into_openapi(), numbers)
}

/// Answers for a handler that panicked, and counts it.
fn contain_panics(
    counters: &Arc<Counters>,
) -> CatchPanicLayer<impl FnMut(Box<dyn Any + Send>) -> Response + Clone + use<>> {
    let counters = counters.clone();
    CatchPanicLayer::custom(move |_| {
        tracing::error!("a handler panicked");
        counters.panics.add();
        Rejection::from(Failure::new(Code::Internal)).into_response()
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/", "/")]
    #[case("//", "/")]
    #[case("/status/", "/status")]
    #[case("/data/miner%5Fblock/%65poch/?epoch=0", "/data/miner_block/epoch?epoch=0")]
    #[case("/docs/", "/docs/")]
    #[case("/./status?a=/./", "/status?a=/./")]
    #[case("/data%2Fminer_block/get?hash=%5F/", "/data%2Fminer_block/get?hash=%5F/")]
    #[case("/%", "/%")]
    #[case("/%zz/%f", "/%zz/%f")]
    fn paths_are_normalised(#[case] target: &str, #[case] expected: &str) {
        let request = Request::builder().uri(target).body(Body::empty()).unwrap();
        assert_eq!(normalised(request).uri(), expected);
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_counted() {
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

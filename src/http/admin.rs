//! The admin listener: for the operator, on an address of its own.
//!
//! `door`, `peers` and `store` have the figures.

use std::fmt::Write as _;

use axum::{
    Router,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};

use super::{
    Gateway,
    access::{self, Access},
    contain_panics, error, pages, status, sync,
};

mod door;
mod peers;
mod store;

/// The admin routes: figures, and the sync and the peers with what only the operator may do. For those that `access` lets
/// in; how healthy it is, everybody may ask.
pub fn router(gateway: Gateway, access: Access) -> Router {
    sync::admin_routes()
        .merge(super::peers::admin_routes())
        .route("/metrics", get(metrics))
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn_with_state(access, access::guard))
        .merge(status::health_routes())
        .layer(contain_panics(&gateway.counters))
        .layer(middleware::map_response(|mut response: Response| async {
            pages::secure(response.headers_mut(), false);
            response
        }))
        .with_state(gateway)
}

/// Figures in the Prometheus text format. While the store is down its own are left out.
async fn metrics(State(gateway): State<Gateway>) -> impl IntoResponse {
    let mut figures = Figures::default();
    figures.one("uptime_seconds", "gauge", "Seconds since the start.", gateway.started.elapsed().as_secs());
    if store::add_chain(&mut figures, &gateway).await.is_err() {
        tracing::debug!("the store's figures are left out");
    }
    store::add_fill(&mut figures, &gateway).await;
    door::add(&mut figures, &gateway);
    peers::add(&mut figures, &gateway);
    ([("content-type", "text/plain; version=0.0.4")], figures.0)
}

/// Text that grows by a metric at a time.
#[derive(Default)]
struct Figures(String);

impl Figures {
    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.all(name, kind, help, &[(String::new(), value)]);
    }

    /// A metric with a value for each set of labels.
    fn all(&mut self, name: &str, kind: &str, help: &str, values: &[(String, u64)]) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP modal_{name} {help}\n# TYPE modal_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(self.0, "modal_{name}{labels} {value}");
        }
    }
}

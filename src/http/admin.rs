//! The admin listener: for the operator, on an address of its own.

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use std::fmt::Write as _;

use super::{Gateway, error};

/// The admin routes.
pub fn router(gateway: Gateway) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(gateway)
}

/// Figures in the Prometheus text format.
async fn metrics(State(gateway): State<Gateway>) -> Result<impl IntoResponse, error::Rejection> {
    let state = gateway.source.state().await?;
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = write!(text, "# HELP modal_{name} {help}\n# TYPE modal_{name} {kind}\nmodal_{name} {value}\n");
    };
    metric("uptime_seconds", "gauge", "Seconds since the start.", gateway.started.elapsed().as_secs());
    metric("chain_blocks", "gauge", "Canonical blocks in the store.", state.length);
    metric("store_blocks", "gauge", "Blocks in the store, orphans included.", state.total_blocks);
    if let Some(p2p) = gateway.source.p2p() {
        let (peers, inbound) = (p2p.peers(), p2p.inbound());
        metric("peers_known", "gauge", "Peers known.", peers.len() as u64);
        metric("peers_connected", "gauge", "Peers connected.", peers.iter().filter(|p| p.connected).count() as u64);
        metric("p2p_inbound_requests_total", "counter", "Requests read from peers.", inbound.requests);
        metric("p2p_inbound_answered_total", "counter", "Requests of peers that were answered.", inbound.answered);
        metric("p2p_inbound_dropped_total", "counter", "Requests of peers dropped for want of room.", inbound.dropped);
        metric("p2p_inbound_failed_total", "counter", "Answers to peers that did not get out.", inbound.failed);
    }
    Ok(([("content-type", "text/plain; version=0.0.4")], text))
}

//! The admin listener: for the operator, on an address of its own.

use std::fmt::Write as _;

use axum::{Router, extract::State, middleware, response::IntoResponse, routing::get};

use super::{
    Gateway,
    access::{self, Access},
    contain_panics, error, sync,
};
use crate::{chain::unix_now, p2p::PeerInfo, source::job::SyncState};

mod door;

/// The admin routes: figures, and the sync with what only the operator may do. For those that `access` lets in.
pub fn router(gateway: Gateway, access: Access) -> Router {
    sync::admin_routes()
        .route("/metrics", get(metrics))
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(contain_panics(&gateway.counters))
        .layer(middleware::from_fn_with_state(access, access::guard))
        .with_state(gateway)
}

/// Figures in the Prometheus text format.
async fn metrics(State(gateway): State<Gateway>) -> Result<impl IntoResponse, error::Rejection> {
    let state = gateway.source.state().await?;
    let sync = gateway.source.sync_status(unix_now()).await?;
    let job_blocks = match sync.job {
        Some(id) => gateway.source.sync_job(id).await?.progress.blocks,
        None => 0,
    };
    let mut figures = Figures::default();
    figures.one("uptime_seconds", "gauge", "Seconds since the start.", gateway.started.elapsed().as_secs());
    figures.one("chain_blocks", "gauge", "Canonical blocks in the store.", state.length);
    figures.one("store_blocks", "gauge", "Blocks in the store, orphans included.", state.total_blocks);
    let states =
        SyncState::ALL.map(|state| (format!("{{state=\"{}\"}}", state.as_str()), (state == sync.state).into()));
    figures.all("sync_state", "gauge", "How the store stands to the network: 1 for what it is.", &states);
    figures.one("sync_job_blocks", "gauge", "Blocks that the running sync job has written.", job_blocks);
    figures.one("sync_useful_peers", "gauge", "Peers that answered the last check of their tips.", sync.useful_peers);
    door::add(&mut figures, &gateway);
    if let Some(p2p) = gateway.source.p2p() {
        let (peers, inbound, gossip) = (p2p.peers(), p2p.inbound(), p2p.gossip_stats());
        let count = |matching: fn(&&PeerInfo) -> bool| peers.iter().filter(matching).count() as u64;
        figures.one("peers_known", "gauge", "Peers known.", peers.len() as u64);
        figures.one("peers_connected", "gauge", "Peers connected.", count(|peer| peer.connected));
        figures.one("peers_shunned", "gauge", "Peers left alone for their offences.", count(|peer| peer.shunned));
        figures.one("p2p_inbound_requests_total", "counter", "Requests read from peers.", inbound.requests);
        figures.one("p2p_inbound_answered_total", "counter", "Requests of peers that were answered.", inbound.answered);
        figures.one(
            "p2p_inbound_dropped_total",
            "counter",
            "Requests of peers dropped for want of room.",
            inbound.dropped,
        );
        figures.one("p2p_inbound_failed_total", "counter", "Answers to peers that did not get out.", inbound.failed);
        figures.one("gossip_received_total", "counter", "Messages of peers, each once.", gossip.received);
        figures.one("gossip_dropped_total", "counter", "Messages of peers that nobody looked at.", gossip.dropped);
        figures.one("gossip_published_total", "counter", "Messages of ours.", gossip.published);
    }
    Ok(([("content-type", "text/plain; version=0.0.4")], figures.0))
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

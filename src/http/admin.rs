//! The admin listener: for the operator, on an address of its own.

use std::fmt::Write as _;

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use tokio::runtime::Handle;

use super::{Gateway, error, events::MAX_STREAMS, sync};
use crate::{
    chain::unix_now,
    p2p::PeerInfo,
    protocol::Failure,
    source::{self, job::SyncState},
    store, telemetry,
};

/// The admin routes: figures, and the sync with what only the operator may do.
pub fn router(gateway: Gateway) -> Router {
    sync::admin_routes()
        .route("/metrics", get(metrics))
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(gateway)
}

/// Figures in the Prometheus text format. While the store is down its own are left out.
async fn metrics(State(gateway): State<Gateway>) -> impl IntoResponse {
    let mut figures = Figures::default();
    figures.one("uptime_seconds", "gauge", "Seconds since the start.", gateway.started.elapsed().as_secs());
    if figures.chain(&gateway).await.is_err() {
        tracing::debug!("the store's figures are left out");
    }
    figures.fill(&gateway).await;
    let streams = MAX_STREAMS - gateway.streams.available_permits();
    figures.one("event_streams", "gauge", "Streams of events that are open.", streams as u64);
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
    ([("content-type", "text/plain; version=0.0.4")], figures.0)
}

/// Text that grows by a metric at a time.
#[derive(Default)]
struct Figures(String);

impl Figures {
    /// What the store holds.
    async fn chain(&mut self, gateway: &Gateway) -> Result<(), Failure> {
        let state = gateway.source.state().await?;
        let sync = gateway.source.sync_status(unix_now()).await?;
        let job_blocks = match sync.job {
            Some(id) => gateway.source.sync_job(id).await?.progress.blocks,
            None => 0,
        };
        self.one("chain_blocks", "gauge", "Canonical blocks in the store.", state.length);
        self.one("store_blocks", "gauge", "Blocks in the store, orphans included.", state.total_blocks);
        let states =
            SyncState::ALL.map(|state| (format!("{{state=\"{}\"}}", state.as_str()), (state == sync.state).into()));
        self.all("sync_state", "gauge", "How the store stands to the network: 1 for what it is.", &states);
        self.one("sync_job_blocks", "gauge", "Blocks that the running sync job has written.", job_blocks);
        self.one("sync_useful_peers", "gauge", "Peers that answered the last check of their tips.", sync.useful_peers);
        Ok(())
    }

    /// How full is what is bounded, and what the process takes.
    async fn fill(&mut self, gateway: &Gateway) {
        let source::Figures { store, cache_entries, cache_bytes, news_entries } = gateway.source.figures().await;
        self.one("store_up", "gauge", "Whether the database can be reached, as far as is known.", store.up.into());
        self.one("store_outages_total", "counter", "Times that the database could not be reached.", store.outages);
        let pools = [("readers", store.readers), ("writer", store.writer)];
        let by_pool = |count: fn(&store::Fill) -> u64| {
            pools.iter().map(|(pool, fill)| (format!("{{pool=\"{pool}\"}}"), count(fill))).collect::<Vec<_>>()
        };
        self.all("store_connections_max", "gauge", "Most connections to the database.", &by_pool(|fill| fill.most));
        self.all("store_connections_used", "gauge", "Connections in use.", &by_pool(|fill| fill.lent));
        self.all("store_connections_idle", "gauge", "Connections open and not in use.", &by_pool(|fill| fill.idle));
        self.all("store_waiting", "gauge", "Callers that wait for a connection.", &by_pool(|fill| fill.waiting));
        self.one("cache_entries", "gauge", "Encoded answers that are kept.", cache_entries);
        self.one("cache_bytes", "gauge", "Bytes that they take.", cache_bytes);
        self.one("news_entries", "gauge", "Answers to followers of events that are kept.", news_entries);
        self.one("panics_total", "counter", "Panics, wherever they were contained.", telemetry::panics());
        let tasks = Handle::current().metrics().num_alive_tasks();
        self.one("tasks", "gauge", "Tasks alive.", tasks as u64);
        if let Some(bytes) = telemetry::resident_bytes() {
            self.one("resident_memory_bytes", "gauge", "Memory of the process.", bytes);
        }
    }

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

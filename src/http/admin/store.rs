//! Figures of the store, and of the process.

use tokio::runtime::Handle;

use super::Figures;
use crate::{
    http::Gateway,
    protocol::Failure,
    source::{
        self,
        job::{Stage, SyncState},
    },
    store, telemetry,
};

/// What the store holds.
pub(super) async fn add_chain(figures: &mut Figures, gateway: &Gateway) -> Result<(), Failure> {
    let state = gateway.source.state().await?;
    let sync = gateway.source.sync_status().await?;
    let job_blocks = match sync.job {
        Some(id) => gateway.source.sync_job(id).await?.progress.blocks,
        None => 0,
    };
    figures.one("chain_blocks", "gauge", "Canonical blocks in the store.", state.length);
    let off = [("schedule", state.off_schedule), ("timestamp", state.off_timestamp)];
    let off = off.map(|(rule, count)| (format!("{{rule=\"{rule}\"}}"), count));
    figures.all("chain_deviations", "gauge", "Canonical blocks off a rule that is only reported.", &off);
    figures.one("store_blocks", "gauge", "Blocks in the store, orphans included.", state.total_blocks);
    let states =
        SyncState::ALL.map(|state| (format!("{{state=\"{}\"}}", state.as_str()), (state == sync.state).into()));
    figures.all("sync_state", "gauge", "How the store stands to the network: 1 for what it is.", &states);
    figures.one("sync_job_blocks", "gauge", "Blocks that the running sync job has written.", job_blocks);
    figures.one("sync_useful_peers", "gauge", "Peers that answered the last check of their tips.", sync.useful_peers);
    Ok(())
}

/// How full is what is bounded, and what the process takes.
pub(super) async fn add_fill(figures: &mut Figures, gateway: &Gateway) {
    let source::Stats { store, cache_entries, cache_bytes, event_entries } = gateway.source.stats().await;
    figures.one("store_up", "gauge", "Whether the database can be reached, as far as is known.", store.up.into());
    figures.one("store_outages_total", "counter", "Times that the database could not be reached.", store.outages);
    let pools = [("readers", store.readers), ("writer", store.writer)];
    let by_pool = |count: fn(&store::Fill) -> u64| {
        pools.iter().map(|(pool, fill)| (format!("{{pool=\"{pool}\"}}"), count(fill))).collect::<Vec<_>>()
    };
    figures.all("store_connections_max", "gauge", "Most connections to the database.", &by_pool(|fill| fill.most));
    figures.all("store_connections_used", "gauge", "Connections in use.", &by_pool(|fill| fill.lent));
    figures.all("store_connections_idle", "gauge", "Connections open and not in use.", &by_pool(|fill| fill.idle));
    figures.all("store_waiting", "gauge", "Callers that wait for a connection.", &by_pool(|fill| fill.waiting));
    figures.one("cache_entries", "gauge", "Encoded answers that are kept.", cache_entries);
    figures.one("cache_bytes", "gauge", "Bytes that they take.", cache_bytes);
    figures.one("news_entries", "gauge", "Answers to followers of events that are kept.", event_entries);
    let waiting = Stage::ALL
        .map(|stage| (format!("{{stage=\"{}\"}}", stage.as_str()), gateway.source.stages().waiting(stage) as u64));
    figures.all("sync_waiting", "gauge", "Windows or batches that wait for a stage of the sync.", &waiting);
    let recomputed = gateway.source.stages().differences().by_member();
    let recomputed = recomputed.map(|(member, count)| (format!("{{member=\"{member}\"}}"), count));
    let help = "Derived members of peers' blocks that were sent otherwise than they are computed.";
    figures.all("sync_recomputed_total", "counter", help, &recomputed);
    figures.one("panics_total", "counter", "Panics, wherever they were contained.", telemetry::panics());
    let tasks = Handle::current().metrics().num_alive_tasks();
    figures.one("tasks", "gauge", "Tasks alive.", tasks as u64);
    if let Some(bytes) = telemetry::resident_bytes() {
        figures.one("resident_memory_bytes", "gauge", "Memory of the process.", bytes);
    }
}

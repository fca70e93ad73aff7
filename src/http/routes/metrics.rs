//! `GET /metrics` of the admin listener.
//!
//! * `format`: OpenMetrics, and the text format that was there before
//! * `collect`: families of metrics that are read at each scrape
//! * `chain`: the chain and the sync
//! * `peers`: libp2p and the peers
//! * `queues`: what is in queues, and their limits

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::runtime::Handle;

use self::{
    chain::add_chain,
    collect::{Metrics, label},
    peers::add_p2p,
    queues::add_queues,
};
use crate::{
    http::{counters::CloseReason, gateway::Gateway},
    source::{self, job::Stage},
    store::{self, ErrorKind},
    telemetry,
};

mod chain;
mod collect;
mod format;
mod peers;
mod queues;

/// All metrics. While the store is down, those of the chain are left out.
pub(super) async fn metrics(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> impl IntoResponse {
    let mut metrics = Metrics::default();
    let uptime = gateway.started.elapsed().as_secs();
    metrics.gauge("modal_uptime_seconds", "Seconds since the start.", uptime);
    let block_time = gateway.settings.network.target_block_time;
    metrics.gauge("modal_network_target_block_time_seconds", "How long a block should take.", block_time);
    let help = "Depth below the tip from which blocks count as final.";
    metrics.gauge("modal_chain_finality_depth", help, gateway.source.finality_depth());
    let help = "Reorganisations that this process has seen, whichever process wrote them.";
    metrics.counter("modal_chain_reorganisations_total", help, gateway.source.chain_watch().reorganisations());
    let peers = gateway.peers();
    if add_chain(&mut metrics, &gateway, &peers).await.is_err() {
        tracing::debug!("the store can't be read: the chain's metrics are left out");
    }
    let stats = gateway.source.stats().await;
    add_store(&mut metrics, &gateway, &stats).await;
    add_process(&mut metrics);
    add_http(&mut metrics, &gateway);
    add_p2p(&mut metrics, &gateway, &peers);
    add_queues(&mut metrics, &gateway, &stats.store);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics));
    add_durations(&mut registry, &gateway);
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = text::encode(&mut text, &registry);
    let (kind, text) = format::negotiated(&headers, text);
    ([(header::CONTENT_TYPE, kind)], text)
}

/// Histograms.
fn add_durations(registry: &mut Registry, gateway: &Gateway) {
    let help = "Seconds until an answer of the public listener began, by route, source and class of status";
    registry.register("modal_http_request_duration_seconds", help, gateway.counters.durations.0.clone());
    let help = "Seconds that it took to answer a query from the store, answers of the cache aside";
    registry.register("modal_store_read_duration_seconds", help, gateway.source.read_durations().0.clone());
    let help = "Seconds that it took to verify a batch of blocks of the sync, or a block received by gossip";
    registry.register("modal_verification_duration_seconds", help, gateway.source.stages().verification.0.clone());
    let help = "Canonical blocks that each reorganisation took back";
    registry.register("modal_chain_reorganisation_depth", help, gateway.source.chain_watch().depths().clone());
    if let Some(p2p) = gateway.source.p2p() {
        let help = "Seconds until a peer answered a request, or the request failed";
        registry.register("modal_p2p_request_duration_seconds", help, p2p.request_durations().0.clone());
    }
}

/// Metrics of the database connections, the caches and the stages of the sync.
async fn add_store(metrics: &mut Metrics, gateway: &Gateway, stats: &source::Stats) {
    let source::Stats { store, cache_entries, cache_bytes, event_entries } = *stats;
    metrics.gauge("modal_store_up", "1 if the database was reachable when it was last used.", store.up.into());
    metrics.counter("modal_store_outages_total", "Times that the database became unreachable.", store.outages);
    let errors = ErrorKind::ALL.into_iter().zip(store.errors);
    let errors = errors.map(|(kind, count)| (label("kind", kind.as_str()), count));
    metrics.counters("modal_store_errors_total", "Operations of the store that failed.", errors);
    add_replicas(metrics, gateway);
    let pools = [("readers", store.readers), ("writer", store.writer)];
    let by_pool = |count: fn(&store::PoolStats) -> u64| {
        pools.iter().map(|(pool, stats)| (label("pool", pool), count(stats))).collect::<Vec<_>>()
    };
    metrics.gauges("modal_store_connections_max", "Most database connections.", by_pool(|stats| stats.max));
    metrics.gauges("modal_store_connections_used", "Database connections in use.", by_pool(|stats| stats.in_use));
    metrics.gauges("modal_store_connections_idle", "Idle database connections.", by_pool(|stats| stats.idle));
    metrics.gauges("modal_store_waiting", "Callers that wait for a connection.", by_pool(|stats| stats.waiting));
    metrics.gauge("modal_cache_entries", "Encoded answers in the cache.", cache_entries);
    metrics.gauge("modal_cache_bytes", "Bytes of the cache.", cache_bytes);
    let (entries, bytes) = gateway.representations.kept().await;
    metrics.gauge("modal_representation_entries", "Answers kept compressed or in another format than JSON.", entries);
    metrics.gauge("modal_representation_bytes", "Bytes of these.", bytes);
    let help = "Answers that were compressed or written in another format than JSON.";
    metrics.counter("modal_representations_made_total", help, gateway.representations.made.get());
    metrics.gauge("modal_news_entries", "Cached answers for event streams.", event_entries);
    let stages = gateway.source.stages();
    let waiting = Stage::ALL.map(|stage| (label("stage", stage.as_str()), stages.waiting(stage) as u64));
    metrics.gauges("modal_sync_waiting", "Windows or batches that wait for a stage of the sync.", waiting);
    let recomputed = stages.differences().by_member().map(|(member, count)| (label("member", member), count));
    let help = "Derived members of peers' blocks that differ from what is computed.";
    metrics.counters("modal_sync_recomputed_total", help, recomputed);
}

/// Metrics of the replicas; without a value where there are none.
fn add_replicas(metrics: &mut Metrics, gateway: &Gateway) {
    let stats = gateway.source.replica_stats();
    let reads = stats.as_ref().map(|stats| {
        let by_replicas = stats.replicas.iter().map(|replica| replica.reads).sum();
        [("primary", stats.primary_reads), ("replica", by_replicas)]
    });
    let reads = reads.into_iter().flatten().map(|(target, count)| (label("target", target), count));
    let replicas = stats.as_ref().map(|stats| stats.replicas.as_slice()).unwrap_or_default();
    metrics.counters("modal_store_reads_total", "Reads of a store with replicas, by where they went.", reads);
    let by_replica = |figure: fn(&store::ReplicaFigures) -> u64| {
        replicas.iter().map(|replica| (label("replica", &replica.name), figure(replica))).collect::<Vec<_>>()
    };
    metrics.gauges(
        "modal_store_replica_up",
        "1 if reads may go to the replica.",
        by_replica(|replica| replica.up.into()),
    );
    let help = "Versions of the chain that the replica was behind the primary when both were last asked.";
    metrics.gauges("modal_store_replica_behind", help, by_replica(|replica| replica.behind));
}

/// Metrics of the process.
fn add_process(metrics: &mut Metrics) {
    metrics.counter("modal_panics_total", "Panics, wherever they were contained.", telemetry::panics());
    metrics.gauge("modal_tasks", "Tasks alive.", Handle::current().metrics().num_alive_tasks() as u64);
    let build = vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("commit", telemetry::COMMIT.to_owned())];
    metrics.gauges("modal_build_info", "The program's version and commit, as labels of the value 1.", [(build, 1)]);
    if let Some(bytes) = telemetry::resident_bytes() {
        metrics.gauge("modal_resident_memory_bytes", "Resident memory of the process.", bytes);
        metrics.gauge("process_resident_memory_bytes", "Resident memory of the process.", bytes);
    }
    let process = telemetry::process();
    for (name, help, value) in [
        ("process_open_fds", "Open file descriptors.", process.open_files),
        ("process_max_fds", "Most open file descriptors.", process.max_files),
        ("process_threads", "Threads of the process.", process.threads),
        ("process_start_time_seconds", "Start of the process, unix seconds.", process.started_at),
    ] {
        if let Some(value) = value {
            metrics.gauge(name, help, value);
        }
    }
    if let Some(seconds) = process.cpu_seconds {
        metrics.counter("process_cpu_seconds_total", "Processor time of the process, in whole seconds.", seconds);
    }
}

/// Metrics of both HTTP listeners.
fn add_http(metrics: &mut Metrics, gateway: &Gateway) {
    let counters = &gateway.counters;
    let listeners = [("public", &counters.public), ("admin", &counters.admin)];
    let open = listeners.map(|(name, connections)| (label("listener", name), connections.open() as u64));
    metrics.gauges("modal_http_connections", "Open HTTP connections.", open);
    let closed = listeners.into_iter().flat_map(|(name, connections)| {
        CloseReason::ALL.map(|reason| {
            (vec![("listener", name.to_owned()), ("reason", reason.as_str().to_owned())], connections.closed(reason))
        })
    });
    let help = "HTTP connections closed or refused, by reason.";
    metrics.counters("modal_http_connections_ended_total", help, closed);
    let requests = listeners.map(|(name, connections)| (label("listener", name), connections.requests()));
    metrics.counters("modal_http_requests_total", "HTTP requests received.", requests);
    let answers = counters.classes().map(|(class, count)| (label("class", class), count));
    let help = "Answers of the public listener, by class of status.";
    metrics.counters("modal_http_answers_total", help, answers);
    let resets = counters.resets().map(|(reason, count)| (label("reason", reason), count));
    let help = "Resets sent to followers of events, by reason: too_old if they were away, or read too slowly.";
    metrics.counters("modal_event_resets_total", help, resets);
    let limits = &gateway.limits;
    for (name, help, taken) in [
        ("modal_http_requests_in_progress", "Requests in flight.", limits.in_flight.taken()),
        ("modal_http_requests_forwarded", "Requests in flight that wait for a peer.", limits.forwarded.taken()),
        ("modal_http_answer_bytes", "Bytes of large answers being sent.", limits.answer_bytes.taken()),
        ("modal_http_bodies", "Request bodies being received or held.", limits.bodies.taken()),
        ("modal_http_body_bytes", "Bytes of these request bodies.", limits.body_bytes_taken()),
        ("modal_event_streams", "Open event streams.", limits.streams.taken()),
        ("modal_http_rate_clients", "Clients with a bucket that is not full.", gateway.rate_clients()),
    ] {
        metrics.gauge(name, help, taken as u64);
    }
    for (name, help, counter) in [
        ("modal_http_shed_total", "Requests refused because a limit for all clients was reached.", &counters.shed),
        (
            "modal_http_rate_limited_total",
            "Requests refused because a client's limit was reached.",
            &counters.rate_limited,
        ),
        ("modal_http_timeouts_total", "Requests that timed out.", &counters.timed_out),
        ("modal_http_panics_total", "Handlers that panicked.", &counters.panics),
    ] {
        metrics.counter(name, help, counter.get());
    }
}

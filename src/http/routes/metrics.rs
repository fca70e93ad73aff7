//! `GET /metrics` of the admin listener, in the OpenMetrics text format.

use std::{fmt, sync::Arc};

use axum::{extract::State, response::IntoResponse};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::runtime::Handle;

use crate::{
    http::{counters::CloseReason, gateway::Gateway},
    p2p::PeerInfo,
    protocol::Failure,
    source::{
        self,
        job::{Stage, SyncState},
    },
    store, telemetry,
};

/// All metrics. While the store is down, those of the chain are left out.
pub(super) async fn metrics(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    let mut metrics = Metrics::default();
    let uptime = gateway.started.elapsed().as_secs();
    metrics.gauge("modal_uptime_seconds", "Seconds since the start.", uptime);
    if add_chain(&mut metrics, &gateway).await.is_err() {
        tracing::debug!("the store can't be read: the chain's metrics are left out");
    }
    add_store(&mut metrics, &gateway).await;
    add_process(&mut metrics);
    add_http(&mut metrics, &gateway);
    add_p2p(&mut metrics, &gateway);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics));
    add_durations(&mut registry, &gateway);
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = text::encode(&mut text, &registry);
    ([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

/// Histograms.
fn add_durations(registry: &mut Registry, gateway: &Gateway) {
    let help = "Seconds until an answer of the public listener began, by route, source and class of status";
    registry.register("modal_http_request_duration_seconds", help, gateway.counters.durations.0.clone());
    let help = "Seconds that it took to answer a query from the store, answers of the cache aside";
    registry.register("modal_store_read_duration_seconds", help, gateway.source.read_durations().0.clone());
    let help = "Seconds that it took to verify a batch of blocks of the sync, or a block received by gossip";
    registry.register("modal_verification_duration_seconds", help, gateway.source.stages().verification.0.clone());
    if let Some(p2p) = gateway.source.p2p() {
        let help = "Seconds until a peer answered a request, or the request failed";
        registry.register("modal_p2p_request_duration_seconds", help, p2p.request_durations().0.clone());
    }
}

/// Labels of one value of a metric.
type Labels = Vec<(&'static str, String)>;

/// A metric with a value for each set of labels.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    values: Vec<(Labels, u64)>,
}

/// What is read at each scrape.
#[derive(Debug, Default)]
struct Metrics(Vec<Family>);

impl Metrics {
    fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.gauges(name, help, [(Vec::new(), value)]);
    }

    fn gauges(&mut self, name: &'static str, help: &'static str, values: impl IntoIterator<Item = (Labels, u64)>) {
        self.0.push(Family { name, help, kind: MetricType::Gauge, values: values.into_iter().collect() });
    }

    fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.counters(name, help, [(Vec::new(), value)]);
    }

    fn counters(&mut self, name: &'static str, help: &'static str, values: impl IntoIterator<Item = (Labels, u64)>) {
        self.0.push(Family { name, help, kind: MetricType::Counter, values: values.into_iter().collect() });
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, kind, values } in &self.0 {
            // The encoder adds the suffix of counters.
            let name = name.strip_suffix("_total").unwrap_or(name);
            let encode = |value: u64, metric: MetricEncoder<'_>| match kind {
                MetricType::Counter => ConstCounter::new(value).encode(metric),
                _ => ConstGauge::new(value).encode(metric),
            };
            let mut family = encoder.encode_descriptor(name, help, None, *kind)?;
            match &values[..] {
                [(labels, value)] if labels.is_empty() => encode(*value, family)?,
                values => {
                    for (labels, value) in values {
                        encode(*value, family.encode_family(labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The label `name`.
fn label(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}

/// Metrics of the chain and the sync.
async fn add_chain(metrics: &mut Metrics, gateway: &Gateway) -> Result<(), Failure> {
    let state = gateway.source.state().await?;
    let sync = gateway.source.sync_status().await?;
    let job_blocks = match sync.job {
        Some(id) => gateway.source.sync_job(id).await?.progress.blocks,
        None => 0,
    };
    metrics.gauge("modal_chain_blocks", "Canonical blocks in the store.", state.length);
    let deviations = [("schedule", state.off_schedule), ("timestamp", state.off_timestamp)];
    let deviations = deviations.map(|(rule, count)| (label("rule", rule), count));
    let help = "Canonical blocks that deviate from a rule that is only reported.";
    metrics.gauges("modal_chain_deviations", help, deviations);
    metrics.gauge("modal_store_blocks", "Blocks in the store, orphans included.", state.total_blocks);
    let states = SyncState::ALL.map(|state| (label("state", state.as_str()), (state == sync.state).into()));
    metrics.gauges("modal_sync_state", "State of the sync: 1 for the current one.", states);
    metrics.gauge("modal_sync_job_blocks", "Blocks that the running sync job has written.", job_blocks);
    metrics.gauge("modal_sync_useful_peers", "Peers that answered the last check of their tips.", sync.useful_peers);
    Ok(())
}

/// Metrics of the database connections, the caches and the stages of the sync.
async fn add_store(metrics: &mut Metrics, gateway: &Gateway) {
    let source::Stats { store, cache_entries, cache_bytes, event_entries } = gateway.source.stats().await;
    metrics.gauge("modal_store_up", "1 if the database was reachable when it was last used.", store.up.into());
    metrics.counter("modal_store_outages_total", "Times that the database became unreachable.", store.outages);
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
    metrics.gauge("modal_news_entries", "Cached answers for event streams.", event_entries);
    let stages = gateway.source.stages();
    let waiting = Stage::ALL.map(|stage| (label("stage", stage.as_str()), stages.waiting(stage) as u64));
    metrics.gauges("modal_sync_waiting", "Windows or batches that wait for a stage of the sync.", waiting);
    let recomputed = stages.differences().by_member().map(|(member, count)| (label("member", member), count));
    let help = "Derived members of peers' blocks that differ from what is computed.";
    metrics.counters("modal_sync_recomputed_total", help, recomputed);
}

/// Metrics of the process.
fn add_process(metrics: &mut Metrics) {
    metrics.counter("modal_panics_total", "Panics, wherever they were contained.", telemetry::panics());
    metrics.gauge("modal_tasks", "Tasks alive.", Handle::current().metrics().num_alive_tasks() as u64);
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    metrics.gauges("modal_build_info", "The program's version, as a label of the value 1.", [(version, 1)]);
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
        CloseReason::ALL.map(|(reason, label)| {
            (vec![("listener", name.to_owned()), ("reason", label.to_owned())], connections.closed(reason))
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
    let help =
        "Followers of events told to read the chain anew, by reason: too_old if they were away, or read too slowly.";
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

/// Metrics of libp2p.
fn add_p2p(metrics: &mut Metrics, gateway: &Gateway) {
    let Some(p2p) = gateway.source.p2p() else { return };
    let (peers, inbound, gossip, endpoint) =
        (p2p.peers(), p2p.inbound_stats(), p2p.gossip_stats(), p2p.endpoint_stats());
    let count = |matching: fn(&&PeerInfo) -> bool| peers.iter().filter(matching).count() as u64;
    let connections = [("in", endpoint.connections_in), ("out", endpoint.connections_out)];
    let connections = connections.map(|(direction, count)| (label("direction", direction), count));
    metrics.gauges("modal_p2p_connections", "Connections with peers.", connections);
    let refused = endpoint.refused.iter().map(|(reason, count)| (label("reason", reason), *count));
    metrics.counters("modal_p2p_refused_total", "Connections and dials refused.", refused);
    for (name, help, value) in [
        ("modal_peers_known", "Known peers.", peers.len() as u64),
        ("modal_peers_connected", "Connected peers.", count(|peer| peer.connected)),
        ("modal_peers_shunned", "Peers that are not asked because of their penalties.", count(|peer| peer.shunned)),
        ("modal_peers_banned", "Banned peers.", count(|peer| peer.banned_until.is_some())),
        ("modal_p2p_handshakes", "Inbound connections whose handshake is not done.", endpoint.pending_in),
        ("modal_p2p_dials", "Dials in flight.", endpoint.dials),
        ("modal_p2p_inbound_in_flight", "Peers' requests in flight.", endpoint.inbound),
        ("modal_p2p_inbound_waiting", "Peers' requests that wait for memory.", endpoint.inbound_waiting),
        (
            "modal_p2p_answer_bytes",
            "Memory that peers' requests and their answers take, or may take.",
            endpoint.answer_bytes,
        ),
        ("modal_p2p_requests_in_flight", "Requests to peers in flight.", endpoint.outbound),
        (
            "modal_p2p_requests_given_up",
            "Requests to peers in flight that no caller waits for.",
            endpoint.outbound_given_up,
        ),
        ("modal_p2p_requests_waiting", "Requests to peers that wait to be sent.", endpoint.outbound_waiting),
        ("modal_p2p_command_queue", "Commands that wait for the swarm.", endpoint.command_queue),
        ("modal_gossip_queue", "Gossip messages that wait.", endpoint.gossip_queue),
    ] {
        metrics.gauge(name, help, value);
    }
    for (name, help, value) in [
        ("modal_p2p_inbound_requests_total", "Requests received from peers.", inbound.requests),
        ("modal_p2p_inbound_answered_total", "Peers' requests answered.", inbound.answered),
        ("modal_p2p_inbound_dropped_total", "Peers' requests dropped because a limit was reached.", inbound.dropped),
        ("modal_p2p_inbound_rate_limited_total", "Peers' requests over the rate limit.", inbound.rate_limited),
        ("modal_p2p_inbound_delayed_total", "Peers' requests that had to wait for memory.", endpoint.delayed),
        ("modal_p2p_inbound_failed_total", "Answers to peers that could not be sent.", inbound.failed),
        ("modal_gossip_received_total", "Gossip messages received, each once.", gossip.received),
        ("modal_gossip_dropped_total", "Gossip messages dropped unread.", gossip.dropped),
        ("modal_gossip_published_total", "Gossip messages published.", gossip.published),
    ] {
        metrics.counter(name, help, value);
    }
}

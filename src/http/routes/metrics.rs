//! `GET /metrics` of the admin listener, in the Prometheus text format.

use std::{fmt::Write as _, sync::Arc};

use axum::{extract::State, response::IntoResponse};
use tokio::runtime::Handle;

use crate::{
    http::{counters::Ending, gateway::Gateway},
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
    metrics.one("modal_uptime_seconds", "gauge", "Seconds since the start.", uptime);
    if add_chain(&mut metrics, &gateway).await.is_err() {
        tracing::debug!("the store can't be read: the chain's metrics are left out");
    }
    add_store(&mut metrics, &gateway).await;
    add_process(&mut metrics);
    add_http(&mut metrics, &gateway);
    add_p2p(&mut metrics, &gateway);
    ([("content-type", "text/plain; version=0.0.4")], metrics.0)
}

/// The text, which grows by a metric at a time.
#[derive(Default)]
struct Metrics(String);

impl Metrics {
    /// A metric without labels.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.all(name, kind, help, [(String::new(), value)]);
    }

    /// A metric with a value for each set of labels.
    fn all(&mut self, name: &str, kind: &str, help: &str, values: impl IntoIterator<Item = (String, u64)>) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

/// Metrics of the chain and the sync.
async fn add_chain(metrics: &mut Metrics, gateway: &Gateway) -> Result<(), Failure> {
    let state = gateway.source.state().await?;
    let sync = gateway.source.sync_status().await?;
    let job_blocks = match sync.job {
        Some(id) => gateway.source.sync_job(id).await?.progress.blocks,
        None => 0,
    };
    metrics.one("modal_chain_blocks", "gauge", "Canonical blocks in the store.", state.length);
    let off = [("schedule", state.off_schedule), ("timestamp", state.off_timestamp)];
    let off = off.map(|(rule, count)| (format!("{{rule=\"{rule}\"}}"), count));
    metrics.all("modal_chain_deviations", "gauge", "Canonical blocks off a rule that is only reported.", off);
    metrics.one("modal_store_blocks", "gauge", "Blocks in the store, orphans included.", state.total_blocks);
    let states =
        SyncState::ALL.map(|state| (format!("{{state=\"{}\"}}", state.as_str()), (state == sync.state).into()));
    metrics.all("modal_sync_state", "gauge", "How the store stands to the network: 1 for what it is.", states);
    metrics.one("modal_sync_job_blocks", "gauge", "Blocks that the running sync job has written.", job_blocks);
    metrics.one(
        "modal_sync_useful_peers",
        "gauge",
        "Peers that answered the last check of their tips.",
        sync.useful_peers,
    );
    Ok(())
}

/// Metrics of the database connections and the caches.
async fn add_store(metrics: &mut Metrics, gateway: &Gateway) {
    let source::Figures { store, cache_entries, cache_bytes, news_entries } = gateway.source.figures().await;
    metrics.one("modal_store_up", "gauge", "Whether the database can be reached, as far as is known.", store.up.into());
    metrics.one("modal_store_outages_total", "counter", "Times that the database could not be reached.", store.outages);
    let pools = [("readers", store.readers), ("writer", store.writer)];
    let by_pool = |count: fn(&store::Fill) -> u64| {
        pools.iter().map(|(pool, fill)| (format!("{{pool=\"{pool}\"}}"), count(fill))).collect::<Vec<_>>()
    };
    metrics.all("modal_store_connections_max", "gauge", "Most connections to the database.", by_pool(|fill| fill.most));
    metrics.all("modal_store_connections_used", "gauge", "Connections in use.", by_pool(|fill| fill.lent));
    metrics.all("modal_store_connections_idle", "gauge", "Connections open and not in use.", by_pool(|fill| fill.idle));
    metrics.all("modal_store_waiting", "gauge", "Callers that wait for a connection.", by_pool(|fill| fill.waiting));
    metrics.one("modal_cache_entries", "gauge", "Encoded answers that are kept.", cache_entries);
    metrics.one("modal_cache_bytes", "gauge", "Bytes that they take.", cache_bytes);
    metrics.one("modal_news_entries", "gauge", "Answers to followers of events that are kept.", news_entries);
    let waiting = Stage::ALL
        .map(|stage| (format!("{{stage=\"{}\"}}", stage.as_str()), gateway.source.stages().waiting(stage) as u64));
    metrics.all("modal_sync_waiting", "gauge", "Windows or batches that wait for a stage of the sync.", waiting);
    let recomputed = gateway.source.stages().differences().by_member();
    let recomputed = recomputed.map(|(member, count)| (format!("{{member=\"{member}\"}}"), count));
    let help = "Derived members of peers' blocks that were sent otherwise than they are computed.";
    metrics.all("modal_sync_recomputed_total", "counter", help, recomputed);
}

/// Metrics of the process.
fn add_process(metrics: &mut Metrics) {
    metrics.one("modal_panics_total", "counter", "Panics, wherever they were contained.", telemetry::panics());
    let tasks = Handle::current().metrics().num_alive_tasks();
    metrics.one("modal_tasks", "gauge", "Tasks alive.", tasks as u64);
    if let Some(bytes) = telemetry::resident_bytes() {
        metrics.one("modal_resident_memory_bytes", "gauge", "Memory of the process.", bytes);
    }
}

/// Metrics of both HTTP listeners.
fn add_http(metrics: &mut Metrics, gateway: &Gateway) {
    let counters = &gateway.counters;
    let doors = [("public", &counters.public), ("admin", &counters.admin)];
    let label = |door: &str| format!("{{door=\"{door}\"}}");
    let open = doors.map(|(door, connections)| (label(door), connections.open() as u64));
    metrics.all("modal_http_connections", "gauge", "HTTP connections that are open.", open);
    let mut endings = Vec::new();
    for (door, connections) in doors {
        for ending in Ending::ALL {
            let labels = format!("{{door=\"{door}\",reason=\"{}\"}}", ending.as_str());
            endings.push((labels, connections.ended(ending)));
        }
    }
    let help = "HTTP connections that ended, or were not let in, by reason.";
    metrics.all("modal_http_connections_ended_total", "counter", help, endings);
    let requests = doors.map(|(door, connections)| (label(door), connections.requests()));
    metrics.all("modal_http_requests_total", "counter", "HTTP requests that came.", requests);
    let answers = counters.classes().map(|(class, count)| (format!("{{class=\"{class}\"}}"), count));
    metrics.all("modal_http_answers_total", "counter", "Answers at the public door, by class of status.", answers);
    let room = &gateway.room;
    for (name, help, taken) in [
        ("modal_http_requests_in_progress", "Requests that are worked at.", room.working.taken()),
        ("modal_http_requests_forwarded", "Those of them that wait for a peer.", room.forwarded.taken()),
        ("modal_http_answer_bytes", "Bytes of large answers that are on their way.", room.leaving.taken()),
        ("modal_http_bodies", "Requests with a body, received or worked at.", room.bodies.taken()),
        ("modal_http_body_bytes", "Bytes of their bodies.", room.body_bytes()),
        ("modal_event_streams", "Streams of events that are open.", room.streams.taken()),
    ] {
        metrics.one(name, "gauge", help, taken as u64);
    }
    metrics.one("modal_http_shed_total", "counter", "Requests refused for want of room.", counters.shed.get());
    let refused = counters.rate_limited.get();
    metrics.one("modal_http_rate_limited_total", "counter", "Requests of clients that asked too much.", refused);
    metrics.one("modal_http_timeouts_total", "counter", "Requests that took too long.", counters.timed_out.get());
    metrics.one("modal_http_panics_total", "counter", "Handlers that panicked.", counters.panics.get());
    let clients = gateway.rate.as_ref().map_or(0, |rate| rate.clients());
    metrics.one("modal_http_rate_clients", "gauge", "Clients whose share is not full again.", clients as u64);
}

/// Metrics of libp2p.
fn add_p2p(metrics: &mut Metrics, gateway: &Gateway) {
    let Some(p2p) = gateway.source.p2p() else { return };
    let (peers, inbound, gossip) = (p2p.peers(), p2p.inbound(), p2p.gossip_stats());
    let count = |matching: fn(&&PeerInfo) -> bool| peers.iter().filter(matching).count() as u64;
    metrics.one("modal_peers_known", "gauge", "Peers known.", peers.len() as u64);
    metrics.one("modal_peers_connected", "gauge", "Peers connected.", count(|peer| peer.connected));
    metrics.one("modal_peers_shunned", "gauge", "Peers left alone for their offences.", count(|peer| peer.shunned));
    metrics.one("modal_p2p_inbound_requests_total", "counter", "Requests read from peers.", inbound.requests);
    metrics.one(
        "modal_p2p_inbound_answered_total",
        "counter",
        "Requests of peers that were answered.",
        inbound.answered,
    );
    metrics.one(
        "modal_p2p_inbound_dropped_total",
        "counter",
        "Requests of peers dropped for want of room.",
        inbound.dropped,
    );
    metrics.one(
        "modal_p2p_inbound_rate_limited_total",
        "counter",
        "Requests of peers over their rate.",
        inbound.rate_limited,
    );
    let banned = count(|peer| peer.banned_until.is_some());
    metrics.one("modal_peers_banned", "gauge", "Peers refused for their offences.", banned);
    let door = p2p.door();
    let connections = [("in", door.connections_in), ("out", door.connections_out)];
    let connections = connections.map(|(way, count)| (format!("{{direction=\"{way}\"}}"), count));
    metrics.all("modal_p2p_connections", "gauge", "Connections with peers.", connections);
    let refused = door.refused.iter().map(|(why, count)| (format!("{{reason=\"{why}\"}}"), *count));
    metrics.all("modal_p2p_refused_total", "counter", "Connections and dials refused.", refused);
    for (name, help, value) in [
        ("modal_p2p_handshakes", "Connections of others whose handshake is not done.", door.pending_in),
        ("modal_p2p_dials", "Dials under way.", door.dials),
        ("modal_p2p_inbound_requests", "Requests of peers held now.", door.inbound),
        ("modal_p2p_inbound_waiting", "Requests of peers that wait for room.", door.inbound_waiting),
        ("modal_p2p_answer_bytes", "Memory that they and their answers take, or may take.", door.answer_bytes),
        ("modal_p2p_requests_in_flight", "Requests of ours that are not answered yet.", door.outbound),
        ("modal_p2p_requests_given_up", "Those of them that nobody waits for.", door.outbound_given_up),
        (
            "modal_p2p_requests_waiting",
            "Requests of ours that wait for a place with their peer.",
            door.outbound_waiting,
        ),
        ("modal_p2p_command_queue", "Commands that wait for the swarm.", door.command_queue),
        ("modal_gossip_queue", "Messages of gossip that wait.", door.gossip_queue),
    ] {
        metrics.one(name, "gauge", help, value);
    }
    metrics.one(
        "modal_p2p_inbound_delayed_total",
        "counter",
        "Requests of peers that had to wait for room.",
        door.delayed,
    );
    metrics.one("modal_p2p_inbound_failed_total", "counter", "Answers to peers that did not get out.", inbound.failed);
    metrics.one("modal_gossip_received_total", "counter", "Messages of peers, each once.", gossip.received);
    metrics.one("modal_gossip_dropped_total", "counter", "Messages of peers that nobody looked at.", gossip.dropped);
    metrics.one("modal_gossip_published_total", "counter", "Messages of ours.", gossip.published);
}

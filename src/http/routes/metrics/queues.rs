//! What is in queues and under limits, and the most there may be, so that one alert covers all of them.

use super::collect::{Metrics, label};
use crate::{
    http::{gateway::Gateway, limits::Limit},
    store::{MAX_WAITING, StoreStats},
};

/// Adds the queues.
pub fn add_queues(metrics: &mut Metrics, gateway: &Gateway, store: &StoreStats) {
    let (limits, connections) = (&gateway.limits, &gateway.counters.public);
    let of = |limit: &Limit| (limit.taken() as u64, limit.size() as u64);
    let endpoint = gateway.source.p2p().map(|p2p| p2p.endpoint_stats()).unwrap_or_default();
    let queues = [
        ("http_requests", of(&limits.in_flight)),
        ("http_forwarded", of(&limits.forwarded)),
        ("http_answer_bytes", of(&limits.answer_bytes)),
        ("http_connections", (connections.open() as u64, connections.most() as u64)),
        ("event_streams", of(&limits.streams)),
        ("store_readers", (store.readers.waiting, MAX_WAITING as u64)),
        ("store_writer", (store.writer.waiting, MAX_WAITING as u64)),
        ("p2p_commands", (endpoint.command_queue, endpoint.command_limit)),
        ("gossip", (endpoint.gossip_queue, endpoint.gossip_limit)),
    ];
    let lengths = queues.map(|(queue, (length, _))| (label("queue", queue), length));
    metrics.gauges("modal_queue_length", "What is in a queue or under a limit.", lengths);
    let limits = queues.map(|(queue, (_, limit))| (label("queue", queue), limit));
    metrics.gauges("modal_queue_limit", "The most that may be there.", limits);
}

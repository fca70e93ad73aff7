//! Metrics of libp2p and the peers.

use super::{
    chain::add_standings,
    collect::{Metrics, label},
};
use crate::{http::gateway::Gateway, p2p::PeerInfo};

/// Metrics of libp2p.
pub fn add_p2p(metrics: &mut Metrics, gateway: &Gateway, peers: &[PeerInfo]) {
    let Some(p2p) = gateway.source.p2p() else { return };
    let (inbound, gossip, endpoint) = (p2p.inbound_stats(), p2p.gossip_stats(), p2p.endpoint_stats());
    add_standings(metrics, peers);
    let count = |matching: fn(&&PeerInfo) -> bool| peers.iter().filter(matching).count() as u64;
    let connections = [("in", endpoint.connections_in), ("out", endpoint.connections_out)];
    let connections = connections.map(|(direction, count)| (label("direction", direction), count));
    metrics.gauges("modal_p2p_connections", "Connections with peers.", connections);
    let established = [("in", endpoint.established_in), ("out", endpoint.established_out)];
    let established = established.map(|(direction, count)| (label("direction", direction), count));
    metrics.counters("modal_p2p_established_total", "Connections with peers that were established.", established);
    let bound = p2p.listen_addresses().len() as u64;
    metrics.gauge("modal_p2p_listen_addresses", "Addresses at which libp2p listens.", bound);
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
        ("modal_p2p_inbound_waiting", "Peers' requests that wait for a limit.", endpoint.inbound_waiting),
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
        ("modal_p2p_inbound_delayed_total", "Peers' requests that had to wait for a limit.", endpoint.delayed),
        ("modal_p2p_inbound_failed_total", "Answers to peers that could not be sent.", inbound.failed),
        ("modal_gossip_received_total", "Gossip messages received, each once.", gossip.received),
        ("modal_gossip_dropped_total", "Gossip messages dropped unread.", gossip.dropped),
        ("modal_gossip_published_total", "Gossip messages published.", gossip.published),
    ] {
        metrics.counter(name, help, value);
    }
}

//! Figures of the peer door.

use super::Figures;
use crate::{http::Gateway, p2p::PeerInfo};

/// Adds them.
pub(super) fn add(figures: &mut Figures, gateway: &Gateway) {
    let Some(p2p) = gateway.source.p2p() else { return };
    let (peers, inbound, gossip) = (p2p.peers(), p2p.inbound_stats(), p2p.gossip_stats());
    let count = |matching: fn(&&PeerInfo) -> bool| peers.iter().filter(matching).count() as u64;
    figures.one("peers_known", "gauge", "Peers known.", peers.len() as u64);
    figures.one("peers_connected", "gauge", "Peers connected.", count(|peer| peer.connected));
    figures.one("peers_shunned", "gauge", "Peers left alone for their offences.", count(|peer| peer.shunned));
    figures.one("p2p_inbound_requests_total", "counter", "Requests read from peers.", inbound.requests);
    figures.one("p2p_inbound_answered_total", "counter", "Requests of peers that were answered.", inbound.answered);
    figures.one("p2p_inbound_dropped_total", "counter", "Requests of peers dropped for want of room.", inbound.dropped);
    figures.one(
        "p2p_inbound_rate_limited_total",
        "counter",
        "Requests of peers over their rate.",
        inbound.rate_limited,
    );
    let banned = count(|peer| peer.banned_until.is_some());
    figures.one("peers_banned", "gauge", "Peers refused for their offences.", banned);
    let door = p2p.endpoint_stats();
    let connections = [("in", door.connections_in), ("out", door.connections_out)];
    let connections = connections.map(|(way, count)| (format!("{{direction=\"{way}\"}}"), count));
    figures.all("p2p_connections", "gauge", "Connections with peers.", &connections);
    let refused = door.refused.iter().map(|(why, count)| (format!("{{reason=\"{why}\"}}"), *count));
    let refused: Vec<_> = refused.collect();
    figures.all("p2p_refused_total", "counter", "Connections and dials refused.", &refused);
    for (name, help, value) in [
        ("p2p_handshakes", "Connections of others whose handshake is not done.", door.pending_in),
        ("p2p_dials", "Dials under way.", door.dials),
        ("p2p_inbound_requests", "Requests of peers held now.", door.inbound),
        ("p2p_inbound_waiting", "Requests of peers that wait for room.", door.inbound_waiting),
        ("p2p_answer_bytes", "Memory that they and their answers take, or may take.", door.answer_bytes),
        ("p2p_requests_in_flight", "Requests of ours that are not answered yet.", door.outbound),
        ("p2p_requests_given_up", "Those of them that nobody waits for.", door.outbound_given_up),
        ("p2p_requests_waiting", "Requests of ours that wait for a place with their peer.", door.outbound_waiting),
        ("p2p_command_queue", "Commands that wait for the swarm.", door.command_queue),
        ("gossip_queue", "Messages of gossip that wait.", door.gossip_queue),
    ] {
        figures.one(name, "gauge", help, value);
    }
    figures.one("p2p_inbound_delayed_total", "counter", "Requests of peers that had to wait for room.", door.delayed);
    figures.one("p2p_inbound_failed_total", "counter", "Answers to peers that did not get out.", inbound.failed);
    figures.one("gossip_received_total", "counter", "Messages of peers, each once.", gossip.received);
    figures.one("gossip_dropped_total", "counter", "Messages of peers that nobody looked at.", gossip.dropped);
    figures.one("gossip_published_total", "counter", "Messages of ours.", gossip.published);
}

//! Figures of the HTTP doors.

use super::Figures;
use crate::http::{Gateway, counters::Ending};

/// Adds them.
pub(super) fn add(figures: &mut Figures, gateway: &Gateway) {
    let counters = &gateway.counters;
    let doors = [("public", &counters.public), ("admin", &counters.admin)];
    let label = |door: &str| format!("{{door=\"{door}\"}}");
    let open = doors.map(|(door, connections)| (label(door), connections.open() as u64));
    figures.all("http_connections", "gauge", "HTTP connections that are open.", &open);
    let mut endings = Vec::new();
    for (door, connections) in doors {
        for ending in Ending::ALL {
            let labels = format!("{{door=\"{door}\",reason=\"{}\"}}", ending.as_str());
            endings.push((labels, connections.ended(ending)));
        }
    }
    let help = "HTTP connections that ended, or were not let in, by reason.";
    figures.all("http_connections_ended_total", "counter", help, &endings);
    let requests = doors.map(|(door, connections)| (label(door), connections.requests()));
    figures.all("http_requests_total", "counter", "HTTP requests that came.", &requests);
    let answers = counters.classes().map(|(class, count)| (format!("{{class=\"{class}\"}}"), count));
    figures.all("http_answers_total", "counter", "Answers at the public door, by class of status.", &answers);
    let room = &gateway.room;
    for (name, help, taken) in [
        ("http_requests_in_progress", "Requests that are worked at.", room.working.taken()),
        ("http_requests_forwarded", "Those of them that wait for a peer.", room.forwarded.taken()),
        ("http_answer_bytes", "Bytes of large answers that are on their way.", room.leaving.taken()),
        ("http_bodies", "Requests with a body, received or worked at.", room.bodies.taken()),
        ("http_body_bytes", "Bytes of their bodies.", room.body_bytes()),
        ("event_streams", "Streams of events that are open.", room.streams.taken()),
    ] {
        figures.one(name, "gauge", help, taken as u64);
    }
    figures.one("http_shed_total", "counter", "Requests refused for want of room.", counters.shed.get());
    let refused = counters.rate_limited.get();
    figures.one("http_rate_limited_total", "counter", "Requests of clients that asked too much.", refused);
    figures.one("http_timeouts_total", "counter", "Requests that took too long.", counters.timed_out.get());
    figures.one("http_panics_total", "counter", "Handlers that panicked.", counters.panics.get());
    let clients = gateway.rate.as_ref().map_or(0, |rate| rate.clients());
    figures.one("http_rate_clients", "gauge", "Clients whose share is not full again.", clients as u64);
}

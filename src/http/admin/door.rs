//! Figures of the HTTP doors.

use super::Figures;
use crate::http::{Gateway, counters::Ending, events::MAX_STREAMS};

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
    let [taken, forwarded, leaving] = gateway.room.taken();
    figures.one("http_requests_in_progress", "gauge", "Requests that are worked at.", taken as u64);
    figures.one("http_requests_forwarded", "gauge", "Those of them that wait for a peer.", forwarded as u64);
    figures.one("http_answers_leaving", "gauge", "Large answers that are on their way.", leaving as u64);
    let bodies = gateway.room.body_bytes() as u64;
    figures.one("http_body_bytes", "gauge", "Bytes of requests' bodies in memory.", bodies);
    figures.one("http_shed_total", "counter", "Requests refused for want of room.", counters.shed.get());
    let refused = counters.rate_limited.get();
    figures.one("http_rate_limited_total", "counter", "Requests of clients that asked too much.", refused);
    figures.one("http_timeouts_total", "counter", "Requests that took too long.", counters.timed_out.get());
    figures.one("http_panics_total", "counter", "Handlers that panicked.", counters.panics.get());
    let clients = gateway.rate.as_ref().map_or(0, |rate| rate.clients());
    figures.one("http_rate_clients", "gauge", "Clients whose share is not full again.", clients as u64);
    let streams = MAX_STREAMS - gateway.streams.available_permits();
    figures.one("event_streams", "gauge", "Streams of events that are open.", streams as u64);
}

//! The formats of the metrics: OpenMetrics, and the text format that was there before.

use std::collections::HashSet;

use axum::http::HeaderMap;

use crate::http::negotiation::preference;

/// The media type of OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of the older text format.
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The media type and the text for a client: OpenMetrics, unless the client prefers plain text.
pub fn negotiated(headers: &HeaderMap, text: String) -> (&'static str, String) {
    match preference(headers, "text/plain") > preference(headers, "application/openmetrics-text") {
        true => (CLASSIC, classic(&text)),
        false => (OPENMETRICS, text),
    }
}

/// OpenMetrics as the older format: there a counter's help and type have the suffix of its samples, and no line marks
/// the end.
fn classic(text: &str) -> String {
    let counters: HashSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut out = String::with_capacity(text.len() + 16 * counters.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].into_iter().find_map(|word| Some((word, line.strip_prefix(word)?)));
        match described.and_then(|(word, rest)| Some((word, rest.split_once(' ')?))) {
            Some((word, (name, rest))) if counters.contains(name) => {
                out.extend([word, name, "_total ", rest]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, header};

    use super::*;

    const TEXT: &str = "# HELP a_requests Requests.\n# TYPE a_requests counter\na_requests_total{b=\"c\"} 1\n\
                        # HELP a_up Up.\n# TYPE a_up gauge\na_up 1\n# EOF\n";

    fn accepting(accept: &str) -> (&'static str, String) {
        let line = |line| (header::ACCEPT, HeaderValue::from_str(line).unwrap());
        negotiated(&accept.lines().map(line).collect(), TEXT.into())
    }

    #[test]
    fn the_older_format_is_for_those_who_prefer_it() {
        let expected = "# HELP a_requests_total Requests.\n# TYPE a_requests_total counter\na_requests_total{b=\"c\"} 1\n\
                        # HELP a_up Up.\n# TYPE a_up gauge\na_up 1\n";
        for accept in [
            "text/plain;version=0.0.4",
            "text/*",
            "text/html\ntext/plain",
            "text/plain;q=0.9, application/openmetrics-text;q=0.1",
            "application/openmetrics-text;q=0, text/plain",
        ] {
            let (kind, text) = accepting(accept);
            assert!(kind.starts_with("text/plain; version=0.0.4") && text == expected, "{accept}");
        }
        // The last is Prometheus' own.
        for accept in
            ["*/*", "", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"]
        {
            let (kind, text) = accepting(accept);
            assert!(kind.starts_with("application/openmetrics-text; version=1.0.0") && text == TEXT, "{accept}");
        }
    }
}

//! Queries to the HTTP listener.

use std::collections::HashSet;

use modal_gateway::protocol::{
    Query,
    query::{MAX_QUERY_BYTES, PATHS, data_from_text, pairs},
};

use super::messages::bounded;

/// The first byte chooses a path, the rest is its query string, and then its body. The same question asks the same
/// whether it is a query string, a body or a request over libp2p.
pub fn query(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let row = &PATHS[usize::from(*choice) % PATHS.len()];
    if let Ok(text) = std::str::from_utf8(rest) {
        string(row, text);
    }
    let Ok(query) = row.query_of_body(rest) else { return };
    bounded(&query);
    assert_eq!(row.query_of_body(query.data().as_bytes()).unwrap(), query);
    let raw = if rest.is_empty() { None } else { Some(serde_json::from_slice(rest).unwrap()) };
    assert_eq!(Query::parse(row.path, raw).unwrap(), query, "libp2p is no stricter");
}

fn string(row: &modal_gateway::protocol::query::Path, text: &str) {
    let Ok(pairs) = pairs(text) else { return };
    assert!(text.len() <= MAX_QUERY_BYTES);
    // What browsers and HTTP clients take such a string for.
    let standard: Vec<_> = url::form_urlencoded::parse(text.as_bytes()).collect();
    assert_eq!(pairs, standard);
    let borrowed = || pairs.iter().map(|(name, value)| (&**name, &**value));
    let asked = row.query_of_pairs(borrowed());
    if let Ok(query) = &asked {
        bounded(query);
        let names: HashSet<_> = borrowed().map(|(name, _)| name).collect();
        assert_eq!(names.len(), pairs.len(), "each parameter once");
    }
    let data = data_from_text(row.path, row.parameters, borrowed());
    let Ok(data) = data else { return assert!(asked.is_err()) };
    assert_eq!(row.query_of_body(data.to_string().as_bytes()), asked, "{data}");
}

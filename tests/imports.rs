//! Imports run one way: no file takes something from a file that takes something from it, and no folder from one above.

#[path = "imports/graph.rs"]
mod graph;

use std::{collections::BTreeSet, path::Path};

use graph::Graph;

/// The parts of the library, from the lowest: each takes only from lower lines. `lib.rs` draws the same order.
const ORDER: &[&[&str]] = &[
    &["telemetry", "limits"],
    &["chain"],
    &["protocol"],
    &["store", "p2p"],
    &["source"],
    &["sync", "http"],
    &["config"],
    &["app"],
    &["cli"],
    &["main"],
];

fn library() -> Graph {
    Graph::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[test]
fn no_files_import_each_other_in_a_ring() {
    let graph = library();
    assert!(graph.edges.len() > 300, "{} imports were found", graph.edges.len());
    let rings: Vec<_> = graph.rings().iter().map(|ring| graph.describe(ring)).collect();
    assert!(rings.is_empty(), "{} rings:\n{}", rings.len(), rings.join("\n\n"));
}

#[test]
fn every_folder_imports_only_from_those_below() {
    let graph = library();
    let part = |file: &str| file.split('/').next().unwrap_or(file).trim_end_matches(".rs").to_owned();
    let height = |file: &str| {
        let line = ORDER.iter().position(|line| line.contains(&part(file).as_str()));
        line.unwrap_or_else(|| panic!("{file} is in no part that is known"))
    };
    let may = |from: &str, to: &str| part(from) == part(to) || height(from) > height(to);
    let up: BTreeSet<_> = graph
        .edges
        .iter()
        .filter(|((from, to), _)| from != "lib.rs" && to != "lib.rs" && !may(from, to))
        .map(|((from, to), names)| format!("{from} takes {} from {to}", names.join(", ")))
        .collect();
    assert!(up.is_empty(), "{up:#?}");
}

//! Requests and answers of real nodes, recorded on a network of three.

use std::path::Path;

use serde::Deserialize;

use super::{Block, Request, Response};

/// One node's answers to the same 17 requests as the others'.
pub struct Recording {
    /// Each request with its answer.
    pub exchanges: Vec<(Request, Response)>,
    /// The blocks of its answer to `/data/miner_block/canonical`: all that it has.
    pub blocks: Vec<Block>,
}

#[derive(Deserialize)]
struct Exchange {
    request: Request,
    response: Response,
}

impl Recording {
    /// The nodes: the one that mined every block, the one that mined apart before it met the network, and the observer.
    pub const NAMES: [&str; 3] = ["first-miner", "second-miner", "observer"];

    /// The recording of this node.
    pub fn of(name: &str) -> Self {
        let file = format!("tests/fixtures/network-{name}.json");
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let exchanges: Vec<Exchange> = serde_json::from_str(&text).unwrap();
        let exchanges: Vec<_> =
            exchanges.into_iter().map(|Exchange { request, response }| (request, response)).collect();
        let listed = exchanges.iter().find(|(request, _)| request.path == "/data/miner_block/canonical");
        let data = listed.and_then(|(_, response)| response.data.clone()).expect("an answer to `canonical`");
        Self { exchanges, blocks: serde_json::from_value(data["blocks"].clone()).unwrap() }
    }
}

//! The answer to each path, from the store: a real node's, word by word.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Block, Store, Switches};

/// Blocks that `range` gives without `max_chunk_size`, and at most.
const CHUNK: u64 = 50;
const MAX_CHUNK: u64 = 1000;

/// What a peer asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub path: String,
    pub data: Option<Value>,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    pub ok: bool,
    pub data: Option<Value>,
    pub errors: Option<Value>,
}

impl Response {
    fn good(data: Value) -> Self {
        Self { ok: true, data: Some(data), errors: None }
    }

    fn failed(error: &str) -> Self {
        Self { ok: false, data: None, errors: Some(json!({"error": error})) }
    }
}

/// A fault of the node that a request has hit, by which its networking ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Panic(pub &'static str);

impl Store {
    /// The answer to a request.
    ///
    /// # Errors
    /// [`Panic`] for what a real node can't survive.
    pub fn answer(&self, request: &Request, switches: &Switches) -> Result<Response, Panic> {
        let data = request.data.clone().unwrap_or_default();
        Ok(match request.path.as_str() {
            "/ping" => Response::good(data),
            "/inspect" => self.inspect(&data),
            "/data/miner_block/get" => self.get_block(&data),
            "/data/miner_block/canonical" => self.list_canonical(),
            "/data/miner_block/epoch" => self.epoch(&data),
            "/data/miner_block/range" => return self.range(&data),
            "/data/miner_block/chain_info" => self.chain_info(&data, switches),
            "/data/miner_block/find_ancestor" => self.find_ancestor(&data, switches),
            "/data/miner_block/debug_index" => self.debug_index(&data),
            _ => Response::failed("Unknown path"),
        })
    }

    /// How many canonical blocks there are, and what they weigh together.
    fn counts(&self, switches: &Switches) -> (u64, u128) {
        let linked = self.linked();
        let counted = if switches.counts_include_strays { self.canonical() } else { linked.iter().collect() };
        (counted.len() as u64, counted.iter().map(|block| block.worth()).sum())
    }

    fn inspect(&self, data: &Value) -> Response {
        let level = data["level"].as_str().unwrap_or("basic").to_lowercase();
        let mut told = json!({"peer_id": "unknown", "status": "running"});
        if !["network", "mining"].contains(&level.as_str()) {
            let blocks = self.canonical();
            let epochs: HashSet<_> = blocks.iter().map(|block| block.epoch).collect();
            let miners: HashSet<_> = blocks.iter().map(|block| &block.nominated_peer_id).collect();
            let mut datastore =
                json!({"total_blocks": blocks.len(), "epochs": epochs.len(), "unique_miners": miners.len()});
            if let (Some(first), Some(last)) = (blocks.first(), blocks.last()) {
                datastore["block_range"] = json!([first.index, last.index]);
                datastore["chain_tip_height"] = json!(last.index);
                datastore["chain_tip_hash"] = json!(last.hash);
            }
            told["datastore"] = datastore;
        }
        Response::good(told)
    }

    fn get_block(&self, data: &Value) -> Response {
        let Some(hash) = data["hash"].as_str() else { return Response::failed("Missing 'hash' parameter") };
        self.get(hash).map_or_else(|| Response::failed("Block not found"), |block| Response::good(json!(block)))
    }

    fn list_canonical(&self) -> Response {
        let blocks = self.canonical();
        Response::good(json!({"count": blocks.len(), "blocks": blocks}))
    }

    fn epoch(&self, data: &Value) -> Response {
        let Some(epoch) = data["epoch"].as_u64() else { return Response::failed("Missing 'epoch' parameter") };
        let blocks: Vec<_> = self.canonical().into_iter().filter(|block| block.epoch == epoch).collect();
        Response::good(json!({"epoch": epoch, "count": blocks.len(), "blocks": blocks}))
    }

    fn range(&self, data: &Value) -> Result<Response, Panic> {
        let (Some(from), Some(to)) = (data["from_index"].as_u64(), data["to_index"].as_u64()) else {
            return Ok(Response::failed("Missing 'from_index' or 'to_index' parameter"));
        };
        if from > to {
            return Ok(Response::failed("from_index must be <= to_index"));
        }
        let chunk = data["max_chunk_size"].as_u64().unwrap_or(CHUNK).min(MAX_CHUNK);
        let end = from.checked_add(chunk).and_then(|end| end.checked_sub(1)).ok_or(Panic("range: overflow"))?.min(to);
        let blocks: Vec<_> = self.canonical().into_iter().filter(|block| (from..=end).contains(&block.index)).collect();
        Ok(Response::good(json!({
            "from_index": from, "to_index": end, "requested_to": to, "chunk_size": chunk, "count": blocks.len(),
            "has_more": end < to && !blocks.is_empty(), "blocks": blocks,
        })))
    }

    fn chain_info(&self, data: &Value, switches: &Switches) -> Response {
        let blocks = self.canonical();
        let Some(tip) = self.tip() else {
            return Response::good(json!({
                "cumulative_difficulty": "0", "chain_length": 0, "chain_height": 0, "tip_hash": null, "tip_epoch": 0,
                "common_ancestor_index": null, "blocks": null,
            }));
        };
        let known: HashSet<_> =
            data["local_block_hashes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let common = blocks.iter().filter(|block| known.contains(block.hash.as_str())).map(|block| block.index).max();
        let included = (data["include_blocks"] == true).then(|| {
            let from = data["from_index"].as_u64().or(common.map(|index| index + 1)).unwrap_or(0);
            blocks.iter().filter(|block| block.index >= from).collect::<Vec<_>>()
        });
        let (length, work) = self.counts(switches);
        Response::good(json!({
            "cumulative_difficulty": work.to_string(), "chain_length": length,
            "chain_height": length.saturating_sub(1), "tip_hash": tip.hash, "tip_epoch": tip.epoch,
            "common_ancestor_index": common, "blocks": included,
        }))
    }

    fn find_ancestor(&self, data: &Value, switches: &Switches) -> Response {
        let Some(points) = data["check_points"].as_array() else {
            return Response::failed("Missing 'check_points' parameter");
        };
        // The last block at an index is the one that counts.
        let hashes: HashMap<_, _> = self.canonical().into_iter().map(|block| (block.index, &block.hash)).collect();
        let (mut matches, mut highest) = (Vec::new(), None);
        for point in points {
            let (Some(index), Some(hash)) = (point["index"].as_u64(), point["hash"].as_str()) else {
                return Response::failed("Invalid check_point format");
            };
            let same = hashes.get(&index).is_some_and(|known| *known == hash);
            highest = highest.max(same.then_some(index));
            matches.push(json!({"index": index, "hash": hash, "matches": same}));
        }
        let (length, work) = self.counts(switches);
        Response::good(json!({"chain_length": length, "matches": matches, "highest_match": highest,
            "cumulative_difficulty": work.to_string()}))
    }

    fn debug_index(&self, data: &Value) -> Response {
        let Some(index) = data["index"].as_u64() else { return Response::failed("Missing 'index' parameter") };
        let all: Vec<_> = self.at(index).collect();
        let line = |block: &&Block| {
            json!({"hash": block.hash, "previous_hash": block.previous_hash, "is_canonical": block.is_canonical,
                "is_orphaned": block.is_orphaned, "orphan_reason": block.orphan_reason})
        };
        let lines: Vec<_> = all.iter().map(line).collect();
        let mut told = json!({"index": index, "total_blocks_at_index": all.len(), "blocks": lines});
        if let Some(block) = self.canonical_at(index) {
            told["canonical_hash"] = json!(block.hash);
        }
        if let Some(next) = index.checked_add(1).and_then(|next| self.canonical_at(next)) {
            told["next_block_index"] = json!(next.index);
            told["next_block_prev_hash"] = json!(next.previous_hash);
            match all.iter().find(|block| block.hash == next.previous_hash) {
                Some(parent) => {
                    told["matching_block_for_next"] = json!({"hash": parent.hash, "is_canonical": parent.is_canonical,
                        "is_orphaned": parent.is_orphaned});
                }
                None => told["chain_integrity_issue"] = json!(format!("index {index}: no parent of {}", next.hash)),
            }
        }
        Response::good(told)
    }
}

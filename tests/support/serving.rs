//! What a real node answers, written from the notes on the protocol and without our own code for it; and the ways in
//! which nodes differ from that, by age or by ill will. For [`ScriptedPeer`](super::peer::ScriptedPeer).

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use modal_gateway::chain::MinerBlock;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{linked::linked, peer::Reply};

/// Blocks that a request for a range gets unless it says otherwise, and at most.
const DEFAULT_CHUNK: u64 = 50;
const MAX_CHUNK: u64 = 1000;

/// A chain that a test may change while it is served.
pub type Served = Arc<Mutex<Vec<MinerBlock>>>;

/// In every how many rounds a growing chain forks.
const FORKS_EVERY: u64 = 9;

/// Lets a chain grow, by one or two blocks after each `interval`; in some rounds, its last three give way to five
/// others. Never ends.
pub async fn grow(chain: Served, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    for round in 1.. {
        ticks.tick().await;
        let mut chain = chain.lock().unwrap();
        if round % FORKS_EVERY == 0 {
            let shared = chain.len() - 3;
            chain.truncate(shared);
            let branch = linked(chain.last(), 5, &format!("branch {round}"));
            chain.extend(branch);
        } else {
            let next = linked(chain.last(), 1 + round % 2, "main");
            chain.extend(next);
        }
    }
}

type ChangeList = dyn Fn(&mut Vec<MinerBlock>) + Send + Sync;
type ChangeInfo = dyn Fn(&mut Value) + Send + Sync;

/// A node's answers.
#[derive(Clone, Default)]
pub struct Serving {
    chain: Served,
    first_release: bool,
    /// Most blocks in one answer.
    most: Option<u64>,
    change_list: Option<Arc<ChangeList>>,
    change_info: Option<Arc<ChangeInfo>>,
    /// Gives headers as gateways do: those of its chain, changed like this.
    headers: Option<Arc<ChangeList>>,
    /// Requests with a block of a higher index in their answer are not answered.
    silent_beyond: Option<u64>,
    unanswered: Arc<watch::Sender<usize>>,
}

impl Serving {
    /// A node with this chain, as they are today.
    pub fn of(blocks: &[MinerBlock]) -> Self {
        Self { chain: Arc::new(Mutex::new(blocks.to_vec())), ..Self::default() }
    }

    /// The chain, to be moved.
    pub fn chain(&self) -> Served {
        Arc::clone(&self.chain)
    }

    /// Of the first release: four paths, whole ranges, one difficulty.
    pub fn first_release(self) -> Self {
        Self { first_release: true, ..self }
    }

    /// Gives no more blocks than this in an answer to a range.
    pub fn at_most(self, most: u64) -> Self {
        Self { most: Some(most), ..self }
    }

    /// Changes the blocks of every answer that has a list of them.
    pub fn blocks(self, change: impl Fn(&mut Vec<MinerBlock>) + Send + Sync + 'static) -> Self {
        Self { change_list: Some(Arc::new(change)), ..self }
    }

    /// Gives headers too, as gateways do, after this change.
    pub fn headers(self, change: impl Fn(&mut Vec<MinerBlock>) + Send + Sync + 'static) -> Self {
        Self { headers: Some(Arc::new(change)), ..self }
    }

    /// Changes what it says of its chain.
    pub fn info(self, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self { change_info: Some(Arc::new(change)), ..self }
    }

    /// Claims this much work, at this height, instead of its own.
    pub fn claiming(self, work: &str, height: u64) -> Self {
        let work = work.to_owned();
        self.info(move |info| {
            info["cumulative_difficulty"] = json!(work);
            info["chain_height"] = json!(height);
            info["chain_length"] = json!(height + 1);
            info["tip_hash"] = json!("00".to_owned() + &"7e".repeat(31));
        })
    }

    /// Never gives a block beyond this index, nor an error.
    pub fn silent_beyond(self, index: u64) -> Self {
        Self { silent_beyond: Some(index), ..self }
    }

    /// How many requests it has left without an answer.
    pub fn unanswered(&self) -> watch::Receiver<usize> {
        self.unanswered.subscribe()
    }

    /// As the script of a peer.
    pub fn script(&self) -> impl Fn(Value) -> Reply + Send + Sync + 'static + use<> {
        let node = self.clone();
        move |request| node.answer(&request)
    }

    /// The answer to a request.
    pub fn answer(&self, request: &Value) -> Reply {
        let (path, data) = (request["path"].as_str().unwrap_or_default(), &request["data"]);
        let chain = self.chain.lock().unwrap();
        let known = ["get", "canonical", "epoch", "range"].map(|name| format!("/data/miner_block/{name}"));
        if self.first_release && path != "/ping" && !known.iter().any(|known| known == path) {
            return failed("Unknown path");
        }
        match path {
            "/ping" => good(data.clone()),
            "/inspect" => good(inspect(&chain)),
            "/data/miner_block/get" => match data["hash"].as_str() {
                None => failed("Missing 'hash' parameter"),
                Some(hash) => match chain.iter().find(|block| block.hash == hash) {
                    None => failed("Block not found"),
                    Some(block) => good(self.write(block)),
                },
            },
            "/data/miner_block/canonical" => {
                self.list(chain.clone(), |list, count| json!({"blocks": list, "count": count}))
            }
            "/data/miner_block/epoch" => match data["epoch"].as_u64() {
                None => failed("Missing 'epoch' parameter"),
                Some(epoch) => {
                    let blocks = chain.iter().filter(|block| block.epoch == epoch).cloned().collect();
                    self.list(blocks, |list, count| json!({"epoch": epoch, "blocks": list, "count": count}))
                }
            },
            "/data/miner_block/range" => self.range(&chain, data),
            "/data/miner_block/headers" => match &self.headers {
                Some(change) => headers(&chain, data, &**change),
                None => failed("Unknown path"),
            },
            "/data/miner_block/chain_info" => self.chain_info(&chain, data),
            "/data/miner_block/find_ancestor" => find_ancestor(&chain, data),
            "/data/miner_block/debug_index" => debug_index(&chain, data),
            _ => failed("Unknown path"),
        }
    }

    fn range(&self, chain: &[MinerBlock], data: &Value) -> Reply {
        let (Some(from), Some(to)) = (data["from_index"].as_u64(), data["to_index"].as_u64()) else {
            return failed("Missing 'from_index' or 'to_index' parameter");
        };
        if from > to {
            return failed("from_index must be <= to_index");
        }
        if self.first_release {
            let blocks = between(chain, from, to);
            let whole = |list, count| json!({"from_index": from, "to_index": to, "blocks": list, "count": count});
            return self.list(blocks, whole);
        }
        let size = data["max_chunk_size"].as_u64().unwrap_or(DEFAULT_CHUNK).min(self.most.unwrap_or(MAX_CHUNK));
        let end = to.min(from.saturating_add(size - 1));
        let blocks = between(chain, from, end);
        // About the end that was asked for, not about the chain.
        let has_more = end < to && !blocks.is_empty();
        self.list(blocks, |list, count| {
            json!({"from_index": from, "to_index": end, "requested_to": to, "blocks": list, "count": count,
                "has_more": has_more, "chunk_size": size})
        })
    }

    fn chain_info(&self, chain: &[MinerBlock], data: &Value) -> Reply {
        let hashes: Vec<_> = data["local_block_hashes"].as_array().into_iter().flatten().collect();
        let shared = chain.iter().rev().find(|block| hashes.iter().any(|hash| *hash == block.hash.as_str()));
        let shared = shared.map(|block| block.index);
        let tip = chain.last();
        let mut info = json!({
            "cumulative_difficulty": super::chain::work(chain).to_string(),
            "chain_length": chain.len(),
            "chain_height": tip.map_or(0, |tip| tip.index),
            "tip_hash": tip.map(|tip| &tip.hash),
            "tip_epoch": tip.map_or(0, |tip| tip.epoch),
            "common_ancestor_index": shared,
            "blocks": null,
        });
        if data["include_blocks"] == true {
            let from = data["from_index"].as_u64().or(shared.map(|index| index + 1)).unwrap_or(0);
            let blocks: Vec<_> = between(chain, from, u64::MAX).iter().map(|block| self.write(block)).collect();
            info["blocks"] = json!(blocks);
        }
        if let Some(change) = &self.change_info {
            change(&mut info);
        }
        good(info)
    }

    /// An answer that has a list of blocks.
    fn list(&self, mut blocks: Vec<MinerBlock>, frame: impl Fn(Vec<Value>, usize) -> Value) -> Reply {
        if blocks.last().is_some_and(|last| self.silent_beyond.is_some_and(|beyond| last.index > beyond)) {
            self.unanswered.send_modify(|count| *count += 1);
            return Reply::Silence;
        }
        if let Some(change) = &self.change_list {
            change(&mut blocks);
        }
        let list: Vec<_> = blocks.iter().map(|block| self.write(block)).collect();
        let count = list.len();
        good(frame(list, count))
    }

    fn write(&self, block: &MinerBlock) -> Value {
        let mut value = json!({
            "hash": block.hash,
            "index": block.index,
            "epoch": block.epoch,
            "timestamp": block.timestamp,
            "previous_hash": block.previous_hash,
            "data_hash": block.data_hash,
            "nonce": block.nonce.to_string(),
            "nominated_peer_id": block.nominated_peer_id,
            "miner_number": block.miner_number,
            "is_canonical": block.is_canonical,
            "is_orphaned": block.is_orphaned,
            "seen_at": block.seen_at,
            "orphaned_at": block.orphaned_at,
            "orphan_reason": block.orphan_reason,
            "competing_hash": block.competing_hash,
        });
        match self.first_release {
            true => value["difficulty"] = json!(block.target_difficulty.to_string()),
            false => {
                value["height_at_time"] = json!(block.height_at_time);
                value["target_difficulty"] = json!(block.target_difficulty.to_string());
                value["actualized_difficulty"] = json!(block.actualized_difficulty.to_string());
            }
        }
        value
    }
}

fn good(data: Value) -> Reply {
    Reply::Json(json!({"ok": true, "data": data, "errors": null}))
}

fn failed(error: &str) -> Reply {
    Reply::Json(json!({"ok": false, "data": null, "errors": {"error": error}}))
}

/// The blocks from `from` to `to`; a chain's indexes are its places.
fn between(chain: &[MinerBlock], from: u64, to: u64) -> Vec<MinerBlock> {
    let beyond = to.saturating_add(1).min(chain.len() as u64);
    if from >= beyond { Vec::new() } else { chain[from as usize..beyond as usize].to_vec() }
}

fn inspect(chain: &[MinerBlock]) -> Value {
    let different = |texts: Vec<String>| texts.into_iter().collect::<std::collections::HashSet<_>>().len();
    json!({"peer_id": "unknown", "status": "running", "datastore": {
        "total_blocks": chain.len(),
        "block_range": chain.first().zip(chain.last()).map(|(first, last)| [first.index, last.index]),
        "chain_tip_height": chain.last().map(|tip| tip.index),
        "chain_tip_hash": chain.last().map(|tip| &tip.hash),
        "epochs": different(chain.iter().map(|block| block.epoch.to_string()).collect()),
        "unique_miners": different(chain.iter().map(|block| block.nominated_peer_id.clone()).collect()),
    }})
}

fn headers(chain: &[MinerBlock], data: &Value, change: &ChangeList) -> Reply {
    let index = |name: &str| data[name].as_u64().unwrap();
    let mut blocks = between(chain, index("from_index"), index("to_index"));
    change(&mut blocks);
    let header = |block: &MinerBlock| {
        json!({"hash": block.hash, "index": block.index, "epoch": block.epoch, "timestamp": block.timestamp,
            "previous_hash": block.previous_hash, "data_hash": block.data_hash, "nonce": block.nonce.to_string(),
            "target_difficulty": block.target_difficulty.to_string()})
    };
    let headers: Vec<_> = blocks.iter().map(header).collect();
    good(json!({"from_index": data["from_index"], "to_index": data["to_index"], "count": headers.len(),
        "headers": headers, "has_more": false}))
}

fn find_ancestor(chain: &[MinerBlock], data: &Value) -> Reply {
    let Some(points) = data["check_points"].as_array() else {
        return failed("Missing 'check_points' parameter");
    };
    let mut matches = Vec::new();
    for point in points {
        let (Some(index), Some(hash)) = (point["index"].as_u64(), point["hash"].as_str()) else {
            return failed("Invalid check_point format");
        };
        let same = chain.get(index as usize).is_some_and(|block| block.hash == hash);
        matches.push(json!({"index": index, "hash": hash, "matches": same}));
    }
    let highest = matches.iter().filter(|point| point["matches"] == true).filter_map(|point| point["index"].as_u64());
    good(json!({"chain_length": chain.len(), "highest_match": highest.max(), "matches": matches,
        "cumulative_difficulty": super::chain::work(chain).to_string()}))
}

fn debug_index(chain: &[MinerBlock], data: &Value) -> Reply {
    let Some(index) = data["index"].as_u64() else { return failed("Missing 'index' parameter") };
    let mut answer = json!({"index": index, "total_blocks_at_index": 0, "blocks": []});
    if let Some(block) = chain.get(index as usize) {
        answer["total_blocks_at_index"] = json!(1);
        answer["canonical_hash"] = json!(block.hash);
        answer["blocks"] = json!([{"hash": block.hash, "previous_hash": block.previous_hash, "is_canonical": true,
            "is_orphaned": false, "orphan_reason": null}]);
        if let Some(next) = chain.get(index as usize + 1) {
            answer["next_block_index"] = json!(next.index);
            answer["next_block_prev_hash"] = json!(next.previous_hash);
            answer["matching_block_for_next"] = json!({"hash": block.hash, "is_canonical": true, "is_orphaned": false});
        }
    }
    good(answer)
}

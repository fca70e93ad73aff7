//! The asker's side of a node: who is further, by what it claims; where the chains part; the blocks from there.

use std::sync::Arc;

use libp2p::PeerId;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{
    Block, Request, Role, fork_choice,
    network::{Command, Shared},
};

/// Checkpoints in a request.
const CHECK_POINTS: usize = 50;

/// Syncs with whom the networking task says, one after the other. A miner looks at all its bootstrap peers each time,
/// an observer only at that one.
pub(super) async fn run(
    mut wanted: mpsc::UnboundedReceiver<PeerId>,
    role: Role,
    bootstrap: Vec<PeerId>,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
) {
    while let Some(peer) = wanted.recv().await {
        // What came meanwhile is answered by the same look.
        let mut peers = vec![peer];
        while let Ok(peer) = wanted.try_recv() {
            peers.push(peer);
        }
        if role == Role::Miner {
            peers.extend(&bootstrap);
        }
        peers.sort();
        peers.dedup();
        for peer in peers {
            // As in a real node: what fails is logged, and tried again when the next orphan comes.
            if let Err(error) = sync_with(peer, &shared, &commands).await {
                eprintln!("simulator: sync with {peer}: {error}");
            }
        }
    }
}

/// See [`Simulator::sync_with`](super::Simulator::sync_with).
pub(super) async fn sync_with(
    peer: PeerId,
    shared: &Arc<Shared>,
    commands: &mpsc::UnboundedSender<Command>,
) -> Result<(), String> {
    let asker = Asker { peer, commands };
    let (own, work) = {
        let store = shared.store.lock().unwrap();
        let own: Vec<_> = store.canonical().into_iter().map(|block| (block.index, block.hash.clone())).collect();
        (own, store.canonical().iter().map(|block| block.worth()).sum::<u128>())
    };
    let info = asker.ask("/data/miner_block/chain_info", Value::Null).await?;
    let theirs = info["chain_length"].as_u64().unwrap_or_default();
    let their_work: u128 =
        info["cumulative_difficulty"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    if (their_work, theirs) <= (work, own.len() as u64) {
        return Ok(());
    }
    let from = asker.common_ancestor(&own).await?.map_or(0, |index| index + 1);
    let blocks = asker.blocks(from, theirs).await?;
    fork_choice::adopt(&mut shared.store.lock().unwrap(), blocks, &shared.switches)?;
    shared.change();
    Ok(())
}

struct Asker<'a> {
    peer: PeerId,
    commands: &'a mpsc::UnboundedSender<Command>,
}

impl Asker<'_> {
    async fn ask(&self, path: &str, data: Value) -> Result<Value, String> {
        let (reply, answer) = oneshot::channel();
        let request = Request { path: path.into(), data: (!data.is_null()).then_some(data) };
        let gone = |what: &str| format!("{path}: {what}");
        self.commands.send(Command::Ask { peer: self.peer, request, reply }).map_err(|_| gone("the node has ended"))?;
        let response = answer.await.map_err(|_| gone("no answer"))?;
        response.data.filter(|_| response.ok).ok_or_else(|| gone(&format!("{:?}", response.errors)))
    }

    /// The highest index at which both have the same block: by ever more points between the last one that matches and
    /// the first that doesn't.
    async fn common_ancestor(&self, own: &[(u64, String)]) -> Result<Option<u64>, String> {
        let (mut low, mut high) = (None, own.len());
        // The first round looks far back in few steps: 1, 2, 4 … blocks below the tip.
        let steps = (0..u64::BITS).map(|step| 1_usize << step).take_while(|back| *back < own.len());
        let mut points: Vec<usize> = steps.map(|back| own.len() - back).chain([0]).collect();
        while !points.is_empty() && !own.is_empty() {
            let asked: Vec<_> = points.iter().map(|at| json!({"index": own[*at].0, "hash": own[*at].1})).collect();
            let data = self.ask("/data/miner_block/find_ancestor", json!({"check_points": asked})).await?;
            let matches = data["matches"].as_array().ok_or("no matches")?;
            for (at, told) in points.iter().zip(matches) {
                if told["matches"] == true {
                    low = low.max(Some(*at));
                } else {
                    high = high.min(*at);
                }
            }
            let Some(low) = low else { return Ok(None) };
            let between = high.saturating_sub(low + 1);
            let step = between.div_ceil(CHECK_POINTS).max(1);
            points = (low + 1..high.max(low + 1)).step_by(step).collect();
        }
        Ok(low.map(|at| own[at].0))
    }

    /// The blocks from there on, as many in an answer as the peer gives unasked.
    async fn blocks(&self, mut from: u64, to: u64) -> Result<Vec<Block>, String> {
        let mut blocks: Vec<Block> = Vec::new();
        loop {
            let to = to.max(from);
            let data = self.ask("/data/miner_block/range", json!({"from_index": from, "to_index": to})).await?;
            let more: Vec<Block> = serde_json::from_value(data["blocks"].clone()).map_err(|error| error.to_string())?;
            from += more.len() as u64;
            let empty = more.is_empty();
            blocks.extend(more);
            if empty || data["has_more"] != true {
                return Ok(blocks);
            }
        }
    }
}

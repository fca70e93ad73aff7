//! What honest nodes tell, each by itself: none of it is held against them, and the gateway comes level.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use modal_gateway::store::{self, OpenOptions};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    support::{
        chain::{HEAVY, LIGHT},
        gateway::Backend,
        process::{Process, program},
        simulator::{Block, Setup, Simulator, Switches, genesis},
    },
    world::{Gateway, NETWORK, assert_lives, miner},
};

/// A gateway that looks at its peer's tip at the start and then hears of it by gossip alone.
const BY_GOSSIP: [&str; 2] = ["--sync-interval", "60m"];

/// A node with these blocks in its store, and a gateway that follows it to the end of this chain.
async fn follows(blocks: Vec<Block>, switches: Switches, chain: &[Block]) -> Simulator {
    let node = Simulator::start(Setup { blocks, switches, ..Setup::default() }).await;
    let gateway = Gateway::start(Backend::Sqlite, &[("node", &node)], &[]).await;
    gateway.assert_follows(chain).await;
    node
}

async fn chain(count: usize) -> Vec<Block> {
    miner(count, Switches::default()).await.chain()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_data_hash_at_block_7() {
    let chain = chain(12).await;
    let mut blocks = chain.clone();
    blocks[7].data_hash.clear();
    let node = follows(blocks, Switches::default(), &chain).await;
    assert_lives(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn block_40_in_epoch_1_by_sync() {
    let chain = chain(45).await;
    let mut blocks = chain.clone();
    blocks[40].epoch = 1;
    follows(blocks, Switches::default(), &chain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn block_40_in_epoch_1_by_gossip() {
    let node = miner(39, Switches::default()).await;
    let gateway = Gateway::start(Backend::Sqlite, &[("node", &node)], &BY_GOSSIP).await;
    gateway.assert_follows(&node.chain()).await;
    node.wait_listeners(1).await;
    node.mine_worth(2, &LIGHT);
    gateway.assert_follows(&node.chain()).await;
    let block = gateway.data("/data/miner_block/range?from_index=40&to_index=40").await.unwrap()["blocks"][0].clone();
    assert_eq!(block["epoch"], 0, "told as 1");
    assert_eq!(block["data_hash"], node.chain()[40].data_hash, "not told at all");
}

/// Its own genesis and a stale block 2, which link to nothing, whichever of them sorts first.
#[tokio::test(flavor = "multi_thread")]
async fn two_blocks_at_0_and_at_2() {
    let chain = chain(6).await;
    for time in [1_600_000_000, 1_600_000_060, 1_600_000_120] {
        let mut blocks = chain.clone();
        let own = Simulator::serving(vec![genesis("12D3KooWOther", time, 1)]).await;
        own.mine_apart(2, &LIGHT);
        blocks.extend(own.chain().into_iter().filter(|block| block.index != 1));
        let node = follows(blocks, Switches::default(), &chain).await;
        assert_eq!(node.store().canonical().len(), 9);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_claimed_three_longer_than_it_is() {
    let chain = chain(20).await;
    let strays = Simulator::serving(chain[..5].to_vec()).await.mine_apart(3, &LIGHT);
    let node = follows([chain.clone(), strays].concat(), Switches::default(), &chain).await;
    let requests = node.requests();
    assert!(requests.iter().any(|request| request.path.ends_with("/chain_info")), "{requests:?}");
}

/// The node affirms a block that its chain doesn't stand on any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_block_that_the_store_has() {
    let chain = chain(3).await;
    let (stale, heavy) = (Simulator::serving(chain.clone()).await, Simulator::serving(chain.clone()).await);
    let (stale, heavy) = (stale.mine_apart(1, &LIGHT), heavy.mine_apart(3, &HEAVY));
    assert!(stale[0].index == heavy[0].index && stale[0].hash > heavy[0].hash, "the last one by hash is compared");
    let before = [&chain[..], &stale].concat();
    let node = Simulator::serving(before.clone()).await;
    let gateway = Gateway::start(Backend::Sqlite, &[("node", &node)], &["--sync-interval", "1s"]).await;
    gateway.assert_follows(&before).await;
    heavy.iter().for_each(|block| node.store().put(block.clone()));
    gateway.assert_follows(&[&chain[..], &heavy].concat()).await;
    assert_lives(&node).await;
}

/// Its numbers lack the blocks that it doesn't take for canonical.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_longer_than_it_is_claimed() {
    let whole = miner(30, Switches::default()).await;
    let more = Simulator::serving(whole.chain()).await.mine_apart(2, &LIGHT);
    let blocks = [whole.chain(), more].concat();
    let switches = Switches { gaps: BTreeSet::from([5, 6, 7]), ..Switches::default() };
    let node = Simulator::start(Setup { blocks: blocks.clone(), switches, ..Setup::default() }).await;
    let peers = [("whole", &whole), ("node", &node)];
    let gateway = Gateway::start(Backend::Sqlite, &peers, &["--sync-interval", "1s"]).await;
    gateway.assert_follows(&blocks).await;
}

/// A chain that can't be put together is no offence, and does not keep others from being followed.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap() {
    let whole = miner(30, Switches::default()).await;
    let gaps = Switches { gaps: BTreeSet::from([12]), ..Switches::default() };
    let broken = Simulator::start(Setup { blocks: whole.chain(), switches: gaps, ..Setup::default() }).await;
    let peers = [("broken", &broken), ("whole", &whole)];
    let gateway = Gateway::start(Backend::Sqlite, &peers, &["--sync-interval", "1s"]).await;
    gateway.assert_follows(&whole.chain()).await;
}

/// Two blocks a second, each answer 0.8 s: whoever waits for a tip that stands still waits for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_tip_that_moves_faster_than_a_round_of_questions() {
    let slow = Switches { service_time: Duration::from_millis(800), ..Switches::default() };
    let node = Arc::new(miner(30, slow).await);
    let gateway = Gateway::start(Backend::Sqlite, &[("node", &node)], &["--sync-interval", "1s"]).await;
    let (mut growth, growing) = (JoinSet::new(), node.clone());
    growth.spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            growing.mine_worth(1, &LIGHT);
        }
    });
    // Level while it grows: what came meanwhile doesn't count, some six blocks in a round of three questions.
    let near = |status: &serde_json::Value| {
        let behind = status["chain"]["tip"]["index"].as_u64().map(|index| node.tip().index.saturating_sub(index));
        status["sync"]["state"] == "synced" && behind.is_some_and(|behind| behind <= 12) && node.tip().index >= 45
    };
    gateway.wait_status(near).await;
    growth.shutdown().await;
    gateway.assert_follows(&node.chain()).await;
}

/// A node of ours that mines: on the network's chain, not on one of its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_store_with_mine_and_a_peer() {
    let switches = Switches { own_genesis: true, ..Switches::default() };
    let node = Simulator::start(Setup { switches, difficulty: 50, ..Setup::default() }).await;
    node.mine_apart(3, &(1..=u128::MAX));
    let folder = tempfile::tempdir().unwrap();
    let network = NETWORK.replace("initial_difficulty = 1", "initial_difficulty = 50");
    std::fs::write(folder.path().join("network.toml"), network).unwrap();
    let peer = format!("node={}", node.address);
    let mut mine = program(folder.path(), ["node", "--mine", "--network", "network.toml", "--sync-interval", "1s"]);
    mine.args(["--database-url", "sqlite://store.db", "--listen", "/ip4/127.0.0.1/tcp/0", "--peer", &peer]);
    let process = Process::start(mine);
    let own = node.peer_id.to_string();
    let theirs = |block: &Block| block.index > 3 && block.nominated_peer_id != own;
    node.wait_store("a block of the other's", |store| store.tip().is_some_and(theirs)).await;
    assert_eq!(process.stop(), Some(0));

    let heard = node.heard().borrow().clone();
    assert!(heard.iter().all(|block| block["index"].as_u64() > Some(3)), "{heard:#?}");
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    let store = store::open(&url, &OpenOptions::default()).await.unwrap();
    let blocks: Vec<serde_json::Value> = store.range(0, 3).await.unwrap().list.parse().unwrap();
    let hashes: Vec<_> = blocks.iter().map(|block| block["hash"].clone()).collect();
    assert_eq!(hashes, node.chain()[..4].iter().map(|block| json!(block.hash)).collect::<Vec<_>>());
    store.close().await;
    assert_lives(&node).await;
}

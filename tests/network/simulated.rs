//! The simulator itself: held against the recordings of real nodes, and against what was measured on them.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{
    chain::{HEAVY, LIGHT, MIDDLE},
    simulator::{
        Block, Death, GossipBlock, Heard, Panic, Recording, Request, Role, Setup, Simulator, Store, Switches,
        Transport, hear,
    },
};

const RANGE: &str = "/data/miner_block/range";
const CANONICAL: &str = "/data/miner_block/canonical";

/// A node with a chain of its own, so many blocks of this worth above genesis.
async fn miner(count: usize, worth: &std::ops::RangeInclusive<u128>, switches: Switches) -> Simulator {
    let switches = Switches { own_genesis: true, ..switches };
    let node = Simulator::start(Setup { switches, ..Setup::default() }).await;
    node.mine_apart(count, worth);
    node
}

/// A node that knows where another one is.
async fn knowing(node: &Simulator, setup: Setup) -> Simulator {
    Simulator::start(Setup { bootstrap: vec![node.address.clone()], ..setup }).await
}

fn slow(service_time: u64) -> Switches {
    Switches { service_time: Duration::from_millis(service_time), ..Switches::default() }
}

fn answer(store: &Store, path: &str, data: Value) -> Value {
    let request = Request { path: path.into(), data: Some(data) };
    store.answer(&request, &Switches::default()).unwrap().data.unwrap()
}

/// All that a node's store holds is in its answers, so that from them it gives each of them again.
#[rstest]
#[case("first-miner", Transport::Tcp)]
#[case("second-miner", Transport::WebSocket)]
#[case("observer", Transport::Tcp)]
#[tokio::test(flavor = "multi_thread")]
async fn its_answers_are_those_that_a_real_node_gave(#[case] name: &str, #[case] transport: Transport) {
    let recording = Recording::of(name);
    assert_eq!(recording.exchanges.len(), 17);
    let node = Simulator::start(Setup { blocks: recording.blocks.clone(), transport, ..Setup::default() }).await;
    let asker = knowing(&node, Setup::default()).await;
    for (request, response) in &recording.exchanges {
        let data = request.data.clone().unwrap_or_default();
        let answer = asker.ask(node.peer_id, &request.path, data).await.expect("an answer");
        assert_eq!(&answer, response, "{name}: {request:?}");
    }
    assert_eq!(node.death(), None);
    assert_eq!(node.requests().len(), 17);
}

#[test]
fn its_limits_and_its_errors_are_a_real_nodes() {
    let mut store = Store::default();
    let told = |store: &Store, path: &str, data: Value| {
        let request = Request { path: path.into(), data: Some(data) };
        store
            .answer(&request, &Switches::default())
            .map(|response| response.errors.map(|errors| errors["error"].clone()))
    };
    for (path, data, error) in [
        ("/data/miner_block/get", json!({}), "Missing 'hash' parameter"),
        ("/data/miner_block/get", json!({"hash": "00"}), "Block not found"),
        ("/data/miner_block/epoch", json!({"epoch": "0"}), "Missing 'epoch' parameter"),
        (RANGE, json!({"from_index": 0}), "Missing 'from_index' or 'to_index' parameter"),
        (RANGE, json!({"from_index": 2, "to_index": 1}), "from_index must be <= to_index"),
        ("/data/miner_block/find_ancestor", Value::Null, "Missing 'check_points' parameter"),
        ("/data/miner_block/find_ancestor", json!({"check_points": [1]}), "Invalid check_point format"),
        ("/data/miner_block/debug_index", Value::Null, "Missing 'index' parameter"),
        ("/data/miner_block/headers", Value::Null, "Unknown path"),
    ] {
        assert_eq!(told(&store, path, data), Ok(Some(error.into())), "{path}");
    }
    let underflow = json!({"from_index": 0, "to_index": 1, "max_chunk_size": 0});
    assert!(matches!(told(&store, RANGE, underflow), Err(Panic(_))));
    let info = answer(&store, "/data/miner_block/chain_info", Value::Null);
    assert_eq!((&info["chain_length"], &info["tip_hash"]), (&json!(0), &Value::Null));

    for block in crate::support::linked::linked(None, 1100, "main") {
        store.put(Block::from(&block));
    }
    for (asked, given) in [(json!(null), 50), (json!(70), 70), (json!(5000), 1000)] {
        let data = answer(&store, RANGE, json!({"from_index": 7, "to_index": 1099, "max_chunk_size": asked}));
        let end = 7 + given - 1;
        assert_eq!((&data["count"], &data["to_index"], &data["has_more"]), (&json!(given), &json!(end), &json!(true)));
    }
    let beyond = answer(&store, RANGE, json!({"from_index": 1090, "to_index": 5000}));
    assert_eq!((&beyond["count"], &beyond["has_more"]), (&json!(10), &json!(true)), "true past the tip");
    store.orphan(&store.canonical_at(7).unwrap().hash.clone(), "for the test".into(), None);
    let seven = answer(&store, "/data/miner_block/debug_index", json!({"index": 7}));
    assert_eq!(seven["total_blocks_at_index"], 1);
    assert_eq!(seven["blocks"][0]["orphan_reason"], "for the test");
    assert_eq!(seven.get("canonical_hash"), None);
}

/// As measured: 60 questions in flight, and their asker killed.
#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_stops_when_a_client_leaves_a_queued_request() {
    let node = miner(5, &LIGHT, Switches::default()).await;
    let patience = Switches { request_timeout: Duration::from_secs(5), ..Switches::default() };
    let other = knowing(&node, Setup { switches: patience, ..Setup::default() }).await;
    assert!(other.ask(node.peer_id, "/ping", Value::Null).await.is_some());
    let asker = knowing(&node, Setup::default()).await;
    let asking = join_all((0..60).map(|_| asker.ask(node.peer_id, CANONICAL, Value::Null)));
    tokio::select! {
        _ = asking => panic!("sixty answers at once"),
        () = node.wait_requests(3) => {}
    }
    drop(asker);
    assert_eq!(node.wait_dead().await, Death::AskerLeft(CANONICAL.into()));

    assert_eq!(other.ask(node.peer_id, "/ping", Value::Null).await, None, "deaf to everybody");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_keeps_running_when_the_client_waits_for_its_answers() {
    let node = miner(5, &LIGHT, slow(5)).await;
    let asker = knowing(&node, Setup::default()).await;
    let answers = join_all((0..60).map(|_| asker.ask(node.peer_id, CANONICAL, Value::Null))).await;
    assert!(answers.iter().flatten().filter(|answer| answer.ok).count() == 60);
    drop(asker);
    let other = knowing(&node, Setup::default()).await;
    assert!(other.ask(node.peer_id, "/ping", json!(1)).await.is_some());
    assert_eq!((node.death(), node.most_at_once()), (None, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_stops_when_a_queued_request_times_out() {
    let switches = Switches { request_timeout: Duration::from_millis(250), ..slow(100) };
    let node = miner(1, &LIGHT, switches).await;
    let asker = knowing(&node, Setup::default()).await;
    let asking = join_all((0..6).map(|_| asker.ask(node.peer_id, CANONICAL, Value::Null)));
    let (_, death) = tokio::join!(asking, node.wait_dead());
    assert_eq!(death, Death::AskerLeft(CANONICAL.into()), "though the asker is there all the while");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_given_up_does_not_kill_it() {
    let node = miner(1, &LIGHT, slow(300)).await;
    let impatient = Switches { request_timeout: Duration::from_millis(50), ..Switches::default() };
    let asker = knowing(&node, Setup { switches: impatient, ..Setup::default() }).await;
    assert_eq!(asker.ask(node.peer_id, CANONICAL, Value::Null).await, None);
    let other = knowing(&node, Setup::default()).await;
    assert!(other.ask(node.peer_id, "/ping", json!(1)).await.is_some());
    assert_eq!(node.requests().len(), 2, "it was taken up, and answered into the void");
    assert_eq!(node.death(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_keeps_running_with_that_behaviour_switched_off() {
    let switches = Switches { dies_when_an_asker_leaves: false, ..Switches::default() };
    let node = miner(5, &LIGHT, switches).await;
    let asker = knowing(&node, Setup::default()).await;
    let asking = join_all((0..60).map(|_| asker.ask(node.peer_id, CANONICAL, Value::Null)));
    tokio::select! {
        _ = asking => panic!("all of them at once"),
        () = node.wait_requests(2) => {}
    }
    drop(asker);
    let other = knowing(&node, Setup::default()).await;
    assert!(other.ask(node.peer_id, "/ping", json!(1)).await.is_some());
    assert_eq!(node.death(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_a_time_are_counted_where_that_is_switched_off() {
    let node = miner(1, &LIGHT, Switches { one_at_a_time: false, ..slow(200) }).await;
    let asker = knowing(&node, Setup::default()).await;
    let answers = join_all((0..7).map(|_| asker.ask(node.peer_id, "/ping", Value::Null))).await;
    assert!(answers.iter().all(Option::is_some));
    assert!(node.most_at_once() > 1, "{}", node.most_at_once());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miner_and_its_gossip_receivers_serve_blocks_differently() {
    let first = miner(39, &LIGHT, slow(1)).await;
    let observer = knowing(&first, Setup { role: Role::Observer, blocks: first.chain(), ..Setup::default() }).await;
    first.wait_listeners(1).await;
    let block = first.mine_worth(1, &LIGHT).remove(0);
    observer.wait_tip(&block.hash).await;
    let heard = observer.tip();
    assert_eq!((block.index, block.epoch, heard.epoch, heard.data_hash.as_str()), (40, 0, 1, ""));
    assert_eq!(heard.worth(), block.worth());
    assert_eq!(Block { seen_at: heard.seen_at, ..block.as_heard() }, heard);
    let counts = [first.store(), observer.store()].map(|store| {
        [0, 1].map(|epoch| answer(&store, "/data/miner_block/epoch", json!({"epoch": epoch}))["count"].clone())
    });
    assert_eq!(counts, [[json!(41), json!(0)], [json!(40), json!(1)]]);
    let gossip = observer.heard().borrow()[0].clone();
    assert_eq!((gossip.get("data_hash"), &gossip["epoch"], &gossip["difficulty"]), (None, &json!(1), &json!("1")));
}

#[test]
fn the_form_of_gossip_and_stored_blocks_can_be_switched() {
    let plain = Switches { gossip_without_data_hash: false, epoch_index_div_40: false, ..Switches::default() };
    let block = Recording::of("first-miner").blocks.remove(40);
    let told = GossipBlock::of(&block, &plain);
    assert_eq!((told.epoch, told.data_hash.as_ref()), (0, Some(&block.data_hash)));
    let stored = told.into_block(&plain);
    assert_eq!(Block { seen_at: stored.seen_at, ..block.clone() }, stored);
    let stored = GossipBlock::of(&block, &Switches::default()).into_block(&Switches::default());
    assert_eq!((stored.epoch, stored.data_hash.as_str()), (1, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heavier_block_replaces_another_and_orphans_all_above() {
    let node = miner(5, &LIGHT, Switches::default()).await;
    let rival = Simulator::start(Setup { blocks: node.chain()[..3].to_vec(), ..Setup::default() }).await;
    let [heavy, above] = rival.mine_apart(2, &MIDDLE).try_into().unwrap();
    let other = Simulator::start(Setup { blocks: node.chain()[..4].to_vec(), ..Setup::default() }).await;
    let [_, mut parent, refused] = other.mine_apart(3, &LIGHT).try_into().unwrap();
    let mut store = node.store();
    let heard = |store: &mut Store, block: &Block| hear(store, block.as_heard());
    assert_eq!(heard(&mut store, &refused), Heard::Orphan);
    parent.orphan("for the test".into(), None);
    store.put(parent);
    assert_eq!(heard(&mut store, &refused), Heard::Refused, "its parent is not canonical");
    assert_eq!(heard(&mut store, &above), Heard::Replaced, "the parent does not matter where a block is");
    assert_eq!(store.linked().len(), 1, "it links to nothing");
    assert_eq!(heard(&mut store, &heavy), Heard::Replaced);
    assert_eq!(heard(&mut store, &heavy), Heard::Known);
    assert_eq!(store.tip().unwrap().hash, above.hash);
    let light = other.chain()[3].worth();
    assert_eq!(
        hear(&mut store, Block { hash: "00ff".into(), ..above.clone() }),
        Heard::Lost,
        "worth {light}, and later"
    );
    let orphans = (3..=5).flat_map(|index| store.at(index)).filter(|block| block.is_orphaned && block.worth() == light);
    assert_eq!(orphans.count(), 4, "of its own 3, 4 and 5, and the other's 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_starts_a_sync_from_its_sender_and_the_heavier_chain_is_adopted() {
    let first = miner(60, &MIDDLE, slow(1)).await;
    let second = Setup { switches: Switches { own_genesis: true, stale_branch: true, ..slow(1) }, ..Setup::default() };
    let second = knowing(&first, second).await;
    let own = second.mine_apart(3, &LIGHT);
    let genesis = second.store().canonical_at(0).unwrap().hash.clone();
    first.wait_listeners(1).await;
    let block = first.mine_worth(1, &MIDDLE).remove(0);
    second.wait_tip(&block.hash).await;

    assert_eq!(second.chain(), first.chain(), "copied as it is");
    let store = second.store();
    let at = |index| store.at(index).filter(|block| block.is_canonical).map(|block| block.hash.clone());
    let at = |index| at(index).collect::<BTreeSet<_>>();
    assert_eq!((at(0).len(), at(1).len(), at(3).len()), (2, 1, 2));
    assert!(at(0).contains(&genesis) && at(3).contains(&own[2].hash));
    let info = answer(&store, "/data/miner_block/chain_info", Value::Null);
    assert_eq!((&info["chain_length"], &info["chain_height"]), (&json!(64), &json!(63)), "the tip is 61");
    assert_eq!(info["tip_hash"], block.hash);
    let work: u128 = first.chain().iter().map(Block::worth).sum();
    assert_eq!(info["cumulative_difficulty"], (work + own[2].worth()).to_string());
    let request = Request { path: "/data/miner_block/chain_info".into(), data: None };
    let honest = Switches { counts_include_strays: false, ..Switches::default() };
    let honest = store.answer(&request, &honest).unwrap().data.unwrap();
    assert_eq!((&honest["chain_length"], &honest["cumulative_difficulty"]), (&json!(62), &json!(work.to_string())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lighter_chain_and_unlinked_blocks_are_not_adopted() {
    let light = miner(9, &LIGHT, slow(1)).await;
    let heavy = miner(9, &HEAVY, slow(1)).await;
    let both = Setup { bootstrap: vec![light.address.clone(), heavy.address.clone()], ..Setup::default() };
    let node = Simulator::start(Setup { blocks: heavy.chain()[..8].to_vec(), ..both.clone() }).await;
    node.sync_with(light.peer_id).await.unwrap();
    assert_eq!(node.chain().len(), 8);
    node.sync_with(heavy.peer_id).await.unwrap();
    assert_eq!(node.chain(), heavy.chain());
    let requests = heavy.requests();
    let range = requests.iter().find(|request| request.path == RANGE).unwrap();
    assert_eq!(range.data, Some(json!({"from_index": 8, "to_index": 10})), "behind the common ancestor");

    heavy.store().put(light.tip());
    let fresh = Simulator::start(both).await;
    let error = fresh.sync_with(heavy.peer_id).await.unwrap_err();
    assert_eq!(error, "block 9 does not follow block 9");
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_are_told_of_by_hash_only() {
    let gaps = BTreeSet::from([2]);
    let node = miner(4, &LIGHT, Switches { gaps, ..Switches::default() }).await;
    let chain = node.chain();
    assert_eq!(chain.len(), 5, "the chain itself is whole");
    let store = node.store();
    assert_eq!(answer(&store, CANONICAL, Value::Null)["count"], 4);
    assert_eq!(answer(&store, RANGE, json!({"from_index": 2, "to_index": 2}))["count"], 0);
    assert_eq!(answer(&store, "/data/miner_block/get", json!({"hash": chain[2].hash}))["index"], 2);
}

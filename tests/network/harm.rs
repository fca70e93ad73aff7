//! No question of ours takes a node off the network: each of these ends while the node still has some of them in its
//! queue.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    support::{gateway::Backend, process::program, simulator::Switches},
    world::{Gateway, LONG, NETWORK, assert_lives, miner},
};
use rstest::rstest;

const CLIENTS: usize = 60;
const PAUSE: Duration = Duration::from_millis(20);

fn slow(milliseconds: u64) -> Switches {
    Switches { service_time: Duration::from_millis(milliseconds), ..Switches::default() }
}

/// The program in a folder with the network's file.
fn command(folder: &Path, args: &[&str]) -> Child {
    std::fs::write(folder.join("network.toml"), NETWORK).unwrap();
    let shared = ["--network", "network.toml", "--database-url", "sqlite://store.db"];
    let mut command = program(folder, [args, &shared].concat());
    command.stdout(Stdio::null()).spawn().unwrap()
}

/// Interrupts a program as Ctrl-C does, and waits for its end.
async fn interrupt(mut child: Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    tokio::time::timeout(LONG, ended).await.expect("it ends").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_stopped_while_its_clients_ask() {
    // What is in flight of sixty clients at once takes longer than a gateway may wait at its end.
    let node = miner(60, slow(800)).await;
    let mut gateway = Gateway::start(Backend::Sqlite, &[("node", &node)], &[]).await;
    gateway.wait_level(&node.tip()).await;
    let asked = node.requests().len();
    let clients = gateway.clients("node", CLIENTS, PAUSE);
    node.wait_requests(asked + 2).await;
    gateway.stop();
    assert_lives(&node).await;
    drop(clients);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_operator_bans_the_node_meanwhile() {
    let node = miner(60, Switches::default()).await;
    let gateway = Gateway::start(Backend::Sqlite, &[("node", &node)], &[]).await;
    gateway.wait_level(&node.tip()).await;
    let asked = node.requests().len();
    let _clients = gateway.clients(&node.peer_id.to_string(), CLIENTS, PAUSE);
    node.wait_requests(asked + 5).await;
    gateway.ban(&node).await;
    gateway.wait_status(|status| status["peers"]["connected"] == 0).await;
    assert_lives(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_two_requests_are_in_flight() {
    let node = miner(60, Switches { one_at_a_time: false, ..slow(100) }).await;
    let gateway = Gateway::start(Backend::Sqlite, &[("node", &node)], &[]).await;
    gateway.wait_level(&node.tip()).await;
    let asked = node.requests().len();
    let _clients = gateway.clients("node", CLIENTS, PAUSE);
    node.wait_requests(asked + 20).await;
    assert!(node.most_at_once() <= 2, "{}", node.most_at_once());
}

#[rstest]
#[case::delta("delta", 1)]
#[case::full("full", 2)]
#[case::epoch("epoch", 3)]
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_interrupted(#[case] mode: &str, #[case] requests: usize) {
    let (node, folder) = (miner(130, slow(300)).await, tempfile::tempdir().unwrap());
    let child = command(folder.path(), &["sync", &node.address.to_string(), "--mode", mode]);
    node.wait_requests(requests).await;
    interrupt(child).await;
    assert_lives(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_interrupted() {
    let (node, folder) = (miner(60, slow(500)).await, tempfile::tempdir().unwrap());
    let child = command(folder.path(), &["request", &node.address.to_string(), "/data/miner_block/canonical"]);
    node.wait_requests(1).await;
    interrupt(child).await;
    assert_lives(&node).await;
}

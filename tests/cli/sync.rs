//! `sync` from real nodes and from scripted peers, into both stores.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use libp2p::identity::Keypair;
use modal_gateway::{
    app::Node,
    chain::{Level, Network},
    config::Config,
    source::job::Mode,
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    Outcome, TIP, WorkDir,
    support::{
        gateway::{Backend, TestStore, chain},
        peer::{Reply, ScriptedPeer},
        ports::free_port,
        until::eventually,
    },
};

/// A node that serves the first `length` blocks of the bundled chain.
async fn node(length: usize) -> (TestStore, Node) {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(chain()[..length].to_vec(), Level::Linked).await;
    let config = Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        network: Network::devnet(),
        sync: false,
        ..Config::default()
    };
    let node = Node::start_with(&config, store.open().await, Keypair::generate_ed25519()).await.unwrap();
    (store, node)
}

fn address(node: &Node) -> String {
    node.addresses().remove(0).to_string()
}

/// `sync` into `store` with more arguments.
fn sync(dir: &WorkDir, store: &TestStore, args: &[&str]) -> Command {
    let mut command = dir.command([&["sync", "--database-url", &store.url], args].concat());
    command.env("MODAL_GATEWAY_NETWORK", "devnet");
    command
}

fn outcome(mut command: Command) -> Outcome {
    command.output().unwrap().into()
}

#[rstest]
#[case::sqlite(Backend::Sqlite)]
#[case::postgres(Backend::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn every_mode_brings_the_store_in_sync(#[case] backend: Backend) {
    let dir = WorkDir::new();
    let (_served, node) = node(61).await;
    for mode in Mode::ALL {
        let store = TestStore::create(backend).await;
        let args = [&address(&node), "--mode", mode.as_str(), "--verify", "linked"];
        let said = outcome(sync(&dir, &store, &args)).ok().stderr;
        let expected = format!("synced 61 blocks, verified to linked, tip 60 {TIP}, ");
        assert!(said.starts_with(&expected) && said.ends_with(" s, 0 retries\n"), "{mode}: {said}");
        let again = outcome(sync(&dir, &store, &args)).ok().stderr;
        assert!(again.starts_with("synced 0 blocks, verified to linked, tip 60"), "{mode}: {again}");
        let audit = ["verify", "--verify", "linked", "--network", "devnet", "--database-url", &store.url];
        assert_eq!(dir.run(audit).ok().stderr, format!("verified 61 blocks to linked, tip 60 {TIP}\n"));
    }
    assert_eq!(std::fs::read_dir(dir.0.path()).unwrap().count(), 0, "neither a key nor another store");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_in_a_pipe_is_plain_lines() {
    let dir = WorkDir::new();
    let store = TestStore::create(Backend::Sqlite).await;
    // The second epoch comes only once a line has been written: however fast the machine is, there is one.
    let peer = ScriptedPeer::start(|request| match first_epoch_only(&request) {
        Reply::Silence => {
            let blocks = chain()[41..61].to_vec();
            Reply::Held(json!({"ok": true, "data": {"epoch": 1, "blocks": blocks, "count": 20}, "errors": null}))
        }
        reply => reply,
    })
    .await;
    let args = [&peer.address.to_string(), "--mode", "epoch", "--verify", "linked"];
    let mut child = sync(&dir, &store, &args).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    assert!(first.starts_with("sync: 41 blocks, ") && first.contains("/s, 67 %"), "{first}");
    peer.release(1);
    let rest: Vec<_> = lines.collect();
    let (last, progress) = rest.split_last().unwrap();
    assert!(last.starts_with("synced 61 blocks, verified to linked, tip 60"), "{last}");
    assert!(progress.iter().all(|line| line.starts_with("sync: 41 blocks, ")), "{progress:?}");
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_peers_by_their_names() {
    let dir = WorkDir::new();
    let ((_served, longer), (_other, shorter)) = (node(61).await, node(41).await);
    let free = free_port();
    let store = TestStore::create(Backend::Sqlite).await;
    let peers = [
        format!("long={}", address(&longer)),
        format!("gone=/ip4/127.0.0.1/tcp/{free}"),
        format!("short={}", address(&shorter)),
    ];
    let id = shorter.p2p.local_peer_id().to_string();
    let mut args = vec!["gone", &id, "long", "--verify", "none"];
    args.extend(peers.iter().flat_map(|peer| ["--peer", peer]));
    let said = outcome(sync(&dir, &store, &args)).ok().stderr;
    assert!(said.starts_with("synced 61 blocks, verified to none, tip 60"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_names_its_cause() {
    let dir = WorkDir::new();
    let store = TestStore::create(Backend::Sqlite).await;
    let free = free_port();
    let gone = format!("/ip4/127.0.0.1/tcp/{free}");
    let run = |args: &[&str]| outcome(sync(&dir, &store, args));
    run(&[&gone]).fails(1, &[&gone, "can't be reached"]);
    run(&[&gone, &gone]).fails(1, &[&gone, "can't be reached"]);
    run(&["node"]).fails(2, &["`node` is neither a multiaddr nor", "none is configured"]);
    run(&["/ip4/1.2.3"]).fails(2, &["`/ip4/1.2.3` is not a multiaddr"]);
    for usage in [&[][..], &["/ip4/127.0.0.1/tcp/1", "--mode", "fast"]] {
        assert_eq!(run(usage).code, 2, "{usage:?}");
    }

    let (_served, node) = node(61).await;
    let peer = address(&node);
    dir.write("other.toml", crate::OTHER_NETWORK);
    run(&[&peer, "--network", "other.toml"]).fails(1, &["rule `genesis`"]);
    let handle = store.open().await;
    let lease = handle.lease().await.unwrap().unwrap();
    run(&[&peer]).fails(1, &["another process is syncing this store"]);
    drop(lease);
    assert_eq!(handle.state().await.unwrap().length, 0);

    let (_empty, node) = self::node(0).await;
    run(&[&address(&node)]).fails(1, &["no useful peer", "its chain is empty"]);
}

/// Tells of the bundled chain, gives its first epoch, and then no more.
fn first_epoch_only(request: &Value) -> Reply {
    let chain = chain();
    let data = match request["path"].as_str().unwrap() {
        "/data/miner_block/chain_info" => json!({
            "cumulative_difficulty": "809", "chain_length": 61, "chain_height": 60, "tip_hash": TIP, "tip_epoch": 1,
            "common_ancestor_index": null, "blocks": null,
        }),
        "/data/miner_block/get" => json!(chain[60]),
        "/data/miner_block/epoch" if request["data"]["epoch"] == 0 => {
            json!({"epoch": 0, "blocks": chain[..41].to_vec(), "count": 41})
        }
        _ => return Reply::Silence,
    };
    Reply::Json(json!({"ok": true, "data": data, "errors": null}))
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

#[rstest]
#[case::sqlite(Backend::Sqlite)]
#[case::postgres(Backend::Postgres)]
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_sync_goes_on_where_it_was(#[case] backend: Backend) {
    let dir = WorkDir::new();
    let store = TestStore::create(backend).await;
    let handle = store.open().await;
    let peer = ScriptedPeer::start(|request| first_epoch_only(&request)).await;
    let args = [&peer.address.to_string(), "--mode", "epoch", "--verify", "linked"];
    let child = sync(&dir, &store, &args).stderr(Stdio::piped()).spawn().unwrap();
    eventually(async || (handle.state().await.unwrap().length == 41).then_some(())).await;
    interrupt(&child);
    Outcome::from(child.wait_with_output().unwrap()).fails(1, &["error: interrupted"]);

    let (_served, node) = node(61).await;
    let said = outcome(sync(&dir, &store, &[&address(&node), "--verify", "linked"])).ok().stderr;
    assert!(said.starts_with("synced 20 blocks, verified to linked, tip 60"), "{said}");
}

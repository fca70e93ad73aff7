//! The public test network by its name, with its bootstrap peers replaced: nothing beyond this machine is dialled.

use std::ffi::OsStr;

use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    support::{
        process::{Process, SERVE, program},
        simulator::{Recording, Setup, Simulator},
        until::within,
    },
    world::{LONG, assert_lives},
};

async fn data(base: &str, path: &str) -> Option<Value> {
    let client = reqwest::Client::builder().no_proxy().timeout(LONG).build().unwrap();
    let answer = client.get(format!("{base}{path}")).send().await.ok()?;
    Some(answer.error_for_status().ok()?.json::<Value>().await.ok()?["data"].clone())
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_test_network_is_followed_from_the_bootstrap_peers_that_are_named(#[values(false, true)] by_flag: bool) {
    let recording = Recording::of("observer");
    let node = Simulator::start(Setup { blocks: recording.blocks, ..Setup::default() }).await;
    let (folder, address) = (tempfile::tempdir().unwrap(), node.address.to_string());
    let mut serve = program(folder.path(), SERVE);
    serve.args(["--network", "testnet", "--verify", "linked", "--database-url", "sqlite://store.db"]);
    if by_flag {
        serve.args(["--bootstrap", &address]);
    } else {
        serve.env("MODAL_GATEWAY_BOOTSTRAP", &address);
    }
    // Without it the network's own peers would be dialled.
    let replaced = match by_flag {
        true => serve.get_args().any(|arg| arg == "--bootstrap"),
        false => serve.get_envs().any(|env| env == (OsStr::new("MODAL_GATEWAY_BOOTSTRAP"), Some(address.as_ref()))),
    };
    assert!(replaced && address.starts_with("/ip4/127.0.0.1/"), "{serve:?}");
    let process = Process::start(serve);
    assert!(process.log.lock().unwrap().iter().any(|line| line == "network testnet"));

    let level = async || {
        let status = data(&process.http, "/status").await?;
        (status["sync"]["state"] == "synced" && status["chain"]["tip"]["index"] == 46).then_some(status)
    };
    let status = within(LONG, level).await;
    assert_eq!((&status["chain"]["length"], &status["chain"]["verification"]), (&json!(47), &json!("linked")));
    let peers = data(&process.http, "/peers").await.unwrap();
    let known = peers["peers"].as_array().unwrap();
    let ids: Vec<_> = known.iter().map(|peer| peer["peer_id"].clone()).collect();
    assert_eq!(ids, [json!(node.peer_id.to_string())], "{peers:#}");
    assert_eq!((&known[0]["penalties"], &known[0]["connected"]), (&json!(0), &json!(true)), "{peers:#}");
    assert_eq!(process.stop(), Some(0));
    assert_lives(&node).await;
}

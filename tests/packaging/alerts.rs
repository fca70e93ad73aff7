//! A real Prometheus at a real gateway, and what its alerts are for: no peer, a chain that stands still, a deep
//! reorganisation, peers on another chain, full connections, a database that is gone or damaged, a gateway that is
//! gone.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::Path,
    pin::pin,
    process::Command,
};

use modal_gateway::chain::MinerBlock;
use reqwest::Client;
use tokio::net::TcpStream;

use crate::{
    files::{expressions, metrics, rules},
    installed,
    prometheus::Prometheus,
    run,
    support::{
        disk::SmallDisk,
        linked::linked,
        process::{Process, SERVE, program},
        until::eventually,
    },
};

const WARNING: &str = "warning";
const CRITICAL: &str = "critical";

/// A network with a block a second: the tip is old after 15 s, and a reorganisation is deep from 21 blocks on.
const NETWORK: &str = "name = 'fast'\ninitial_difficulty = 1\ntarget_block_time = 1\npow = { algorithm = 'sha256' }\n";

/// Connections that the gateway has room for.
const CONNECTIONS: usize = 16;

/// A folder with the network's file and a store with these blocks.
fn store(blocks: &[MinerBlock]) -> tempfile::TempDir {
    store_in(blocks, |place| fs::create_dir(place).unwrap())
}

/// The same, with the folder of the store made in another way.
fn store_in(blocks: &[MinerBlock], make: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("fast.toml"), NETWORK).unwrap();
    let lines: Vec<_> = blocks.iter().map(|block| serde_json::to_string(block).unwrap() + "\n").collect();
    fs::write(folder.path().join("chain.ndjson"), lines.concat()).unwrap();
    make(&folder.path().join("store"));
    run(settings(&mut program(folder.path(), ["import", "chain.ndjson", "--partial"])));
    folder
}

/// What all of them have in common.
fn settings(command: &mut Command) -> &mut Command {
    command.args(["--network", "fast.toml", "--verify", "linked", "--database-url", "sqlite://store/chain.db"])
}

/// A node that keeps the chain that it has, and connects with a gateway.
fn node(folder: &Path, gateway: &Process) -> Process {
    let mut command = program(folder, ["node", "--sync", "false", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    settings(&mut command).args(["--peer", &format!("gateway={}", gateway.libp2p[0])]);
    Process::start_quietly(command)
}

/// What `/metrics` has, by the names that samples have.
async fn samples(client: &Client, gateway: &Process) -> BTreeSet<String> {
    let text = client.get(format!("{}/metrics", gateway.admin)).send().await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_for_what_they_are_for_and_clear_when_it_is_over() {
    if !installed("prometheus") {
        return;
    }
    let client = Client::builder().no_proxy().build().unwrap();
    let base = linked(None, 5, "base");
    let branch = |name, count| [base.clone(), linked(base.last(), count, name)].concat();
    // Longer is heavier.
    let (own, heavy, light) = (branch("own", 45), branch("heavy", 100), branch("light", 40));
    let place = store(&own);
    let mut command = program(place.path(), SERVE);
    settings(&mut command).args(["--sync-interval", "500ms"]);
    command.env("MODAL_GATEWAY_MAX_CONNECTIONS", CONNECTIONS.to_string());
    // Connections that ask for nothing stay until the alert has seen them.
    command.env("MODAL_GATEWAY_HEADER_TIMEOUT", "60s");
    let mut gateway = Process::start_quietly(command);
    let folder = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(folder.path(), &gateway.admin).await;

    // Alone.
    let alone = [
        ("ModalFewPeers", WARNING),
        ("ModalFewPeers", CRITICAL),
        ("ModalNobodyConnects", WARNING),
        ("ModalTipStalled", WARNING),
    ];
    prometheus.fires(&alone).await;
    let expected: BTreeSet<_> = alone.iter().map(|(name, severity)| (name.to_string(), severity.to_string())).collect();
    // And no other: a scrape that takes longer than 200 ms counts as a gateway that is down, for as long as that.
    eventually(async || (prometheus.firing().await == expected).then_some(())).await;

    // One node with a better chain: 45 blocks are taken back.
    let (at_heavy, at_light) = (store(&heavy), [store(&light), store(&light), store(&light)]);
    let node_of_heavy = node(at_heavy.path(), &gateway);
    let id = node_of_heavy.libp2p[0].rsplit('/').next().unwrap();
    let trust = serde_json::json!({ "peer": id, "trust": "allow" });
    let trusted = client.post(format!("{}/peers", gateway.admin)).json(&trust).send().await.unwrap();
    assert!(trusted.status().is_success(), "{trusted:?}");
    prometheus.fires(&[("ModalReorganisationDeep", WARNING), ("ModalReorganisationDeep", CRITICAL)]).await;
    let texts = ["INFO", "the chain was reorganised", "depth=45"];
    let is_said = |line: &String| texts.iter().all(|text| line.contains(text));
    eventually(async || gateway.log.lock().unwrap().iter().any(is_said).then_some(())).await;
    prometheus.clears(&[("ModalTipStalled", WARNING)]).await;
    // One peer clears none of the others: they fire at one value and clear at another.
    prometheus.fires(&alone[..3]).await;

    // Three more, on another chain.
    let lights: Vec<_> = at_light.iter().map(|place| node(place.path(), &gateway)).collect();
    let apart = [("ModalForkLong", WARNING), ("ModalForkLong", CRITICAL), ("ModalMinorityTip", CRITICAL)];
    prometheus.fires(&apart).await;
    prometheus.clears(&alone[..3]).await;
    prometheus.clears(&[("ModalReorganisationDeep", WARNING), ("ModalReorganisationDeep", CRITICAL)]).await;

    // Whatever the rules and the dashboard name is there, and each panel has something to show.
    for path in ["/status", "/data/miner_block/epoch?epoch=0", "/data/miner_block/epoch?epoch=0&peer=any"] {
        assert_eq!(client.get(format!("{}{path}", gateway.http)).send().await.unwrap().status(), 200, "{path}");
    }
    let (given, rules) = (samples(&client, &gateway).await, rules());
    let missing: Vec<_> = metrics(&rules).into_iter().filter(|name| !given.contains(*name)).collect();
    assert!(missing.is_empty(), "the rules name {missing:?}, /metrics has {given:?}");
    for (panel, expression) in expressions() {
        let missing: Vec<_> = metrics(&expression).into_iter().filter(|name| !given.contains(*name)).collect();
        assert!(missing.is_empty(), "{panel}: no {missing:?} in /metrics");
        eprintln!("waiting until {panel} shows {expression}");
        eventually(async || (!prometheus.query(&expression).await.is_empty()).then_some(())).await;
    }
    // Names, units and help texts by Prometheus' own conventions.
    let scrape = client.get(format!("{}/metrics", gateway.admin)).header("accept", "text/plain");
    let file = at_light[0].path().join("metrics");
    fs::write(&file, scrape.send().await.unwrap().text().await.unwrap()).unwrap();
    run(Command::new("promtool").args(["check", "metrics"]).stdin(File::open(&file).unwrap()));

    // They go.
    drop(lights);
    prometheus.clears(&apart).await;

    // Every connection is taken.
    let address = gateway.http.strip_prefix("http://").unwrap().to_owned();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(TcpStream::connect(&address).await.unwrap());
    }
    prometheus.fires(&[("ModalQueueFull", WARNING)]).await;
    drop(connections);
    prometheus.clears(&[("ModalQueueFull", WARNING)]).await;

    // The database is gone, and clients get errors.
    let (store, aside) = (place.path().join("store"), place.path().join("aside"));
    fs::rename(&store, &aside).unwrap();
    let gone = [("ModalStoreDown", CRITICAL), ("ModalErrors", WARNING)];
    let url = format!("{}/data/miner_block/epoch?epoch=0", gateway.http);
    let mut asks = pin!(async {
        loop {
            drop(client.get(&url).send().await);
            tokio::task::yield_now().await;
        }
    });
    tokio::select! { () = &mut asks => (), () = prometheus.fires(&gone) => () }

    // What comes back is no database.
    fs::create_dir(&store).unwrap();
    fs::write(store.join("chain.db"), "no database ".repeat(1000)).unwrap();
    let damaged = [("ModalStoreErrors", CRITICAL)];
    tokio::select! { () = asks => (), () = prometheus.fires(&damaged) => () }
    prometheus.clears(&gone[..1]).await;
    fs::remove_dir_all(&store).unwrap();
    fs::rename(&aside, &store).unwrap();
    prometheus.clears(&[&gone[..], &damaged].concat()).await;

    gateway.kill();
    prometheus.fires(&[("ModalGatewayDown", CRITICAL)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_clears_when_there_is_room() {
    if !installed("prometheus") {
        return;
    }
    let disk = SmallDisk::mount(6);
    let base = linked(None, 5, "base");
    let heavy = store(&[base.clone(), linked(base.last(), 50, "heavy")].concat());
    let place = store_in(&base, |place| std::os::unix::fs::symlink(disk.path(), place).unwrap());
    let mut command = program(place.path(), SERVE);
    settings(&mut command).args(["--sync-interval", "500ms"]);
    let gateway = Process::start_quietly(command);
    let folder = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(folder.path(), &gateway.admin).await;
    eventually(async || (!prometheus.query("modal_store_errors_total{kind='full'}").await.is_empty()).then_some(()))
        .await;
    disk.fill();
    let _heavy = node(heavy.path(), &gateway);
    prometheus.fires(&[("ModalDiskFull", CRITICAL)]).await;
    disk.clear();
    prometheus.clears(&[("ModalDiskFull", CRITICAL)]).await;
}

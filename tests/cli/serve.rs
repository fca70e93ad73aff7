//! `serve`, `health`, and signals.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    OTHER_NETWORK, TIP, WorkDir, fixture, fixture_lines,
    support::{
        ports::free_port,
        postgres::Database,
        process::{Process, SERVE},
        relay::Relay,
        until::eventually,
    },
};

#[tokio::test]
async fn health_is_an_exit_code() {
    let dir = WorkDir::new();
    let free = format!("127.0.0.1:{}", free_port());
    dir.run(["health", "--http", &free]).fails(1, &["/health/ready can't be reached"]);
    dir.run(["health", "http://gateway:hunter2@127.0.0.1:1"]).fails(2, &["no user and password"]);
    dir.run(["health", "--synced", "http://127.0.0.1:1/health/live"]).fails(2, &["--synced goes with /health/ready"]);
    let usage = dir.run(["health", "ftp://x"]);
    assert_eq!(usage.code, 2, "{}", usage.stderr);
}

#[test]
fn a_gateway_serves_until_it_is_stopped() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let serve = ["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let mut child = dir.command(serve).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut line = |what: &str| stderr.find_map(|line| Some(line.strip_prefix(what)?.trim().to_owned())).unwrap();
    let (http, libp2p) = (line("http "), line("libp2p "));

    dir.run(["health", &format!("{http}/health/ready")]).ok();
    let address = http.strip_prefix("http://").unwrap();
    dir.run(["health", "--http", address]).ok();
    dir.run(["health", &format!("{http}/no/such/path")]).fails(1, &["answers `HTTP/1.1 404"]);

    let answer = dir.run(["request", &libp2p, "/data/miner_block/chain_info"]).ok().stdout;
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["data"]["tip_hash"], TIP);
    let missing = dir.run(["request", &libp2p, "/data/miner_block/get", r#"{"hash": "00"}"#]);
    assert_eq!(missing.code, 1);
    assert!(String::from_utf8(missing.stdout).unwrap().contains("Block not found"));

    let args = ["serve", "--http", address, "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
    dir.run(args).fails(1, &["can't listen on", address, "in use"]);

    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_up_yet_is_waited_for() {
    let (dir, database) = (WorkDir::new(), Database::create().await);
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let url = format!("postgres://postgres@{address}{}", url::Url::parse(&database.url).unwrap().path());
    let serve = ["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let start = || {
        let mut command = dir.command(serve);
        let mut child = command.args(["--database-url", &url]).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let waiting = stderr.next().unwrap();
        assert!(waiting.contains("the database is not up yet") && waiting.contains("limit=60s"), "{waiting}");
        (child, stderr)
    };
    let stop = |mut child: Child| {
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    };
    // Nobody has to wait for the end of that.
    stop(start().0);

    let (child, mut stderr) = start();
    let _relay = Relay::at(address, &database.url).await;
    let up = stderr.next().unwrap();
    assert!(up.contains("the database is up"), "{up}");
    assert!(stderr.any(|line| line.starts_with("http ")));
    stop(child);
}

#[tokio::test]
async fn sigterm_interrupts_a_program_that_waits() {
    let dir = WorkDir::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let mut child = dir.command(["health", &url]).stderr(Stdio::piped()).spawn().unwrap();
    let connected = tokio::task::spawn_blocking(move || silent.accept().unwrap());
    let _connection = tokio::time::timeout(Duration::from_secs(30), connected).await.unwrap().unwrap();
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[tokio::test]
async fn a_gateway_without_peers_warns_and_is_ready_but_not_synced() {
    let dir = WorkDir::new();
    let gateway = Process::start_quietly(dir.command(SERVE.into_iter().chain(["--sync-interval", "1s"])));
    dir.run(["health", &gateway.http]).ok();
    // `stalled` with its reason, or `syncing` before the first look at the peers.
    for url in
        [gateway.http.clone(), format!("{}/?synced=false", gateway.http), format!("{}/?synced=true", gateway.http)]
    {
        dir.run(["health", "--synced", &url])
            .fails(1, &["/health/ready?synced=true answers `HTTP/1.1 503", "Unavailable`: s"]);
    }
    for warning in ["no peer is configured", "state=\"stalled\""] {
        let line = async || gateway.log.lock().unwrap().iter().find(|line| line.contains(warning)).cloned();
        let line = eventually(line).await;
        assert!(line.contains("WARN"), "{line}");
    }
}

#[test]
fn a_store_of_another_network_is_named_at_the_start() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    dir.write("other.toml", OTHER_NETWORK);
    let genesis: serde_json::Value = serde_json::from_slice(&fixture_lines()[0]).unwrap();
    let pinned = OTHER_NETWORK.rsplit('\'').nth(1).unwrap();
    let said = |log: &str| {
        let line = log.lines().find(|line| line.contains("the store holds the chain of another network"));
        line.is_some_and(|line| {
            ["WARN", genesis["hash"].as_str().unwrap(), pinned, "--database-url"].iter().all(|part| line.contains(part))
        })
    };
    let serve = |network: &str| {
        let gateway = Process::start_quietly(dir.command(SERVE.into_iter().chain(["--network", network])));
        gateway.log.lock().unwrap().join("\n")
    };
    let log = serve("other.toml");
    assert!(said(&log), "{log}");
    let log = serve("devnet");
    assert!(!said(&log), "{log}");
    let sync = dir.run(["sync", "/ip4/127.0.0.1/tcp/1", "--network", "other.toml"]);
    assert!(sync.code == 1 && said(&sync.stderr), "{}", sync.stderr);
}

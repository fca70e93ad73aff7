//! The access log: one line for each answered request, whatever clients send.

use std::io::{Read, Write};

use reqwest::Client;
use serde_json::Value;

use crate::support::{
    process::{CHAIN, Process, SERVE, program},
    until::eventually,
};

const TARGET: &str = "modal_gateway::access";

/// A gateway's process with the bundled chain.
fn start(folder: &std::path::Path, args: &[&str], filter: Option<&str>) -> Process {
    let import = program(folder, ["import", CHAIN, "--verify", "linked"]).output().unwrap();
    assert!(import.status.success(), "{import:?}");
    let mut serve = program(folder, SERVE);
    serve.args(args);
    if let Some(filter) = filter {
        serve.env("RUST_LOG", filter);
    }
    Process::start_quietly(serve)
}

/// The access log's lines of a process that logs JSON, once there are so many.
async fn lines(process: &Process, count: usize) -> Vec<Value> {
    eventually(async || {
        let log = process.log.lock().unwrap();
        let objects = log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}")));
        let lines: Vec<_> = objects.filter(|line| line["target"] == TARGET).collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

/// Sends bytes on a connection of its own, and reads the answer to its end.
fn send_raw(process: &Process, request: &[u8]) -> String {
    let address = process.http.strip_prefix("http://").unwrap();
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    connection.write_all(request).unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn each_answered_request_has_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let process = start(folder.path(), &["--log", "json", "--access-log", "true"], None);
    let client = Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| {
        let request = client.get(format!("{}{path}", process.http)).header("x-request-id", "client-7");
        request.send().await.unwrap().bytes().await.unwrap().len()
    };
    let epoch = get("/data/miner_block/epoch?epoch=0").await;
    let job = get("/sync/7?secret=1").await;
    let unknown = get("/no/such/path").await;
    let whole = get("/data/miner_block/canonical").await;
    let lines = lines(&process, 4).await;
    assert_eq!(lines.len(), 4, "{lines:#?}");
    let expected = [
        ("/data/miner_block/epoch", "/data/miner_block/epoch", 200, "store", epoch),
        ("/sync/7", "/sync/{id}", 400, "store", job),
        ("/no/such/path", "other", 404, "store", unknown),
        ("/data/miner_block/canonical", "/data/miner_block/canonical", 200, "store", whole),
    ];
    for (line, (path, route, status, source, bytes)) in lines.iter().zip(expected) {
        assert_eq!((&line["path"], &line["route"]), (&path.into(), &route.into()), "{line}");
        assert_eq!((&line["status"], &line["source"]), (&status.into(), &source.into()), "{line}");
        assert_eq!((&line["bytes"], &line["level"]), (&bytes.into(), &"INFO".into()), "{line}");
        assert_eq!(
            (&line["id"], &line["client"], &line["method"]),
            (&"client-7".into(), &"127.0.0.1".into(), &"GET".into())
        );
        assert!(line["duration_ms"].as_f64().is_some_and(|millis| (0.0..20_000.0).contains(&millis)), "{line}");
        assert!(!line.to_string().contains("secret"), "the query string is not logged: {line}");
    }
}

#[tokio::test]
async fn no_request_breaks_the_lines_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let process = start(folder.path(), &["--access-log", "true"], None);
    let before = process.log.lock().unwrap().len();
    let long = "x".repeat(9000);
    let targets = [
        "/plain",
        "/a%0A%0Db",
        // NEL, CSI, a separator of lines, an override of direction.
        "/\u{85}\u{9b}31m\u{2028}\u{202e}",
        "/quote\"and\\|{}",
        "/?a=b",
        &format!("/{long}"),
    ];
    let mut answered = 0;
    for (method, target) in targets.map(|target| ("GET", target)).into_iter().chain([(&*"BREW".repeat(50), "/coffee")])
    {
        let headers = "host: x\r\nconnection: close\r\nx-request-id: forged 200";
        let answer = send_raw(&process, format!("{method} {target} HTTP/1.1\r\n{headers}\r\n\r\n").as_bytes());
        // What is no HTTP is refused before it is a request.
        answered += usize::from(answer.contains("x-request-id: "));
    }
    assert!(answered >= 5, "{answered} were answered");
    let lines: Vec<String> = eventually(async || {
        let log = process.log.lock().unwrap();
        let lines: Vec<_> = log.iter().filter(|line| line.contains(TARGET)).cloned().collect();
        (lines.len() >= answered).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), answered, "{lines:#?}");
    for line in &lines {
        let visible = line.chars().all(|c| c == ' ' || c.is_ascii_graphic());
        assert!(visible && line.len() < 1200 && line.contains("answered"), "{line:?}");
        assert!(!line.contains("forged"), "{line:?}");
    }
    // Each line since the start begins as one: no request began one.
    let log = process.log.lock().unwrap();
    let begins = |line: &&String| line.starts_with(|c: char| c.is_ascii_digit()) && line.contains('Z');
    let odd: Vec<_> = log.iter().skip(before).filter(|line| !begins(line)).collect();
    assert!(odd.is_empty(), "{odd:#?}");
}

#[tokio::test]
async fn the_lines_are_at_level_debug_unless_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let filter = "info,modal_gateway::access=debug";
    let process = start(folder.path(), &["--log", "json"], Some(filter));
    let client = Client::builder().no_proxy().build().unwrap();
    client.get(format!("{}/status", process.http)).send().await.unwrap();
    let logged = lines(&process, 1).await;
    assert_eq!((&logged[0]["level"], &logged[0]["path"]), (&"DEBUG".into(), &"/status".into()));
    drop(process);
    let mut process = start(folder.path(), &["--log", "json"], None);
    client.get(format!("{}/status", process.http)).send().await.unwrap();
    process.kill();
    assert_eq!(lines(&process, 0).await, [] as [Value; 0]);
}

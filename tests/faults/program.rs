//! The process: a panic in it, and a command without a database.

use std::{
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use modal_gateway::{config::LogFormat, telemetry};

use crate::support::{clock::judge, ports::free_port, process::program};

/// Set for the process that panics.
const CHILD: &str = "FAULTS_PANIC";

#[tokio::test]
async fn a_panic_is_counted_and_logged_once_without_its_secrets() {
    if std::env::var_os(CHILD).is_some() {
        telemetry::init(LogFormat::Json, telemetry::SERVICE_FILTER).unwrap();
        let password = "hunter2";
        let panicked = tokio::spawn(async move { panic!("can't reach postgres://user:{password}@host") }).await;
        let blocking = tokio::task::spawn_blocking(|| panic!("a fixed text")).await;
        assert!(panicked.is_err() && blocking.is_err(), "contained");
        assert_eq!(telemetry::panics(), 2);
        assert!(telemetry::resident_bytes().is_none_or(|bytes| bytes > 1 << 20));
        telemetry::flush();
        return;
    }
    let name = "program::a_panic_is_counted_and_logged_once_without_its_secrets";
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").env_remove("RUST_LOG");
    let output = child.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let lines: Vec<serde_json::Value> =
        stderr.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(!stderr.contains("hunter2"), "{stderr}");
    assert!(lines.iter().all(|line| line["level"] == "ERROR" && line["at"].as_str().unwrap().contains("program.rs")));
    assert_eq!(lines[1]["text"], "a fixed text");
}

#[test]
fn a_command_that_finds_no_database_ends_and_says_so() {
    // Nobody listens on the one; on the other nobody answers.
    let (gone, silent) = (free_port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let silent_port = silent.local_addr().unwrap().port();
    for (port, said) in [(gone, "can't be reached"), (silent_port, "no answer within")] {
        let folder = tempfile::tempdir().unwrap();
        let started = Instant::now();
        let url = format!("postgres://user:hunter2@127.0.0.1:{port}/chain");
        let output = program(folder.path(), ["migrate", "--database-url", &url]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(said) && !stderr.contains("hunter2"), "{stderr}");
        judge(started.elapsed() < Duration::from_secs(10), format_args!("{:?}", started.elapsed()));
    }
}

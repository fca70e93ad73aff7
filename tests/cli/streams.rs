//! Stdout and stderr as shells hand them over: full, closed, or read no further.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use rstest::rstest;

use crate::{Outcome, WorkDir, fixture};

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A pipe that nobody reads.
fn broken() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[rstest]
#[case::full(full)]
#[case::broken(broken)]
fn messages_that_stderr_does_not_take_are_dropped(#[case] stderr: fn() -> Stdio) {
    let dir = WorkDir::new();
    let file = fixture();
    let import = ["import", file.to_str().unwrap(), "--network", "devnet", "--verify", "linked"];
    for (args, code) in [
        (&import[..], 0),
        (&["export", "out.ndjson"], 0),
        (&["verify", "--network", "devnet", "--verify", "linked"], 0),
        (&["migrate"], 0),
        (&["export", "nowhere/out.ndjson"], 1),
        (&["health", "http://127.0.0.1:1/"], 1),
        (&["serve", "--sync-interval", "never"], 2),
    ] {
        let status = dir.command(args).stderr(stderr()).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
    assert_eq!(dir.count(), 61);
}

/// As `serve 2>&1 | grep -m1 '^http '` does: the port is read, and the pipe closed.
#[test]
fn a_gateway_serves_on_when_its_stderr_is_closed() {
    let dir = WorkDir::new();
    let args = ["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let mut child = dir.command(args).env("RUST_LOG", "trace").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let http = lines.find_map(|line| Some(line.strip_prefix("http ")?.to_owned())).unwrap();
    drop(lines);
    dir.run(["health", &format!("{http}/health/ready")]).ok();
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn data_that_cannot_be_written_is_a_failure() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    for args in [&["export", "-"][..], &["openapi"]] {
        let output = dir.command(args).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        Outcome::from(output).fails(1, &["stdout: ", "No space left"]);
    }
}

#[rstest]
#[case::terminate("-TERM")]
#[case::hang_up("-HUP")]
fn signals_end_a_gateway_in_order(#[case] signal: &str) {
    let dir = WorkDir::new();
    let args = ["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let mut child = dir.command(args).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.starts_with("peer-id ")).unwrap();
    Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_hangup_ends_nothing_under_nohup() {
    let dir = WorkDir::new();
    let program = dir.command(["serve"]).get_program().to_owned();
    let mut child = Command::new("nohup")
        .arg(program)
        .args(["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir(dir.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let http = lines.find_map(|line| Some(line.strip_prefix("http ")?.to_owned())).unwrap();
    Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    dir.run(["health", &format!("{http}/health/ready")]).ok();
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn with_json_logs_every_line_is_json() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    for args in [
        &["migrate"][..],
        &["verify", "--network", "devnet", "--verify", "linked"],
        &["export", "nowhere/out.ndjson"],
        &["serve", "--sync-interval", "never"],
        &["serve", "--http", "192.0.2.1:80"],
    ] {
        let output = dir.command(args).args(["--log", "json"]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.is_empty(), "{args:?}");
        for line in stderr.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            for member in ["timestamp", "level", "message", "target"] {
                assert!(line[member].is_string(), "{line}");
            }
        }
    }
}

//! Stdout and stderr as shells hand them over: full, closed, or read no further.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::{Child, Command, Output, Stdio},
};

use rstest::rstest;

use crate::{Outcome, WorkDir, fixture, support::gateway::PATIENCE};

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
        (&["health", "ftp://x"], 2),
        (&["request", "/ip4/127.0.0.1/tcp/1", "/data/miner_block/chain_info"], 1),
        (&["serve", "--sync-interval", "never"], 2),
        (&["node", "--listen", "nowhere"], 2),
        (&["sync", "--sync-interval", "never"], 2),
        (&["demo", "--http", "192.0.2.1:80"], 1),
        (&["config", "--network", "nowhere.toml"], 2),
        (&["openapi", "--numbers", "words"], 2),
        (&["completions"], 2),
        (&["man", "fly"], 2),
        (&["--help"], 0),
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

/// As `serve 2>&1 | less` does: the pipe stays open, and is read no further, or only at the end.
#[rstest]
#[case::never(false)]
#[case::at_the_end(true)]
fn a_gateway_whose_log_nobody_reads_answers_and_ends(#[case] is_read: bool) {
    let dir = WorkDir::new();
    let args = ["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let mut child = dir.command(args).args(["--access-log", "true"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let http = lines.find_map(|line| Some(line.strip_prefix("http http://")?.to_owned())).unwrap();
    let mut wire = TcpStream::connect(&http).unwrap();
    wire.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answers = BufReader::new(wire.try_clone().unwrap());
    // A line has some 200 bytes, and a pipe takes 64 KiB.
    for _ in 0..1000 {
        wire.write_all(b"HEAD /health/live HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(answers.read_line(&mut head).expect("an answer in time"), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    if is_read {
        assert_eq!(lines.filter(|line| line.contains("/health/live")).count(), 1000);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    } else {
        assert_eq!(child.wait().unwrap().code(), Some(0));
        // What the pipe took.
        assert!(lines.count() > 100);
    }
}

#[test]
fn a_file_beyond_the_limit_of_its_size_is_a_failure() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    // The export has 35,517 bytes; the limit is in KiB.
    let program = dir.command(["export"]).get_program().to_owned();
    let mut limited = Command::new("bash");
    limited.args(["-c", "ulimit -f 34; exec \"$0\" export out.ndjson"]).arg(program).current_dir(dir.0.path());
    Outcome::from(limited.output().unwrap()).fails(1, &["File too large"]);
    let left = fs::read_dir(dir.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("export") || name == "out.ndjson").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn data_that_cannot_be_written_is_a_failure() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let export_csv = ["export", "-", "--format", "csv"];
    let commands =
        [&["export", "-"][..], &export_csv, &["openapi"], &["config"], &["completions", "bash"], &["man"], &["--help"]];
    for args in commands {
        let output = dir.command(args).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        Outcome::from(output).fails(1, &["stdout: ", "No space left"]);
    }
}

#[rstest]
#[case::terminal(&[("TERM", "xterm")], true)]
#[case::dumb(&[("TERM", "dumb")], false)]
#[case::asked_not_to(&[("TERM", "xterm"), ("NO_COLOR", "1")], false)]
fn a_log_has_colours_only_where_a_terminal_shows_them(#[case] variables: &[(&str, &str)], #[case] coloured: bool) {
    let dir = WorkDir::new();
    let program = dir.command(["serve"]).get_program().to_owned();
    // It logs that it makes a key, and can't listen at an address of another machine.
    let listeners = "--http 127.0.0.1:0 --admin 127.0.0.1:0 --listen /ip4/192.0.2.1/tcp/1";
    let command = format!("'{}' serve {listeners}", program.display());
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &command, "/dev/null"]).current_dir(dir.0.path());
    terminal.env_clear().env("PATH", "/usr/bin:/bin").envs(variables.iter().copied());
    let said = String::from_utf8(terminal.stdin(Stdio::null()).output().unwrap().stdout).unwrap();
    assert!(said.contains("INFO"), "{said}");
    assert_eq!(said.contains('\x1b'), coloured, "{said}");
}

/// A gateway, started by another program, and the lines that it says.
fn serve_by(dir: &WorkDir, starter: &[&str]) -> (Child, impl Iterator<Item = String>) {
    let mut child = Command::new(starter[0])
        .args(&starter[1..])
        .arg(dir.command(["serve"]).get_program())
        .args(["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir(dir.0.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    (child, lines)
}

#[rstest]
#[case::terminate("-TERM")]
#[case::hang_up("-HUP")]
fn signals_end_a_gateway_in_order(#[case] signal: &str) {
    let dir = WorkDir::new();
    // The tests may themselves run under `nohup`.
    let (mut child, mut lines) = serve_by(&dir, &["env", "--default-signal=HUP"]);
    lines.find(|line| line.starts_with("peer-id ")).unwrap();
    Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_hangup_ends_nothing_under_nohup() {
    let dir = WorkDir::new();
    let (mut child, mut lines) = serve_by(&dir, &["nohup"]);
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
        &["serve", "--hpt"],
        &["fly"],
    ] {
        lines_are_json(dir.command(args).args(["--log", "json"]).output().unwrap());
        lines_are_json(dir.command(args).env("MODAL_GATEWAY_LOG", "json").output().unwrap());
    }
    fs::write(dir.0.path().join("settings.toml"), "log = \"json\"\nverify = \"maybe\"\n").unwrap();
    lines_are_json(dir.command(["verify", "--config", "settings.toml"]).output().unwrap());
    lines_are_json(dir.command(["fly", "--config=settings.toml"]).output().unwrap());
    lines_are_json(dir.command(["--log", "json", "--help"]).stdout(full()).stderr(Stdio::piped()).output().unwrap());
}

fn lines_are_json(output: Output) {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.is_empty());
    for line in stderr.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        for member in ["timestamp", "level", "message", "target"] {
            assert!(line[member].is_string(), "{line}");
        }
    }
}

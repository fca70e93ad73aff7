//! Requests made up from our own OpenAPI document, by a tool from PyPI that knows nothing else of us, against the real
//! program: with a peer behind it and without one. All the tool's checks must hold.
//!
//! `SCHEMATHESIS_EXAMPLES` sets how many cases it makes up for each operation, beside the document's examples and edge
//! cases: 270 make more than 5,000 requests a gateway, 640 more than 10,000.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use support::{
    process::{CHAIN, Process, SERVE, program},
    python::{run, tools},
};

mod support;

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis");

/// Requests that each of the two gateways must get.
const CASES: u64 = 5_000;

const COMMON: [&str; 6] = ["--network", "devnet", "--verify", "linked", "--sync", "false"];

/// A folder with a store that holds the bundled chain.
fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    run(program(folder.path(), COMMON).args(["import", CHAIN]).arg("--log=text"), "the chain is imported");
    folder
}

fn serve(folder: &Path, args: &[&str]) -> Process {
    let mut command = program(folder, SERVE);
    command.args(COMMON).args(args);
    Process::start(command)
}

/// How many requests the tool says it made.
fn cases(output: &str) -> u64 {
    let line = output.lines().find(|line| line.contains(" generated, ")).unwrap_or_else(|| panic!("{output}"));
    line.trim().split(' ').next().unwrap().replace(',', "").parse().unwrap()
}

fn check(tools: PathBuf, gateway: &Process, name: &str) {
    let examples = std::env::var("SCHEMATHESIS_EXAMPLES").unwrap_or_else(|_| "270".into());
    let folder = tempfile::tempdir().unwrap();
    let mut tool = Command::new(tools.join("schemathesis"));
    tool.current_dir(folder.path()).env("SCHEMATHESIS_HOOKS", Path::new(HERE).join("hooks.py"));
    tool.arg("--config-file").arg(Path::new(HERE).join("schemathesis.toml")).arg("run");
    tool.args([
        "--workers",
        "1",
        "--request-timeout",
        "10",
        "--no-color",
        "--checks",
        "all",
        "--max-examples",
        &examples,
    ]);
    let output = run(tool.arg(format!("{}/openapi.json", gateway.http)), "the document and the answers disagree");
    let made = cases(&output);
    eprintln!("schemathesis: {made} requests {name}: all checks hold");
    assert!(made >= CASES, "{output}");
    let panics = gateway.log.lock().unwrap().iter().filter(|line| line.contains("panicked")).count();
    assert_eq!(panics, 0);
}

#[test]
fn every_answer_is_as_documented() {
    let tools = tools("schemathesis", &Path::new(HERE).join("requirements.txt"));
    let places = [place(), place(), place()];
    let peer = serve(places[0].path(), &[]);
    let address = format!("node={}", peer.libp2p[0]);
    let (with, without) = (serve(places[1].path(), &["--peer", &address]), serve(places[2].path(), &[]));
    std::thread::scope(|scope| {
        scope.spawn(|| check(tools.clone(), &with, "with a peer"));
        scope.spawn(|| check(tools.clone(), &without, "without a peer"));
    });
}

//! What `packaging/` has for operators, tried with the programs that it is for: Prometheus, systemd, man and shells.
//! What is not installed is left out; CI installs all.

mod support;

#[path = "packaging/alerts.rs"]
mod alerts;
#[path = "packaging/files.rs"]
mod files;
#[path = "packaging/prometheus.rs"]
mod prometheus;
#[path = "packaging/shells.rs"]
mod shells;
#[path = "packaging/unit.rs"]
mod unit;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// A file of `packaging/`.
fn packaged(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(path)
}

/// The text of a file of `packaging/`.
fn text_of(path: &str) -> String {
    let path = packaged(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a program of Debian's is there; CI installs all.
fn installed(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|folder| folder.join(name).is_file()) {
        return true;
    }
    assert!(env::var_os("CI").is_none(), "{name} is missing: scripts/setup.sh packaging");
    eprintln!("skipped: {name} is not installed; scripts/setup.sh packaging installs it");
    false
}

/// Runs a command that must succeed; all that it prints.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}\n{said}");
    said
}

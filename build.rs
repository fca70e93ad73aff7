//! Names the commit that the program is built from, for `--version` and the metric `modal_build_info`.

use std::{env, path::Path, process::Command};

/// The variable that names the commit: of the build where git can't, since a container gets the sources without the
/// repository; and of the compiler.
const COMMIT: &str = "GATEWAY_COMMIT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let given = env::var(COMMIT).ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(commit).filter(|commit| commit.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
    println!("cargo::rustc-env={COMMIT}={}", commit.as_deref().unwrap_or("unknown"));
}

/// The commit of the work tree. `None` for sources from an archive, also inside of another repository; and for a debug
/// build, which each commit would make anew otherwise.
fn commit() -> Option<String> {
    if env::var("PROFILE").ok()? != "release" || !Path::new(".git").exists() {
        return None;
    }
    // HEAD changes with the branch, its log with each commit. A file that is missing would count as changed each time.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// What git prints; `None` if git fails or is not installed.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

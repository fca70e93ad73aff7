//! Valgrind's callgrind, which counts the instructions of all threads of a program.

use std::{
    env, fs,
    hint::black_box,
    process::{Command, Stdio},
};

/// Callgrind begins to count anew when this is called.
#[inline(never)]
pub fn begin_counted_round() {
    black_box("begin");
}

/// Callgrind writes what it counted when this is called. Not the same text, or the compiler might make both one
/// function.
#[inline(never)]
pub fn end_counted_round() {
    black_box("end");
}

/// Whether valgrind is there; CI installs it.
pub fn is_installed() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|folder| folder.join("valgrind").is_file()) {
        return true;
    }
    assert!(env::var_os("CI").is_none(), "valgrind is missing: scripts/setup.sh instructions");
    eprintln!("skipped: valgrind is not installed; scripts/setup.sh instructions installs it");
    false
}

/// Runs this program again with these arguments, counted. The counts of the rounds, in the order in which they ran.
pub fn count(arguments: &[&str]) -> Vec<u64> {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("callgrind");
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind"])
        .args(["--zero-before=*begin_counted_round*", "--dump-before=*end_counted_round*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe().expect("this program"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("valgrind starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "under valgrind: {}\n{said}", output.status);
    // Each count has a file of its own, numbered from 1. What follows the last is in one without a number.
    let files = (1..).map(|number| out.with_extension(number.to_string())).take_while(|file| file.exists());
    files.map(|file| total(&fs::read_to_string(file).expect("callgrind's counts"))).collect()
}

/// The sum in one of callgrind's files.
fn total(counts: &str) -> u64 {
    let total = counts.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).expect("callgrind's counts have a sum")
}

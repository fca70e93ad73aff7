//! Tools from PyPI, each set in a virtual environment of its own under `target`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

/// Held while an environment is made: two tests may want the same one.
static MAKING: Mutex<()> = Mutex::new(());

/// Runs a command; its output is part of the failure, and what is returned.
pub fn run(command: &mut Command, what: &str) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{what}: {command:?}: {error}"));
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{what}: {command:?}\n{stdout}{stderr}");
    stdout
}

/// The `bin` of the virtual environment `name`, made anew when the file of requirements has changed.
pub fn tools(name: &str, requirements: &Path) -> PathBuf {
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let (wanted, stamp) = (fs::read_to_string(requirements).unwrap(), folder.join("installed.txt"));
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return folder.join("bin");
    }
    let mut python = Command::new("python3");
    run(python.args(["-m", "venv", "--clear"]).arg(&folder), "Python with venv (Debian: python3 and python3-venv)");
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
    run(&mut pip, "tools from PyPI");
    fs::write(stamp, wanted).unwrap();
    folder.join("bin")
}

//! A Python client, generated from the document, asks a gateway. The tools come from PyPI into a virtual environment
//! under `target`, in the versions of `requirements.txt`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::gateway::{Backend, TestGateway};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/client");

/// Runs a command; its output is part of the failure.
fn run(command: &mut Command, what: &str) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{what}: {command:?}: {error}"));
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{what}: {command:?}\n{stdout}{stderr}");
}

/// The virtual environment's `bin`, made anew when the requirements change.
fn tools() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi-tools");
    let requirements = Path::new(HERE).join("requirements.txt");
    let (wanted, stamp) = (fs::read_to_string(&requirements).unwrap(), folder.join("installed.txt"));
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return folder.join("bin");
    }
    let mut python = Command::new("python3");
    run(python.args(["-m", "venv", "--clear"]).arg(&folder), "Python with venv (Debian: python3 and python3-venv)");
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&requirements);
    run(&mut pip, "the OpenAPI tools from PyPI");
    fs::write(stamp, wanted).unwrap();
    folder.join("bin")
}

#[tokio::test]
async fn a_generated_client_fetches_an_epoch() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let (folder, base) = (tempfile::tempdir().unwrap(), gateway.base.clone());
    let client = folder.path().join("modal_gateway_client");
    let work = move || {
        let tools = tools();
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
        let python = |script: &str| {
            let mut command = Command::new(tools.join("python"));
            command.arg(Path::new(HERE).join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
            command
        };
        run(python("check_document.py").arg(document), "the document is not valid");
        let mut generate = Command::new(tools.join("openapi-python-client"));
        generate.args(["generate", "--meta", "none", "--fail-on-warning", "--path", document, "--output-path"]);
        // It formats what it made with a tool beside itself.
        let path = std::env::join_paths([tools.clone(), "/usr/bin".into(), "/bin".into()]).unwrap();
        run(generate.arg(&client).env("PATH", path), "no client can be generated");
        run(python("use_client.py").arg(&base).env("PYTHONPATH", folder.path()), "the generated client fails");
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

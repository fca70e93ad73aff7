//! A Python client, generated from the document, asks a gateway, and Prometheus' parser reads its metrics. The tools
//! come from PyPI into a virtual environment under `target`, in the versions of `requirements.txt`.

use std::{path::Path, process::Command};

use modal_gateway::http::{Numbers, openapi_json};

use crate::support::{
    gateway::{Backend, TestGateway},
    python::{run, tools},
};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/client");

#[tokio::test]
async fn a_generated_client_fetches_an_epoch() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let (folder, base) = (tempfile::tempdir().unwrap(), gateway.base.clone());
    let client = folder.path().join("modal_gateway_client");
    let work = move || {
        let tools = tools("openapi-tools", &Path::new(HERE).join("requirements.txt"));
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
        let python = |script: &str| {
            let mut command = Command::new(tools.join("python"));
            command.arg(Path::new(HERE).join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
            command
        };
        run(python("check_document.py").arg(document), "the document is not valid");
        let strings = folder.path().join("strings.json");
        std::fs::write(&strings, openapi_json(Numbers::String)).unwrap();
        run(python("check_document.py").arg(&strings), "the document with numbers=string is not valid");
        let mut generate = Command::new(tools.join("openapi-python-client"));
        generate.args(["generate", "--meta", "none", "--fail-on-warning", "--path", document, "--output-path"]);
        // It formats what it made with a tool beside itself.
        let path = std::env::join_paths([tools.clone(), "/usr/bin".into(), "/bin".into()]).unwrap();
        run(generate.arg(&client).env("PATH", path), "no client can be generated");
        run(python("use_client.py").arg(&base).env("PYTHONPATH", folder.path()), "the generated client fails");
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

#[tokio::test]
async fn prometheus_reads_the_metrics() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/data/miner_block/epoch?epoch=0").await.status, 200);
    }
    assert_eq!(gateway.get("/no/such/path").await.status, 404);
    let url = format!("{}/metrics", gateway.admin);
    let work = move || {
        let tools = tools("openapi-tools", &Path::new(HERE).join("requirements.txt"));
        let mut read = Command::new(tools.join("python"));
        run(read.arg(Path::new(HERE).join("read_metrics.py")).arg(url), "the metrics can't be read");
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

//! The program itself, on free ports: as `serve`, and as `node`.

use std::{path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::measure::Outcome;

/// Starts `serve` on the store at `url`; the process, which ends when dropped, and the address of its HTTP listener.
pub async fn serve(url: &str, folder: &Path) -> Outcome<(Child, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modal-gateway"));
    command.args(["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    start(command, url, folder, "http ").await
}

/// Starts `node` on the store at `url`; the process, which ends when dropped, and its address with its peer id.
pub async fn node(url: &str, folder: &Path) -> Outcome<(Child, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modal-gateway"));
    command.arg("node");
    start(command, url, folder, "libp2p ").await
}

/// Starts it, and waits until it prints the line that begins with `word`; the rest of that line.
async fn start(mut command: Command, url: &str, folder: &Path, word: &str) -> Outcome<(Child, String)> {
    let mut process = command
        .args(["--database-url", url, "--listen", "/ip4/127.0.0.1/tcp/0", "--identity", "node.key"])
        .current_dir(folder)
        .env_clear()
        // How the packages set glibc's allocator can be measured too.
        .envs(std::env::var_os("GLIBC_TUNABLES").map(|tunables| ("GLIBC_TUNABLES", tunables)))
        // All clients have the same address, and one peer may have as much as it can take.
        .env("MODAL_GATEWAY_UNLIMITED_CLIENT", "127.0.0.0/8")
        .env("MODAL_GATEWAY_PEER_RATE_LIMIT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(process.stderr.take().ok_or("no stderr")?).lines();
    let mut printed = String::new();
    while let Some(line) = lines.next_line().await? {
        if let Some(rest) = line.strip_prefix(word) {
            let rest = rest.to_owned();
            // What it prints after that must not fill the pipe.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((process, rest));
        }
        printed += &line;
    }
    Err(format!("the program did not start: {printed}").into())
}

//! The program itself, as `serve` on free ports.

use std::{path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::measure::Outcome;

/// Starts `serve` on the store at `url`; the process, which ends when dropped, and the address of its HTTP listener.
pub async fn serve(url: &str, folder: &Path) -> Outcome<(Child, String)> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_modal-gateway"))
        .arg("serve")
        .args(["--database-url", url])
        .args(["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"])
        .args(["--identity", "node.key"])
        .current_dir(folder)
        .env_clear()
        // How the packages set glibc's allocator can be measured too.
        .envs(std::env::var_os("GLIBC_TUNABLES").map(|tunables| ("GLIBC_TUNABLES", tunables)))
        // All clients have the same address.
        .env("MODAL_GATEWAY_UNLIMITED_CLIENT", "127.0.0.0/8")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(process.stderr.take().ok_or("no stderr")?).lines();
    let mut printed = String::new();
    while let Some(line) = lines.next_line().await? {
        if let Some(base) = line.strip_prefix("http ") {
            let base = base.to_owned();
            // What it prints after that must not fill the pipe.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((process, base));
        }
        printed += &line;
    }
    Err(format!("`serve` did not start: {printed}").into())
}

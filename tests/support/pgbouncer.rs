//! PgBouncer before a Postgres server.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{cluster::server_rights, ports::free_port, until::eventually};

const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// A PgBouncer that runs until this is dropped or the test program ends in any way.
pub struct PgBouncer {
    /// The database's URL, by way of PgBouncer.
    pub url: String,
    watcher: Child,
}

impl PgBouncer {
    /// One before the server of the database at `url`, in this mode, with nothing set that it does not need.
    pub async fn before(url: &str, mode: &str) -> Self {
        Self::with(url, mode, "").await
    }

    /// The same, with a further setting.
    pub async fn with(url: &str, mode: &str, setting: &str) -> Self {
        assert!(Path::new(PROGRAM).exists(), "no {PROGRAM}: install it (Debian: `apt-get install pgbouncer`)");
        let server = url::Url::parse(url).unwrap();
        let host = server.host_str().unwrap().replace("%2F", "/");
        let (port, user) = (server.port().unwrap_or(5432), server.username());
        let password = server.password().map(|password| format!(" password={password}")).unwrap_or_default();
        let (own, folder) = (free_port(), tempfile::tempdir().unwrap().keep());
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = folder.join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n* = host={host} port={port} user={user}{password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {own}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n{setting}\n"
        );
        std::fs::write(&file, settings).unwrap();
        let script = format!(
            "trap '' HUP INT TERM; {} {PROGRAM} -q {} 2>/dev/null & pid=$!; cat >/dev/null; kill $pid; wait $pid; rm -rf {}",
            server_rights().join(" "),
            file.display(),
            folder.display()
        );
        let watcher = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        let address = ("127.0.0.1", own);
        eventually(async || tokio::net::TcpStream::connect(address).await.ok()).await;
        Self { url: format!("postgres://{user}@127.0.0.1:{own}{}", server.path()), watcher }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

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
    port: u16,
    settings: String,
    watcher: Option<Child>,
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
        let (server_port, user) = (server.port().unwrap_or(5432), server.username());
        let password = server.password().map(|password| format!(" password={password}")).unwrap_or_default();
        let port = free_port();
        let settings = format!(
            "[databases]\n* = host={host} port={server_port} user={user}{password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n{setting}\n"
        );
        let url = format!("postgres://{user}@127.0.0.1:{port}{}", server.path());
        let mut pooler = Self { url, port, settings, watcher: None };
        pooler.up().await;
        pooler
    }

    /// Starts it.
    pub async fn up(&mut self) {
        let folder = tempfile::tempdir().unwrap().keep();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = folder.join("pgbouncer.ini");
        std::fs::write(&file, &self.settings).unwrap();
        let script = format!(
            "trap '' HUP INT TERM; {} {PROGRAM} -q {} 2>/dev/null & pid=$!; cat >/dev/null; kill $pid; wait $pid; rm -rf {}",
            server_rights().join(" "),
            file.display(),
            folder.display()
        );
        self.watcher = Some(Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap());
        let address = ("127.0.0.1", self.port);
        eventually(async || tokio::net::TcpStream::connect(address).await.ok()).await;
    }

    /// Ends it at once, with all connections.
    pub fn end(&mut self) {
        if let Some(mut watcher) = self.watcher.take() {
            drop(watcher.stdin.take());
            let _ = watcher.wait();
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.end();
    }
}

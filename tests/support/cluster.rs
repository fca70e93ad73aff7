//! Postgres servers of a test's own, over TCP on loopback, which it may stop, freeze, fill and replicate.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use super::{disk::SmallDisk, ports::free_port, postgres::programs, until::eventually};

/// A server. Stopped, and its files deleted, when this is dropped or the test program ends in any way.
pub struct Cluster {
    /// Where it listens.
    pub address: SocketAddr,
    folder: PathBuf,
    watcher: Child,
}

impl Cluster {
    /// A running server with an empty database.
    pub fn start() -> Self {
        let cluster = Self::place();
        cluster.run(&[
            "initdb",
            "-D",
            "data",
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
        ]);
        cluster.configure("max_connections = 40\nfsync = off\nwal_level = replica\nhot_standby = on\n");
        cluster.up();
        cluster
    }

    /// A running standby of it.
    pub fn standby(&self) -> Self {
        let standby = Self::place();
        let port = self.address.port().to_string();
        let copy =
            ["pg_basebackup", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-D", "data", "-R", "-X", "stream"];
        standby.run(&[&copy[..], &["-c", "fast", "--no-sync"]].concat());
        standby.configure("");
        standby.up();
        standby
    }

    /// A folder, a free port, and whoever clears up.
    fn place() -> Self {
        let folder = tempfile::Builder::new().prefix("modal-gateway-cluster").tempdir().unwrap().keep();
        if is_root() {
            assert!(Command::new("chown").arg(server_user()).arg(&folder).status().unwrap().success());
        }
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let clear = format!(
            "trap '' HUP INT TERM; cat >/dev/null; pid=$(head -n 1 {0}/data/postmaster.pid 2>/dev/null); \
             [ -z \"$pid\" ] || kill -CONT $pid $(pgrep -P $pid) 2>/dev/null; {1} {2}/pg_ctl -D {0}/data -m immediate stop >/dev/null 2>&1; \
             rm -rf {0}",
            folder.display(),
            server_rights().join(" "),
            programs().display()
        );
        let watcher = Command::new("sh").args(["-c", &clear]).stdin(Stdio::piped()).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self { address, folder, watcher }
    }

    fn configure(&self, more: &str) {
        let path = self.folder.join("data/postgresql.conf");
        let own = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\n{more}",
            self.address.port()
        );
        let text = std::fs::read_to_string(&path).unwrap() + &own;
        std::fs::write(&path, text).unwrap();
    }

    /// Starts it; returns when it takes connections.
    pub fn up(&self) {
        let log = self.folder.join("data/server.log");
        self.run(&["pg_ctl", "-D", "data", "-w", "-l", log.to_str().unwrap(), "start"]);
    }

    /// Stops it: `fast` or `immediate`.
    pub fn stop(&self, mode: &str) {
        self.run(&["pg_ctl", "-D", "data", "-w", "-m", mode, "stop"]);
    }

    /// Lets a standby hear no more of its primary.
    pub async fn stop_replication(&self) {
        self.sql("ALTER SYSTEM SET primary_conninfo = ''");
        self.sql("SELECT pg_reload_conf()");
        eventually(async || (self.sql("SELECT count(*) FROM pg_stat_wal_receiver") == "0").then_some(())).await;
    }

    /// Waits until a standby receives what its primary writes: it answers before it has connected.
    pub async fn streams(&self) {
        let streams = "SELECT status = 'streaming' FROM pg_stat_wal_receiver";
        eventually(async || (self.sql(streams) == "t").then_some(())).await;
    }

    /// Waits until a standby has replayed all that it has received.
    pub async fn replayed(&self) {
        let replayed = "SELECT pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()";
        eventually(async || (self.sql(replayed) == "t").then_some(())).await;
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        self.run(&["pg_ctl", "-D", "data", "-w", "promote"]);
    }

    /// Sends a signal to all of its processes: `STOP` or `CONT`.
    pub fn signal(&self, signal: &str) {
        let file = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        let postmaster = file.lines().next().unwrap().trim();
        let children = Command::new("pgrep").args(["-P", postmaster]).output().unwrap().stdout;
        let children = String::from_utf8(children).unwrap();
        let pids = std::iter::once(postmaster).chain(children.lines());
        // Some may end meanwhile.
        let _ = Command::new("kill").arg(format!("-{signal}")).args(pids).stderr(Stdio::null()).status().unwrap();
    }

    /// Runs SQL as the superuser; what it prints.
    pub fn sql(&self, sql: &str) -> String {
        let port = self.address.port().to_string();
        let output = self.run(&["psql", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-XAtqc", sql]);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("data/server.log")).unwrap()
    }

    /// URL of a database of its, at this address.
    pub fn url(&self, address: SocketAddr, database: &str) -> String {
        format!("postgres://postgres@{address}/{database}")
    }

    /// A file system of so many MiB, in which the server may write.
    pub fn small_disk(&self, mib: u32) -> SmallDisk {
        let disk = SmallDisk::mount(mib);
        if is_root() {
            assert!(Command::new("chown").arg(server_user()).arg(disk.path()).status().unwrap().success());
        }
        disk
    }

    fn run(&self, command: &[&str]) -> Output {
        let mut words = server_rights();
        words.push(programs().join(command[0]).display().to_string());
        let mut program = Command::new(&words[0]);
        program.args(&words[1..]).args(&command[1..]).current_dir(&self.folder).stdin(Stdio::null());
        // A server that is started here keeps what it inherits.
        let output = if command.contains(&"start") {
            let status = program.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            Output { status, stdout: Vec::new(), stderr: Vec::new() }
        } else {
            program.output().unwrap()
        };
        let log = std::fs::read_to_string(self.folder.join("data/server.log")).unwrap_or_default();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}\n{log}");
        output
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

/// Whether the tests run as root, from whom no mode of a file keeps anything.
pub fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
}

/// As whom a server runs: it refuses to be root.
fn server_user() -> &'static str {
    let exists = Command::new("id").args(["-u", "postgres"]).output().is_ok_and(|id| id.status.success());
    if exists { "postgres" } else { "nobody" }
}

/// What a command for the server begins with.
pub fn server_rights() -> Vec<String> {
    if !is_root() {
        return vec!["env".into()];
    }
    let user = server_user();
    let group = Command::new("id").args(["-g", user]).output().unwrap().stdout;
    let group = String::from_utf8(group).unwrap();
    ["setpriv", &format!("--reuid={user}"), &format!("--regid={}", group.trim()), "--clear-groups"]
        .map(String::from)
        .into()
}

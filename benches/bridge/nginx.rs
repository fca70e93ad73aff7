//! nginx, which serves the same bytes from a file: what a server can do that makes nothing.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{net::TcpStream, time::sleep};

use crate::{cpu::Meter, measure::Outcome};

/// A server with a worker for each core. Ends when dropped.
pub struct Nginx {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// Serves `body` at `path` as JSON.
    pub async fn start(path: &str, body: &[u8]) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        // Its workers may be another user than we are.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let file = folder.path().join("files").join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().ok_or("a path of a file")?)?;
        fs::write(&file, body)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let settings = folder.path().join("nginx.conf");
        fs::write(&settings, config(folder.path(), address))?;
        let child = Command::new(program()?)
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(settings)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let nginx = Self { address, child, _folder: folder };
        for _ in 0..250 {
            if TcpStream::connect(address).await.is_ok() {
                return Ok(nginx);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err("nginx does not listen".into())
    }

    /// The CPU time of its workers.
    pub fn meter(&self) -> Outcome<Meter> {
        let output = Command::new("pgrep").arg("-P").arg(self.child.id().to_string()).output()?;
        let ids: Vec<u32> = String::from_utf8(output.stdout)?.lines().map(str::parse).collect::<Result<_, _>>()?;
        if ids.is_empty() { Err("nginx has no workers".into()) } else { Ok(Meter::Processes(ids)) }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It ends its workers, which a killed one would not.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// Its name and version.
pub fn version() -> Outcome<String> {
    let output = Command::new(program()?).arg("-v").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(said.rsplit(": ").next().unwrap_or_default().trim().to_owned())
}

fn program() -> Outcome<&'static str> {
    let mut paths = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"].into_iter();
    Ok(paths.find(|path| Path::new(path).exists()).ok_or("nginx is missing: scripts/setup.sh bench")?)
}

fn config(folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
        .concat();
    format!(
        "daemon off; worker_processes auto; pid {folder}/nginx.pid; error_log stderr warn;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; {temporary} sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000;\n\
         open_file_cache max=16; default_type application/json;\n\
         server {{ listen {address}; root {folder}/files; }} }}\n"
    )
}

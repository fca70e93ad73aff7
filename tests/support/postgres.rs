//! Databases for tests: on the server that `TEST_DATABASE_URL` names, else on a throw-away one that this test program
//! starts from the installed programs and that ends with it.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

const HOW_TO_GET_ONE: &str = "these tests need a Postgres server: install one (Debian: `apt-get install postgresql`), or \
                              set TEST_DATABASE_URL to one on which databases may be created";

/// An empty database, dropped with this value.
pub struct Database {
    /// Where it is: `postgres://…`.
    pub url: String,
    name: String,
}

impl Database {
    /// Creates one with a name of its own.
    pub async fn create() -> Self {
        Self::encoded("UTF8").await
    }

    /// The same, in this encoding.
    pub async fn encoded(encoding: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let name = format!("modal_gateway_{now}_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        execute(format!("CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"))
            .await;
        let mut url = url::Url::parse(server()).unwrap();
        url.set_path(&name);
        Self { url: url.into(), name }
    }

    #[allow(dead_code, reason = "only some of the programs that include this file put databases back")]
    /// Replaces what it holds by a copy of `other`, to which nobody may be connected.
    pub async fn copy_from(&self, other: &Self) {
        execute(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).await;
        execute(format!("CREATE DATABASE {} TEMPLATE {}", self.name, other.name)).await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop = execute(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        // The test's own runtime can't be waited for in here.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dropped = std::thread::spawn(move || runtime.block_on(drop)).join();
        assert!(dropped.is_ok() || std::thread::panicking());
    }
}

async fn execute(sql: String) {
    let mut connection = PgConnection::connect(server()).await.unwrap();
    sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// URL of the server's own database.
fn server() -> &'static str {
    /// The throw-away server runs until the end of its standard input, which this program holds to its own end.
    static SERVER: OnceLock<(String, Option<Child>)> = OnceLock::new();
    let (url, _) = SERVER.get_or_init(|| match std::env::var("TEST_DATABASE_URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let (url, child) = start();
            (url, Some(child))
        }
    });
    url
}

fn start() -> (String, Child) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.sh");
    let mut child = Command::new("sh")
        .arg(script)
        .arg(programs())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`sh` runs");
    let mut socket = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut socket).unwrap();
    assert!(!socket.is_empty(), "Postgres did not start: its log is above");
    (format!("postgres://postgres@{}/postgres", socket.trim().replace('/', "%2F")), child)
}

/// The folder of `initdb` and the others: of the newest version where Debian keeps them, else on the `PATH`.
pub fn programs() -> PathBuf {
    let version = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = debian.map(|entry| entry.path()).collect();
    folders.sort_by_key(|path| version(path));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = folders.into_iter().rev().map(|path| path.join("bin")).chain(std::env::split_paths(&path));
    folders.find(|folder| folder.join("initdb").is_file()).expect(HOW_TO_GET_ONE)
}

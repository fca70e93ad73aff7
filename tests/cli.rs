//! The program as its users run it: the real binary, its exit codes, stdout and stderr.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use sqlx::{Connection, SqliteConnection};
use support::process;

mod support;

#[path = "cli/assumed.rs"]
mod assumed;
#[path = "cli/config.rs"]
mod config;
#[path = "cli/csv.rs"]
mod csv;
#[path = "cli/databases.rs"]
mod databases;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/mining.rs"]
mod mining;
#[path = "cli/request.rs"]
mod request;
#[path = "cli/serve.rs"]
mod serve;
#[path = "cli/stores.rs"]
mod stores;
#[path = "cli/streams.rs"]
mod streams;
#[path = "cli/sync.rs"]
mod sync;
#[path = "cli/usage.rs"]
mod usage;
#[path = "cli/verify.rs"]
mod verify;

const TIP: &str = "0017cbb916921c1144f2fcdb002392cebdb0849e1bc14f883df8dd0430cccc0f";

/// The settings of a network that begins with another genesis than the fixtures.
const OTHER_NETWORK: &str = "name = 'other'\n\
    genesis_hash = '1138a591e9aea737ab04eafd00b2057f4891ec7977c525cec410023a51a08d7e'\n";

/// Lines of a file without their ends.
type Lines = Vec<Vec<u8>>;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/randomx-chain-61.ndjson")
}

fn fixture_lines() -> Lines {
    let bytes = fs::read(fixture()).unwrap();
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line, &b"\n"[..]].concat()).collect()
}

/// A working directory with its own store.
struct WorkDir(tempfile::TempDir);

struct Outcome {
    code: i32,
    stdout: Vec<u8>,
    /// Without the lines of progress: there are some where it took longer than a second.
    stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        let is_progress =
            |line: &str| ["import: ", "export: ", "sync: ", "verify: "].iter().any(|verb| line.starts_with(verb));
        let stderr = stderr.split_inclusive('\n').filter(|line| !is_progress(line)).collect();
        Self { code: output.status.code().unwrap(), stdout: output.stdout, stderr }
    }
}

impl Outcome {
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    /// Failed with `code` and one line that holds each of `texts`.
    #[track_caller]
    fn fails(self, code: i32, texts: &[&str]) -> Self {
        let Self { stderr, .. } = &self;
        assert_eq!(self.code, code, "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.trim_end().lines().count() == 1, "{stderr}");
        for text in texts {
            assert!(stderr.contains(text), "{text:?} in {stderr}");
        }
        self
    }
}

impl WorkDir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The program with nothing of our environment.
    fn command<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        process::program(self.0.path(), args)
    }

    fn run<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        self.command(args).output().unwrap().into()
    }

    fn import(&self, file: &Path) -> Outcome {
        self.import_to("linked", file)
    }

    fn import_to(&self, level: &str, file: &Path) -> Outcome {
        self.run(["--network", "devnet", "--verify", level, "import", file.to_str().unwrap()])
    }

    fn import_stdin(&self, bytes: &[u8]) -> Outcome {
        let mut child = self.command(["import", "-", "--network", "devnet", "--verify", "linked"]);
        let child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        // It may stop reading early.
        let _ = child.stdin.take().unwrap().write_all(bytes);
        child.wait_with_output().unwrap().into()
    }

    /// How many blocks the store has on its chain.
    fn count(&self) -> u64 {
        let export = self.run(["export", "-"]).ok().stdout;
        let record = export.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap();
        serde_json::from_slice::<serde_json::Value>(record).unwrap()["count"].as_u64().unwrap()
    }

    async fn database(&self) -> SqliteConnection {
        let url = format!("sqlite://{}", self.path("modal-gateway.db").display());
        SqliteConnection::connect(&url).await.unwrap()
    }
}

fn edit(line: &[u8], key: &str, value: serde_json::Value) -> Vec<u8> {
    let mut block: serde_json::Value = serde_json::from_slice(line).unwrap();
    block[key] = value;
    serde_json::to_vec(&block).unwrap()
}

//! The program as its users run it: the real binary, its exit codes, stdout and stderr.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use libp2p::{PeerId, identity::Keypair};
use modal_gateway::p2p::{self, P2pClient, P2pConfig, Responder};
use rstest::rstest;
use sqlx::{Connection, SqliteConnection};
use tokio_util::sync::{CancellationToken, DropGuard};

const TIP: &str = "0017cbb916921c1144f2fcdb002392cebdb0849e1bc14f883df8dd0430cccc0f";

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
struct Place(tempfile::TempDir);

struct Outcome {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
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

impl Place {
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_modal-gateway"));
        command.env_clear().current_dir(self.0.path()).stdin(Stdio::null()).args(args);
        command
    }

    fn run<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        self.command(args).output().unwrap().into()
    }

    fn import(&self, file: &Path) -> Outcome {
        self.run(["import".as_ref(), file.as_os_str(), "--verify".as_ref(), "linked".as_ref()])
    }

    fn import_stdin(&self, bytes: &[u8]) -> Outcome {
        let mut child = self.command(["import", "-", "--verify", "linked"]);
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

#[test]
fn import_is_idempotent_and_export_gives_it_back() {
    let place = Place::new();
    let first = place.import(&fixture()).ok();
    let expected = format!("imported 61 blocks (0 already there, 0 orphans), tip 60 {TIP}, verified to linked\n");
    assert_eq!((first.stderr, first.stdout), (expected, vec![]));
    let again = place.import(&fixture()).ok().stderr;
    assert!(again.starts_with("imported 0 blocks (61 already there, 0 orphans), tip 60"), "{again}");

    let exported = place.run(["export", "-"]).ok();
    assert_eq!(exported.stderr, format!("exported 61 blocks, tip 60 {TIP}\n"));
    assert!(exported.stdout.split(|byte| *byte == b'\n').count() == 63, "61 blocks, the record, the end");
    place.run(["export", "chain.ndjson"]).ok();
    assert_eq!(fs::read(place.path("chain.ndjson")).unwrap(), exported.stdout);

    let other = Place::new();
    other.import(&place.path("chain.ndjson")).ok();
    assert_eq!(other.run(["export", "-"]).ok().stdout, exported.stdout);
}

#[test]
fn proof_of_work_is_the_default() {
    let place = Place::new();
    let lines = fixture_lines();
    let file = place.write("three.ndjson", joined(&lines[..3]));
    let done = place.run(["import".as_ref(), file.as_os_str()]).ok().stderr;
    assert!(done.contains("imported 3 blocks") && done.contains("verified to pow"), "{done}");
    let other = Place::new();
    let file = other.write("forged.ndjson", joined(&[lines[0].clone(), edit(&lines[1], "nonce", "1".into())]));
    other.run(["import".as_ref(), file.as_os_str()]).fails(1, &["forged.ndjson: line 2: ", "rule `hash`"]);
}

#[test]
fn levels_are_told_as_they_are() {
    let place = Place::new();
    let lines = fixture_lines();
    let file = place.write("part.ndjson", joined(&lines[..10]));
    let args = |file: &Path, level: &str| ["import".into(), file.to_path_buf(), "--verify".into(), level.into()];
    let done = place.run(args(&file, "none")).ok().stderr;
    assert!(done.ends_with("verified to none\n"), "{done}");
    let done = place.run(args(&fixture(), "linked")).ok().stderr;
    assert!(done.starts_with("imported 51 blocks (10 already there"), "{done}");
    assert!(done.ends_with("verified to linked, older blocks to none\n"), "{done}");
}

#[rstest]
#[case::not_json(|l: &mut Lines| l[16] = b"{\"hash\": oops}".to_vec(), &["not a block: hash: expected value (column"])]
#[case::another_object(|l: &mut Lines| l[16] = b"{}".to_vec(), &["not a block: missing field"])]
#[case::truncated(|l: &mut Lines| { let half = l[16].len() / 2; l[16].truncate(half) }, &["not a block: nonce: EOF"])]
#[case::not_utf8(|l: &mut Lines| l[16][20] = 0xff, &["not UTF-8"])]
#[case::too_long(|l: &mut Lines| { let wide = vec![b' '; 70_000]; l[16].splice(1..1, wide); }, &["longer than 65536 bytes"])]
#[case::too_big(|l: &mut Lines| l[16] = edit(&l[16], "orphan_reason", "x".repeat(9000).into()), &["rule `size`"])]
#[case::wrong_data_hash(|l: &mut Lines| l[16] = edit(&l[16], "data_hash", "00".repeat(32).into()), &["rule `data_hash`"])]
#[case::wrong_link(|l: &mut Lines| l[16] = edit(&l[16], "previous_hash", "00".repeat(32).into()), &["rule `link`"])]
#[case::missing_block(|l: &mut Lines| { l.remove(16); }, &["must ascend by index: expected 16, found 17"])]
#[case::swapped(|l: &mut Lines| l.swap(16, 17), &["must ascend by index: expected 16, found 17"])]
#[case::two_canonical(
    |l: &mut Lines| l[16] = edit(&l[15], "hash", "ab".repeat(32).into()),
    &["two canonical blocks at index 15: an earlier line has 0", "this line has abab"]
)]
#[case::wrong_count(|l: &mut Lines| l[16] = br#"{"count":15,"sha256":"00"}"#.to_vec(), &["record counts 15 blocks, but 16 precede"])]
#[case::wrong_hash(|l: &mut Lines| l[16] = br#"{"count":16,"sha256":"00"}"#.to_vec(), &["has the SHA-256 00, but", "changed"])]
#[case::disagreeing(|l: &mut Lines| l[16] = edit(&l[16], "difficulty", "77".into()), &["difficulty 77 and target_difficulty", "disagree"])]
fn a_broken_line_is_named_and_nothing_is_imported(#[case] spoil: fn(&mut Lines), #[case] texts: &[&str]) {
    let place = Place::new();
    let mut lines = fixture_lines();
    spoil(&mut lines);
    let file = place.write("broken.ndjson", joined(&lines));
    place.import(&file).fails(1, &[&["broken.ndjson: line 17: "], texts].concat());
    assert_eq!(place.count(), 0);
    place.import(&fixture()).ok();
}

#[test]
fn the_record_is_the_last_line() {
    let place = Place::new();
    place.import(&fixture()).ok();
    let mut export = place.run(["export", "-"]).ok().stdout;
    export.extend_from_slice(b"\n  \n");
    Place::new().import_stdin(&export).ok();
    export.extend_from_slice(&fixture_lines()[0]);
    Place::new().import_stdin(&export).fails(1, &["stdin: line 65: more after the export's record"]);
}

#[test]
fn a_block_given_twice_is_counted() {
    let place = Place::new();
    let mut lines = fixture_lines();
    lines.insert(17, lines[16].clone());
    lines.insert(0, b"".to_vec());
    lines.extend(fixture_lines());
    let done = place.import_stdin(&joined(&lines)).ok().stderr;
    assert!(done.starts_with("imported 61 blocks (0 already there, 0 orphans, 62 duplicates), tip 60"), "{done}");
    assert_eq!(place.count(), 61);
}

#[test]
fn another_chain_is_refused() {
    let place = Place::new();
    let lines = fixture_lines();
    place.import_stdin(&joined(&lines[..30])).ok();
    let other = joined(&[edit(&lines[20], "hash", "ab".repeat(32).into())]);
    let texts = ["stdin: line 1: two canonical blocks at index 20: the store has 0", "this line has abab"];
    place.import_stdin(&other).fails(1, &texts);
    place.import_stdin(&joined(&lines[40..])).fails(1, &["line 1: ", "ends before index 30", "can't go on at 40"]);
    place.import_stdin(&joined(&lines[30..])).ok();
    assert_eq!(place.count(), 61);
}

#[test]
fn orphans_are_kept_beside_the_chain() {
    let place = Place::new();
    let mut lines = fixture_lines();
    let orphan = edit(&lines[20], "hash", "ab".repeat(32).into());
    let orphan = edit(&edit(&orphan, "is_canonical", false.into()), "is_orphaned", true.into());
    lines.insert(21, orphan);
    let done = place.import_stdin(&joined(&lines)).ok().stderr;
    assert!(done.starts_with("imported 61 blocks (0 already there, 1 orphans), tip 60"), "{done}");
    let again = place.import_stdin(&joined(&lines)).ok().stderr;
    assert!(again.starts_with("imported 0 blocks (62 already there, 0 orphans), tip 60"), "{again}");
    assert_eq!(place.count(), 61);
}

#[test]
fn an_empty_file_is_an_empty_chain() {
    let place = Place::new();
    let done = place.import_stdin(b"").ok().stderr;
    assert_eq!(done, "imported 0 blocks (0 already there, 0 orphans), the chain is empty\n");
    let export = place.run(["export", "-"]).ok().stdout;
    let empty = r#"{"count":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;
    assert_eq!(String::from_utf8(export.clone()).unwrap(), format!("{empty}\n"));
    place.import_stdin(&export).ok();
}

#[test]
fn an_interrupted_import_imports_nothing() {
    let place = Place::new();
    let mut command = place.command(["import", "-", "--verify", "linked"]);
    command.env("RUST_LOG", "modal_gateway=debug").stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&fs::read(fixture()).unwrap()).unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(stderr.any(|line| line.contains("transaction begun")));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(stderr.last().as_deref(), Some("error: interrupted"));
    drop(stdin);
    assert_eq!(place.count(), 0);
}

#[test]
fn an_export_is_whole_or_not_there() {
    let place = Place::new();
    place.run(["export", "out.ndjson"]).fails(1, &["the store does not exist", "modal-gateway.db"]);
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 0, "neither a store nor an output");
    place.import(&fixture()).ok();
    place.run(["export", "nowhere/out.ndjson"]).fails(1, &["nowhere/out.ndjson: ", "No such file"]);
    place.run(["export", "/dev/null"]).ok();
    let old = place.write("out.ndjson", "old");
    place.run(["export", "out.ndjson"]).ok();
    assert!(fs::read(old).unwrap().starts_with(b"{\"hash\""));
    let left = fs::read_dir(place.0.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".modal-gateway-export"));
    assert_eq!(left.count(), 0);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let place = Place::new();
    place.import(&fixture()).ok();
    for args in [&["export", "-"][..], &["openapi"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let outcome = Outcome::from(place.command(args).stdout(writer).output().unwrap()).ok();
        assert_eq!(outcome.stderr, "");
    }
}

#[rstest]
#[case::value("http = 'here'", &["settings.toml: http: `here`: expected ADDRESS:PORT"])]
#[case::key("htpp = '127.0.0.1:1'", &["settings.toml: unknown setting `htpp`", "http"])]
#[case::syntax("log = 'text'\nhttp = [", &["settings.toml: line 2: "])]
#[case::network("network = 'testnet'", &["settings.toml: network: `testnet`", "modality"])]
fn a_malformed_setting_is_named(#[case] text: &str, #[case] texts: &[&str]) {
    let place = Place::new();
    place.write("settings.toml", text);
    place.run(["migrate", "--config", "settings.toml"]).fails(2, texts);
    let outcome = place.command(["serve"]).env("MODAL_GATEWAY_CONFIG", "settings.toml").output().unwrap();
    Outcome::from(outcome).fails(2, texts);
}

#[test]
fn settings_come_from_file_environment_and_flags() {
    let place = Place::new();
    place.write("modal-gateway.toml", "database_url = 'sqlite://file.db'");
    place.run(["migrate"]).ok();
    place.command(["migrate"]).env("DATABASE_URL", "sqlite://plain.db").output().unwrap();
    let both = [("DATABASE_URL", "sqlite://no.db"), ("MODAL_GATEWAY_DATABASE_URL", "sqlite://ours.db")];
    place.command(["migrate"]).envs(both).output().unwrap();
    // Before and after the command.
    place.command(["migrate", "--database-url", "sqlite://flag.db"]).envs(both).output().unwrap();
    place.run(["--database-url", "sqlite://early.db", "migrate"]).ok();
    for name in ["file.db", "plain.db", "ours.db", "flag.db", "early.db"] {
        assert!(place.path(name).exists(), "{name}");
    }
    assert!(!place.path("no.db").exists() && !place.path("modal-gateway.db").exists());
}

#[test]
fn unknown_variables_files_and_flags_are_named() {
    let place = Place::new();
    let outcome = place.command(["migrate"]).env("MODAL_GATEWAY_HTPP", "x").output().unwrap();
    Outcome::from(outcome).fails(2, &["environment variable MODAL_GATEWAY_HTPP: unknown setting `htpp`"]);
    place.run(["migrate", "--config", "absent.toml"]).fails(2, &["absent.toml: can't read", "No such file"]);
    place.run(["migrate", "--http", "8080"]).fails(2, &["--http: `8080`: expected ADDRESS:PORT"]);
    place.run(["migrate", "--verify", "all"]).fails(2, &["--verify: ", "`none`, `linked` or `pow`"]);
    let outcome = place.command(["migrate"]).env("RUST_LOG", "a=b=c").output().unwrap();
    Outcome::from(outcome).fails(1, &["environment variable RUST_LOG: "]);
}

#[test]
fn no_password_is_printed() {
    let place = Place::new();
    for url in ["postgres://user:pa55@127.0.0.1:1/db", "postgres://user:pa55@127.0.0.1:x/db", "mysql://user:pa55@h/db"]
    {
        let outcome = place.run(["migrate", "--database-url", url]);
        assert_ne!(outcome.code, 0);
        assert!(!outcome.stderr.contains("pa55"), "{}", outcome.stderr);
    }
}

#[test]
fn migrate_says_from_where_to_where() {
    let place = Place::new();
    let created = place.run(["migrate"]).ok().stderr;
    assert!(created.starts_with("sqlite://modal-gateway.db: created, schema "), "{created}");
    let again = place.run(["migrate"]).ok().stderr;
    assert!(again.ends_with("is up to date\n"), "{again}");
}

#[test]
fn a_file_that_is_no_store_or_not_there() {
    let place = Place::new();
    place.import(&place.path("absent.ndjson")).fails(1, &["absent.ndjson: No such file"]);
    place.import(place.0.path()).fails(1, &["is a directory"]);
    assert!(!place.path("modal-gateway.db").exists(), "a mistyped name leaves no store behind");
    place.write("modal-gateway.db", "this is not a database, whatever its name may say".repeat(100));
    place.import(&fixture()).fails(1, &["the store is damaged"]);
    place.run(["export", "-", "--database-url", "sqlite://no/such/folder/x.db"]).fails(1, &["does not exist"]);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_says_why() {
    let place = Place::new();
    place.run(["migrate"]).ok();
    let read_only = ["import", "-", "--database-url", "sqlite://modal-gateway.db?mode=ro"];
    place.run(read_only).fails(1, &["the store is read-only"]);

    let mut database = place.database().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut database).await.unwrap();
    place.import(&fixture()).fails(1, &["the store is busy", "locked"]);
    place.run(["export", "-"]).ok();
    sqlx::query("ROLLBACK").execute(&mut database).await.unwrap();
    place.import(&fixture()).ok();

    let newer = "INSERT INTO _sqlx_migrations SELECT 9999, description, installed_on, success, checksum, execution_time \
                 FROM _sqlx_migrations LIMIT 1";
    sqlx::query(newer).execute(&mut database).await.unwrap();
    for args in [&["export", "-"][..], &["import", "-"], &["migrate"]] {
        place.run(args).fails(1, &["schema is version 9999, newer than this program's"]);
    }
}

/// Answers `/ping` with the data it got, and anything else with its path and `ok: false`.
struct Echo;

#[async_trait::async_trait]
impl Responder for Echo {
    async fn respond(&self, _: PeerId, request: Bytes) -> Bytes {
        let request: serde_json::Value = serde_json::from_slice(&request).unwrap();
        match request["path"].as_str().unwrap() {
            "/ping" => serde_json::json!({"ok": true, "data": request["data"], "errors": null}).to_string().into(),
            "/garbage" => "garbage\u{7}".into(),
            _ => serde_json::json!({"ok": false, "data": null, "errors": {"error": "Unknown path"}}).to_string().into(),
        }
    }
}

async fn echo_node() -> (P2pClient, DropGuard) {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap(), "/ip4/127.0.0.1/tcp/0/ws".parse().unwrap()];
    let config = P2pConfig { listen, ..P2pConfig::new(Keypair::generate_ed25519()) };
    let stop = CancellationToken::new();
    let (client, _) = p2p::start(config, Arc::new(Echo), stop.clone()).await.unwrap();
    (client, stop.drop_guard())
}

#[tokio::test(flavor = "multi_thread")]
async fn request_is_curl_for_the_protocol() {
    let place = Place::new();
    let (node, _running) = echo_node().await;
    let addresses: Vec<_> = node.listen_addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses.len(), 2);
    for address in &addresses {
        let answer = place.run(["request", address, "/ping", r#"{"n": 18446744073709551615}"#]).ok();
        let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert_eq!(answer, serde_json::json!({"ok": true, "data": {"n": u64::MAX}, "errors": null}));
    }
    let address = &addresses[0];
    let null = place.run(["request", address, "/ping"]).ok().stdout;
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&null).unwrap()["data"], serde_json::Value::Null);

    let unknown = place.run(["request", address, "/nothing"]);
    assert_eq!((unknown.code, unknown.stderr.as_str()), (1, ""));
    assert!(String::from_utf8(unknown.stdout).unwrap().contains("Unknown path"));

    let garbage = place.run(["request", address, "/garbage"]).fails(1, &[address]);
    assert!(garbage.stdout.is_empty() && !garbage.stderr.contains('\u{7}'), "{}", garbage.stderr);

    let (alias, id) = (format!("node={address}/p2p/{}", node.local_peer_id()), node.local_peer_id().to_string());
    for name in ["node", &id] {
        place.run(["request", name, "/ping", "1", "--peer", &alias]).ok();
    }
    let wrong = format!("{address}/p2p/{}", Keypair::generate_ed25519().public().to_peer_id());
    place.run(["request", &wrong, "/ping"]).fails(1, &[address, "can't be reached"]);
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 0, "neither a key nor a store");
}

#[tokio::test]
async fn request_names_what_is_wrong() {
    let place = Place::new();
    // Accepts nothing, answers nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port());
    place.run(["request", &address, "/ping", "--timeout", "1"]).fails(1, &["no answer within 1 s"]);
    drop(silent);
    place.run(["request", &address, "/ping"]).fails(1, &[&address, "can't be reached"]);
    place.run(["request", "node", "/ping"]).fails(1, &["`node` is neither a multiaddr nor", "none is configured"]);
    place.run(["request", "/ip4/1.2.3", "/ping"]).fails(1, &["`/ip4/1.2.3` is not a multiaddr"]);
    let usage = place.run(["request", &address, "/ping", "{epoch: 0}"]);
    assert_eq!(usage.code, 2);
    assert!(usage.stderr.contains("not JSON: key must be a string (column 2)"), "{}", usage.stderr);
}

#[tokio::test]
async fn health_is_an_exit_code() {
    let place = Place::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    place.run(["health", "--http", &free]).fails(1, &["/health/ready can't be reached"]);
    let usage = place.run(["health", "ftp://x"]);
    assert_eq!(usage.code, 2, "{}", usage.stderr);
}

#[test]
fn help_and_usage_have_their_exit_codes() {
    let place = Place::new();
    let help = String::from_utf8(place.run(["--help"]).ok().stdout).unwrap();
    for command in ["serve", "node", "demo", "import", "export", "request", "openapi", "migrate", "health"] {
        assert!(help.contains(&format!("\n  {command}")), "{command}");
        assert!(!place.run([command, "--help"]).ok().stdout.is_empty());
    }
    place.run(["--version"]).ok();
    for args in [&[][..], &["fly"], &["import"], &["serve", "--hpt"], &["request", "x"]] {
        assert_eq!(place.run(args).code, 2, "{args:?}");
    }
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 0);
}

#[test]
fn a_gateway_serves_until_it_is_told_to_stop() {
    let place = Place::new();
    place.import(&fixture()).ok();
    let serve = ["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let mut child = place.command(serve).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut line = |what: &str| stderr.find_map(|line| Some(line.strip_prefix(what)?.trim().to_owned())).unwrap();
    let (http, libp2p) = (line("http "), line("libp2p "));

    place.run(["health", &format!("{http}/health/ready")]).ok();
    let address = http.strip_prefix("http://").unwrap();
    place.run(["health", "--http", address]).ok();
    place.run(["health", &format!("{http}/no/such/path")]).fails(1, &["answers `HTTP/1.1 404"]);

    let answer = place.run(["request", &libp2p, "/data/miner_block/chain_info"]).ok().stdout;
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["data"]["tip_hash"], TIP);
    let missing = place.run(["request", &libp2p, "/data/miner_block/get", r#"{"hash": "00"}"#]);
    assert_eq!(missing.code, 1);
    assert!(String::from_utf8(missing.stdout).unwrap().contains("Block not found"));

    let args = ["serve", "--http", address, "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
    place.run(args).fails(1, &["can't listen on", address, "in use"]);

    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn sigterm_interrupts_a_program_that_waits() {
    let place = Place::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let mut child = place.command(["health", &url]).stderr(Stdio::piped()).spawn().unwrap();
    let connected = tokio::task::spawn_blocking(move || silent.accept().unwrap());
    let _connection = tokio::time::timeout(Duration::from_secs(30), connected).await.unwrap().unwrap();
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

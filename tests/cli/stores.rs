//! Stores that are there, and that are not.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::symlink,
    process::{Child, Command, Stdio},
};

use sqlx::{Connection, SqliteConnection};

use crate::{
    Outcome, WorkDir, edit, fixture, fixture_lines, joined,
    support::linked::{NETWORK_FILE, linked},
};

#[test]
fn migrate_says_from_where_to_where() {
    let dir = WorkDir::new();
    let created = dir.run(["migrate"]).ok().stderr;
    assert!(created.starts_with("sqlite://modal-gateway.db: created, schema "), "{created}");
    let again = dir.run(["migrate"]).ok().stderr;
    assert!(again.ends_with("is up to date\n"), "{again}");
}

#[test]
fn a_file_that_is_no_store_or_not_there() {
    let dir = WorkDir::new();
    dir.import(&dir.path("absent.ndjson")).fails(1, &["absent.ndjson: No such file"]);
    dir.import(dir.0.path()).fails(1, &["is a directory"]);
    assert!(!dir.path("modal-gateway.db").exists(), "a mistyped name leaves no store behind");
    dir.write("modal-gateway.db", "this is not a database, whatever its name may say".repeat(100));
    dir.import(&fixture()).fails(1, &["the store is damaged"]);
    dir.run(["export", "-", "--database-url", "sqlite://no/such/folder/x.db"])
        .fails(1, &["the store does not exist: no/such/folder/x.db"]);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_says_why() {
    let dir = WorkDir::new();
    dir.run(["migrate"]).ok();
    let chain = fixture();
    let read_only = ["import", chain.to_str().unwrap(), "--database-url", "sqlite://modal-gateway.db?mode=ro"];
    dir.run(read_only).fails(1, &["the store is read-only: it was opened for reading only"]);

    let mut database = dir.database().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut database).await.unwrap();
    dir.import(&fixture()).fails(1, &["the store is busy", "locked"]);
    dir.run(["export", "-"]).ok();
    sqlx::query("ROLLBACK").execute(&mut database).await.unwrap();
    dir.import(&fixture()).ok();

    let newer = "INSERT INTO _sqlx_migrations SELECT 9999, description, installed_on, success, checksum, execution_time \
                 FROM _sqlx_migrations LIMIT 1";
    sqlx::query(newer).execute(&mut database).await.unwrap();
    for args in [&["export", "-"][..], &["import", "-"], &["migrate"]] {
        dir.run(args).fails(1, &["schema is version 9999, newer than this program's"]);
    }
}

/// What is being written when a line turns out to be wrong is of earlier lines.
#[tokio::test]
async fn a_write_that_fails_is_reported_before_a_wrong_line_after_it() {
    let dir = WorkDir::new();
    dir.run(["migrate"]).ok();
    let url = format!("sqlite://{}", dir.path("modal-gateway.db").display());
    let mut store = SqliteConnection::connect(&url).await.unwrap();
    let trigger =
        "CREATE TRIGGER bad BEFORE INSERT ON block WHEN NEW.idx = 7 BEGIN SELECT RAISE(ABORT, 'no luck'); END";
    sqlx::query(trigger).execute(&mut store).await.unwrap();
    store.close().await.unwrap();
    dir.write("linked.toml", NETWORK_FILE);
    // The first 1,000 are one batch.
    let blocks = linked(None, 1_000, "import");
    let lines: String = blocks.iter().map(|block| serde_json::to_string(block).unwrap() + "\n").collect();
    dir.write("chain.ndjson", lines + "{\n");
    let import = ["import", "chain.ndjson", "--partial", "--network", "linked.toml", "--verify", "linked"];
    dir.run(import).fails(1, &["no luck"]);
}

#[test]
fn an_export_follows_a_link_to_no_file() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    fs::create_dir(dir.path("there")).unwrap();
    for (link, target) in [("out.ndjson", "there/second"), ("there/second", "chain.ndjson"), ("lost", "nowhere/chain")]
    {
        symlink(target, dir.path(link)).unwrap();
    }
    dir.run(["export", "out.ndjson"]).ok();
    assert!(dir.path("out.ndjson").is_symlink() && dir.path("there/second").is_symlink());
    dir.import(&dir.path("there/chain.ndjson")).ok();
    dir.run(["export", "lost"]).fails(1, &["lost -> nowhere/chain: ", "No such file"]);
    assert!(dir.path("lost").is_symlink());
}

fn terminate(child: &Child) {
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn an_export_that_nobody_opens_can_be_interrupted() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    assert!(Command::new("mkfifo").arg(dir.path("fifo")).status().unwrap().success());
    let mut command = dir.command(["export", "fifo"]);
    let mut child = command.env("RUST_LOG", "modal_gateway=debug").stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(stderr.any(|line| line.contains("the store is open")));
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(stderr.last().as_deref(), Some("error: interrupted"));
}

#[test]
fn an_export_that_nobody_reads_can_be_interrupted() {
    let dir = WorkDir::new();
    // More than a pipe holds.
    let mut lines = fixture_lines();
    for line in &mut lines[3..9] {
        *line = edit(line, "nominated_peer_id", "n".repeat(60_000).into());
    }
    dir.import_to("none", &dir.write("long.ndjson", joined(&lines))).ok();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let child = dir.command(["export", "-"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    // It writes, but the rest does not fit.
    reader.read_exact(&mut [0]).unwrap();
    terminate(&child);
    Outcome::from(child.wait_with_output().unwrap()).fails(1, &["error: interrupted"]);
}

#[test]
fn a_stdout_that_is_a_file_is_written_and_not_replaced() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let export = fs::read(fixture()).unwrap().len();
    for name in ["-", "/dev/stdout", "/dev/fd/1"] {
        let path = dir.write("out.ndjson", "");
        let mut out = fs::File::options().write(true).open(&path).unwrap();
        out.write_all(b"before\n").unwrap();
        let status = dir.command(["export", name]).stdout(out.try_clone().unwrap()).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "{name}");
        out.write_all(b"after\n").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("before\n") && text.ends_with("after\n") && text.len() > export, "{name}: {text}");
    }
}

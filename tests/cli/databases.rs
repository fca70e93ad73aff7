//! Databases that can hold no store, or not be written, as their users meet them: what is said of them, and what works.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    process::Command,
};

use rstest::rstest;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{
    Outcome, WorkDir, fixture,
    support::{cluster::is_root, pgbouncer::PgBouncer, postgres::Database},
};

/// The table in which sqlx keeps what it has applied, with a migration of another program.
const OTHERS_MIGRATIONS: &str = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL); \
    INSERT INTO _sqlx_migrations VALUES (20230101, 'their first')";

#[rstest]
#[case::no_right(
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    "?options[role]=pg_monitor",
    1,
    &["permission denied for schema public", "USAGE and CREATE"]
)]
#[case::no_schema("", "?options[search_path]=absent", 1, &["no schema has been selected", "SET search_path", "USAGE"])]
#[case::tables("CREATE TABLE job (id BIGINT)", "", 1, &["tables of another program", "a database of its own"])]
#[case::migrations(OTHERS_MIGRATIONS, "", 1, &["tables of another program", "a database of its own"])]
#[case::option("", "?options[absent]=1", 2, &["unrecognized configuration parameter \"absent\""])]
#[case::value("", "?options[lock_timeout]=soon", 2, &["invalid value for parameter \"lock_timeout\""])]
#[case::read_only(
    "",
    "?options[default_transaction_read_only]=on",
    1,
    &["the store is read-only", "default_transaction_read_only to off", "a standby"]
)]
#[case::certificate("", "?sslrootcert=absent.pem", 2, &["the file of sslrootcert can't be read: No such file"])]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_postgres_is_named(
    #[case] sql: &str,
    #[case] parameters: &str,
    #[case] code: i32,
    #[case] texts: &[&str],
) {
    let (dir, database) = (WorkDir::new(), Database::create().await);
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    let url = database.url.clone() + parameters;
    dir.run(["migrate", "--database-url", &url]).fails(code, texts);
    dir.run(["import", fixture().to_str().unwrap(), "--database-url", &url]).fails(code, texts);
}

/// As docs/operations.md has it: USAGE and SELECT are enough to read.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_read_exports_and_verifies() {
    let (dir, database) = (WorkDir::new(), Database::create().await);
    let file = fixture();
    dir.run(["import", file.to_str().unwrap(), "--verify", "linked", "--database-url", &database.url]).ok();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql("REVOKE ALL ON SCHEMA public FROM PUBLIC").execute(&mut connection).await.unwrap();
    for (role, code) in [("pg_read_all_data", 0), ("pg_monitor", 1)] {
        let url = format!("{}?options[role]={role}", database.url);
        for args in [&["export", "-"][..], &["verify", "--no-raise", "--verify", "linked"]] {
            let output = dir.command(args).args(["--database-url", &url]).output().unwrap();
            match code {
                0 => Outcome::from(output).ok(),
                _ => Outcome::from(output).fails(code, &["no store in the first schema of the search_path", "USAGE"]),
            };
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_encoding_that_lacks_characters_is_refused(#[values("LATIN1", "SQL_ASCII")] encoding: &str) {
    let (dir, database) = (WorkDir::new(), Database::encoded(encoding).await);
    let texts = ["the database can't be used", encoding, "ENCODING 'UTF8'"];
    dir.run(["migrate", "--database-url", &database.url]).fails(1, &texts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_is_told_what_to_set() {
    let (dir, database) = (WorkDir::new(), Database::create().await);
    let file = fixture();
    for (mode, code) in [("session", 0), ("transaction", 0), ("statement", 1)] {
        let pooler = PgBouncer::before(&database.url, mode).await;
        let import = ["import", file.to_str().unwrap(), "--verify", "linked", "--database-url", &pooler.url];
        match code {
            0 => dir.run(import).ok(),
            _ => dir.run(import).fails(code, &["share sessions", "set pool_mode = transaction"]),
        };
    }
}

/// As databases are set for programs that were written for Postgres 9.0.
#[tokio::test(flavor = "multi_thread")]
async fn backslashes_that_escape_are_no_obstacle() {
    let (dir, file) = (WorkDir::new(), fixture());
    for pooled in [false, true] {
        let database = Database::create().await;
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        let off = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = off', \
                   current_database()); END $$";
        sqlx::raw_sql(off).execute(&mut connection).await.unwrap();
        let pooler = if pooled { Some(PgBouncer::before(&database.url, "transaction").await) } else { None };
        let url = pooler.as_ref().map_or(&database.url, |pooler| &pooler.url);
        dir.run(["migrate", "--database-url", url]).ok();
        dir.run(["import", file.to_str().unwrap(), "--verify", "linked", "--database-url", url]).ok();
        dir.run(["verify", "--verify", "linked", "--database-url", url]).ok();
    }
}

impl WorkDir {
    /// The program as somebody whom the modes of files keep out, also where that is root.
    fn run_without_power(&self, args: &[&str]) -> Outcome {
        let program = self.command(args);
        let mut limited = Command::new("setpriv");
        limited.arg("--bounding-set=-dac_override,-dac_read_search").arg(program.get_program()).args(args);
        limited.env_clear().current_dir(self.0.path()).stdin(std::process::Stdio::null());
        let mut command = if is_root() { limited } else { program };
        command.output().unwrap().into()
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let (folder, store) = (dir.path("closed"), dir.path("closed/store.db"));
    fs::create_dir(&folder).unwrap();
    fs::copy(dir.path("modal-gateway.db"), &store).unwrap();
    let migrate = |url: &str| dir.run_without_power(&["migrate", "--database-url", url]);

    set_mode(&folder, 0o555);
    migrate("sqlite://closed/new.db").fails(1, &["closed/new.db can't be made", "folder closed", "Permission denied"]);
    migrate("sqlite://closed/store.db").fails(1, &["the store is read-only", "folder closed", "Permission denied"]);
    set_mode(&store, 0o444);
    migrate("sqlite://closed/store.db").fails(1, &["the store is read-only", "store.db: Permission denied"]);
    set_mode(&store, 0);
    migrate("sqlite://closed/store.db").fails(1, &["can't be used", "store.db: Permission denied"]);
    set_mode(&folder, 0o755);
    migrate("sqlite://absent/store.db").fails(1, &["store.db can't be made", "folder absent", "No such file"]);
    let export = |url: &str| dir.run_without_power(&["export", "-", "--database-url", url]);
    assert!(Command::new("mkfifo").arg(dir.path("pipe")).status().unwrap().success());
    for name in ["closed", "pipe", "/dev/null"] {
        let (url, text) = (format!("sqlite://{name}"), format!("can't be used: {name} is not a regular file"));
        migrate(&url).fails(1, &[&text]);
        export(&url).fails(1, &[&text]);
    }
    let long = format!("sqlite://{}", "x".repeat(300));
    set_mode(&folder, 0);
    for (url, text) in [
        ("sqlite://closed/store.db", "can't be used: closed/store.db: Permission denied"),
        ("sqlite://modal-gateway.db/store.db", "can't be used: modal-gateway.db/store.db: Not a directory"),
        (&long, "xxx: File name too long"),
    ] {
        migrate(url).fails(1, &[text]);
        export(url).fails(1, &[text]);
    }
    set_mode(&folder, 0o755);
    migrate("sqlite://modal-gateway.db?mode=ro").ok();
    migrate("sqlite://new.db?mode=ro").fails(1, &["the store does not exist: new.db"]);
}

/// Whatever is the first that can't be opened.
#[test]
fn too_few_open_files_are_no_missing_store_and_no_broken_disk() {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let import = dir.command(["import", fixture().to_str().unwrap(), "--verify", "linked"]);
    let mut named = 0;
    for limit in 8..24 {
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]).arg(import.get_program());
        let outcome = limited.args(import.get_args()).current_dir(dir.0.path()).output().unwrap();
        let stderr = String::from_utf8(outcome.stderr).unwrap();
        assert!(!stderr.contains("does not exist") && !stderr.contains("disk fails"), "{limit}: {stderr}");
        named += i32::from(stderr.contains("can't be used") && stderr.contains("Too many open files"));
    }
    assert!(named > 0);
}

/// What another user's program has left, be it root's or not, stops the sync only if nobody else may read it.
#[test]
fn a_lock_file_of_another_user_is_used_or_named() {
    let dir = WorkDir::new();
    let (store, lock) = (dir.path("modal-gateway.db"), dir.path("modal-gateway.db.sync-lock"));
    dir.import(&fixture()).ok();
    let before = fs::metadata(&store).unwrap();
    if is_root() {
        chown(&store, Some(65534), Some(65534)).unwrap();
    }
    dir.run(["verify", "--verify", "linked"]).ok();
    let owner = |path: &Path| fs::metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
    assert_eq!(owner(&lock), owner(&store), "root gives it to the store's owner");
    for path in [&store, &lock] {
        chown(path, Some(before.uid()), Some(before.gid())).unwrap();
    }

    let verify = || dir.run_without_power(&["verify", "--verify", "linked"]);
    set_mode(&lock, 0o444);
    verify().ok();
    let named = ["can't be used: the lock file ", "modal-gateway.db.sync-lock: ", "remove it, or change its owner"];
    set_mode(&lock, 0);
    verify().fails(1, &[&named[..], &["Permission denied"]].concat());
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    verify().fails(1, &[&named[..], &["Is a directory"]].concat());
    fs::remove_dir(&lock).unwrap();
    verify().ok();
}

#[tokio::test]
async fn a_file_of_another_program_is_left_alone() {
    let dir = WorkDir::new();
    let mut database =
        sqlx::SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", dir.path("modal-gateway.db").display()))
            .await
            .unwrap();
    sqlx::query("CREATE TABLE bookmark (url TEXT)").execute(&mut database).await.unwrap();
    for args in [&["migrate"][..], &["export", "-"], &["import", fixture().to_str().unwrap()]] {
        dir.run(args).fails(1, &["tables of another program", "a database of its own"]);
    }
    let tables = sqlx::query("SELECT * FROM sqlite_schema").fetch_all(&mut database).await.unwrap();
    assert_eq!(tables.len(), 1);
}

/// Who only reads needs no right to write: to the file, to its folder, to the working directory.
#[rstest]
#[case::file(0o444, 0o755)]
#[case::folder(0o644, 0o555)]
#[case::both(0o444, 0o555)]
#[case::neither(0o644, 0o755)]
fn reading_needs_no_write_access_and_leaves_nothing(
    #[case] file: u32,
    #[case] folder: u32,
    #[values(false, true)] empty_log: bool,
) {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let expected = dir.run(["export", "-"]).ok().stdout;
    for left in ["modal-gateway.db-wal", "modal-gateway.db-shm"] {
        let _ = fs::remove_file(dir.path(left));
    }
    if empty_log {
        dir.write("modal-gateway.db-wal", "");
    }
    set_mode(&dir.path("modal-gateway.db"), file);
    set_mode(dir.0.path(), folder);
    let exported = dir.run_without_power(&["export", "-"]);
    let verified = dir.run_without_power(&["verify", "--no-raise", "--verify", "linked"]);
    let left = ["modal-gateway.db-wal", "modal-gateway.db-shm"].map(|left| dir.path(left).exists());
    let requested = dir.run_without_power(&["request", "/ip4/127.0.0.1/tcp/1", "/ping"]);
    let raised = dir.run_without_power(&["verify", "--verify", "pow"]);
    set_mode(dir.0.path(), 0o755);
    assert!(exported.ok().stdout == expected);
    assert!(verified.ok().stderr.starts_with("verified 61 blocks"));
    requested.fails(1, &["can't be reached"]);
    // What a reader left would belong to the reader, and keep the store's owner from writing.
    assert_eq!(left, [empty_log && (file, folder) != (0o644, 0o755), false]);
    match (file, folder) {
        (0o644, 0o755) => raised.ok(),
        (_, 0o555) if empty_log => raised.fails(1, &["the folder .: Permission denied"]),
        _ => raised.fails(1, &["the store is read-only"]),
    };
}

/// The store of a gateway that has not ended is read too: what it has written last is beside the file.
#[rstest]
#[tokio::test]
async fn a_store_in_use_is_read_without_write_access(
    #[values(0o444, 0o644)] file: u32,
    #[values(0o555, 0o755)] folder: u32,
) {
    let dir = WorkDir::new();
    dir.import(&fixture()).ok();
    let mut database = dir.database().await;
    sqlx::query("UPDATE chain SET length = 61").execute(&mut database).await.unwrap();
    assert!(dir.path("modal-gateway.db-wal").exists());
    set_mode(&dir.path("modal-gateway.db"), file);
    set_mode(dir.0.path(), folder);
    let exported = dir.run_without_power(&["export", "-"]);
    set_mode(dir.0.path(), 0o755);
    exported.ok();
    sqlx::query("UPDATE chain SET length = 61").execute(&mut database).await.unwrap();
    assert!(dir.path("modal-gateway.db-wal").exists());
}

#[rstest]
fn a_store_in_memory_is_refused(
    #[values("sqlite::memory:", "sqlite://:memory:", "sqlite://x?mode=memory", "sqlite:file::memory:")] url: &str,
) {
    let dir = WorkDir::new();
    for command in [
        &["migrate"][..],
        &["import", "-"],
        &["export", "-"],
        &["verify"],
        &["sync", "/ip4/127.0.0.1/tcp/1"],
        &["node", "--mine", "--listen", "/ip4/127.0.0.1/tcp/0"],
        &["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"],
    ] {
        dir.run(command.iter().chain(&["--database-url", url])).fails(2, &["expected sqlite://PATH"]);
    }
}

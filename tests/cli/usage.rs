//! Settings, usage and help.

use std::{
    fs,
    io::{BufRead, BufReader, Read as _, Write as _},
    process::{Child, Command, Stdio},
};

use rstest::rstest;

use crate::{Outcome, WorkDir};

#[rstest]
#[case::value("http = 'here'", &["settings.toml: http: `here`: expected ADDRESS:PORT"])]
#[case::key("htpp = '127.0.0.1:1'", &["settings.toml: unknown setting `htpp`", "http"])]
#[case::syntax("log = 'text'\nhttp = [", &["settings.toml: line 2: "])]
#[case::network("network = 'modality'", &["settings.toml: network: `modality`", "testnet, mainnet, devnet"])]
fn a_malformed_setting_is_named(#[case] text: &str, #[case] texts: &[&str]) {
    let dir = WorkDir::new();
    dir.write("settings.toml", text);
    dir.run(["migrate", "--config", "settings.toml"]).fails(2, texts);
    let outcome = dir.command(["serve"]).env("MODAL_GATEWAY_CONFIG", "settings.toml").output().unwrap();
    Outcome::from(outcome).fails(2, texts);
}

#[test]
fn settings_come_from_file_environment_and_flags() {
    let dir = WorkDir::new();
    dir.write("modal-gateway.toml", "database_url = 'sqlite://file.db'");
    dir.run(["migrate"]).ok();
    dir.command(["migrate"]).env("DATABASE_URL", "sqlite://plain.db").output().unwrap();
    let both = [("DATABASE_URL", "sqlite://no.db"), ("MODAL_GATEWAY_DATABASE_URL", "sqlite://ours.db")];
    dir.command(["migrate"]).envs(both).output().unwrap();
    // Before and after the command.
    dir.command(["migrate", "--database-url", "sqlite://flag.db"]).envs(both).output().unwrap();
    dir.run(["--database-url", "sqlite://early.db", "migrate"]).ok();
    for name in ["file.db", "plain.db", "ours.db", "flag.db", "early.db"] {
        assert!(dir.path(name).exists(), "{name}");
    }
    assert!(!dir.0.path().join("no.db").exists() && !dir.0.path().join("modal-gateway.db").exists());
}

#[test]
fn unknown_variables_files_and_flags_are_named() {
    let dir = WorkDir::new();
    let outcome = dir.command(["migrate"]).env("MODAL_GATEWAY_HTPP", "x").output().unwrap();
    Outcome::from(outcome).fails(2, &["environment variable MODAL_GATEWAY_HTPP: unknown setting `htpp`"]);
    dir.run(["migrate", "--config", "absent.toml"]).fails(2, &["absent.toml: can't read", "No such file"]);
    dir.run(["migrate", "--http", "8080"]).fails(2, &["--http: `8080`: expected ADDRESS:PORT"]);
    dir.run(["migrate", "--verify", "all"]).fails(2, &["--verify: ", "expected none, linked or pow"]);
    let outcome = dir.command(["migrate"]).env("RUST_LOG", "a=b=c").output().unwrap();
    Outcome::from(outcome).fails(2, &["environment variable RUST_LOG: "]);
    let bytes = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    let outcome = dir.command(["migrate"]).env("RUST_LOG", bytes).output().unwrap();
    Outcome::from(outcome).fails(2, &["environment variable RUST_LOG: the value is not UTF-8"]);
}

/// What is wrong with settings is exit code 2, also where it shows only when they are used.
#[rstest]
#[case::no_path(&["migrate", "--database-url", "sqlite://"], "the path is empty")]
#[case::unknown_kind(&["migrate", "--database-url", "mysql://h/db"], "expected sqlite://PATH or postgres://")]
#[case::unknown_parameter(&["export", "-", "--database-url", "postgres://127.0.0.1:1/db?sslmod=off"], "sslmod")]
#[case::unknown_parameter_of_a_server(&["serve", "--database-url", "postgres://127.0.0.1:1/db?sslmod=off"], "sslmod")]
#[case::sqlite_parameter(&["migrate", "--database-url", "sqlite://x.db?mod=ro"], "mod")]
#[case::admin_without_token(&["serve", "--admin", "0.0.0.0:0"], "set admin_token")]
#[case::no_token_file(&["serve", "--admin-token-file", "absent"], "absent can't be read")]
#[case::no_certificate(&["serve", "--tls-cert", "absent.pem", "--tls-key", "absent.pem"], "absent.pem")]
#[case::no_listener(&["node", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"], "can't be listened on: it takes /ip4")]
#[case::no_name_to_listen_on(&["node", "--listen", "/dns4/host/tcp/1"], "can't be listened on")]
#[case::no_port(&["health", "--http", "127.0.0.1:0"], "has no fixed port")]
#[case::unknown_peer(&["request", "nobody", "/ping"], "`nobody` is neither")]
fn unusable_settings_are_named(#[case] args: &[&str], #[case] text: &str) {
    let dir = WorkDir::new();
    let free = ["--listen", "/ip4/127.0.0.1/tcp/0"];
    let free: &[&str] = if args.contains(&"--listen") { &[] } else { &free };
    let http: &[&str] = if args[0] == "serve" { &["--http", "127.0.0.1:0"] } else { &[] };
    let admin: &[&str] =
        if args[0] == "serve" && !args.contains(&"--admin") { &["--admin", "127.0.0.1:0"] } else { &[] };
    dir.run(args.iter().chain(http).chain(admin).chain(free)).fails(2, &[text]);
    assert!(!dir.0.path().join("modal-gateway.key").exists(), "nothing is made before that");
}

#[rstest]
#[case::empty("", "the file is empty")]
#[case::text("x\n", "it holds no ed25519 key")]
fn a_key_file_without_a_key_is_named(#[case] key: &str, #[case] text: &str) {
    let dir = WorkDir::new();
    dir.write("modal-gateway.key", key);
    dir.run(["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).fails(2, &["modal-gateway.key", text]);
}

#[test]
fn no_password_is_printed() {
    let dir = WorkDir::new();
    for url in ["postgres://user:pa55@127.0.0.1:1/db", "postgres://user:pa55@127.0.0.1:x/db", "mysql://user:pa55@h/db"]
    {
        let outcome = dir.run(["migrate", "--database-url", url]);
        assert_ne!(outcome.code, 0);
        assert!(!outcome.stderr.contains("pa55"), "{}", outcome.stderr);
    }
}

#[test]
fn help_and_usage_have_their_exit_codes() {
    let dir = WorkDir::new();
    let help = String::from_utf8(dir.run(["--help"]).ok().stdout).unwrap();
    for command in [
        "serve",
        "node",
        "demo",
        "sync",
        "verify",
        "import",
        "export",
        "request",
        "openapi",
        "migrate",
        "config",
        "completions",
        "man",
        "health",
    ] {
        assert!(help.contains(&format!("\n  {command}")), "{command}");
        assert!(!dir.run([command, "--help"]).ok().stdout.is_empty());
    }
    let version = format!("modal-gateway {}", env!("CARGO_PKG_VERSION"));
    let printed = |flag: &str| String::from_utf8(dir.run([flag]).ok().stdout).unwrap();
    assert_eq!(printed("-V"), format!("{version}\n"));
    assert_eq!(printed("--version"), format!("{version} (commit {})\n", env!("GATEWAY_COMMIT")));
    for args in [
        &[][..],
        &["fly"],
        &["import"],
        &["serve", "--hpt"],
        &["request", "x"],
        &["sync"],
        &["completions"],
        &["man", "fly"],
    ] {
        assert_eq!(dir.run(args).code, 2, "{args:?}");
    }
    assert_eq!(fs::read_dir(dir.0.path()).unwrap().count(), 0);
}

#[test]
fn the_demo_refuses_what_it_would_ignore() {
    let dir = WorkDir::new();
    dir.run(["demo", "--network", "testnet"]).fails(2, &["--network: demo takes no such option"]);
    dir.run(["demo", "--database-url", "sqlite://x.db"]).fails(2, &["--database-url: demo takes no such option"]);
    fs::write(dir.0.path().join("modal-gateway.toml"), "listen = []\n").unwrap();
    dir.run(["demo", "--trust", "closed"]).fails(2, &["--trust: demo takes no such option"]);
    dir.run(["demo", "--sync", "false"]).fails(2, &["--sync: demo takes no such option"]);
    let mut demo = dir.command(["demo", "--http", "192.0.2.1:80"]);
    let said = String::from_utf8(demo.env("DATABASE_URL", "sqlite://x.db").output().unwrap().stderr).unwrap();
    for ignored in [
        "warning: environment variable DATABASE_URL: demo ignores database_url",
        "warning: file modal-gateway.toml: demo ignores listen",
    ] {
        assert!(said.contains(ignored), "{said}");
    }
    assert!(!dir.0.path().join("x.db").exists());
}

/// As `--config <(decrypt settings)` has it in a shell.
#[test]
fn the_settings_file_may_be_a_pipe() {
    let dir = WorkDir::new();
    let mut child = dir.command(["config", "--config", "/dev/stdin"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"verify = \"linked\"\n").unwrap();
    let shown = Outcome::from(child.wait_with_output().unwrap()).ok().stdout;
    assert!(String::from_utf8(shown).unwrap().contains("verify = \"linked\"  # file /dev/stdin"));
}

fn demo(dir: &WorkDir, folder: &std::path::Path, level: &str) -> Child {
    let args = ["demo", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--pow-threads", "1", "--verify", level];
    let mut command = dir.command(args);
    command.env("TMPDIR", folder).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends SIGTERM; what the demo printed.
fn end_in_order(mut demo: Child) -> String {
    assert!(Command::new("kill").args(["-TERM", &demo.id().to_string()]).status().unwrap().success());
    let mut printed = String::new();
    demo.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    printed
}

#[test]
fn the_demo_ends_while_it_starts() {
    let dir = WorkDir::new();
    let mut demo = demo(&dir, dir.0.path(), "pow");
    let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.starts_with("verifying the bundled chain")).unwrap();
    assert_eq!(end_in_order(demo), "", "no guide to what doesn't run");
}

/// Settings that would keep its parts from one another, and a folder whose name means something in a URL.
#[test]
fn the_demo_runs_whatever_is_around_it() {
    let dir = WorkDir::new();
    dir.write("modal-gateway.toml", "sync = false\ntrust = 'closed'\n");
    let folder = dir.path("a%20b?c#d");
    fs::create_dir(&folder).unwrap();
    let mut demo = demo(&dir, &folder, "linked");
    let mut guide = BufReader::new(demo.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
    guide.find(|line| line.starts_with("A node and a gateway are running")).unwrap();
    end_in_order(demo);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "its stores are gone");
}

//! Settings, usage and help.

use std::fs;

use rstest::rstest;

use crate::{Outcome, Place};

#[rstest]
#[case::value("http = 'here'", &["settings.toml: http: `here`: expected ADDRESS:PORT"])]
#[case::key("htpp = '127.0.0.1:1'", &["settings.toml: unknown setting `htpp`", "http"])]
#[case::syntax("log = 'text'\nhttp = [", &["settings.toml: line 2: "])]
#[case::network("network = 'modality'", &["settings.toml: network: `modality`", "testnet, mainnet, devnet"])]
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
    Outcome::from(outcome).fails(2, &["environment variable RUST_LOG: "]);
    let bytes = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    let outcome = place.command(["migrate"]).env("RUST_LOG", bytes).output().unwrap();
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
    let place = Place::new();
    let free = ["--listen", "/ip4/127.0.0.1/tcp/0"];
    let free: &[&str] = if args.contains(&"--listen") { &[] } else { &free };
    let http: &[&str] = if args[0] == "serve" { &["--http", "127.0.0.1:0"] } else { &[] };
    place.run(args.iter().chain(http).chain(free)).fails(2, &[text]);
    assert!(!place.path("modal-gateway.key").exists(), "nothing is made before that");
}

#[rstest]
#[case::empty("", "the file is empty")]
#[case::text("x\n", "it holds no ed25519 key")]
fn a_key_file_without_a_key_is_named(#[case] key: &str, #[case] text: &str) {
    let place = Place::new();
    place.write("modal-gateway.key", key);
    place.run(["serve", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).fails(2, &["modal-gateway.key", text]);
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
fn help_and_usage_have_their_exit_codes() {
    let place = Place::new();
    let help = String::from_utf8(place.run(["--help"]).ok().stdout).unwrap();
    for command in
        ["serve", "node", "demo", "sync", "verify", "import", "export", "request", "openapi", "migrate", "health"]
    {
        assert!(help.contains(&format!("\n  {command}")), "{command}");
        assert!(!place.run([command, "--help"]).ok().stdout.is_empty());
    }
    place.run(["--version"]).ok();
    for args in [&[][..], &["fly"], &["import"], &["serve", "--hpt"], &["request", "x"], &["sync"]] {
        assert_eq!(place.run(args).code, 2, "{args:?}");
    }
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 0);
}

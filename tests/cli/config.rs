//! `config`: the settings in effect, where each comes from, and no secret.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{Outcome, WorkDir};

/// What `config --format json` prints with these variables and arguments: by key, the value, the source and its name.
fn printed(dir: &WorkDir, env: &[(&str, &str)], args: &[&str]) -> BTreeMap<String, [Value; 3]> {
    let output = dir.command(["config", "--format", "json"]).args(args).envs(env.iter().copied()).output().unwrap();
    let stdout = Outcome::from(output).ok().stdout;
    let lines = stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let setting = |line| {
        let mut line: Value = serde_json::from_slice(line).unwrap();
        (line["key"].as_str().unwrap().to_owned(), ["value", "source", "name"].map(|member| line[member].take()))
    };
    lines.map(setting).collect()
}

fn toml(dir: &WorkDir, args: &[&str]) -> String {
    // The variable that all tests have would win over the file.
    let output = dir.command(["config"]).args(args).env_remove("MODAL_GATEWAY_UNLIMITED_CLIENT").output().unwrap();
    String::from_utf8(Outcome::from(output).ok().stdout).unwrap()
}

#[test]
fn each_setting_says_where_it_comes_from() {
    let dir = WorkDir::new();
    dir.write("modal-gateway.toml", "rate_limit = 7\nsync_interval = '2m'\nhttp = '127.0.0.1:1'\n");
    let env = [("DATABASE_URL", "sqlite://plain.db"), ("MODAL_GATEWAY_HTTP", "127.0.0.1:2"), ("MODAL_GATEWAY_LOG", "")];
    let settings = printed(&dir, &env, &["--admin", "127.0.0.1:3", "--network", "testnet"]);
    for (key, expected) in [
        ("rate_limit", [json!(7), json!("file"), json!("modal-gateway.toml")]),
        ("sync_interval", [json!("120s"), json!("file"), json!("modal-gateway.toml")]),
        ("database_url", [json!("sqlite://plain.db"), json!("environment"), json!("DATABASE_URL")]),
        ("http", [json!("127.0.0.1:2"), json!("environment"), json!("MODAL_GATEWAY_HTTP")]),
        ("admin", [json!("127.0.0.1:3"), json!("flag"), json!("--admin")]),
        ("network", [json!("testnet"), json!("flag"), json!("--network")]),
        ("private_addresses", [json!(false), json!("network"), json!("testnet")]),
        ("log", [json!("text"), json!("default"), json!(null)]),
        ("tls_cert", [json!(null), json!("default"), json!(null)]),
    ] {
        assert_eq!(settings[key], expected, "{key}");
    }
}

#[test]
fn no_secret_is_printed() {
    let dir = WorkDir::new();
    dir.write("url", "postgres://user:pa55@host/db\n");
    for args in [
        &["--database-url", "postgres://user:pa55@host/db"][..],
        &["--database-url", "postgres://user@host/db?password=pa55"],
        &["--database-url-file", "url"],
    ] {
        for format in ["toml", "json"] {
            let mut command = dir.command(["config", "--format", format]);
            let output = command.args(args).env("MODAL_GATEWAY_ADMIN_TOKEN", "pa55pa55pa55pa55").output().unwrap();
            let printed = String::from_utf8(Outcome::from(output).ok().stdout).unwrap();
            assert!(!printed.contains("pa55"), "{printed}");
            assert!(printed.contains("@host/db") && printed.contains("MODAL_GATEWAY_ADMIN_TOKEN"), "{printed}");
        }
    }
}

/// What is printed is a settings file that means the same; what it can't have is a comment.
#[test]
fn the_printed_file_means_the_same() {
    let dir = WorkDir::new();
    dir.write("token", "0123456789abcdef");
    dir.write("odd \"name\"\\", "postgres://user:pa55@host/db");
    let peer = "node=/dns4/node.example/tcp/10001";
    for args in [
        &[][..],
        &["--network", "testnet", "--bootstrap", ""],
        &["--peer", peer, "--peer", "/ip6/::1/tcp/2", "--trust", "listed", "--sync-interval", "1500ms"],
        &["--database-url-file", "odd \"name\"\\", "--admin-token-file", "token", "--genesis-hash", "any"],
    ] {
        let first = toml(&dir, args);
        dir.write("printed.toml", &first);
        let second = toml(&dir, &["--config", "printed.toml"]);
        let values = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(|line| line.split("  # ").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(values(&first), values(&second), "{args:?}");
        assert!(values(&first).len() > 30, "{first}");
        assert!(
            second.lines().filter(|line| !line.starts_with('#')).all(|line| line.ends_with("  # file printed.toml")),
            "{second}"
        );
    }
}

#[test]
fn bad_settings_are_exit_code_2() {
    let dir = WorkDir::new();
    dir.run(["config", "--http", "8080"]).fails(2, &["--http: `8080`"]);
    dir.write("modal-gateway.toml", "htpp = 1");
    dir.run(["config"]).fails(2, &["modal-gateway.toml: unknown setting `htpp`"]);
    assert_eq!(dir.run(["config", "--format", "xml"]).code, 2);
}

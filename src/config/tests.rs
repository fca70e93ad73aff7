use std::{ffi::OsString, path::Path};

use figment::value::{Dict, Value};
use rstest::rstest;

use super::*;

mod networks;

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn flags<const N: usize>(given: [(&str, Value); N]) -> Dict {
    given.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Writes `text` as the file of settings.
fn sources(dir: &Path, text: &str) -> Sources {
    let file = dir.join("settings.toml");
    std::fs::write(&file, text).unwrap();
    Sources { file: Some(file), ..Sources::default() }
}

fn load_env(name: &str, value: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    Config::load(Sources { env: env(&[(name, value)]), ..sources(dir.path(), "") })
}

#[test]
fn nothing_set_means_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::load(sources(dir.path(), "")).unwrap();
    assert_eq!(config, Config::default());
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["/ip4/0.0.0.0/tcp/10001", "/ip4/0.0.0.0/tcp/10002/ws"]);
}

#[test]
fn each_layer_wins_over_those_below() {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = sources(
        dir.path(),
        "database_url = 'sqlite://file.db'\nhttp = '127.0.0.1:1'\nadmin = '127.0.0.1:1'\nfinality_depth = 7",
    );
    let url = |sources: &Sources| Config::load(sources.clone()).unwrap().database_url.as_str().to_owned();
    assert_eq!(url(&sources), "sqlite://file.db");
    sources.env = env(&[("DATABASE_URL", "postgres://h/plain")]);
    assert_eq!(url(&sources), "postgres://h/plain");
    sources
        .env
        .extend(env(&[("MODAL_GATEWAY_DATABASE_URL", "postgres://h/ours"), ("MODAL_GATEWAY_HTTP", "0.0.0.0:2")]));
    assert_eq!(url(&sources), "postgres://h/ours");
    sources.flags = flags([("database_url", "sqlite://flag.db".into()), ("admin", "[::1]:0".into())]);
    let config = Config::load(sources).unwrap();
    assert_eq!(config.database_url.as_str(), "sqlite://flag.db");
    assert_eq!((config.http.to_string(), config.admin.to_string()), ("0.0.0.0:2".into(), "[::1]:0".into()));
    assert_eq!(config.finality_depth, 7);
}

#[test]
fn lists_are_arrays_strings_with_commas_or_repeated_flags() {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = sources(dir.path(), "listen = []\npeer = 'a=/dns4/node/tcp/1,/ip4/1.2.3.4/tcp/2/ws'");
    let config = Config::load(sources.clone()).unwrap();
    assert!(config.listen.is_empty());
    assert_eq!(config.peer[0].alias.as_deref(), Some("a"));
    assert_eq!(config.peer[1], PeerAddress { alias: None, address: "/ip4/1.2.3.4/tcp/2/ws".parse().unwrap() });
    sources.env = env(&[("MODAL_GATEWAY_LISTEN", "/ip4/1.1.1.1/tcp/0, /ip6/::1/tcp/0")]);
    sources.flags = flags([("peer", vec!["b=/ip4/5.6.7.8/tcp/3"].into())]);
    let config = Config::load(sources).unwrap();
    assert_eq!((config.listen.len(), config.peer.len()), (2, 1));
    assert_eq!(config.peer[0].alias.as_deref(), Some("b"));
}

#[rstest]
#[case("MODAL_GATEWAY_HTTP", "8080", "http: `8080`: expected ADDRESS:PORT")]
#[case(
    "MODAL_GATEWAY_HTPP",
    "127.0.0.1:1",
    "unknown setting `htpp`; known are database_url, database_url_file, database_read_url"
)]
#[case("MODAL_GATEWAY_LISTEN", "/ip4/1.2.3.4/tcp/1,nowhere", "listen: `nowhere` is no multiaddr")]
#[case("MODAL_GATEWAY_PEER", "node", "peer: `node` is not a multiaddr")]
#[case("MODAL_GATEWAY_PEER", "any=/ip4/1.2.3.4/tcp/1", "peer: alias `any` is reserved")]
#[case("MODAL_GATEWAY_PEER", "a b=/ip4/1.2.3.4/tcp/1", "peer: alias `a b`: 1 to 64")]
#[case("MODAL_GATEWAY_PEER", "a=/ip4/1.2.3.4/tcp/1,a=/ip4/1.2.3.4/tcp/2", "peer: the alias `a` is given twice")]
#[case(
    "MODAL_GATEWAY_NETWORK",
    "modality",
    "network: `modality` is neither a known network (testnet, mainnet, devnet, devnet1, devnet2, devnet3, devnet5) nor"
)]
#[case("MODAL_GATEWAY_VERIFY", "full", "verify: `full`: ")]
#[case("MODAL_GATEWAY_LOG", "xml", "log: `xml`: expected text or json")]
#[case("MODAL_GATEWAY_FINALITY_DEPTH", "-1", "finality_depth: `-1`: ")]
#[case("MODAL_GATEWAY_FINALITY_DEPTH", "0", "finality_depth: `0`: ")]
#[case("MODAL_GATEWAY_PEER_TIMEOUT", "0", "peer_timeout: `0`: expected seconds")]
#[case("MODAL_GATEWAY_PEER_TIMEOUT", "2h", "peer_timeout: `2h`: expected seconds")]
#[case("MODAL_GATEWAY_CACHE_MIB", "65537", "cache_mib: `65537`: expected a whole number from 0 to 65536")]
#[case("MODAL_GATEWAY_SYNC", "yes", "sync: `yes`: expected true or false")]
#[case("MODAL_GATEWAY_SYNC_INTERVAL", "0", "sync_interval: `0`: expected seconds")]
#[case("MODAL_GATEWAY_POW_THREADS", "65", "pow_threads: `65`: expected a whole number from 0 to 64")]
#[case("MODAL_GATEWAY_POW_MEMORY", "large", "pow_memory: `large`: expected auto, light or full")]
#[case("MODAL_GATEWAY_MDNS", "on", "mdns: `on`: expected true or false")]
#[case("MODAL_GATEWAY_TARGET_PEERS", "65", "target_peers: `65`: expected a whole number from 0 to 64")]
#[case("MODAL_GATEWAY_MAX_STREAMS", "0", "max_streams: `0`: expected a whole number from 1 to 65536")]
#[case("MODAL_GATEWAY_STORE_CONNECTIONS", "0", "store_connections: `0`: expected a whole number from 1 to 1000")]
fn a_bad_variable_is_named_with_its_problem(#[case] name: &str, #[case] value: &str, #[case] problem: &str) {
    let error = load_env(name, value).unwrap_err();
    assert_eq!(error.origin, format!("environment variable {name}"));
    assert!(error.problem.starts_with(problem), "{}", error.problem);
}

#[rstest]
#[case("tls_cert = 'c.pem'", "tls_cert: tls_key is missing")]
#[case("tls_key = 'k.pem'", "tls_key: tls_cert is missing")]
#[case("admin_token = '0123456789abcdef'\nadmin_token_file = 't'", "admin_token_file: admin_token is set as well")]
#[case("peer_timeout = '61s'", "peer_timeout: must be at most request_timeout, which is 60 s")]
#[case("request_timeout = '29s'", "request_timeout: must be at least peer_timeout, which is 30 s")]
#[case("network = 'testnet'\nmdns = true", "mdns: the network is public: private_addresses must be true")]
#[case("cors_origin = ['example.org']", "cors_origin: `example.org`: expected * or an origin")]
#[case("cors_origin = ['https://example.org/']", "cors_origin: `https://example.org/`: expected * or an origin")]
fn settings_that_dont_go_together_are_named(#[case] text: &str, #[case] problem: &str) {
    let dir = tempfile::tempdir().unwrap();
    let error = Config::load(sources(dir.path(), text)).unwrap_err();
    assert!(error.problem.starts_with(problem) && error.origin.ends_with("settings.toml"), "{error}");
}

#[rstest]
#[case("http = 5\n", "http: `5`: expected ADDRESS:PORT")]
#[case("http = true\n", "http: `true`: expected ADDRESS:PORT")]
#[case("sync = 1\n", "sync: `1`: expected true or false")]
#[case("htpp = '127.0.0.1:1'", "unknown setting `htpp`; known are")]
#[case("[http]\nport = 1", "http: expected a string or a number")]
#[case("peer = [1]", "peer.0: expected a string")]
#[case("log = 'text'\nhttp = ", "line 2: ")]
#[case("log = 'text'\nlog = 'json'", "line 2: duplicate key `log`")]
fn a_bad_file_is_named_with_the_key(#[case] text: &str, #[case] problem: &str) {
    let dir = tempfile::tempdir().unwrap();
    let error = Config::load(sources(dir.path(), text)).unwrap_err();
    assert!(error.origin.ends_with("settings.toml"), "{error}");
    assert!(error.problem.starts_with(problem), "{error}");
}

#[test]
fn a_named_file_must_exist() {
    let named = Sources { env: env(&[("MODAL_GATEWAY_CONFIG", "/nowhere/x.toml")]), ..Sources::default() };
    let error = Config::load(named).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/x.toml: can't read the configuration file"), "{error}");
}

#[test]
fn an_empty_variable_is_not_set_and_others_do_not_concern_us() {
    assert_eq!(load_env("MODAL_GATEWAY_PEER", "").unwrap(), Config::default());
    assert_eq!(load_env("MODAL_GATE_HTTP", "x").unwrap(), Config::default());
}

#[rstest]
#[case("30", 30_000)]
#[case("0.5", 500)]
#[case("250ms", 250)]
#[case("2 m", 120_000)]
#[case("60m", 3_600_000)]
fn timeouts_have_units(#[case] text: &str, #[case] millis: u64) {
    let config = load_env("MODAL_GATEWAY_SYNC_INTERVAL", text).unwrap();
    assert_eq!(config.sync_interval, Duration::from_millis(millis));
}

#[test]
fn the_sync_is_set_by_words_numbers_and_switches() {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = sources(dir.path(), "sync = false\nmdns = true\npow_threads = 2\nsync_interval = '250ms'");
    sources.env = env(&[("MODAL_GATEWAY_MDNS", "false"), ("MODAL_GATEWAY_TARGET_PEERS", "0")]);
    sources.flags = flags([("pow_memory", "full".into()), ("pow_threads", "3".into())]);
    let config = Config::load(sources).unwrap();
    assert_eq!((config.sync, config.mdns, config.target_peers), (false, false, 0));
    assert_eq!(config.sync_interval, Duration::from_millis(250));
    assert_eq!(config.pow(), PowOptions { threads: 3, memory: PowMemory::Full });
}

#[test]
fn no_password_is_ever_shown() {
    let secret = "pa55";
    for url in ["postgres://u:pa55@h/d", "postgresql://u@h/d?password=pa55", "postgres://u:pa55@h:1/d?sslmode=require"]
    {
        let config = load_env("DATABASE_URL", url).unwrap();
        assert_eq!(config.database_url.as_str(), url);
        assert!(!format!("{config:?} {}", config.database_url).contains(secret));
        assert!(config.database_url.to_string().contains("@h"), "{}", config.database_url);
    }
    for url in ["mysql://u:pa55@h/d", "postgres://u:pa55@h:notaport/d", "u:pa55@h"] {
        let error = load_env("MODAL_GATEWAY_DATABASE_URL", url).unwrap_err().to_string();
        assert!(error.contains("database_url") && !error.contains(secret), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    for text in [
        "database_url = \"postgres://u:pa55@h/d",
        "database_url = ['postgres://u:pa55@h/d']",
        "database_url = postgres://u:pa55@h/d",
        "databaseurl = 'postgres://u:pa55@h/d'",
        "database_url = { url = 'postgres://u:pa55@h/d' }",
    ] {
        let error = Config::load(sources(dir.path(), text)).unwrap_err().to_string();
        assert!(!error.contains(secret), "{error}");
    }
}

#[test]
fn replicas_are_of_postgres_and_their_passwords_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let url = "database_url = 'postgres://u:pa55@h/d'\n";
    let list = "database_read_url = ['postgres://u:pa55@r1/d', 'postgres://u:pa55@r2/d?password=pa55']";
    let config = Config::load(sources(dir.path(), &format!("{url}{list}"))).unwrap();
    let urls: Vec<_> = config.database_read_url.iter().map(DatabaseUrl::as_str).collect();
    assert_eq!(urls, ["postgres://u:pa55@r1/d", "postgres://u:pa55@r2/d?password=pa55"]);
    assert!(!format!("{config:?}").contains("pa55"));
    let shown = effective::settings(sources(dir.path(), &format!("{url}{list}"))).unwrap();
    let shown = shown.into_iter().find(|setting| setting.key == "database_read_url").unwrap();
    assert_eq!(shown.value, serde_json::json!(["postgres://u:***@r1/d", "postgres://u:***@r2/d"]));
    assert_eq!(shown.note, Some("a secret is left out"));

    let both =
        [("DATABASE_URL", "postgres://u@h/d"), ("MODAL_GATEWAY_DATABASE_READ_URL", "postgres://r1/d,postgres://r2/d")];
    let config = Config::load(Sources { env: env(&both), ..Sources::default() }).unwrap();
    assert_eq!(config.database_read_url.len(), 2);
    for (text, problem) in [
        ("database_read_url = ['postgres://r/d']".to_owned(), "database_read_url: database_url is SQLite"),
        (format!("{url}database_read_url = ['sqlite://pa55.db']"), "database_read_url: expected postgres://"),
        (format!("{url}database_read_url = ['u:pa55@h']"), "database_read_url: expected postgres://"),
        (format!("{url}database_read_url = ['postgres://u:pa55@h:port/d']"), "database_read_url: malformed URL"),
        // What follows the `/` or `#` of a password would pass for the path.
        (format!("{url}database_read_url = ['postgres://u:20/pa55@h/d']"), "database_read_url: malformed URL"),
        ("database_url = 'postgres://u:20#pa55@h/d'".to_owned(), "database_url: malformed URL"),
    ] {
        let error = Config::load(sources(dir.path(), &text)).unwrap_err();
        assert!(error.problem.starts_with(problem) && !error.to_string().contains("pa55"), "{error}");
    }
}

#[test]
fn the_database_url_may_be_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    // With the byte order mark that some editors write.
    std::fs::write(&file, "\u{feff}postgres://u:pa55@h/d\n").unwrap();
    let text = format!("database_url_file = '{}'", file.display());
    let config = Config::load(sources(dir.path(), &text)).unwrap();
    assert_eq!(config.database_url.as_str(), "postgres://u:pa55@h/d");
    let both = Config::load(sources(dir.path(), &format!("{text}\ndatabase_url = 'sqlite://x.db'"))).unwrap_err();
    assert_eq!(both.problem, "database_url_file: database_url is set as well");
    std::fs::write(&file, "postgres://u:pa55@h/d\nsqlite://x.db\n").unwrap();
    let error = Config::load(sources(dir.path(), &text)).unwrap_err();
    assert!(error.problem.contains("line break") && !error.problem.contains("pa55"), "{error}");
    std::fs::write(&file, "u:pa55@h").unwrap();
    let error = Config::load(sources(dir.path(), &text)).unwrap_err();
    assert!(
        error.problem.starts_with("database_url_file: ") && error.problem.contains("expected sqlite://"),
        "{error}"
    );
    assert!(!error.problem.contains("pa55"), "{error}");
    std::fs::remove_file(&file).unwrap();
    let error = Config::load(sources(dir.path(), &text)).unwrap_err();
    assert!(error.problem.contains("No such file"), "{error}");
}

#[rstest]
#[case::flag_file("f", "", "", "url", "sqlite://f.db")]
#[case::flag_url("url", "", "", "f", "sqlite://url.db")]
#[case::variable_over_the_file("", "f", "", "url", "sqlite://f.db")]
#[case::variable_over_the_plain_one("", "f", "url", "", "sqlite://f.db")]
#[case::plain_variable_over_the_file("", "", "url", "f", "sqlite://url.db")]
#[case::flag_over_the_plain_variable("f", "", "url", "url", "sqlite://f.db")]
fn the_higher_source_of_the_database_url_wins(
    #[case] flag: &str,
    #[case] variable: &str,
    #[case] plain: &str,
    #[case] file: &str,
    #[case] url: &str,
) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "sqlite://f.db").unwrap();
    let path = dir.path().join("f").display().to_string();
    let key_and_value = |word: &str| match word {
        "f" => ("database_url_file", path.clone()),
        _ => ("database_url", "sqlite://url.db".to_owned()),
    };
    let (file_key, file_value) = key_and_value(file);
    let mut sources = sources(dir.path(), &format!("{file_key} = '{file_value}'"));
    if !flag.is_empty() {
        let (key, value) = key_and_value(flag);
        sources.flags = flags([(key, value.into())]);
    }
    if !variable.is_empty() {
        let (key, value) = key_and_value(variable);
        sources.env = env(&[(&format!("MODAL_GATEWAY_{}", key.to_uppercase()), &value)]);
    }
    if !plain.is_empty() {
        sources.env.extend(env(&[("DATABASE_URL", "sqlite://url.db")]));
    }
    assert_eq!(Config::load(sources).unwrap().database_url.as_str(), url);
}

#[test]
fn a_database_url_given_twice_by_one_source_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (url, file) = ("sqlite://x.db", "absent");
    let mut by_variables = sources(dir.path(), "");
    by_variables.env = env(&[("MODAL_GATEWAY_DATABASE_URL", url), ("MODAL_GATEWAY_DATABASE_URL_FILE", file)]);
    let mut by_flags = sources(dir.path(), "");
    by_flags.flags = flags([("database_url", url.into()), ("database_url_file", file.into())]);
    for (sources, origin) in
        [(by_variables, "environment variable MODAL_GATEWAY_DATABASE_URL_FILE"), (by_flags, "--database-url-file")]
    {
        let error = Config::load(sources).unwrap_err();
        assert_eq!(error.origin, origin);
        assert_eq!(error.problem, "database_url_file: database_url is set as well");
    }
}

//! The options that all commands share: the settings that have a flag.

use std::{ffi::OsString, fs, path::PathBuf};

use clap::Args;
use figment::value::{Dict, Value};
use serde::Serialize;

use crate::{
    config::{
        ConfigError, DEFAULT_FILE, ENV_PREFIX, Sources,
        effective::{Origin, settings},
    },
    telemetry::notice,
};

/// Settings that `demo` does not use: it makes stores, keys and a network of its own, in which all trust and follow
/// each other.
const NOT_OF_DEMO: [&str; 11] = [
    "database_url",
    "database_url_file",
    "database_read_url",
    "listen",
    "identity",
    "network",
    "bootstrap",
    "genesis_hash",
    "difficulty_schedule",
    "sync",
    "trust",
];

/// Why it does not.
const DEMO: &str = "it runs on the bundled chain, with stores of its own, and its gateway always follows its node";

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Shared options")]
pub(in crate::cli) struct SharedArgs {
    /// The store: sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE [default: sqlite://modal-gateway.db]
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// File that holds this URL instead
    #[arg(long, global = true, value_name = "FILE")]
    database_url_file: Option<String>,
    /// A streaming replica of the Postgres database, for reads; repeatable
    #[arg(long, global = true, value_name = "URL")]
    database_read_url: Vec<String>,
    /// Where the HTTP API listens; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "ADDR:PORT")]
    http: Option<String>,
    /// Where the administrative API listens [default: 127.0.0.1:9090]
    #[arg(long, global = true, value_name = "ADDR:PORT")]
    admin: Option<String>,
    /// Where libp2p listens; repeatable [default: /ip4/0.0.0.0/tcp/10001 and /ip4/0.0.0.0/tcp/10002/ws]
    #[arg(long, global = true, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// A peer to stay connected with, and a name for it; repeatable
    #[arg(long, global = true, value_name = "[ALIAS=]MULTIADDR")]
    peer: Vec<String>,
    /// File of the libp2p key, created when missing [default: modal-gateway.key]
    #[arg(long, global = true, value_name = "FILE")]
    identity: Option<String>,
    /// The network: testnet, mainnet, devnet (the bundled chain's), devnet1, devnet2, devnet3, devnet5, or a file
    /// [default: devnet]
    #[arg(long, global = true, value_name = "NAME-OR-FILE")]
    network: Option<String>,
    /// A node to meet first, in place of the network's own; repeatable, and empty for none
    #[arg(long, global = true, value_name = "MULTIADDR")]
    bootstrap: Vec<String>,
    /// The network's genesis: any (that of the first sync is kept) or a hash [default: the network's]
    #[arg(long, global = true, value_name = "any|HASH")]
    genesis_hash: Option<String>,
    /// Difficulties that don't follow the schedule: enforce, report or off [default: the network's]
    #[arg(long, global = true, value_name = "WORD")]
    difficulty_schedule: Option<String>,
    /// How far blocks are verified: pow, linked or none [default: pow]
    #[arg(long, global = true, value_name = "LEVEL")]
    verify: Option<String>,
    /// Verify blocks up to the network's assume-valid block, if it has one, in the background: true or false
    /// [default: true]
    #[arg(long, global = true, value_name = "BOOL")]
    assume_valid: Option<String>,
    /// Keep the store in sync with the network: true or false [default: true]
    #[arg(long, global = true, value_name = "BOOL")]
    sync: Option<String>,
    /// Time between two looks at the peers' tips [default: 10s]
    #[arg(long, global = true, value_name = "TIME")]
    sync_interval: Option<String>,
    /// Threads for RandomX hashes; 0 for as many as there are cores [default: 0]
    #[arg(long, global = true, value_name = "NUMBER")]
    pow_threads: Option<String>,
    /// Memory for RandomX: light (256 MiB), full (2080 MiB, faster) or auto [default: auto]
    #[arg(long, global = true, value_name = "MODE")]
    pow_memory: Option<String>,
    /// Look for peers on the local network by multicast DNS, and be found: true or false [default: false]
    #[arg(long, global = true, value_name = "BOOL")]
    mdns: Option<String>,
    /// While there are fewer connections, dial discovered peers [default: 8]
    #[arg(long, global = true, value_name = "NUMBER")]
    target_peers: Option<String>,
    /// The public listener speaks HTTPS with this certificate chain (PEM); read again when it changes
    #[arg(long, global = true, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The certificate's private key (PEM)
    #[arg(long, global = true, value_name = "FILE")]
    tls_key: Option<String>,
    /// File of the bearer token of the admin listener; required as soon as that is not on loopback
    #[arg(long, global = true, value_name = "FILE")]
    admin_token_file: Option<String>,
    /// What a client may ask per second; 0 is no limit [default: 100]
    #[arg(long, global = true, value_name = "NUMBER")]
    rate_limit: Option<String>,
    /// Who may say for which client a request is; repeatable [default: loopback]
    #[arg(long, global = true, value_name = "NETWORK")]
    trusted_proxy: Vec<String>,
    /// Origins whose pages may read answers, or * for all; repeatable [default: *]
    #[arg(long, global = true, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// How far strangers among the peers are trusted: open, listed or closed [default: open]
    #[arg(long, global = true, value_name = "MODE")]
    trust: Option<String>,
    /// A trusted peer beside the configured ones; repeatable
    #[arg(long, global = true, value_name = "PEER_ID")]
    allow_peer: Vec<String>,
    /// A peer to have nothing to do with; repeatable
    #[arg(long, global = true, value_name = "PEER_ID")]
    deny_peer: Vec<String>,
    /// Whether discovered private addresses are dialled [default: not on a public network]
    #[arg(long, global = true, value_name = "BOOL")]
    private_addresses: Option<String>,
    /// Log format on stderr: text or json [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    log: Option<String>,
    /// Log each answered HTTP request: true or false [default: false]
    #[arg(long, global = true, value_name = "BOOL")]
    access_log: Option<String>,
    /// The file of settings [default: modal-gateway.toml, if it is there] [env: MODAL_GATEWAY_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
}

impl SharedArgs {
    /// Whether a line on stderr is JSON before the settings are known: errors of the settings themselves are.
    pub(in crate::cli) fn logs_json(&self) -> bool {
        asks_for_json(self.log.clone(), self.config.clone())
    }

    /// What the flags say, with the environment and the file that is named.
    pub(in crate::cli) fn into_sources(self) -> Sources {
        // Texts and lists of texts, which never fail to be serialised.
        let flags = Value::serialize(&self).ok().and_then(Value::into_dict).unwrap_or_default();
        let is_given = |value: &Value| match value {
            Value::Empty(..) => false,
            Value::Array(_, values) => !values.is_empty(),
            _ => true,
        };
        let flags = flags.into_iter().filter(|(_, value)| is_given(value)).collect();
        Sources { file: self.config, env: std::env::vars_os().collect(), flags }
    }
}

/// A variable of ours, unless it is empty.
fn variable(key: &str) -> Option<String> {
    std::env::var(format!("{ENV_PREFIX}{key}")).ok().filter(|value| !value.is_empty())
}

/// The settings file, if it may be read more than once: a pipe may not.
fn regular_file(named: Option<PathBuf>) -> Option<PathBuf> {
    let path = named.or_else(|| variable("CONFIG").map(PathBuf::from)).unwrap_or_else(|| DEFAULT_FILE.into());
    path.is_file().then_some(path)
}

/// Whether the highest of flag, variable and file that says something of `log` asks for JSON. A file that can't be
/// read says nothing.
fn asks_for_json(flag: Option<String>, file: Option<PathBuf>) -> bool {
    let file = || {
        let values = toml::from_str::<Dict>(&fs::read_to_string(regular_file(file)?).ok()?).ok()?;
        Some(values.get("log")?.as_str()?.to_owned())
    };
    flag.or_else(|| variable("LOG")).or_else(file).as_deref() == Some("json")
}

/// The same for arguments that can't be parsed.
pub(in crate::cli) fn arguments_ask_for_json(arguments: impl Iterator<Item = OsString>) -> bool {
    let arguments: Vec<String> = arguments.filter_map(|argument| argument.into_string().ok()).collect();
    let value_of = |flag: &str| {
        let mut rest = arguments.iter().skip_while(|argument| argument.split('=').next() != Some(flag));
        let first = rest.next()?;
        first.split_once('=').map(|(_, value)| value.to_owned()).or_else(|| rest.next().cloned())
    };
    asks_for_json(value_of("--log"), value_of("--config").map(PathBuf::from))
}

/// Refuses flags that `demo` would ignore. Variables and files are mostly there for another command: that `demo`
/// ignores them is only said, unless the file is a pipe.
///
/// # Errors
/// The first such flag, or a setting that can't be used.
pub(in crate::cli) fn check_demo(sources: &Sources) -> Result<(), ConfigError> {
    if let Some(key) = NOT_OF_DEMO.iter().find(|key| sources.flags.contains_key(**key)) {
        return Err(ConfigError {
            origin: format!("--{}", key.replace('_', "-")),
            problem: format!("demo takes no such option: {DEMO}"),
        });
    }
    let is_named = sources.file.is_some() || variable("CONFIG").is_some();
    if is_named && regular_file(sources.file.clone()).is_none() {
        return Ok(());
    }
    for setting in settings(sources.clone())?.iter().filter(|setting| NOT_OF_DEMO.contains(&setting.key)) {
        if let Origin::File(_) | Origin::Variable(_) = setting.origin {
            notice(format_args!("warning: {}: demo ignores {}: {DEMO}", setting.origin, setting.key));
        }
    }
    Ok(())
}

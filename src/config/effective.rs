//! The settings in effect, each with where it comes from and without its secrets.

use std::{fmt, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use super::{
    Config, ConfigError, DatabaseUrl, Sources,
    layer::{Layer, Source},
};
use crate::chain::network::ANY_GENESIS;

/// A part of the value is left out.
const SECRET: &str = "a secret is left out";

/// The value is in a file of its own.
const IN_FILE: &str = "read from database_url_file";

/// Where the value of a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The program's default.
    Default,
    /// What the network of this name has.
    Network(String),
    /// The file at this path.
    File(String),
    /// The environment variable of this name.
    Variable(String),
    /// The flag of this name, with its hyphens.
    Flag(String),
}

impl Origin {
    /// The kind: one stable word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Network(_) => "network",
            Self::File(_) => "file",
            Self::Variable(_) => "environment",
            Self::Flag(_) => "flag",
        }
    }

    /// The path or name, where the kind has one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Default => None,
            Self::Network(name) | Self::File(name) | Self::Variable(name) | Self::Flag(name) => Some(name),
        }
    }

    fn of(layer: &Layer) -> Self {
        match layer.source {
            Source::File => Self::File(layer.name.clone()),
            Source::DatabaseUrl | Source::Variables => Self::Variable(layer.name.clone()),
            Source::Flags => Self::Flag(layer.name.clone()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Network(name) => write!(f, "network {name}"),
            Self::File(name) => write!(f, "file {name}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One setting in effect.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The key, as in the settings file.
    pub key: &'static str,
    /// The value in the form that a settings file has it; `null` where it is not set.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
    /// Why a settings file can't have this value, where it can't.
    pub note: Option<&'static str>,
}

/// Every setting in effect, in the order of [`Config`].
///
/// # Errors
/// As [`Config::load`].
pub fn settings(sources: Sources) -> Result<Vec<Setting>, ConfigError> {
    let (config, layers) = Config::resolve(sources)?;
    let holder = |key: &str| layers.iter().rfind(|layer| layer.values.contains_key(key));
    let network = holder("network").and_then(|layer| layer.values["network"].as_str().map(str::trim));
    let network = network.unwrap_or(&config.network.name);
    let setting = |(key, value): (&'static str, Value)| {
        let of_network = ["bootstrap", "genesis_hash", "difficulty_schedule", "private_addresses"].contains(&key);
        let origin = match holder(key) {
            Some(layer) => Origin::of(layer),
            None if of_network => Origin::Network(network.to_owned()),
            None => Origin::Default,
        };
        Setting { key, value, origin, note: None }
    };
    let mut all: Vec<_> = values(&config, network).into_iter().map(setting).collect();
    for Setting { key, value, origin, note } in &mut all {
        match (*key, &config.database_url_file) {
            ("database_url", Some(path)) => {
                (*origin, *note) = (Origin::File(path.display().to_string()), Some(IN_FILE));
            }
            ("database_url", None) if *value != config.database_url.as_str() => *note = Some(SECRET),
            ("database_read_url", _) if hides(&config.database_read_url) => *note = Some(SECRET),
            ("admin_token", _) if !value.is_null() => *note = Some(SECRET),
            _ => {}
        }
    }
    Ok(all)
}

/// Whether one of the URLs is shown without a part of it.
fn hides(urls: &[DatabaseUrl]) -> bool {
    urls.iter().any(|url| url.to_string() != url.as_str())
}

/// Every key with its value. Names each field of [`Config`], so that none is forgotten.
#[rustfmt::skip]
fn values(config: &Config, network_name: &str) -> Vec<(&'static str, Value)> {
    let Config {
        database_url, database_url_file, database_read_url, http, admin, listen, peer, identity, network, bootstrap: _, genesis_hash: _,
        difficulty_schedule: _, verify, assume_valid, sync, sync_interval, pow_threads, pow_memory, mdns, target_peers, log,
        finality_depth, peer_timeout, cache_mib, store_connections, tls_cert, tls_key, admin_token, admin_token_file,
        trusted_proxy, unlimited_client, cors_origin, rate_limit, rate_burst, max_connections, client_connections,
        max_requests, max_streams, header_timeout, idle_timeout, request_timeout, access_log, trust, allow_peer, deny_peer,
        private_addresses, node_requests, peer_rate_limit, peer_answer_mib, memory_limit_mib,
    } = config;
    vec![
        ("database_url", word(database_url)),
        ("database_url_file", path(database_url_file.as_ref())),
        ("database_read_url", words(database_read_url)),
        ("http", word(http)),
        ("admin", word(admin)),
        ("listen", words(listen)),
        ("peer", words(peer)),
        ("identity", path(Some(identity))),
        ("network", word(network_name)),
        ("bootstrap", words(&network.bootstrap)),
        ("genesis_hash", word(network.genesis_hash.as_deref().unwrap_or(ANY_GENESIS))),
        ("difficulty_schedule", word(network.difficulty_schedule)),
        ("verify", word(verify)),
        ("assume_valid", json!(assume_valid)),
        ("sync", json!(sync)),
        ("sync_interval", seconds(*sync_interval)),
        ("pow_threads", json!(pow_threads)),
        ("pow_memory", word(pow_memory)),
        ("mdns", json!(mdns)),
        ("target_peers", json!(target_peers)),
        ("log", word(log)),
        ("finality_depth", number(*finality_depth)),
        ("peer_timeout", seconds(*peer_timeout)),
        ("cache_mib", json!(cache_mib)),
        ("store_connections", json!(store_connections)),
        ("tls_cert", path(tls_cert.as_ref())),
        ("tls_key", path(tls_key.as_ref())),
        ("admin_token", admin_token.as_ref().map_or(Value::Null, |_| word("***"))),
        ("admin_token_file", path(admin_token_file.as_ref())),
        ("trusted_proxy", words(trusted_proxy)),
        ("unlimited_client", words(unlimited_client)),
        ("cors_origin", words(cors_origin)),
        ("rate_limit", json!(rate_limit)),
        ("rate_burst", json!(rate_burst)),
        ("max_connections", json!(max_connections)),
        ("client_connections", json!(client_connections)),
        ("max_requests", json!(max_requests)),
        ("max_streams", json!(max_streams)),
        ("header_timeout", seconds(*header_timeout)),
        ("idle_timeout", seconds(*idle_timeout)),
        ("request_timeout", seconds(*request_timeout)),
        ("access_log", json!(access_log)),
        ("trust", word(trust)),
        ("allow_peer", words(allow_peer)),
        ("deny_peer", words(deny_peer)),
        ("private_addresses", json!(private_addresses.unwrap_or(!network.public))),
        ("node_requests", json!(node_requests)),
        ("peer_rate_limit", json!(peer_rate_limit)),
        ("peer_answer_mib", json!(peer_answer_mib)),
        ("memory_limit_mib", json!(memory_limit_mib)),
    ]
}

fn word(value: impl fmt::Display) -> Value {
    Value::String(value.to_string())
}

fn words(values: &[impl fmt::Display]) -> Value {
    values.iter().map(word).collect()
}

fn path(path: Option<&PathBuf>) -> Value {
    path.map_or(Value::Null, |path| word(path.display()))
}

fn seconds(time: Duration) -> Value {
    word(format_args!("{}s", time.as_secs_f64()))
}

/// TOML has no integer above the largest i64; as a text the setting takes it.
fn number(value: u64) -> Value {
    if i64::try_from(value).is_ok() { json!(value) } else { word(value) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn by_flag(key: &str, value: &str) -> Vec<Setting> {
        let flags = [(key.to_owned(), value.into())].into_iter().collect();
        settings(Sources { flags, ..Sources::default() }).unwrap()
    }

    fn of<'a>(settings: &'a [Setting], key: &str) -> &'a Setting {
        settings.iter().find(|setting| setting.key == key).unwrap()
    }

    #[test]
    fn every_setting_is_there_once() {
        let env = vec![("MODAL_GATEWAY_NOPE".into(), "1".into())];
        let problem = Config::load(Sources { env, ..Sources::default() }).unwrap_err().problem;
        let known: BTreeSet<_> = problem.split("known are ").nth(1).unwrap().split(", ").collect();
        let settings = by_flag("log", "text");
        assert_eq!(settings.iter().map(|setting| setting.key).collect::<BTreeSet<_>>(), known);
        assert_eq!(settings.len(), known.len());
    }

    #[test]
    fn the_networks_own_is_told_apart_from_what_is_set() {
        let settings = by_flag("network", "testnet");
        let bootstrap = of(&settings, "bootstrap");
        assert_eq!(
            (bootstrap.value.as_array().unwrap().len(), bootstrap.origin.to_string()),
            (4, "network testnet".into())
        );
        assert_eq!(of(&settings, "private_addresses").value, json!(false));
        assert_eq!(of(&settings, "network").origin, Origin::Flag("--network".into()));
        let settings = by_flag("genesis_hash", "any");
        assert_eq!(
            (of(&settings, "genesis_hash").value.clone(), of(&settings, "genesis_hash").origin.kind()),
            (json!("any"), "flag")
        );
    }

    #[test]
    fn times_and_large_numbers_can_be_read_back() {
        assert_eq!(of(&by_flag("sync_interval", "250ms"), "sync_interval").value, json!("0.25s"));
        assert_eq!(of(&by_flag("sync_interval", "2m"), "sync_interval").value, json!("120s"));
        let largest = u64::MAX.to_string();
        assert_eq!(of(&by_flag("finality_depth", &largest), "finality_depth").value, json!(largest));
    }
}

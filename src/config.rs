//! Settings: defaults < `modal-gateway.toml` < `DATABASE_URL` < `MODAL_GATEWAY_*` variables < command-line flags.
//!
//! A key of the file is the long option's name in snake_case; a variable is that name in capitals behind
//! `MODAL_GATEWAY_`. Lists are arrays in the file and comma-separated in a variable. A variable that is set but empty
//! counts as not set, so that `KEY=${KEY:-}` in a compose file means the default. Relative paths start at the working
//! directory. Whatever is unknown or malformed is an error that names the key and where it came from.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use figment::Figment;
use libp2p::Multiaddr;
use serde::Deserialize;

use crate::{
    chain::{Level, Network, PowMemory, PowOptions},
    p2p::PeerAddress,
};

mod layer;
mod value;

pub use layer::{ConfigError, Sources};
pub use value::DatabaseUrl;

/// The file that is read when none is named; it may be missing.
pub const DEFAULT_FILE: &str = "modal-gateway.toml";

/// What the names of the environment variables begin with.
pub const ENV_PREFIX: &str = "MODAL_GATEWAY_";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per event, for log collectors.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json"),
        }
    }
}

/// The effective settings. `Debug` shows no password.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The store: `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`. Default `sqlite://modal-gateway.db`.
    #[serde(deserialize_with = "value::database_url")]
    pub database_url: DatabaseUrl,
    /// Where the HTTP API listens. Default `127.0.0.1:8080`; port 0 takes a free one.
    #[serde(deserialize_with = "value::socket_address")]
    pub http: SocketAddr,
    /// Where the administrative API listens. Default `127.0.0.1:9090`; port 0 takes a free one.
    #[serde(deserialize_with = "value::socket_address")]
    pub admin: SocketAddr,
    /// Where libp2p listens; an empty list means nowhere. Default `/ip4/0.0.0.0/tcp/10001` and
    /// `/ip4/0.0.0.0/tcp/10002/ws`.
    #[serde(deserialize_with = "value::multiaddrs")]
    pub listen: Vec<Multiaddr>,
    /// The peers to stay connected with, each `[ALIAS=]MULTIADDR`. Default none.
    #[serde(deserialize_with = "value::peers")]
    pub peer: Vec<PeerAddress>,
    /// File of the libp2p key; created when missing. Default `modal-gateway.key`.
    pub identity: PathBuf,
    /// The network that blocks must belong to: a built-in name (`modality`, `devnet`) or a TOML file with the fields
    /// of [`Network`]. Default `modality`.
    #[serde(deserialize_with = "value::network")]
    pub network: Network,
    /// How far blocks are verified before they are stored: `pow`, `linked` or `none`. Default `pow`.
    #[serde(deserialize_with = "value::parsed")]
    pub verify: Level,
    /// Whether to keep the store level with the network. Default true.
    #[serde(deserialize_with = "value::switch")]
    pub sync: bool,
    /// Time between two looks at the peers' tips, written like [`peer_timeout`](Self::peer_timeout). Default 10 s.
    #[serde(deserialize_with = "value::duration")]
    pub sync_interval: Duration,
    /// Threads that compute RandomX hashes, at most 64; 0 for as many as there are cores. Default 0.
    #[serde(deserialize_with = "value::within::<0, 64, _, _>")]
    pub pow_threads: usize,
    /// Memory for RandomX: `light` (256 MiB), `full` (2080 MiB, six times as fast) or `auto`, which takes the large one
    /// when the work ahead repays its set-up and the machine has it. Default `auto`.
    #[serde(deserialize_with = "value::parsed")]
    pub pow_memory: PowMemory,
    /// Whether to look for peers on the local network by multicast DNS, and be found. Default false.
    #[serde(deserialize_with = "value::switch")]
    pub mdns: bool,
    /// Connections that we care to have, at most 64: while there are fewer, peers that the network tells of are dialled;
    /// 0 dials none of them. Default 8.
    #[serde(deserialize_with = "value::within::<0, 64, _, _>")]
    pub target_peers: usize,
    /// Log format on stderr: `text` or `json`. Default `text`. `RUST_LOG` says what is logged.
    #[serde(deserialize_with = "value::parsed")]
    pub log: LogFormat,
    /// Blocks this far below the tip are taken as final, and caches may keep them. Default 40 (one epoch).
    #[serde(deserialize_with = "value::parsed")]
    pub finality_depth: u64,
    /// Longest wait for a peer's answer: seconds (`30`, `0.5`) or with a unit (`500ms`, `30s`, `2m`), more than zero
    /// and at most an hour. Default 30 s.
    #[serde(deserialize_with = "value::duration")]
    pub peer_timeout: Duration,
    /// Memory for cached answers in MiB, at most 65536; 0 turns the cache off. Default 32.
    #[serde(deserialize_with = "value::within::<0, 65_536, _, _>")]
    pub cache_mib: u64,
    /// Database connections for reading, 1 to 1000. Default 8.
    #[serde(deserialize_with = "value::within::<1, 1000, _, _>")]
    pub store_connections: u32,
}

impl Default for Config {
    fn default() -> Self {
        let tcp = |port| Multiaddr::from(std::net::Ipv4Addr::UNSPECIFIED).with(libp2p::multiaddr::Protocol::Tcp(port));
        Self {
            database_url: DatabaseUrl::default(),
            http: ([127, 0, 0, 1], 8080).into(),
            admin: ([127, 0, 0, 1], 9090).into(),
            listen: vec![tcp(10001), tcp(10002).with(libp2p::multiaddr::Protocol::Ws("/".into()))],
            peer: Vec::new(),
            identity: "modal-gateway.key".into(),
            network: Network::default(),
            verify: Level::Pow,
            sync: true,
            sync_interval: Duration::from_secs(10),
            pow_threads: 0,
            pow_memory: PowMemory::Auto,
            mdns: false,
            target_peers: 8,
            log: LogFormat::Text,
            finality_depth: 40,
            peer_timeout: Duration::from_secs(30),
            cache_mib: 32,
            store_connections: 8,
        }
    }
}

impl Config {
    /// Puts the settings together from the file, the variables and the flags in `sources`.
    ///
    /// # Errors
    /// The first unknown or malformed setting, or the named file that can't be read.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        let figment = sources.layers()?.into_iter().fold(Figment::new(), Figment::merge);
        figment.extract().map_err(|error| ConfigError::from_figment(error, &figment))
    }

    /// The settings from the process's environment and `modal-gateway.toml` alone: for examples and tools.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::load(Sources { env: std::env::vars_os().collect::<Vec<(OsString, OsString)>>(), ..Sources::default() })
    }

    /// How proof of work is computed.
    pub fn pow(&self) -> PowOptions {
        PowOptions { threads: self.pow_threads, memory: self.pow_memory }
    }
}

#[cfg(test)]
mod tests;

//! Settings: defaults < `modal-gateway.toml` < `DATABASE_URL` < `MODAL_GATEWAY_*` variables < command-line flags.
//!
//! A key of the file is the long option's name in snake_case; a variable is that name in capitals behind
//! `MODAL_GATEWAY_`. Lists are arrays in the file and comma-separated in a variable. A variable that is set but empty
//! counts as not set, so that `KEY=${KEY:-}` in a compose file means the default. Relative paths start at the working
//! directory. Whatever is unknown or malformed is an error that names the key and where it came from.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use figment::Figment;
use ipnet::IpNet;
use libp2p::{Multiaddr, PeerId};
use serde::Deserialize;

use crate::{
    chain::{Enforcement, Level, Network, PowMemory, PowOptions, network::ANY_GENESIS},
    p2p::{PeerAddress, Trust},
};

mod defaults;
pub mod effective;
mod layer;
mod secret;
mod value;

pub use crate::telemetry::LogFormat;
use layer::Layer;
pub use layer::{ConfigError, DEFAULT_FILE, ENV_PREFIX, Sources};
pub use secret::{DatabaseUrl, Secret};

/// The effective settings. `Debug` shows no password.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The store: `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`. Default `sqlite://modal-gateway.db`.
    #[serde(deserialize_with = "value::database_url")]
    pub database_url: DatabaseUrl,
    /// File that holds this URL instead, so that no list of processes or variables shows a password. Default none.
    pub database_url_file: Option<PathBuf>,
    /// Streaming replicas of the Postgres database for reads, each `postgres://USER:PASSWORD@HOST/DATABASE` of one
    /// server; see [`store::with_replicas`](crate::store::with_replicas). Default none.
    #[serde(deserialize_with = "value::replica_urls")]
    pub database_read_url: Vec<DatabaseUrl>,
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
    /// The network that blocks must belong to: a built-in name ([`Network::NAMES`]), a TOML file with the fields of
    /// [`Network`], or the network's own JSON description. Default `devnet`, that of the bundled chain, which dials no
    /// peer.
    #[serde(deserialize_with = "value::network")]
    pub network: Network,
    /// The nodes that newcomers meet first, in place of the network's own; an empty list means none. Default: the
    /// network's.
    #[serde(deserialize_with = "value::some_peers")]
    pub bootstrap: Option<Vec<PeerAddress>>,
    /// Hash of the network's genesis, or `any` to take that of the operator's own or the bootstrap peers once and keep
    /// it. Default: the network's.
    #[serde(deserialize_with = "value::genesis")]
    pub genesis_hash: Option<String>,
    /// What becomes of target difficulties that don't follow the schedule: `enforce`, `report` or `off`. Default: the
    /// network's, which is `report` where it is public.
    #[serde(deserialize_with = "value::some")]
    pub difficulty_schedule: Option<Enforcement>,
    /// How far blocks are verified before they are stored: `pow`, `linked` or `none`. Default `pow`.
    #[serde(deserialize_with = "value::parsed")]
    pub verify: Level,
    /// Whether blocks up to the network's [assume-valid block](Network::assume_valid), if it has one, are verified to
    /// `linked` at first and to `pow` in the background. Default true.
    #[serde(deserialize_with = "value::switch")]
    pub assume_valid: bool,
    /// Whether to keep the store in sync with the network. Default true.
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
    /// Whether to look for peers on the local network by multicast DNS, and be found. On a public network only with
    /// [`private_addresses`](Self::private_addresses). Default false.
    #[serde(deserialize_with = "value::switch")]
    pub mdns: bool,
    /// Connections to keep up, at most 64: while there are fewer, discovered peers are dialled; 0 dials none of them.
    /// Default 8.
    #[serde(deserialize_with = "value::within::<0, 64, _, _>")]
    pub target_peers: usize,
    /// Log format on stderr: `text` or `json`. Default `text`. `RUST_LOG` says what is logged.
    #[serde(deserialize_with = "value::parsed")]
    pub log: LogFormat,
    /// Whether each answered HTTP request is logged at level info, with the target `modal_gateway::access`; at level
    /// debug otherwise. Default false.
    #[serde(deserialize_with = "value::switch")]
    pub access_log: bool,
    /// Blocks this far below the tip are taken as final, and caches may keep them; at least 1, since what comes
    /// after the tip is part of what a list says. Default 40 (one epoch).
    #[serde(deserialize_with = "value::within::<1, { u64::MAX }, _, _>")]
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

    /// File of the certificate chain in PEM; with [`tls_key`](Self::tls_key) the public listener speaks HTTPS. Both are
    /// read again when they change. Default none.
    pub tls_cert: Option<PathBuf>,
    /// File of the certificate's private key in PEM. Default none.
    pub tls_key: Option<PathBuf>,
    /// What clients of the admin listener must show as bearer token. Required as soon as that listener is not on
    /// loopback. Default none.
    #[serde(deserialize_with = "value::some")]
    pub admin_token: Option<Secret>,
    /// File that holds the token instead. Default none.
    pub admin_token_file: Option<PathBuf>,
    /// Networks (`10.0.0.0/8`) and addresses whose word about a client's address is taken (`forwarded`,
    /// `x-forwarded-for`). Default loopback.
    #[serde(deserialize_with = "value::networks")]
    pub trusted_proxy: Vec<IpNet>,
    /// Networks and addresses of clients that have no limits, by the address of their connection, while they send no
    /// forwarding header. Default none.
    #[serde(deserialize_with = "value::networks")]
    pub unlimited_client: Vec<IpNet>,
    /// Origins whose pages may read answers, or `*` for all. Default `*`; an empty list means none.
    #[serde(deserialize_with = "value::origins")]
    pub cors_origin: Vec<String>,
    /// What a client may ask per second, on average: an answer from the store costs 1 and more by its size, one from a
    /// peer 5 times as much. Clients are distinguished by their address, IPv6 ones by their /64. 0 is no limit. Default
    /// 100.
    #[serde(deserialize_with = "value::within::<0, 1_000_000, _, _>")]
    pub rate_limit: u32,
    /// What a client may ask at once after a pause, in the same units; at least 100. Default 1000.
    #[serde(deserialize_with = "value::within::<100, 10_000_000, _, _>")]
    pub rate_burst: u32,
    /// HTTP connections open at once, 16 to 65536; fewer where the system allows fewer open files. Default 4096.
    #[serde(deserialize_with = "value::within::<16, 65_536, _, _>")]
    pub max_connections: usize,
    /// HTTP connections of one client, as the rate limit has it; trusted proxies and unlimited clients may have any
    /// number. 0 is no limit. Default 128.
    #[serde(deserialize_with = "value::within::<0, 65_536, _, _>")]
    pub client_connections: usize,
    /// HTTP requests in flight at once, 1 to 65536; further ones are answered 503. Default 256.
    #[serde(deserialize_with = "value::within::<1, 65_536, _, _>")]
    pub max_requests: usize,
    /// Streams of events open at once, 1 to 65536; further ones are answered 503. Default 2048.
    #[serde(deserialize_with = "value::within::<1, 65_536, _, _>")]
    pub max_streams: usize,
    /// How long a client may take to send a request's head, TLS included. Default 5 s.
    #[serde(deserialize_with = "value::duration")]
    pub header_timeout: Duration,
    /// How long a connection may stand without a request. Default 60 s.
    #[serde(deserialize_with = "value::duration")]
    pub idle_timeout: Duration,
    /// How long a request may take until its answer begins, its body included; at least `peer_timeout`. Default 60 s.
    #[serde(deserialize_with = "value::duration")]
    pub request_timeout: Duration,

    /// With whom to have to do: `open`, `listed` or `closed`. Default `open`.
    #[serde(deserialize_with = "value::parsed")]
    pub trust: Trust,
    /// Peers that are trusted beside the configured ones, by id. Default none.
    #[serde(deserialize_with = "value::peer_ids")]
    pub allow_peer: Vec<PeerId>,
    /// Peers that we have nothing to do with, by id, whatever `trust` says. Default none.
    #[serde(deserialize_with = "value::peer_ids")]
    pub deny_peer: Vec<PeerId>,
    /// Whether discovered addresses may be private ones. Configured peers may be anywhere. Default:
    /// false on a network that is [public](Network::public), else true.
    #[serde(deserialize_with = "value::some_switch")]
    pub private_addresses: Option<bool>,
    /// Requests of ours in flight to one node of the network, those of clients included; more wait for their turn. 1 to
    /// 64. Default 2.
    #[serde(deserialize_with = "value::within::<1, 64, _, _>")]
    pub node_requests: usize,
    /// Blocks that one peer is given per second, on average; a request costs one more, and ten seconds' worth may be
    /// asked for at once. 0 is no limit. Default 10000.
    #[serde(deserialize_with = "value::within::<0, 10_000_000, _, _>")]
    pub peer_rate_limit: u32,
    /// Memory for answers on their way to peers, in MiB, 10 to 65536; a request over it waits, and is refused in the
    /// end. Default 24.
    #[serde(deserialize_with = "value::within::<10, 65_536, _, _>")]
    pub peer_answer_mib: usize,
    /// Memory of this process, in MiB, from which on no more libp2p connections are made; 0 is nine tenths of the
    /// machine's. Default 0.
    #[serde(deserialize_with = "value::within::<0, 16_777_216, _, _>")]
    pub memory_limit_mib: usize,
}

impl Config {
    /// Puts the settings together from the file, the variables and the flags in `sources`.
    ///
    /// # Errors
    /// The first unknown or malformed setting, or the named file that can't be read.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        Ok(Self::resolve(sources)?.0)
    }

    /// The same, with the layers that the settings were taken from, lowest first.
    fn resolve(sources: Sources) -> Result<(Self, Vec<Layer>), ConfigError> {
        let mut layers = sources.layers()?;
        for (setting, file) in [("database_url", "database_url_file"), ("admin_token", "admin_token_file")] {
            layer::settle(&mut layers, setting, file)?;
        }
        let figment = layers.iter().fold(Figment::new(), Figment::merge);
        let mut config: Self = figment.extract().map_err(|error| ConfigError::from_figment(error, &figment))?;
        if let Some(path) = &config.database_url_file {
            let unusable = |problem: String| ConfigError::of_key("database_url_file", &problem, &figment);
            let text = fs::read_to_string(path).map_err(|error| unusable(format!("{}: {error}", path.display())))?;
            // An editor's byte order mark is no part of the URL.
            let url = text
                .trim_start_matches('\u{feff}')
                .trim()
                .parse()
                .map_err(|expected| unusable(format!("{}: {expected}", path.display())))?;
            config.database_url = url;
        }
        match config.conflict() {
            Some((key, problem)) => Err(ConfigError::of_key(key, problem, &figment)),
            None => Ok((config.applied(), layers)),
        }
    }

    /// The same, with what the settings say of the network's rules put into the network.
    fn applied(mut self) -> Self {
        if let Some(hash) = &self.genesis_hash {
            self.network.genesis_hash = Some(hash.clone()).filter(|hash| hash != ANY_GENESIS);
        }
        if let Some(enforcement) = self.difficulty_schedule {
            self.network.difficulty_schedule = enforcement;
        }
        if !self.assume_valid {
            self.network.assume_valid = None;
        }
        if let Some(bootstrap) = &self.bootstrap {
            self.network.bootstrap = bootstrap.iter().map(|peer| peer.address.to_string()).collect();
        }
        self
    }

    /// The peers to stay connected with: the operator's, then the network's bootstrap nodes.
    pub fn peers(&self) -> Vec<PeerAddress> {
        let mut peers = self.peer.clone();
        // Those that can't be read were refused with the other settings.
        let bootstrap = self.network.bootstrap.iter().filter_map(|address| address.parse::<PeerAddress>().ok());
        for peer in bootstrap {
            if peers.iter().all(|known| known.address != peer.address) {
                peers.push(peer);
            }
        }
        peers
    }

    /// A setting that doesn't go with another one, and why.
    fn conflict(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self { tls_cert: Some(_), tls_key: None, .. } => Some(("tls_cert", "tls_key is missing")),
            Self { tls_cert: None, tls_key: Some(_), .. } => Some(("tls_key", "tls_cert is missing")),
            _ if !self.database_read_url.is_empty() && !self.database_url.is_postgres() => {
                Some(("database_read_url", "database_url is SQLite, which has no replicas"))
            }
            _ if self.request_timeout < self.peer_timeout => {
                // The one that was set is blamed, with its place: the other one may be a default.
                Some(match self.request_timeout == Self::default().request_timeout {
                    true => ("peer_timeout", "must be at most request_timeout, which is 60 s unless it is set"),
                    false => ("request_timeout", "must be at least peer_timeout, which is 30 s unless it is set"),
                })
            }
            // What multicast DNS finds are addresses of the local network, nearly all of them private.
            _ if self.mdns && self.network.public && self.private_addresses != Some(true) => {
                Some(("mdns", "the network is public: private_addresses must be true as well"))
            }
            _ => None,
        }
    }

    /// How proof of work is computed.
    pub fn pow(&self) -> PowOptions {
        PowOptions { threads: self.pow_threads, memory: self.pow_memory }
    }
}

#[cfg(test)]
mod tests;

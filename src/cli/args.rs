//! What may stand on the command line, and the help about it.

use std::path::PathBuf;

use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use figment::value::Value;
use libp2p::PeerId;
use serde::Serialize;

use super::{health, request};
use crate::{
    app::Mine,
    config::{ENV_PREFIX, Sources},
    http::Numbers,
    source::job::Mode,
};

/// HTTP/JSON gateway to the Modality network's miner blocks.
#[derive(Debug, Parser)]
#[command(name = "modal-gateway", version, max_term_width = 110, after_help = SETTINGS_HELP)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) shared: SharedArgs,
    #[command(subcommand)]
    pub(super) command: Command,
}

const SETTINGS_HELP: &str = "\
Settings: each shared option is also a key of modal-gateway.toml (--database-url is database_url) and an environment
variable (MODAL_GATEWAY_DATABASE_URL). Flags win over variables, variables over the file. DATABASE_URL is honoured.
RUST_LOG says what is logged, for example RUST_LOG=modal_gateway=debug.

Start here:
  modal-gateway demo                               a node, a gateway and a real chain, with curl lines to try
  modal-gateway serve --network testnet            the public test network
  modal-gateway serve --peer node=/dns4/HOST/tcp/10001
  curl 'http://127.0.0.1:8080/data/miner_block/epoch?epoch=0'";

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Shared options")]
pub(super) struct SharedArgs {
    /// The store: sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE [default: sqlite://modal-gateway.db]
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
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
    /// While there are fewer connections, dial peers that the network tells of [default: 8]
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
    /// Whether private addresses that the network tells of are dialled [default: not on a public network]
    #[arg(long, global = true, value_name = "BOOL")]
    private_addresses: Option<String>,
    /// Log format on stderr: text or json [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    log: Option<String>,
    /// The file of settings [default: modal-gateway.toml, if it is there] [env: MODAL_GATEWAY_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
}

impl SharedArgs {
    /// Whether the flag or the environment asks for JSON: errors of the other settings are reported in it then.
    pub(super) fn logs_json(&self) -> bool {
        let variable = || std::env::var(format!("{ENV_PREFIX}LOG")).ok();
        self.log.clone().or_else(variable).as_deref() == Some("json")
    }

    /// What the flags say, with the environment and the file that is named.
    pub(super) fn into_sources(self) -> Sources {
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

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the gateway: HTTP and libp2p over one store
    ///
    /// The addresses really bound are printed on stderr, one a line. Ctrl-C or SIGTERM stops it cleanly.
    #[command(after_help = "\
Examples:
  modal-gateway serve
  modal-gateway serve --network testnet
  modal-gateway serve --database-url postgres://gateway@db/gateway --http 0.0.0.0:8080
  modal-gateway serve --peer node=/ip4/192.0.2.7/tcp/10001 --verify pow")]
    Serve,
    /// Run a block-serving libp2p peer without HTTP, which may mine
    ///
    /// Mining begins once the store is in sync with the configured peers, or at once where there are none, and
    /// announces each new block to the peers. A network without genesis is begun only where it is not public. Its
    /// difficulty follows the network's `initial_difficulty` and `target_block_time`: --network names a file for
    /// others. Where another chain has more work, the node goes over to it.
    #[command(after_help = "\
Examples:
  modal-gateway node --listen /ip4/0.0.0.0/tcp/10001 --database-url sqlite://node.db
  modal-gateway node --mine --network devnet --peer other=/ip4/192.0.2.7/tcp/10001")]
    Node(NodeArgs),
    /// Run a node that mines and a gateway joined by libp2p, on a bundled real chain, and print curl lines to try
    Demo,
    /// Sync the store with peers, once
    ///
    /// Blocks are fetched, verified as --verify says, and written as they come, so that a sync that was interrupted
    /// goes on where it was. A chain with more work than the store's takes its place. `serve` and `node` do the same
    /// all the time. Exits with 0 once no peer given has a better chain.
    #[command(after_help = "\
Examples:
  modal-gateway sync /dns4/node.example/tcp/10001
  modal-gateway sync node other --peer node=/ip4/192.0.2.7/tcp/10001 --peer other=/ip4/192.0.2.8/tcp/10001
  modal-gateway sync /ip4/127.0.0.1/tcp/10001 --mode headers --verify linked")]
    Sync {
        /// Multiaddrs, or aliases or ids of configured peers
        // Not `peer`: clap would take it for the shared option of that name.
        #[arg(value_name = "PEER", required = true)]
        from: Vec<String>,
        /// How blocks are fetched: the whole chain in one answer, by ranges, epoch by epoch, headers first, or only
        /// what is missing from several peers at once
        #[arg(long, default_value_t, value_parser = PossibleValuesParser::new(Mode::ALL.map(Mode::as_str))
            .try_map(|name| name.parse::<Mode>()))]
        mode: Mode,
    },
    /// Audit the chain in the store against the network's rules
    ///
    /// Every block is verified again as --verify says, and the store's account of the chain is compared with its
    /// blocks. The first bad block is named with the rule that it breaks. What is good counts as verified that far from
    /// then on.
    #[command(after_help = "\
Examples:
  modal-gateway verify
  modal-gateway verify --verify linked --no-raise")]
    Verify {
        /// Leave the blocks' levels as they are: the store may be in use meanwhile
        #[arg(long)]
        no_raise: bool,
    },
    /// Import blocks from a file of one JSON block a line (NDJSON); all of them or, on any error, none
    ///
    /// Canonical blocks must ascend by index and continue the chain in the store. Blocks that the store has are
    /// skipped; orphans are kept beside the chain. The record that `export` writes last is checked.
    #[command(after_help = "\
Examples:
  modal-gateway import chain.ndjson
  zstdcat chain.ndjson.zst | modal-gateway import - --verify linked")]
    Import {
        /// The file, or - for stdin
        file: PathBuf,
        /// Import blocks of this program that no record follows: part of an export, or blocks from the HTTP API
        #[arg(long)]
        partial: bool,
    },
    /// Export the canonical chain, one JSON block a line (NDJSON), and a last line with their count and SHA-256
    #[command(after_help = "\
Examples:
  modal-gateway export chain.ndjson
  modal-gateway export - | head -n 1 | jq .hash")]
    Export {
        /// The file, which is replaced only once all is written, or - for stdout
        file: PathBuf,
    },
    /// Send one request over libp2p and print the answer: curl for the protocol
    ///
    /// Exits with 0 if the answer says `ok: true` and with 1 otherwise. A multiaddr need not name the peer's id.
    #[command(after_help = "\
Examples:
  modal-gateway request /ip4/127.0.0.1/tcp/10001 /ping '\"hello\"'
  modal-gateway request /dns4/node.example/tcp/10002/ws /data/miner_block/range '{\"from_index\": 0, \"to_index\": 9}'
  modal-gateway request node /data/miner_block/chain_info --peer node=/ip4/192.0.2.7/tcp/10001 | jq .data.tip_hash")]
    Request {
        /// A multiaddr, or the alias or id of a configured peer
        // Not `peer`: clap would take it for the shared option of that name.
        #[arg(value_name = "PEER")]
        to: String,
        /// The protocol's path
        path: String,
        /// The request's data [default: null]
        #[arg(value_name = "JSON", value_parser = request::parse_json)]
        data: Option<request::Json>,
        /// Seconds until giving up, connecting included
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
        timeout: u64,
    },
    /// Print the OpenAPI document of the HTTP API
    Openapi {
        /// With `string`, the document of the API with `?numbers=string`, where miner numbers are strings
        #[arg(long, default_value_t, value_parser = PossibleValuesParser::new(Numbers::ALL.map(Numbers::as_str))
            .try_map(|numbers| numbers.parse::<Numbers>()))]
        numbers: Numbers,
    },
    /// Bring the store's schema up to date, creating a SQLite file that is missing
    Migrate,
    /// Ask a running gateway whether it is ready: exit code 0 or 1, for container health checks
    #[command(after_help = "\
Examples:
  modal-gateway health
  modal-gateway health http://127.0.0.1:8080
  modal-gateway health http://127.0.0.1:8080/health/ready?synced=true
  modal-gateway health http://127.0.0.1:8080/health/live")]
    Health {
        /// What to get; /health/ready where there is no path [default: /health/ready at the configured HTTP address, or
        /// at the admin address where the former speaks HTTPS]
        #[arg(value_parser = health::parse_url)]
        url: Option<url::Url>,
    },
}

#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// Mine blocks
    #[arg(long)]
    mine: bool,
    /// Peer id that the blocks nominate [default: the node's own]
    #[arg(long, value_name = "PEER_ID", requires = "mine")]
    mine_nominee: Option<PeerId>,
    /// Threads that mine
    #[arg(long, value_name = "NUMBER", requires = "mine", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=64))]
    mine_threads: u64,
}

impl NodeArgs {
    /// How the node is to mine, if at all.
    pub(super) fn into_mine(self) -> Option<Mine> {
        let threads = usize::try_from(self.mine_threads).unwrap_or(1);
        self.mine.then_some(Mine { nominee: self.mine_nominee, threads })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_tells_the_true_defaults() {
        let help = Cli::command().render_long_help().to_string();
        let joined = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let config = Config::default();
        let Config { database_url, http, admin, listen, identity, network, verify, .. } = config;
        for default in [
            database_url.to_string(),
            http.to_string(),
            admin.to_string(),
            format!("{} and {}", listen[0], listen[1]),
            identity.display().to_string(),
            network.name,
            verify.to_string(),
            "text".into(),
        ] {
            assert!(joined.contains(&format!("[default: {default}]")), "{default} in {joined}");
        }
        for (flag, default) in [
            ("sync", config.sync.to_string()),
            ("sync-interval", format!("{}s", config.sync_interval.as_secs())),
            ("pow-threads", config.pow_threads.to_string()),
            ("pow-memory", config.pow_memory.to_string()),
            ("mdns", config.mdns.to_string()),
            ("target-peers", config.target_peers.to_string()),
        ] {
            let about = joined.split(&format!("--{flag} <")).nth(1).unwrap();
            let told = about.split("[default: ").nth(1).unwrap();
            assert!(told.starts_with(&format!("{default}]")), "{flag}: {told}");
        }
    }
}

//! What may stand on the command line, and the help about it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::{health, request};
use crate::config::Sources;

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
  modal-gateway serve --peer node=/dns4/HOST/tcp/10001
  curl 'http://127.0.0.1:8080/data/miner_block/epoch?epoch=0'";

#[derive(Debug, Args)]
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
    /// The network: a built-in name (modality) or a TOML file [default: modality]
    #[arg(long, global = true, value_name = "NAME-OR-FILE")]
    network: Option<String>,
    /// How far blocks are verified: pow, linked or none [default: pow]
    #[arg(long, global = true, value_name = "LEVEL")]
    verify: Option<String>,
    /// Log format on stderr: text or json [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    log: Option<String>,
    /// The file of settings [default: modal-gateway.toml, if it is there] [env: MODAL_GATEWAY_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SharedArgs {
    /// What the flags say, with the environment and the file that is named.
    pub(super) fn into_sources(self) -> Sources {
        let single = [
            ("database_url", self.database_url),
            ("http", self.http),
            ("admin", self.admin),
            ("identity", self.identity),
            ("network", self.network),
            ("verify", self.verify),
            ("log", self.log),
        ];
        let single = single.into_iter().filter_map(|(key, value)| Some((key, vec![value?])));
        let lists = [("listen", self.listen), ("peer", self.peer)].into_iter().filter(|(_, values)| !values.is_empty());
        Sources { file: self.config, env: std::env::vars_os().collect(), flags: single.chain(lists).collect() }
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
  modal-gateway serve --database-url postgres://gateway@db/gateway --http 0.0.0.0:8080
  modal-gateway serve --peer node=/ip4/192.0.2.7/tcp/10001 --verify pow")]
    Serve,
    /// Run a block-serving libp2p peer without HTTP
    #[command(after_help = "\
Example:
  modal-gateway node --listen /ip4/0.0.0.0/tcp/10001 --database-url sqlite://node.db")]
    Node,
    /// Run a node and a gateway joined by libp2p, on a bundled real chain, and print curl lines to try
    Demo,
    /// Import blocks from a file of one JSON block a line (NDJSON); all of them or, on any error, none
    ///
    /// Canonical blocks must ascend by index and continue the chain in the store. Blocks that the store has are
    /// skipped; orphans are kept beside the chain. The record that `export` writes last is checked if it is there.
    #[command(after_help = "\
Examples:
  modal-gateway import chain.ndjson
  zstdcat chain.ndjson.zst | modal-gateway import - --verify linked")]
    Import {
        /// The file, or - for stdin
        file: PathBuf,
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
    Openapi,
    /// Bring the store's schema up to date, creating a SQLite file that is missing
    Migrate,
    /// Ask a running gateway whether it is ready: exit code 0 or 1, for container health checks
    #[command(after_help = "\
Examples:
  modal-gateway health
  modal-gateway health http://127.0.0.1:8080/health/live")]
    Health {
        /// What to get [default: /health/ready at the configured HTTP address]
        #[arg(value_parser = health::parse_url)]
        url: Option<url::Url>,
    },
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
        let Config { database_url, http, admin, listen, identity, network, verify, .. } = Config::default();
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
            let joined = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(joined.contains(&format!("[default: {default}]")), "{default} in {joined}");
        }
    }
}

//! What may stand on the command line, and the help about it.

use std::path::PathBuf;

use clap::{
    Args, CommandFactory, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use clap_complete::Shell;
use libp2p::PeerId;

use self::shared::SharedArgs;
use super::{config::Format, export::ExportFormat, health, request};
use crate::{app::Mine, http::Numbers, source::job::Mode};

pub(super) mod shared;

/// HTTP/JSON gateway to the Modality network's miner blocks.
#[derive(Debug, Parser)]
#[command(name = "modal-gateway", version, long_version = LONG_VERSION, max_term_width = 110, after_help = SETTINGS_HELP)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) shared: SharedArgs,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What `--version` prints; `-V` prints the version alone.
const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("GATEWAY_COMMIT"), ")");

const SETTINGS_HELP: &str = "\
Settings: each shared option is also a key of modal-gateway.toml (--database-url is database_url) and an environment
variable (MODAL_GATEWAY_DATABASE_URL). Flags win over variables, variables over the file. DATABASE_URL is honoured.
RUST_LOG says what is logged, for example RUST_LOG=modal_gateway=debug.

Start here:
  modal-gateway demo                               a node, a gateway and a real chain, with curl lines to try
  modal-gateway serve --network testnet            the public test network
  modal-gateway serve --peer node=/dns4/HOST/tcp/10001
  curl 'http://127.0.0.1:8080/data/miner_block/epoch?epoch=0'";

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
    /// announces each new block to the peers. A published network, such as testnet, is never begun anew. The difficulty
    /// follows the network's `initial_difficulty` and `target_block_time`: --network names a file for others. Where
    /// another chain has more work, the node goes over to it.
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
    ///
    /// As CSV, the count and the SHA-256 of the file are on stderr. Only NDJSON can be imported.
    #[command(after_help = "\
Examples:
  modal-gateway export chain.ndjson
  modal-gateway export chain.csv --format csv
  modal-gateway export - | head -n 1 | jq .hash")]
    Export {
        /// The file, which is replaced only once all is written, or - for stdout
        file: PathBuf,
        /// Format of the file
        #[arg(long, default_value_t, value_parser = PossibleValuesParser::new(ExportFormat::ALL.map(ExportFormat::as_str))
            .try_map(|name| name.parse::<ExportFormat>()))]
        format: ExportFormat,
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
    /// Print the settings in effect and where each comes from, without secrets
    ///
    /// As TOML, the lines are a settings file; a setting that is not set or holds a secret is a comment. Exits with 2
    /// if a setting is unknown or malformed.
    #[command(after_help = "\
Examples:
  modal-gateway config --network testnet
  modal-gateway config --format json | jq -r 'select(.source != \"default\") | .key'")]
    Config {
        /// As a settings file, or one JSON object a line
        #[arg(long, default_value_t, value_parser = PossibleValuesParser::new(Format::ALL.map(Format::as_str))
            .try_map(|format| format.parse::<Format>()))]
        format: Format,
    },
    /// Print a script that completes commands and flags in a shell
    #[command(after_help = "\
Examples:
  modal-gateway completions bash > /usr/share/bash-completion/completions/modal-gateway
  modal-gateway completions fish > ~/.config/fish/completions/modal-gateway.fish")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page
    #[command(after_help = "\
Examples:
  modal-gateway man > /usr/local/share/man/man1/modal-gateway.1
  modal-gateway man serve > /usr/local/share/man/man1/modal-gateway-serve.1")]
    Man {
        /// A command, whose page it is [default: that of the program]
        #[arg(value_parser = parse_command)]
        command: Option<String>,
    },
    /// Ask a running gateway whether it is ready: exit code 0 or 1, for container health checks
    #[command(after_help = "\
Examples:
  modal-gateway health
  modal-gateway health http://127.0.0.1:8080
  modal-gateway health --synced
  modal-gateway health http://127.0.0.1:8080/health/live")]
    Health {
        /// Ready only once the store is in sync with the network; only with a URL of /health/ready
        #[arg(long)]
        synced: bool,
        /// What to get; /health/ready where there is no path [default: /health/ready at the configured HTTP address, or
        /// at the admin address where the former speaks HTTPS]
        #[arg(value_parser = health::parse_url)]
        url: Option<url::Url>,
    },
}

/// The name of a command.
fn parse_command(name: &str) -> Result<String, String> {
    let known: Vec<_> = Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    match known.iter().any(|known| known == name) {
        true => Ok(name.to_owned()),
        false => Err(format!("expected one of {}", known.join(", "))),
    }
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
            ("assume-valid", config.assume_valid.to_string()),
            ("sync", config.sync.to_string()),
            ("sync-interval", format!("{}s", config.sync_interval.as_secs())),
            ("pow-threads", config.pow_threads.to_string()),
            ("pow-memory", config.pow_memory.to_string()),
            ("mdns", config.mdns.to_string()),
            ("access-log", config.access_log.to_string()),
            ("target-peers", config.target_peers.to_string()),
        ] {
            let about = joined.split(&format!("--{flag} <")).nth(1).unwrap();
            let default_text = about.split("[default: ").nth(1).unwrap();
            assert!(default_text.starts_with(&format!("{default}]")), "{flag}: {default_text}");
        }
    }
}

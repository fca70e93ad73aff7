//! The command line: parses it, loads the settings, runs one command, and turns its outcome into an exit code.
//!
//! Data goes to stdout and everything else to stderr. Exit codes: 0 done, 1 failed, 2 bad usage or settings.

use std::{error::Error, fmt::Write as _, io, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::{
    app::AppError,
    config::{Config, ConfigError, Sources},
    store::{OpenOptions, StoreError},
    telemetry::{self, TelemetryError},
};

mod export;
mod health;
mod import;
mod lines;
mod migrate;
mod progress;
mod request;

/// Exit code of a command that a second Ctrl-C stopped: 128 + SIGINT, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// HTTP/JSON gateway to the Modality network's miner blocks.
#[derive(Debug, Parser)]
#[command(name = "modal-gateway", version, max_term_width = 110, after_help = SETTINGS_HELP)]
struct Cli {
    #[command(flatten)]
    shared: SharedArgs,
    #[command(subcommand)]
    command: Command,
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
struct SharedArgs {
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
    fn into_sources(self) -> Sources {
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
enum Command {
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

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Import(#[from] import::ImportError),
    #[error(transparent)]
    Export(#[from] export::ExportError),
    #[error(transparent)]
    Health(#[from] health::HealthError),
    #[error(transparent)]
    Request(#[from] request::RequestError),
    #[error("stdout")]
    Stdout(#[source] io::Error),
    #[error("the runtime can't be started")]
    Runtime(#[source] io::Error),
    #[error("interrupted")]
    Interrupted,
    /// The command said on stdout what there is to say.
    #[error("the answer is not ok")]
    NotOk,
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::NotOk) => ExitCode::FAILURE,
        // Whoever reads our stdout has seen enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&error));
            ExitCode::from(if matches!(error, CliError::Config(_)) { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli) -> Result<(), CliError> {
    if let Command::Openapi = cli.command {
        return print_line(&crate::http::openapi_json());
    }
    let config = Config::load(cli.shared.into_sources())?;
    let service = matches!(cli.command, Command::Serve | Command::Node | Command::Demo);
    telemetry::init(config.log, if service { telemetry::SERVICE_FILTER } else { telemetry::COMMAND_FILTER })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)?;
    let outcome = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        watch_signals(shutdown.clone()).map_err(CliError::Runtime)?;
        dispatch(cli.command, config, shutdown).await
    });
    // A read of stdin or a proof of work may still be running in a blocking thread: don't wait for it.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(command: Command, config: Config, shutdown: CancellationToken) -> Result<(), CliError> {
    match command {
        Command::Serve => Ok(crate::app::serve(config, shutdown).await?),
        Command::Node => Ok(crate::app::node(config, shutdown).await?),
        Command::Demo => Ok(crate::app::demo(config, shutdown).await?),
        command => {
            let work = async {
                match command {
                    Command::Import { file } => Ok(import::run(&config, &file).await?),
                    Command::Export { file } => Ok(export::run(&config, &file).await?),
                    Command::Request { to, path, data, timeout } => {
                        request::run(&config, &to, &path, data, std::time::Duration::from_secs(timeout)).await
                    }
                    Command::Migrate => Ok(migrate::run(&config).await?),
                    Command::Health { url } => Ok(health::run(&config, url).await?),
                    Command::Openapi | Command::Serve | Command::Node | Command::Demo => Ok(()),
                }
            };
            tokio::select! {
                outcome = work => outcome,
                () = shutdown.cancelled() => Err(CliError::Interrupted),
            }
        }
    }
}

/// The first Ctrl-C or SIGTERM cancels `shutdown`; the second ends the process at once.
fn watch_signals(shutdown: CancellationToken) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        loop {
            tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
            if shutdown.is_cancelled() {
                std::process::exit(EXIT_INTERRUPTED);
            }
            shutdown.cancel();
        }
    });
    Ok(())
}

/// How the settings say to open the store.
fn open_options(config: &Config) -> OpenOptions {
    OpenOptions { connections: config.store_connections, ..OpenOptions::default() }
}

/// Prints one line of data.
fn print_line(line: &str) -> Result<(), CliError> {
    use io::Write as _;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", line.trim_end()).and_then(|()| stdout.flush()).map_err(CliError::Stdout)
}

/// The error and its causes on one line; a cause that the text before it already tells is not repeated.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        next = cause.source();
    }
    text.replace('\n', " ")
}

fn is_closed_pipe(error: &CliError) -> bool {
    match error {
        CliError::Stdout(error) | CliError::Export(export::ExportError::Write(_, error)) => {
            error.kind() == io::ErrorKind::BrokenPipe
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

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

    #[test]
    fn causes_are_joined_once() {
        let io = io::Error::other("disk on fire");
        assert_eq!(with_causes(&CliError::Stdout(io)), "stdout: disk on fire");
        let store = CliError::Store(StoreError::ReadOnly);
        assert_eq!(with_causes(&store), "the store is read-only");
    }
}

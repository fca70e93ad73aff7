//! The command line: parses it, loads the settings, runs one command, and turns its outcome into an exit code.
//!
//! Data goes to stdout and everything else to stderr. Exit codes: 0 done, 1 failed, 2 bad usage or settings.

use std::{error::Error, fmt::Write as _, io, process::ExitCode};

use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::{
    app::AppError,
    config::{Config, ConfigError},
    store::{OpenOptions, StoreError},
    telemetry::{self, TelemetryError},
};

mod args;
mod export;
mod health;
mod import;
mod lines;
mod migrate;
mod peer;
mod progress;
mod request;
mod sync;
mod verify;

use args::{Cli, Command};

/// Exit code of a command that a second Ctrl-C stopped: 128 + SIGINT, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// Longest that a command waits for what it reads from the store.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

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
    #[error(transparent)]
    Peer(#[from] peer::PeerError),
    #[error(transparent)]
    Sync(#[from] sync::SyncCommandError),
    #[error(transparent)]
    Verify(#[from] verify::AuditError),
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
            ExitCode::from(if matches!(error, CliError::Config(_) | CliError::Peer(_)) { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli) -> Result<(), CliError> {
    if let Command::Openapi = cli.command {
        return print_line(&crate::http::openapi_json());
    }
    let config = Config::load(cli.shared.into_sources())?;
    let service = matches!(cli.command, Command::Serve | Command::Node(_) | Command::Demo);
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
        Command::Node(mining) => Ok(crate::app::node(config, mining.into_mine(), shutdown).await?),
        Command::Demo => Ok(crate::app::demo(config, shutdown).await?),
        Command::Sync { from, mode } => sync::run(&config, &from, mode, &shutdown).await,
        Command::Request { to, path, data, timeout } => {
            request::run(&config, &to, &path, data, std::time::Duration::from_secs(timeout), &shutdown).await
        }
        command => {
            let work = async {
                match command {
                    Command::Import { file } => Ok(import::run(&config, &file).await?),
                    Command::Export { file } => Ok(export::run(&config, &file).await?),
                    Command::Migrate => Ok(migrate::run(&config).await?),
                    Command::Health { url } => Ok(health::run(&config, url).await?),
                    Command::Verify { no_raise } => Ok(verify::run(&config, !no_raise).await?),
                    Command::Openapi
                    | Command::Serve
                    | Command::Node(_)
                    | Command::Demo
                    | Command::Sync { .. }
                    | Command::Request { .. } => Ok(()),
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
    // Nobody else waits for what a command reads.
    OpenOptions { connections: config.store_connections, read_timeout: PATIENCE, ..OpenOptions::default() }
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
    use super::*;

    #[test]
    fn causes_are_joined_once() {
        let io = io::Error::other("disk on fire");
        assert_eq!(with_causes(&CliError::Stdout(io)), "stdout: disk on fire");
        let store = CliError::Store(StoreError::ReadOnly);
        assert_eq!(with_causes(&store), "the store is read-only");
    }
}

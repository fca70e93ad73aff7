//! The command line: parses it, loads the settings, runs one command, and turns its outcome into an exit code.
//!
//! Data goes to stdout and everything else to stderr. Exit codes: 0 done, 1 failed, 2 bad usage or settings.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::{config::Config, telemetry};

mod args;
mod common;
mod config;
mod error;
mod export;
mod health;
mod import;
mod lines;
mod manual;
mod migrate;
mod peer;
mod progress;
mod request;
mod sync;
mod verify;

use args::{Cli, Command};
use common::print_line;
use error::{CliError, EXIT_USAGE};

/// Exit code of a command that a second Ctrl-C stopped: 128 + SIGINT, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    // After a panic too: its line is on its way as all others are.
    let _flush = scopeguard::guard((), |()| telemetry::flush());
    match Cli::try_parse() {
        Ok(cli) => {
            if cli.shared.logs_json() {
                telemetry::set_format(telemetry::LogFormat::Json);
            }
            run(cli).map_or_else(|error| error.report(), |()| ExitCode::SUCCESS)
        }
        Err(error) => report_usage(&error),
    }
}

/// Says what is wrong with the arguments, or prints the help or the version where they ask for it; returns the exit
/// code.
fn report_usage(error: &clap::Error) -> ExitCode {
    let is_json = args::shared::arguments_ask_for_json(std::env::args_os());
    if is_json {
        telemetry::set_format(telemetry::LogFormat::Json);
    }
    if !error.use_stderr() {
        return error.print().map_or_else(|error| CliError::Stdout(error).report(), |()| ExitCode::SUCCESS);
    }
    if is_json {
        telemetry::error_notice(error.render().to_string().trim_start_matches("error: ").trim_end());
    } else {
        // On a terminal in colours; elsewhere as all other lines are written.
        match io::stderr().is_terminal() {
            true => drop(error.print()),
            false => telemetry::notice(error.render().to_string().trim_end()),
        }
    }
    ExitCode::from(EXIT_USAGE)
}

fn run(cli: Cli) -> Result<(), CliError> {
    match &cli.command {
        Command::Openapi { numbers } => return print_line(&crate::http::openapi_json(*numbers)),
        Command::Completions { shell } => return manual::completions(*shell),
        Command::Man { command } => return manual::page(command.as_deref()),
        _ => {}
    }
    let sources = cli.shared.into_sources();
    if let Command::Config { format } = cli.command {
        return config::run(sources, format);
    }
    if let Command::Demo = cli.command {
        args::shared::check_demo(&sources)?;
    }
    let config = Config::load(sources)?;
    let service = matches!(cli.command, Command::Serve | Command::Node(_) | Command::Demo);
    #[cfg(feature = "otlp")]
    if service {
        telemetry::otlp::start()?;
    }
    telemetry::init(config.log, if service { telemetry::SERVICE_FILTER } else { telemetry::COMMAND_FILTER })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)?;
    let outcome = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        watch_signals(shutdown.clone()).map_err(CliError::Runtime)?;
        dispatch(cli.command, config, shutdown).await
    });
    #[cfg(feature = "otlp")]
    telemetry::otlp::flush();
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
        Command::Import { file, partial } => interruptible(&shutdown, import::run(&config, &file, partial)).await,
        Command::Export { file, format } => interruptible(&shutdown, export::run(&config, &file, format)).await,
        Command::Migrate => interruptible(&shutdown, migrate::run(&config)).await,
        Command::Health { synced, url } => interruptible(&shutdown, health::run(&config, url, synced)).await,
        Command::Verify { no_raise } => interruptible(&shutdown, verify::run(&config, !no_raise)).await,
        // Need no runtime: done before.
        Command::Openapi { .. } | Command::Completions { .. } | Command::Man { .. } | Command::Config { .. } => Ok(()),
    }
}

/// Runs a command that may be dropped at any point.
async fn interruptible<E>(
    shutdown: &CancellationToken,
    command: impl Future<Output = Result<(), E>>,
) -> Result<(), CliError>
where
    CliError: From<E>,
{
    shutdown.run_until_cancelled(command).await.map_or(Err(CliError::Interrupted), |outcome| Ok(outcome?))
}

/// What a write beyond the size that files may have sends, which ends a process that does not look: the same number on
/// every architecture that we build for (signal(7)).
const SIGXFSZ: i32 = 25;

/// The first Ctrl-C, SIGTERM or hangup cancels `shutdown`; the second ends the process at once. A write that is over a
/// limit fails, and does not end the process.
fn watch_signals(shutdown: CancellationToken) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(signal(SignalKind::from_raw(SIGXFSZ))?);
    let mut hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) };
    tokio::spawn(async move {
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => (), _ = hung_up => () }
            if shutdown.is_cancelled() {
                std::process::exit(EXIT_INTERRUPTED);
            }
            shutdown.cancel();
        }
    });
    Ok(())
}

/// Whether the process was started with hangups ignored, as `nohup` does: it is to outlive its terminal then.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // A mask in hex, of which bit 0 is signal 1, SIGHUP.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

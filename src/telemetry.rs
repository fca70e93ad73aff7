//! Tracing: what is logged, and how it looks. It goes to stderr, for stdout is for data.

use std::{env, io};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogFormat;

/// What a long-running command logs unless `RUST_LOG` says otherwise: our own events, and of libp2p and the database
/// driver, which tell of every connection and statement, only what is wrong.
pub const SERVICE_FILTER: &str = "info,libp2p=warn,yamux=warn,multistream_select=warn,hickory=warn,sqlx=warn";

/// What a command logs that does one thing and ends: its results are its output.
pub const COMMAND_FILTER: &str = "warn";

/// Logging can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` is no list of directives.
    #[error("environment variable RUST_LOG: {0}")]
    Filter(String),
    /// Another subscriber is already there.
    #[error("logging can't be set up")]
    Init(#[source] tracing_subscriber::util::TryInitError),
}

/// Logs to stderr from now on, in `format`, what `RUST_LOG` or else `default_filter` lets through. Colours only on a
/// terminal, and never with `NO_COLOR`.
///
/// # Errors
/// [`TelemetryError::Filter`] for a malformed `RUST_LOG`, [`TelemetryError::Init`] when called twice.
pub fn init(format: LogFormat, default_filter: &str) -> Result<(), TelemetryError> {
    let directives = env::var("RUST_LOG").ok().filter(|value| !value.trim().is_empty());
    let filter = EnvFilter::try_new(directives.as_deref().unwrap_or(default_filter))
        .map_err(|error| TelemetryError::Filter(error.to_string()))?;
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => {
            let colours = io::IsTerminal::is_terminal(&io::stderr()) && env::var_os("NO_COLOR").is_none();
            registry.with(fmt::layer().with_writer(io::stderr).with_ansi(colours)).try_init()
        }
        LogFormat::Json => registry.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init(),
    }
    .map_err(TelemetryError::Init)
}

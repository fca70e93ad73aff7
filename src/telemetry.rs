//! Tracing: what is logged, and how it looks. It goes to stderr, for stdout is for data. And what the process knows of
//! itself: panics, memory.

use std::{
    env, fs, io, panic,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

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

/// What a long-running command logs unless `RUST_LOG` says otherwise: our own events, and of libp2p and the database
/// driver, which tell of every connection and statement, only what is wrong.
pub const SERVICE_FILTER: &str = "info,libp2p=warn,yamux=warn,multistream_select=warn,hickory=warn,sqlx=warn";

/// What a command logs that does one thing and ends: its results are its output.
pub const COMMAND_FILTER: &str = "warn";

/// What is never logged, whatever is asked for: the driver quotes lines of a password file that it can't read.
const NEVER: &str = "sqlx_postgres::options::pgpass=off";

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

static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many threads and tasks have panicked since [`init`].
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// The memory that this process takes, where the system tells: `VmRSS` of `/proc/self/status`.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Logs to stderr from now on, in `format`, what `RUST_LOG` or else `default_filter` lets through. Colours only on a
/// terminal, and never with `NO_COLOR`. Panics are counted, and logged in the same way: each once.
///
/// # Errors
/// [`TelemetryError::Filter`] for a malformed `RUST_LOG`, [`TelemetryError::Init`] when called twice.
pub fn init(format: LogFormat, default_filter: &str) -> Result<(), TelemetryError> {
    let directives = env::var("RUST_LOG").ok().filter(|value| !value.trim().is_empty());
    let filter = EnvFilter::try_new(format!("{},{NEVER}", directives.as_deref().unwrap_or(default_filter)))
        .map_err(|error| TelemetryError::Filter(error.to_string()))?;
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => {
            let colours = io::IsTerminal::is_terminal(&io::stderr()) && env::var_os("NO_COLOR").is_none();
            registry.with(fmt::layer().with_writer(io::stderr).with_ansi(colours)).try_init()
        }
        LogFormat::Json => registry.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init(),
    }
    .map_err(TelemetryError::Init)?;
    panic::set_hook(Box::new(on_panic));
    Ok(())
}

/// Where it was, on which thread, and the text if it is a literal. One that is put together may hold what nobody should
/// see, such as the URL in a database's error.
fn on_panic(panic: &panic::PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let at = panic.location().map(ToString::to_string);
    let thread = thread::current();
    let text = panic.payload().downcast_ref::<&'static str>();
    tracing::error!(at, thread = thread.name(), text, "a panic");
}

//! Tracing: what is logged, and how it looks. It goes to stderr, for stdout is for data. And what the process knows of
//! itself: panics, memory, durations.
//!
//! * `otlp`: traces, with the feature of that name
//! * `stderr`: lines on their way there

use std::{
    env,
    fmt::Display,
    fs,
    io::{self, Write},
    panic,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use prometheus_client::metrics::histogram::Histogram;
use tracing::{Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        self,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::{SubscriberInitExt, TryInitError},
};

#[cfg(feature = "otlp")]
pub mod otlp;
mod stderr;

pub use stderr::flush;

/// The commit that the program is built from, or `unknown`: `build.rs` has the rules.
pub const COMMIT: &str = env!("GATEWAY_COMMIT");

/// Bounds of the buckets of durations, in seconds: from a cached answer to the longest of the time limits by default.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// A histogram of durations, in seconds. Clones share it.
#[derive(Debug, Clone)]
pub struct Durations(pub Histogram);

impl Default for Durations {
    fn default() -> Self {
        Self(Histogram::new(BUCKETS))
    }
}

impl Durations {
    /// Runs `work`, and adds its duration.
    pub async fn measure<T>(&self, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let result = work.await;
        self.0.observe(started.elapsed().as_secs_f64());
        result
    }
}

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

impl Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// What a long-running command logs unless `RUST_LOG` says otherwise: our own events, and of libp2p and the database
/// driver, which log every connection and statement, only what is wrong. Kademlia warns every few minutes that it knows
/// no peer: `serve` says that once. yamux warns of each connection that a peer closes first.
pub const SERVICE_FILTER: &str =
    "info,libp2p=warn,libp2p_kad::behaviour=error,yamux=error,multistream_select=warn,hickory=warn,sqlx=warn";

/// What a command logs that does one thing and ends: our own warnings. Its error says what a library's would.
pub const COMMAND_FILTER: &str = "error,modal_gateway=warn";

/// What is never logged, whatever is asked for: the driver quotes lines of a password file that it can't read.
const NEVER: &str = "sqlx_postgres::options::pgpass=off";

/// Logging can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` is no list of directives.
    #[error("environment variable RUST_LOG: {0}")]
    Filter(String),
    /// A variable of OpenTelemetry can't be used. Its value, which may hold a password, is not quoted.
    #[error("environment variable {variable}: {problem}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Another subscriber is already there.
    #[error("logging can't be set up")]
    Init(#[source] TryInitError),
}

static PANICS: AtomicU64 = AtomicU64::new(0);

/// The format that [`init`] was given, or [`set_format`] before it.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Sets the format of what is said before [`init`]. Later calls change nothing.
pub fn set_format(format: LogFormat) {
    let _ = FORMAT.set(format);
}

/// Whether each line on stderr is a JSON object.
pub fn is_json() -> bool {
    FORMAT.get() == Some(&LogFormat::Json)
}

/// Writes a message of a command to stderr: a line of text, or an object as the log has them where the log is JSON. A
/// line that can't be written is dropped, since stderr may be closed, full or not read, and the command's work goes on.
/// What was not written yet when the program ends is lost: see [`flush`].
pub fn notice(message: impl Display) {
    write_line(Level::INFO, &message.to_string());
}

/// The same for the error that ends a command.
pub fn error_notice(message: impl Display) {
    write_line(Level::ERROR, &message.to_string());
}

fn write_line(level: Level, message: &str) {
    let _ = stderr::Line::default().write_all(line(level, message).as_bytes());
}

/// A line of a message, with its end.
fn line(level: Level, message: &str) -> String {
    match is_json() {
        true => {
            let mut timestamp = String::new();
            // Writing to a text can't fail.
            let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
            let level = level.as_str();
            serde_json::json!({"timestamp": timestamp, "level": level, "message": message, "target": "modal_gateway"})
                .to_string()
                + "\n"
        }
        _ if level == Level::ERROR => format!("error: {message}\n"),
        _ => format!("{message}\n"),
    }
}

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

/// What the system tells of the process; `None` where it doesn't.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessStats {
    /// Open file descriptors.
    pub open_files: Option<u64>,
    /// Most file descriptors that may be open.
    pub max_files: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// When the process started, unix seconds.
    pub started_at: Option<u64>,
    /// Processor time, user and system, in whole seconds.
    pub cpu_seconds: Option<u64>,
}

/// Clock ticks per second of the times in `/proc`: `USER_HZ`, which is 100 on every architecture of Linux that we build
/// for.
const USER_HZ: u64 = 100;

/// Reads the process's figures from `/proc`.
pub fn process() -> ProcessStats {
    // The program's name, in brackets, may hold spaces; fields are numbered from 1 in proc(5), and these begin with the
    // 3rd.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let max_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let system = fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = system.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<u64>().ok());
    ProcessStats {
        // One of them reads the folder.
        open_files: fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1)),
        max_files: max_files.and_then(|line| line.split_whitespace().next()?.parse().ok()),
        threads: field(20),
        started_at: booted.zip(field(22)).map(|(booted, ticks)| booted + ticks / USER_HZ),
        cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) / USER_HZ),
    }
}

/// Logs to stderr from now on, in `format`, what `RUST_LOG` or else `default_filter` lets through. Colours only on a
/// terminal that can show them, and never with `NO_COLOR`. What can't be written is dropped; no work waits for it.
/// Panics are counted, and logged in the same way: each once.
///
/// # Errors
/// [`TelemetryError::Filter`] for a malformed `RUST_LOG`, [`TelemetryError::Init`] when called twice.
pub fn init(format: LogFormat, default_filter: &str) -> Result<(), TelemetryError> {
    let directives = match env::var("RUST_LOG") {
        Ok(directives) => Some(directives).filter(|directives| !directives.trim().is_empty()),
        Err(env::VarError::NotPresent) => None,
        Err(env::VarError::NotUnicode(_)) => return Err(TelemetryError::Filter("the value is not UTF-8".into())),
    };
    let directives = directives.as_deref().unwrap_or(default_filter);
    let filter = EnvFilter::try_new(format!("{directives},{NEVER}{}", exported_spans()))
        .map_err(|error| TelemetryError::Filter(format!("{directives:?}: {error}")))?;
    set_format(format);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => {
            let dumb = env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
            let colours = io::IsTerminal::is_terminal(&io::stderr()) && env::var_os("NO_COLOR").is_none() && !dumb;
            let layer = fmt::layer().with_writer(stderr::Line::default).with_ansi(colours);
            install(registry.with(layer.log_internal_errors(false)))
        }
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_writer(stderr::Line::default);
            install(registry.with(layer.log_internal_errors(false)))
        }
    }
    .map_err(TelemetryError::Init)?;
    panic::set_hook(Box::new(on_panic));
    Ok(())
}

/// Has the process log by `subscriber`, and export traces if that was started.
fn install<S>(subscriber: S) -> Result<(), TryInitError>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    // The last of the layers: a filter of one layer below others hides the highest level of the log from the macros.
    #[cfg(feature = "otlp")]
    let subscriber = subscriber.with(otlp::layer());
    subscriber.try_init()
}

/// Directives for the spans that are exported whatever is logged.
fn exported_spans() -> &'static str {
    #[cfg(feature = "otlp")]
    if otlp::exports() {
        return otlp::DIRECTIVE;
    }
    ""
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_described() {
        let ProcessStats { open_files, max_files, threads, started_at, cpu_seconds } = process();
        assert!(open_files.unwrap() >= 3 && open_files <= max_files, "{open_files:?} of {max_files:?}");
        assert!(threads.unwrap() >= 1 && cpu_seconds.is_some());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let age = now.abs_diff(started_at.unwrap());
        assert!(age < 24 * 3600, "{age} s");
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}

//! The time that a server is on the processors, so that servers with threads of this process can be compared with
//! others.

use std::fs;

use crate::measure::Outcome;

/// Whose time it is.
#[derive(Clone)]
pub enum Meter {
    /// All threads of this process.
    Own,
    /// Threads of this process with this name.
    Threads(&'static str),
    /// Processes of one thread each.
    Processes(Vec<u32>),
    /// A process with all threads that it has or had.
    Process(u32),
    /// A process with all that it has started: a server.
    Family(u32),
    /// The processes that this one has started and that have ended.
    Ended,
}

/// Ticks of a second in `/proc/*/stat`, on every Linux.
const TICKS: f64 = 100.0;

impl Meter {
    /// CPU seconds since they started. Of threads that ended, only those of whole processes count.
    pub fn seconds(&self) -> Outcome<f64> {
        let mut nanoseconds = 0;
        match self {
            Self::Process(id) => return Ok(stat(&id.to_string())?.own),
            Self::Ended => return Ok(stat("self")?.ended),
            Self::Family(id) => loop {
                let server = stat(&id.to_string())?;
                let mut seconds = server.own + server.ended;
                for process in fs::read_dir("/proc")? {
                    let process = process?.file_name();
                    let name = process.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
                    let member = name.and_then(|name| stat(name).ok()).filter(|member| member.parent == *id);
                    seconds += member.map_or(0.0, |member| member.own);
                }
                // Else one has ended meanwhile, and counts twice or not at all.
                if stat(&id.to_string())?.ended == server.ended {
                    return Ok(seconds);
                }
            },
            Self::Own | Self::Threads(_) => {
                for task in fs::read_dir("/proc/self/task")? {
                    let task = task?.path();
                    let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
                    if !matches!(self, Self::Threads(wanted) if *wanted != name.trim_end()) {
                        nanoseconds += on_cpu(&task.join("schedstat").display().to_string())?;
                    }
                }
            }
            Self::Processes(ids) => {
                for id in ids {
                    nanoseconds += on_cpu(&format!("/proc/{id}/schedstat"))?;
                }
            }
        }
        Ok(nanoseconds as f64 / 1e9)
    }
}

/// Nanoseconds on the processor.
fn on_cpu(schedstat: &str) -> Outcome<u64> {
    let text = fs::read_to_string(schedstat).map_err(|error| format!("{schedstat}: {error}"))?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// What is in `/proc/*/stat`.
struct Stat {
    parent: u32,
    /// CPU seconds of the process, and of those that it has started and that have ended.
    own: f64,
    ended: f64,
}

fn stat(process: &str) -> Outcome<Stat> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may have spaces; the state is the first field behind it.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let seconds = |at: usize| -> Outcome<f64> {
        Ok(fields
            .get(at..at + 2)
            .ok_or("fields are missing")?
            .iter()
            .map(|ticks| ticks.parse::<f64>())
            .sum::<Result<f64, _>>()?
            / TICKS)
    };
    Ok(Stat { parent: fields.get(1).ok_or("no parent")?.parse()?, own: seconds(11)?, ended: seconds(13)? })
}

/// The server that a Postgres connection leads to, on this machine.
pub async fn server(connection: &mut sqlx::PgConnection) -> Outcome<Meter> {
    let (backend,): (i32,) = sqlx::query_as("SELECT pg_backend_pid()").fetch_one(connection).await?;
    Ok(Meter::Family(stat(&backend.to_string())?.parent))
}

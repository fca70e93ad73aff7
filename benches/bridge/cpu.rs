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
}

impl Meter {
    /// CPU seconds since they started. Threads that ended don't count.
    pub fn seconds(&self) -> Outcome<f64> {
        let mut nanoseconds = 0;
        match self {
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

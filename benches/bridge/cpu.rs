//! The time that a server is on the processors, so that servers with threads of this process can be compared with
//! others.

use std::fs;

use crate::measure::Outcome;

/// Whose time it is.
#[derive(Clone)]
pub enum Meter {
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
            Self::Threads(name) => {
                for task in fs::read_dir("/proc/self/task")? {
                    let task = task?.path();
                    if fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == *name) {
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

/// CPU seconds of this process, those of threads that ended included.
pub fn of_this_process() -> Outcome<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Behind the program's name, which may have blanks: user and system time in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: f64 = fields.map(str::parse::<f64>).sum::<Result<_, _>>()?;
    Ok(ticks / 100.0)
}

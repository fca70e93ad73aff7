//! Progress of a long command on stderr: a bar on a terminal, else, or where the log is JSON, a line now and then;
//! silence for short work.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::telemetry::{self, notice};

/// Work that is done sooner shows no progress.
const QUIET: Duration = Duration::from_secs(1);

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows how far a command is.
pub(super) struct Progress {
    verb: &'static str,
    /// What is counted.
    things: &'static str,
    total: Option<u64>,
    started: Instant,
    /// How many were done then.
    begun_at: u64,
    next_line: Instant,
    terminal: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `total` is the size of the work in whatever unit [`set`](Self::set) counts; `None` if nobody knows.
    pub(super) fn new(verb: &'static str, total: Option<u64>) -> Self {
        let started = Instant::now();
        let terminal = stderr().is_terminal() && !telemetry::is_json();
        Self { verb, things: "blocks", total, started, begun_at: 0, next_line: started + QUIET, terminal, bar: None }
    }

    /// Counts `things` rather than blocks, of which `begun_at` are done already.
    pub(super) fn counting(mut self, things: &'static str, begun_at: u64) -> Self {
        (self.things, self.begun_at) = (things, begun_at);
        self
    }

    /// The work is larger, or smaller, than it seemed.
    pub(super) fn set_total(&mut self, total: u64) {
        self.total = Some(total);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// `done` of the total is done, which are `count` things.
    pub(super) fn set(&mut self, done: u64, count: u64) {
        let now = Instant::now();
        let elapsed = now - self.started;
        if self.terminal && elapsed >= QUIET {
            let rate = self.count_and_rate(count, elapsed);
            let bar = self.bar.get_or_insert_with(|| bar(self.verb, self.total, elapsed));
            bar.set_message(rate);
            bar.set_position(done);
        } else if !self.terminal && now >= self.next_line && self.total != Some(done) {
            notice(format_args!(
                "{}: {}{}",
                self.verb,
                self.count_and_rate(count, elapsed),
                self.share_and_rest(done, elapsed)
            ));
            self.next_line = now + LINE_INTERVAL;
        }
    }

    fn count_and_rate(&self, count: u64, elapsed: Duration) -> String {
        let rate = count.saturating_sub(self.begun_at) as f64 / elapsed.as_secs_f64().max(0.001);
        format!("{count} {}, {rate:.0}/s", self.things)
    }

    /// How much is done, and how long the rest will take at the rate so far.
    fn share_and_rest(&self, done: u64, elapsed: Duration) -> String {
        let Some(total) = self.total.filter(|total| *total > 0) else { return String::new() };
        let percent = done.min(total) as f64 / total as f64 * 100.0;
        let share = done.saturating_sub(self.begun_at) as f64 / total.saturating_sub(done).max(1) as f64;
        match Duration::try_from_secs_f64(elapsed.as_secs_f64() / share) {
            Ok(rest) => format!(", {percent:.0} %, {:#} left", HumanDuration(rest)),
            // Nothing is done yet.
            Err(_) => format!(", {percent:.0} %"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(verb: &'static str, total: Option<u64>, elapsed: Duration) -> ProgressBar {
    let template = match total {
        Some(_) => "{prefix} {wide_bar} {percent} %, {msg}, {eta} left",
        None => "{prefix} {spinner} {msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_elapsed(elapsed);
    bar.set_style(style);
    bar.set_prefix(verb);
    bar
}

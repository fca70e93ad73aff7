//! Progress of a long command on stderr: a bar on a terminal, else a line now and then; silence for short work.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that is done sooner shows no progress.
const QUIET: Duration = Duration::from_secs(1);

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows how far a command is.
pub(super) struct Progress {
    verb: &'static str,
    total: Option<u64>,
    started: Instant,
    next_line: Instant,
    terminal: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `total` is the size of the work in whatever unit [`set`](Self::set) counts; `None` if nobody knows.
    pub(super) fn new(verb: &'static str, total: Option<u64>) -> Self {
        let started = Instant::now();
        let terminal = stderr().is_terminal();
        Self { verb, total, started, next_line: started + LINE_INTERVAL, terminal, bar: None }
    }

    /// `done` of the total is done, which are `blocks` blocks.
    pub(super) fn set(&mut self, done: u64, blocks: u64) {
        let now = Instant::now();
        let elapsed = now - self.started;
        if self.terminal && elapsed >= QUIET {
            let bar = self.bar.get_or_insert_with(|| bar(self.verb, self.total, elapsed));
            bar.set_message(blocks_and_rate(blocks, elapsed));
            bar.set_position(done);
        } else if !self.terminal && now >= self.next_line {
            let percent =
                self.total.filter(|total| *total > 0).map(|total| done.min(total) as f64 / total as f64 * 100.0);
            let percent = percent.map(|percent| format!(", {percent:.0} %")).unwrap_or_default();
            eprintln!("{}: {}{percent}", self.verb, blocks_and_rate(blocks, elapsed));
            self.next_line = now + LINE_INTERVAL;
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

fn blocks_and_rate(blocks: u64, elapsed: Duration) -> String {
    format!("{blocks} blocks, {:.0}/s", blocks as f64 / elapsed.as_secs_f64().max(0.001))
}

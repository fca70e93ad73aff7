//! Lines on their way to stderr. A thread of its own writes them: where nobody reads a pipe, a write never returns, and
//! the work that has something to say must go on.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Lines that may wait. A line that finds so many before it is dropped.
const MAX_LINES: usize = 4096;
/// Longest time that [`flush`] waits for a reader who takes nothing, and for one who is slow.
const FLUSH_PAUSE: Duration = Duration::from_secs(1);
const FLUSH_TIME: Duration = Duration::from_secs(10);

/// What waits to be written.
struct Queue {
    lines: VecDeque<Vec<u8>>,
    /// Whether a line is being written.
    is_writing: bool,
    /// Lines that were written.
    written: u64,
    /// Lines that were dropped since the last one was written.
    dropped: u64,
}

impl Queue {
    fn is_busy(&self) -> bool {
        self.is_writing || !self.lines.is_empty()
    }
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { lines: VecDeque::new(), is_writing: false, written: 0, dropped: 0 });
static CHANGED: Condvar = Condvar::new();
/// Whether there is a thread that writes.
static WRITER: OnceLock<bool> = OnceLock::new();

/// A writer of one line: what is written to it is on its way to stderr once it is dropped. It never fails, and waits
/// only where no thread can be had.
#[derive(Default)]
pub(super) struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let spawn = || thread::Builder::new().name("stderr".into()).spawn(write_lines).is_ok();
        if !*WRITER.get_or_init(spawn) {
            // It may be the error that no thread can be had: better to wait for a reader than to lose it.
            let _ = io::stderr().write_all(&self.0);
            return;
        }
        let mut queue = lock();
        if queue.lines.len() < MAX_LINES {
            queue.lines.push_back(std::mem::take(&mut self.0));
            CHANGED.notify_all();
        } else {
            queue.dropped += 1;
        }
    }
}

/// Waits until all lines so far are written, for as long as somebody reads them and for at most ten seconds: the end of
/// the program must not wait for a reader.
pub fn flush() {
    let (mut queue, end) = (lock(), Instant::now() + FLUSH_TIME);
    while queue.is_busy() && Instant::now() < end {
        let written = queue.written;
        let is_stuck = |queue: &mut Queue| queue.is_busy() && queue.written == written;
        let waited = CHANGED.wait_timeout_while(queue, FLUSH_PAUSE, is_stuck).unwrap_or_else(PoisonError::into_inner);
        if waited.1.timed_out() {
            return;
        }
        queue = waited.0;
    }
}

fn write_lines() {
    let mut queue = lock();
    loop {
        let Some(line) = queue.lines.pop_front() else {
            queue = CHANGED.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        queue.is_writing = true;
        drop(queue);
        // What stderr does not take, since it is full or closed, is dropped.
        let _ = io::stderr().write_all(&line);
        queue = lock();
        queue.is_writing = false;
        queue.written += 1;
        let dropped = std::mem::take(&mut queue.dropped);
        if dropped > 0 {
            // Not through the log, whose lines would wait in the queue that is locked here.
            let text = format!("{dropped} lines of the log were dropped: nobody read stderr");
            queue.lines.push_back(super::line(tracing::Level::WARN, &text).into_bytes());
        }
        CHANGED.notify_all();
    }
}

fn lock() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

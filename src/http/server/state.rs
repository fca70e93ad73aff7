//! What a connection waits for, and since when.
//!
//! The connection's task, its stream and its bodies report to a [`ConnectionState`], which says what has timed out. No
//! timer is set or reset while a request is served.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::http::counters::CloseReason;

/// Limits of a listener's connections. The defaults are those of the program's settings.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Connections at once. Beyond them, the one that has waited longest for a request is closed.
    pub connections: usize,
    /// Connections of one client; 0 is no limit. Trusted proxies and unlimited clients may have any number.
    pub client_connections: usize,
    /// Longest wait for a request's head, handshakes included; for the body's next bytes too.
    pub header_timeout: Duration,
    /// Longest wait for the next request.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of its answer. On average it must take 4 KiB/s besides.
    pub stall_timeout: Duration,
    /// How long requests in flight may take to finish once the listener stops.
    pub drain: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            client_connections: 128,
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}

/// What a client must send or take on average where it may pause, in bytes per second.
const MIN_RATE: f64 = 4096.0;

/// How long a client may take to close its side once we have closed ours and nothing is in flight.
const GRACE: Duration = Duration::from_secs(1);

/// The timeout of something that comes in chunks: it may pause for `most` in all, and earns that back by moving at
/// [`MIN_RATE`].
#[derive(Debug, Clone, Copy)]
pub(super) struct StallTimer {
    most: Duration,
    left: Duration,
    since: Option<Instant>,
}

impl StallTimer {
    pub(super) fn new(most: Duration) -> Self {
        Self { most, left: most, since: None }
    }

    /// Starts to wait, unless it waits already; returns the deadline.
    pub(super) fn wait(&mut self, now: Instant) -> Instant {
        *self.since.get_or_insert(now) + self.left
    }

    /// Stops to wait: `bytes` have moved.
    pub(super) fn moved(&mut self, now: Instant, bytes: usize) {
        if let Some(since) = self.since.take() {
            let earned = Duration::from_secs_f64(bytes as f64 / MIN_RATE);
            self.left = (self.left.saturating_sub(now.saturating_duration_since(since)) + earned).min(self.most);
        }
    }

    /// The deadline, while it waits.
    fn deadline(&self) -> Option<Instant> {
        Some(self.since? + self.left)
    }
}

/// How a connection is shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Shutdown {
    /// Requests in flight finish.
    Graceful = 1,
    /// At once, for another connection.
    Evict = 2,
}

/// The state of one connection.
pub(super) struct ConnectionState {
    limits: ConnectionLimits,
    state: Mutex<State>,
    shutdown: AtomicU8,
    shutdown_requested: Notify,
}

struct State {
    /// Since when the rest of a request's head is awaited, or the first head.
    head: Option<Instant>,
    /// When the last request ended, or its answer last moved.
    idle: Instant,
    /// Requests in flight, until the last chunk of their answer is handed over.
    requests: usize,
    h2: bool,
    /// Since when the connection is shutting down.
    closing: Option<Instant>,
    /// Writes to the stream.
    writes: StallTimer,
    /// Answers in flight, by number, and how many chunks of each the client has not taken.
    answers: Vec<(u64, StallTimer, usize)>,
    number: u64,
}

impl ConnectionState {
    pub(super) fn new(limits: &ConnectionLimits) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            head: Some(now),
            idle: now,
            requests: 0,
            h2: false,
            closing: None,
            writes: StallTimer::new(limits.stall_timeout),
            answers: Vec::new(),
            number: 0,
        };
        let (shutdown, shutdown_requested) = (AtomicU8::new(0), Notify::new());
        Arc::new(Self { limits: limits.clone(), state: Mutex::new(state), shutdown, shutdown_requested })
    }

    /// Records that bytes were read from the stream.
    pub(super) fn read(&self) {
        let mut state = self.lock();
        // HTTP/2 has more than requests between requests.
        if state.requests == 0 && state.head.is_none() && !state.h2 {
            state.head = Some(Instant::now());
        }
    }

    /// Records that the client does not take what it is sent.
    pub(super) fn write_blocked(&self) {
        self.lock().writes.wait(Instant::now());
    }

    /// Records that `bytes` were written to the stream.
    pub(super) fn wrote(&self, bytes: usize) {
        let (mut state, now) = (self.lock(), Instant::now());
        state.writes.moved(now, bytes);
        // Over HTTP/2 these may be answers to pings.
        if !state.h2 {
            state.idle = now;
        }
    }

    /// Records that a request has come.
    pub(super) fn begin(self: &Arc<Self>, h2: bool) -> InFlight {
        let mut state = self.lock();
        (state.head, state.h2) = (None, h2);
        state.requests += 1;
        state.number += 1;
        InFlight { connection: self.clone(), number: state.number }
    }

    /// What has timed out by `now`, or else when to ask again: no wait that begins later can time out before that.
    pub(super) fn expired(&self, now: Instant) -> Result<CloseReason, Instant> {
        let ConnectionLimits { header_timeout, idle_timeout, stall_timeout, .. } = &self.limits;
        let state = self.lock();
        let timers = state.answers.iter().map(|(_, timer, _)| timer).chain([&state.writes]);
        let stalled = timers.filter_map(StallTimer::deadline).min();
        let waiting = (state.requests == 0).then(|| match (state.closing, state.head) {
            (Some(start), _) => (start.max(state.idle) + GRACE, CloseReason::Shutdown),
            (None, Some(start)) => (start + *header_timeout, CloseReason::HeaderTimeout),
            (None, None) => (state.idle + *idle_timeout, CloseReason::Idle),
        });
        let shortest = now + *header_timeout.min(idle_timeout).min(stall_timeout);
        let mut next = if state.closing.is_some() { shortest.min(now + GRACE) } else { shortest };
        for (deadline, reason) in stalled.map(|deadline| (deadline, CloseReason::Stalled)).into_iter().chain(waiting) {
            if deadline <= now {
                return Ok(reason);
            }
            next = next.min(deadline);
        }
        Err(next)
    }

    /// Records that the connection shuts down once nothing is in flight.
    pub(super) fn close(&self) {
        self.lock().closing.get_or_insert_with(Instant::now);
    }

    /// Since when there has been no request; `None` while one is in flight.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.requests == 0).then(|| state.head.unwrap_or(state.idle))
    }

    /// Asks the connection's task to shut the connection down.
    pub(super) fn shut_down(&self, how: Shutdown) {
        self.close();
        self.shutdown.fetch_max(how as u8, Ordering::Relaxed);
        self.shutdown_requested.notify_one();
    }

    /// Waits for [`shut_down`](Self::shut_down).
    pub(super) async fn shutdown(&self) -> Shutdown {
        self.shutdown_requested.notified().await;
        match self.shutdown.load(Ordering::Relaxed) == Shutdown::Evict as u8 {
            true => Shutdown::Evict,
            false => Shutdown::Graceful,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in flight, until it is dropped.
pub(super) struct InFlight {
    connection: Arc<ConnectionState>,
    number: u64,
}

impl InFlight {
    /// Records that a chunk of the answer is for the client to take.
    pub(super) fn offer(&self) {
        let mut state = self.connection.lock();
        let at = state.answers.iter().position(|(own, ..)| *own == self.number).unwrap_or_else(|| {
            state.answers.push((self.number, StallTimer::new(self.connection.limits.stall_timeout), 0));
            state.answers.len() - 1
        });
        let (_, timer, offered) = &mut state.answers[at];
        *offered += 1;
        timer.wait(Instant::now());
    }

    /// Records that the client has taken one of the chunks, of `bytes`.
    pub(super) fn taken(&self, bytes: usize) {
        let (mut state, now) = (self.connection.lock(), Instant::now());
        if let Some((_, timer, offered)) = state.answers.iter_mut().find(|(own, ..)| *own == self.number) {
            timer.moved(now, bytes);
            *offered = offered.saturating_sub(1);
            if *offered > 0 {
                timer.wait(now);
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.connection.lock();
        state.requests -= 1;
        state.idle = Instant::now();
        state.answers.retain(|(own, ..)| *own != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            header_timeout: 5 * SECOND,
            idle_timeout: 60 * SECOND,
            stall_timeout: 10 * SECOND,
            ..ConnectionLimits::default()
        }
    }

    #[test]
    fn a_stall_timer_lasts_as_long_as_enough_moves() {
        let start = Instant::now();
        let drip = |bytes: usize| {
            let mut timer = StallTimer::new(10 * SECOND);
            (0..100u32).find(|second| {
                let now = start + *second * SECOND;
                timer.moved(now, bytes);
                timer.wait(now);
                timer.deadline().is_some_and(|deadline| deadline < now + SECOND)
            })
        };
        assert_eq!(drip(1), Some(10), "a byte a second");
        assert_eq!(drip(8192), None, "8 KiB/s");
    }

    #[test]
    fn each_wait_has_a_deadline() {
        let connection = ConnectionState::new(&limits());
        let in_seconds = |seconds: u32| Instant::now() + seconds * SECOND;
        let expired = |at: Instant| connection.expired(at).ok();
        assert_eq!(expired(in_seconds(4)), None);
        assert_eq!(expired(in_seconds(6)), Some(CloseReason::HeaderTimeout), "nothing came");
        let request = connection.begin(false);
        assert_eq!((expired(in_seconds(1000)), connection.waiting_since()), (None, None), "the client waits for us");
        request.offer();
        assert_eq!(expired(in_seconds(9)), None);
        assert_eq!(expired(in_seconds(11)), Some(CloseReason::Stalled), "the answer is not taken");
        request.taken(10);
        assert_eq!(expired(in_seconds(1000)), None, "the client waits for us");
        request.offer();
        request.offer();
        request.taken(10);
        assert_eq!(expired(in_seconds(11)), Some(CloseReason::Stalled), "another chunk is not taken");
        request.taken(10);
        drop(request);
        assert_eq!(expired(in_seconds(59)), None);
        assert_eq!(expired(in_seconds(61)), Some(CloseReason::Idle));
        connection.read();
        assert_eq!(expired(in_seconds(6)), Some(CloseReason::HeaderTimeout), "half a head");
        connection.write_blocked();
        assert_eq!(expired(in_seconds(11)), Some(CloseReason::Stalled), "the client does not read");
    }

    #[test]
    fn pings_are_not_requests() {
        let connection = ConnectionState::new(&limits());
        let expired = |at: Instant| connection.expired(at).ok();
        drop(connection.begin(true));
        connection.read();
        connection.wrote(8);
        assert_eq!(expired(Instant::now() + 59 * SECOND), None);
        assert_eq!(expired(Instant::now() + 61 * SECOND), Some(CloseReason::Idle));
    }
}

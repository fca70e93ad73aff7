//! What a connection waits for, and since when.
//!
//! The connection's task, its wire and its bodies tell a [`Pulse`] what happens; whoever asks it learns whether one of them
//! has waited too long. Nothing is armed or woken for that on the way of a request.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::http::counters::Ending;

/// What a listener grants its clients.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once. Beyond them, the one that has waited longest for a request makes room.
    pub connections: usize,
    /// Connections of one client; 0 is no limit. Loopback and trusted proxies may have any number.
    pub client_connections: usize,
    /// Longest wait for a request's head, handshakes included; for the body's next bytes too.
    pub header_timeout: Duration,
    /// Longest wait for the next request.
    pub idle_timeout: Duration,
    /// How long a client may not take anything of its answer. It must take 4 KiB/s on average besides.
    pub stall_timeout: Duration,
    /// How long requests in progress may take to finish once the listener stops.
    pub drain: Duration,
}

impl Default for Limits {
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

/// How long a client may take to close once it was told that we do, and nothing is in progress.
const GRACE: Duration = Duration::from_secs(1);

/// How patiently something is waited for that comes in pieces: it may pause for `most` in all, and earns that back by
/// moving at [`MIN_RATE`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    most: Duration,
    left: Duration,
    since: Option<Instant>,
}

impl Pace {
    pub(super) fn new(most: Duration) -> Self {
        Self { most, left: most, since: None }
    }

    /// From now on it is waited for; returns until when.
    pub(super) fn wait(&mut self, now: Instant) -> Instant {
        *self.since.get_or_insert(now) + self.left
    }

    /// So many bytes have come.
    pub(super) fn moved(&mut self, now: Instant, bytes: usize) {
        if let Some(since) = self.since.take() {
            let earned = Duration::from_secs_f64(bytes as f64 / MIN_RATE);
            self.left = (self.left.saturating_sub(now.saturating_duration_since(since)) + earned).min(self.most);
        }
    }

    /// When it has paused for too long.
    fn until(&self) -> Option<Instant> {
        Some(self.since? + self.left)
    }
}

/// What a connection's task is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Order {
    /// Finish what is in progress.
    Finish = 1,
    /// Make room, now.
    Close = 2,
}

/// Of one connection.
pub(super) struct Pulse {
    limits: Limits,
    state: Mutex<State>,
    order: AtomicU8,
    ordered: Notify,
}

struct State {
    /// Since when a request's head is awaited of which something has come, or the first one.
    head: Option<Instant>,
    /// When the last request ended, or its answer last moved.
    idle: Instant,
    /// Requests in progress, until the last of their answer is handed over.
    requests: usize,
    h2: bool,
    /// Since when the connection is to end.
    finishing: Option<Instant>,
    wire: Pace,
    /// Answers in progress, by number, and how often each is waited for.
    answers: Vec<(u64, Pace, usize)>,
    number: u64,
}

impl Pulse {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let now = Instant::now();
        let wire = Pace::new(limits.stall_timeout);
        let state = State {
            head: Some(now),
            idle: now,
            requests: 0,
            h2: false,
            finishing: None,
            wire,
            answers: Vec::new(),
            number: 0,
        };
        let (order, ordered) = (AtomicU8::new(0), Notify::new());
        Arc::new(Self { limits: limits.clone(), state: Mutex::new(state), order, ordered })
    }

    /// Something came in.
    pub(super) fn read(&self) {
        let mut state = self.lock();
        // Over HTTP/2 more than requests comes in between requests.
        if state.requests == 0 && state.head.is_none() && !state.h2 {
            state.head = Some(Instant::now());
        }
    }

    /// The client does not take what it is sent.
    pub(super) fn write_waits(&self) {
        self.lock().wire.wait(Instant::now());
    }

    /// The client's side has taken so many bytes.
    pub(super) fn wrote(&self, bytes: usize) {
        let (mut state, now) = (self.lock(), Instant::now());
        state.wire.moved(now, bytes);
        // Over HTTP/2 these may be answers to its pings.
        if !state.h2 {
            state.idle = now;
        }
    }

    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>, h2: bool) -> Turn {
        let mut state = self.lock();
        (state.head, state.h2) = (None, h2);
        state.requests += 1;
        state.number += 1;
        Turn { pulse: self.clone(), number: state.number }
    }

    /// What has taken too long by now, or when to ask again. Whatever is waited for from now on has at least until then.
    pub(super) fn expired(&self, now: Instant) -> Result<Ending, Instant> {
        let Limits { header_timeout, idle_timeout, stall_timeout, .. } = &self.limits;
        let state = self.lock();
        let stalled = state.answers.iter().map(|(_, pace, _)| pace).chain([&state.wire]).filter_map(Pace::until).min();
        let mut deadlines = [(stalled, Ending::Stalled), (None, Ending::Idle)];
        if state.requests == 0 {
            deadlines[1] = match (state.finishing, state.head) {
                (Some(start), _) => (Some(start.max(state.idle) + GRACE), Ending::Shutdown),
                (None, Some(start)) => (Some(start + *header_timeout), Ending::HeaderTimeout),
                (None, None) => (Some(state.idle + *idle_timeout), Ending::Idle),
            };
        }
        let shortest = now + *header_timeout.min(idle_timeout).min(stall_timeout);
        let mut next = if state.finishing.is_some() { shortest.min(now + GRACE) } else { shortest };
        for (deadline, ending) in deadlines {
            match deadline {
                Some(deadline) if deadline <= now => return Ok(ending),
                Some(deadline) => next = next.min(deadline),
                None => {}
            }
        }
        Err(next)
    }

    /// The connection is to end: what is in progress may finish.
    pub(super) fn finish(&self) {
        self.lock().finishing.get_or_insert_with(Instant::now);
    }

    /// Since when there has been no request; `None` while one is in progress.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.requests == 0).then(|| state.head.unwrap_or(state.idle))
    }

    /// Tells the connection's task.
    pub(super) fn tell(&self, order: Order) {
        self.finish();
        self.order.fetch_max(order as u8, Ordering::Relaxed);
        self.ordered.notify_one();
    }

    /// Waits for an order.
    pub(super) async fn told(&self) -> Order {
        self.ordered.notified().await;
        if self.order.load(Ordering::Relaxed) == Order::Close as u8 { Order::Close } else { Order::Finish }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request in progress, until this is dropped.
pub(super) struct Turn {
    pulse: Arc<Pulse>,
    number: u64,
}

impl Turn {
    /// The client is to take a piece of the answer.
    pub(super) fn offer(&self) {
        let mut state = self.pulse.lock();
        let at = state.answers.iter().position(|(own, ..)| *own == self.number).unwrap_or_else(|| {
            state.answers.push((self.number, Pace::new(self.pulse.limits.stall_timeout), 0));
            state.answers.len() - 1
        });
        let (_, pace, waits) = &mut state.answers[at];
        *waits += 1;
        pace.wait(Instant::now());
    }

    /// It has taken one of those on offer, of so many bytes.
    pub(super) fn taken(&self, bytes: usize) {
        let (mut state, now) = (self.pulse.lock(), Instant::now());
        if let Some((_, pace, waits)) = state.answers.iter_mut().find(|(own, ..)| *own == self.number) {
            pace.moved(now, bytes);
            *waits = waits.saturating_sub(1);
            if *waits > 0 {
                pace.wait(now);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.pulse.lock();
        state.requests -= 1;
        state.idle = Instant::now();
        state.answers.retain(|(own, ..)| *own != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits {
            header_timeout: 5 * SECOND,
            idle_timeout: 60 * SECOND,
            stall_timeout: 10 * SECOND,
            ..Limits::default()
        }
    }

    #[test]
    fn a_pace_lasts_as_long_as_enough_moves() {
        let start = Instant::now();
        let drip = |bytes: usize| {
            let mut pace = Pace::new(10 * SECOND);
            (0..100u32).find(|second| {
                let now = start + *second * SECOND;
                pace.moved(now, bytes);
                pace.wait(now);
                pace.until().is_some_and(|until| until < now + SECOND)
            })
        };
        assert_eq!(drip(1), Some(10), "a byte a second");
        assert_eq!(drip(8192), None, "8 KiB/s");
    }

    #[test]
    fn each_wait_has_its_deadline() {
        let pulse = Pulse::new(&limits());
        let in_seconds = |seconds: u32| Instant::now() + seconds * SECOND;
        let expired = |at: Instant| pulse.expired(at).ok();
        assert_eq!(expired(in_seconds(4)), None);
        assert_eq!(expired(in_seconds(6)), Some(Ending::HeaderTimeout), "nothing came");
        let turn = pulse.begin(false);
        assert_eq!((expired(in_seconds(1000)), pulse.waiting_since()), (None, None), "we are at it");
        turn.offer();
        assert_eq!(expired(in_seconds(9)), None);
        assert_eq!(expired(in_seconds(11)), Some(Ending::Stalled), "nobody takes the answer");
        turn.taken(10);
        assert_eq!(expired(in_seconds(1000)), None, "the answer waits for us");
        turn.offer();
        turn.offer();
        turn.taken(10);
        assert_eq!(expired(in_seconds(11)), Some(Ending::Stalled), "one more is on offer");
        turn.taken(10);
        drop(turn);
        assert_eq!(expired(in_seconds(59)), None);
        assert_eq!(expired(in_seconds(61)), Some(Ending::Idle));
        pulse.read();
        assert_eq!(expired(in_seconds(6)), Some(Ending::HeaderTimeout), "half a head");
        pulse.write_waits();
        assert_eq!(expired(in_seconds(11)), Some(Ending::Stalled), "nobody reads");
    }

    #[test]
    fn pings_are_no_requests() {
        let pulse = Pulse::new(&limits());
        let expired = |at: Instant| pulse.expired(at).ok();
        drop(pulse.begin(true));
        pulse.read();
        pulse.wrote(8);
        assert_eq!(expired(Instant::now() + 59 * SECOND), None);
        assert_eq!(expired(Instant::now() + 61 * SECOND), Some(Ending::Idle));
    }
}

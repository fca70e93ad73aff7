//! Counters of listeners and answers, for `/metrics`.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use axum::{extract::MatchedPath, http::StatusCode};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{family::Family, histogram::Histogram},
};

use crate::{chain::words, source::ResetReason, telemetry::Durations};

/// Why a connection was closed or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseReason {
    /// Either side closed it in good order.
    Closed,
    /// It broke, or the client sent no HTTP.
    Failed,
    /// The TLS handshake failed.
    TlsFailed,
    /// A request's head did not arrive in time.
    HeaderTimeout,
    /// There was no request for too long.
    Idle,
    /// The client did not take its answer.
    Stalled,
    /// Closed for another connection while it waited for a request.
    Evicted,
    /// There were too many connections, and none that could be evicted.
    Full,
    /// The client had too many connections.
    ClientCap,
    /// No connection could be accepted.
    AcceptFailed,
    /// The gateway stopped.
    Shutdown,
    /// A fault of ours.
    Panicked,
}

words!(CloseReason {
    Closed = "closed",
    Failed = "failed",
    TlsFailed = "tls_failed",
    HeaderTimeout = "header_timeout",
    Idle = "idle",
    Stalled = "stalled",
    Evicted = "evicted",
    Full = "full",
    ClientCap = "client_cap",
    AcceptFailed = "accept_failed",
    Shutdown = "shutdown",
    Panicked = "panicked",
});

/// Counters of one listener's connections.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    open: AtomicUsize,
    most: AtomicUsize,
    requests: AtomicU64,
    closed: [AtomicU64; CloseReason::ALL.len()],
}

impl ConnectionCounters {
    pub(super) fn count(&self, reason: CloseReason) {
        self.closed[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_open(&self, open: usize) {
        self.open.store(open, Ordering::Relaxed);
    }

    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Most connections at once.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Requests received.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Connections closed or refused for `reason`.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize].load(Ordering::Relaxed)
    }
}

/// A counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The route of a request, by its pattern; `other` without one. A clone takes no memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Route(pub Option<MatchedPath>);

impl Route {
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("other", MatchedPath::as_str)
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Route {}

impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

/// What a duration is counted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Answered {
    /// The route.
    pub route: Route,
    /// `store`, `peer`, or `none` where neither was asked.
    pub source: &'static str,
    /// Class of the status, such as `2xx`.
    pub class: &'static str,
}

/// Durations of answers.
#[derive(Debug)]
pub(super) struct AnswerDurations(pub(super) Family<Answered, Histogram, fn() -> Histogram>);

impl Default for AnswerDurations {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Durations::default().0))
    }
}

/// Counters of both listeners.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections of the public listener.
    pub public: Arc<ConnectionCounters>,
    /// Connections of the admin listener.
    pub admin: Arc<ConnectionCounters>,
    /// Requests refused with 503 because a limit for all clients was reached.
    pub shed: Counter,
    /// Requests refused with 429.
    pub rate_limited: Counter,
    /// Requests that timed out.
    pub timed_out: Counter,
    /// Handlers that panicked.
    pub panics: Counter,
    /// Seconds until an answer of the public listener began.
    pub(super) durations: AnswerDurations,
    /// Events `reset` sent, by reason.
    resets: [Counter; ResetReason::ALL.len()],
    /// Answers by the first digit of their status.
    classes: [Counter; CLASSES.len()],
}

/// Classes of status, by the first digit.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl Counters {
    /// Counts an answer of the public listener that began after `seconds`.
    pub(super) fn answered(&self, route: Route, source: &'static str, status: StatusCode, seconds: f64) {
        let class = usize::from(status.as_u16() / 100).wrapping_sub(1);
        if let (Some(counter), Some(class)) = (self.classes.get(class), CLASSES.get(class)) {
            counter.add();
            self.durations.0.get_or_create(&Answered { route, source, class }).observe(seconds);
        }
    }

    /// Counts a `reset` that is sent to a follower.
    pub(super) fn count_reset(&self, reason: ResetReason) {
        self.resets[reason as usize].add();
    }

    /// Events `reset` sent for each reason.
    pub fn resets(&self) -> [(&'static str, u64); ResetReason::ALL.len()] {
        ResetReason::ALL.map(|reason| (reason.as_str(), self.resets[reason as usize].get()))
    }

    /// Answers of each class: `2xx` and so on.
    pub fn classes(&self) -> [(&'static str, u64); CLASSES.len()] {
        std::array::from_fn(|class| (CLASSES[class], self.classes[class].get()))
    }
}

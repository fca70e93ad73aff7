//! Counters of listeners and answers, for `/metrics`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use axum::http::StatusCode;

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

impl CloseReason {
    /// All reasons, in order, and their labels in metrics.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::Closed, "closed"),
        (Self::Failed, "failed"),
        (Self::TlsFailed, "tls_failed"),
        (Self::HeaderTimeout, "header_timeout"),
        (Self::Idle, "idle"),
        (Self::Stalled, "stalled"),
        (Self::Evicted, "evicted"),
        (Self::Full, "full"),
        (Self::ClientCap, "client_cap"),
        (Self::AcceptFailed, "accept_failed"),
        (Self::Shutdown, "shutdown"),
        (Self::Panicked, "panicked"),
    ];
}

/// Counters of one listener's connections.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    open: AtomicUsize,
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
    /// Answers by the first digit of their status.
    classes: [Counter; 5],
}

impl Counters {
    pub(super) fn answered(&self, status: StatusCode) {
        if let Some(counter) = self.classes.get(usize::from(status.as_u16() / 100).wrapping_sub(1)) {
            counter.add();
        }
    }

    /// Answers of each class: `2xx` and so on.
    pub fn classes(&self) -> [(&'static str, u64); 5] {
        let names = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        std::array::from_fn(|class| (names[class], self.classes[class].get()))
    }
}

//! What the doors count, for `/metrics`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use axum::http::StatusCode;

/// How a connection ended, or why there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// Either end closed it in good order.
    Closed,
    /// It broke, or the client sent no HTTP.
    Failed,
    /// The TLS handshake failed.
    TlsFailed,
    /// A request's head did not arrive in time.
    HeaderTimeout,
    /// There was no request for too long.
    Idle,
    /// The client did not take what it had asked for.
    Stalled,
    /// It waited for a request, and made room for another connection.
    Evicted,
    /// There were too many connections, and none that could make room.
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

impl Ending {
    /// All of them, in order.
    pub const ALL: [Self; 12] = [
        Self::Closed,
        Self::Failed,
        Self::TlsFailed,
        Self::HeaderTimeout,
        Self::Idle,
        Self::Stalled,
        Self::Evicted,
        Self::Full,
        Self::ClientCap,
        Self::AcceptFailed,
        Self::Shutdown,
        Self::Panicked,
    ];

    /// As metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::TlsFailed => "tls_failed",
            Self::HeaderTimeout => "header_timeout",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
            Self::Evicted => "evicted",
            Self::Full => "full",
            Self::ClientCap => "client_cap",
            Self::AcceptFailed => "accept_failed",
            Self::Shutdown => "shutdown",
            Self::Panicked => "panicked",
        }
    }
}

/// Connections of one listener.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    requests: AtomicU64,
    endings: [AtomicU64; Ending::ALL.len()],
}

impl Connections {
    pub(super) fn count(&self, ending: Ending) {
        self.endings[ending as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_open(&self, open: usize) {
        self.open.store(open, Ordering::Relaxed);
    }

    /// Open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Requests that came.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// How many ended so.
    pub fn ended(&self, ending: Ending) -> u64 {
        self.endings[ending as usize].load(Ordering::Relaxed)
    }
}

/// A figure that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The figure.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Both doors.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections of the public door.
    pub public: Arc<Connections>,
    /// Connections of the admin door.
    pub admin: Arc<Connections>,
    /// Requests answered 503 at once, for too many were in progress.
    pub shed: Counter,
    /// Requests answered 429.
    pub rate_limited: Counter,
    /// Requests whose answer took too long.
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

//! What all handlers share: the settings of the public listener, the source of answers, limits and counters.

use std::{
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use axum::http::HeaderValue;
use tokio_util::sync::CancellationToken;

use super::{
    cors::Cors,
    counters::Counters,
    limits::{
        LimitExceeded, RequestLimits,
        client::{AddressRules, Client},
        rate::RateLimit,
    },
    representations::Representations,
};
use crate::{chain::Network, limits::Rate, p2p::PeerInfo, protocol::Failure, source::Source};

/// Settings of the public listener. The defaults are those of the program's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Trusted proxies and unlimited clients.
    pub addresses: AddressRules,
    /// Units per second that a client may ask for; 0 is no limit.
    pub rate_limit: u32,
    /// Units that a client may ask for at once.
    pub rate_burst: u32,
    /// Requests in flight at once.
    pub max_requests: usize,
    /// Event streams open at once.
    pub max_streams: usize,
    /// Longest time until an answer begins, the request's body included.
    pub request_timeout: Duration,
    /// Origins whose pages may read answers; `*` is any.
    pub cors_origins: Vec<HeaderValue>,
    /// Whether the listener speaks TLS.
    pub tls: bool,
    /// Whether each answered request is logged at level info, instead of debug.
    pub access_log: bool,
    /// The network that the chain belongs to.
    pub network: Arc<Network>,
    /// Bytes of representations kept in memory: compressed answers, and those in other formats than JSON.
    pub representation_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            addresses: AddressRules::default(),
            rate_limit: 100,
            rate_burst: 1000,
            max_requests: 256,
            max_streams: 2048,
            request_timeout: Duration::from_secs(60),
            cors_origins: vec![HeaderValue::from_static("*")],
            tls: false,
            access_log: false,
            network: Arc::default(),
            representation_bytes: 8 << 20,
        }
    }
}

/// State that every handler has.
pub struct Gateway {
    pub(super) source: Arc<Source>,
    pub(super) settings: Settings,
    pub(super) started: Instant,
    pub(super) rate: Option<RateLimit>,
    pub(super) limits: RequestLimits,
    pub(super) representations: Representations,
    pub(super) cors: Cors,
    pub(super) counters: Arc<Counters>,
    unnamed_reported: Once,
    /// Ends event streams.
    pub(super) closing: CancellationToken,
}

impl Gateway {
    /// A gateway that answers from `source`, started now. Event streams end with `closing`.
    pub fn new(source: Arc<Source>, settings: Settings, closing: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            source,
            started: Instant::now(),
            rate: RateLimit::new(Rate { per_second: settings.rate_limit, burst: settings.rate_burst }),
            limits: RequestLimits::new(settings.max_requests, settings.max_streams),
            representations: Representations::new(settings.representation_bytes),
            cors: Cors::new(&settings.cors_origins),
            counters: Arc::default(),
            settings,
            unnamed_reported: Once::new(),
            closing,
        })
    }

    /// The peers of this gateway, configured ones first.
    pub(super) fn peers(&self) -> Vec<PeerInfo> {
        self.source.p2p().map(|p2p| p2p.peers()).unwrap_or_default()
    }

    /// The failure for a limit that a request would exceed, counted.
    pub(super) fn refuse(&self, exceeded: LimitExceeded) -> Failure {
        match exceeded {
            LimitExceeded::Total(..) => self.counters.shed.add(),
            LimitExceeded::Client(..) => self.counters.rate_limited.add(),
        }
        exceeded.into()
    }

    /// Says once in the log that a limit was reached by a trusted proxy that names no client: then all its clients
    /// share the limits of one.
    pub(super) fn report_unnamed(&self, proxy: Client) {
        self.unnamed_reported.call_once(|| {
            tracing::warn!(
                client = %proxy.key,
                "a limit was reached by requests whose `forwarded` or `x-forwarded-for` is missing, can't be read, or \
                 differs from the other: if a reverse proxy sends them, have it set one of these; if not, \
                 `unlimited_client` exempts the client"
            );
        });
    }

    /// Clients with a bucket of the rate limit.
    pub(super) fn rate_clients(&self) -> usize {
        self.rate.as_ref().map_or(0, RateLimit::clients)
    }

    /// Counters of both listeners.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

//! A listener and its connections: deadlines for all that a connection waits for, and limits on how many there are.
//!
//! * `admission`: connection limits, and which connection is evicted
//! * `connection`: one connection, from its handshake to its end
//! * `state`: what a connection waits for, and since when
//! * `body`: request bodies with a timeout, response bodies that clients must take
//! * `tls`: the certificate, read again when it changes

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{admission::Admission, connection::Server, state::ConnectionState};
use super::{
    counters::{CloseReason, ConnectionCounters},
    limits::client::AddressRules,
};

mod admission;
mod body;
mod connection;
mod state;
mod tls;

pub use body::BodyTimeout;
pub use connection::{Remote, Routes};
pub use state::ConnectionLimits;
pub use tls::{Tls, TlsError};

/// Open files that are kept for everything but the listener's connections: store, libp2p, logs.
const RESERVED_FILES: u64 = 512;

/// Pause after an accept that failed for want of open files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often such failures are logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Raises the soft limit of open files to the hard one; returns how many connections it allows.
pub fn raise_file_limit() -> usize {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files can't be raised");
        2 * RESERVED_FILES
    });
    usize::try_from(files.saturating_sub(RESERVED_FILES)).unwrap_or(usize::MAX).max(16)
}

/// What a listener serves, and under which limits.
pub struct Endpoint<S = Router> {
    /// The routes that answer.
    pub routes: S,
    /// The limits of connections.
    pub limits: ConnectionLimits,
    /// Trusted proxies and unlimited clients, which may have any number of connections.
    pub addresses: AddressRules,
    /// The certificate, where the listener speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// Counters of connections.
    pub counters: Arc<ConnectionCounters>,
}

/// Serves HTTP/1.1 and HTTP/2 on `listener` until `shutdown`; then finishes the requests in flight.
///
/// Errors of single connections and of accepting them are counted, and end nothing else.
pub async fn serve<S: Routes>(listener: TcpListener, endpoint: Endpoint<S>, shutdown: CancellationToken) {
    let Endpoint { routes, limits, addresses, tls, counters } = endpoint;
    let _reload =
        tls.clone().map(|tls| AbortOnDropHandle::new(tokio::spawn(async move { tls.reload_on_change().await })));
    let admission = Admission::new(&limits, addresses, counters.clone());
    let server = Arc::new(Server::new(routes, limits.header_timeout, tls, counters.clone()));
    let (mut tasks, mut logged) = (JoinSet::new(), None::<Instant>);
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = tasks.join_next() => {
                count_end(&counters, ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                if let Some(permit) = admission.admit(remote.ip(), ConnectionState::new(&limits)) {
                    tasks.spawn(server.clone().run(stream, remote, permit));
                }
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                if logged.is_none_or(|logged| logged.elapsed() > LOG_EVERY) {
                    logged = Some(Instant::now());
                    tracing::warn!(%error, "can't accept connections");
                }
                counters.count(CloseReason::AcceptFailed);
                admission.evict();
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    admission.shut_down();
    let drained = timeout(limits.drain, async {
        while let Some(ended) = tasks.join_next().await {
            count_end(&counters, ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(connections = tasks.len(), "requests still in flight were cut off");
        tasks.shutdown().await;
    }
}

fn count_end(counters: &ConnectionCounters, ended: Result<CloseReason, JoinError>) {
    counters.count(ended.unwrap_or_else(|_| {
        tracing::error!("a connection's task panicked");
        CloseReason::Panicked
    }));
}

/// Whether an error of accept is about the connection that was to be accepted, not about accepting.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

//! The accept loop of a listener, and what it takes to hold out against clients that mean ill or don't care: deadlines for
//! whatever a connection may wait for, and bounds on how many there are.
//!
//! * `admission`: how many connections there may be, and which one makes room
//! * `body`: bodies that are late, or that nobody takes
//! * `connection`: one connection from its handshake to its end
//! * `state`: what a connection waits for, and since when
//! * `tls`: the certificate, read again when it changes

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{admission::Admission, connection::Server, state::Order};
use super::{
    counters::{Connections, Ending},
    limits::client::Proxies,
};

mod admission;
mod body;
mod connection;
mod state;
mod tls;

pub use body::Late;
pub use connection::Remote;
pub use state::Limits;
pub use tls::{Tls, TlsError};

/// Open files that are kept for everything but the listener's connections: store, libp2p, logs.
const RESERVED_FILES: u64 = 512;

/// Pause after an accept that failed for want of open files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often such failures are logged.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Raises the soft limit of open files to the hard one; returns how many connections it leaves room for.
pub fn raise_file_limit() -> usize {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files can't be raised");
        2 * RESERVED_FILES
    });
    usize::try_from(files.saturating_sub(RESERVED_FILES)).unwrap_or(usize::MAX).max(16)
}

/// Who serves at a listener, and how.
pub struct Door {
    /// What answers.
    pub router: Router,
    /// What clients are granted.
    pub limits: Limits,
    /// Whose word about a client's address is taken: they may have any number of connections.
    pub proxies: Proxies,
    /// The certificate, where the listener speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// Where connections are counted.
    pub counters: Arc<Connections>,
}

/// Serves HTTP/1.1 and HTTP/2 on `listener` until `shutdown`; then finishes the requests in progress.
///
/// Errors of single connections and of accepting them are counted, and end nothing else.
pub async fn serve(listener: TcpListener, door: Door, shutdown: CancellationToken) {
    let Door { router, limits, proxies, tls, counters } = door;
    let _follow = tls.clone().map(|tls| AbortOnDropHandle::new(tokio::spawn(async move { tls.follow().await })));
    let admission = Admission::new(&limits, proxies, counters.clone());
    let server = Arc::new(Server::new(router, &limits, tls, counters.clone()));
    let (mut tasks, mut told) = (JoinSet::new(), None::<Instant>);
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = tasks.join_next() => {
                note_end(&counters, ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => begin(&server, &admission, stream, remote, &mut tasks),
            Err(error) if concerns_one(&error) => {}
            Err(error) => {
                if told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
                    told = Some(Instant::now());
                    tracing::warn!(%error, "can't accept connections");
                }
                counters.count(Ending::AcceptFailed);
                admission.make_room();
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    admission.tell_all(Order::Finish);
    let drained = timeout(limits.drain, async {
        while let Some(ended) = tasks.join_next().await {
            note_end(&counters, ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(connections = tasks.len(), "requests still in progress were cut off");
        tasks.shutdown().await;
    }
}

fn begin(
    server: &Arc<Server>,
    admission: &Arc<Admission>,
    stream: TcpStream,
    remote: SocketAddr,
    tasks: &mut JoinSet<Ending>,
) {
    let Some(ticket) = admission.admit(remote.ip(), server.pulse()) else { return };
    let server = server.clone();
    tasks.spawn(async move { server.run(stream, remote, ticket).await });
}

fn note_end(counters: &Connections, ended: Result<Ending, JoinError>) {
    counters.count(match ended {
        Ok(ending) => ending,
        Err(_) => {
            tracing::error!("a connection's task panicked");
            Ending::Panicked
        }
    });
}

/// Whether an error of accept is about the connection that was to be accepted, not about accepting.
fn concerns_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

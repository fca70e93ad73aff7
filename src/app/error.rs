//! Why a node or gateway did not start, or stopped.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    chain::PowError,
    http::server::TlsError,
    p2p::{IdentityError, P2pError},
    store::StoreError,
    sync::MiningError,
};

/// How long a part may take to stop: requests in progress to finish, a transaction to end.
pub(super) const DRAIN: Duration = Duration::from_secs(10);

/// Why a node or gateway did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store can't be opened or written.
    #[error("store")]
    Store(#[from] StoreError),
    /// The identity file can't be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The swarm did not start.
    #[error(transparent)]
    P2p(#[from] P2pError),
    /// Proof of work can't be computed with these settings.
    #[error(transparent)]
    Pow(#[from] PowError),
    /// Mining has stopped by itself.
    #[error("mining")]
    Mining(#[from] MiningError),
    /// An address of ours is taken, or not ours.
    #[error("can't listen on {address} for {what}")]
    Bind {
        /// Which listener.
        what: &'static str,
        /// Its address as configured.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The admin listener would be open to others.
    #[error("admin: {0} is no loopback address: set admin_token or admin_token_file")]
    AdminNotLoopback(SocketAddr),
    /// The admin listener's token can't be used.
    #[error("admin_token_file: {} {problem}", path.display())]
    AdminToken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it. Never what it holds.
        problem: String,
    },
    /// The public listener's certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A part that must run has ended.
    #[error("the {0} task ended unexpectedly")]
    Ended(&'static str),
    /// The bundled chain can't be put into a store.
    #[error("the bundled chain: {0}")]
    Bundled(String),
}

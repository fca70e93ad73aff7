//! The composition root: what starts, in which order; what stops, in reverse.
//!
//! A node is a store, a source and a swarm; a gateway is a node with an HTTP door. Each is started by a function that
//! returns once every address is bound, so that tests run on port 0 and know where.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use libp2p::{Multiaddr, identity::Keypair};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    http,
    p2p::{self, IdentityError, P2pClient, P2pConfig, P2pError},
    source::{Settings, Source},
    store::{self, BlockStore, OpenOptions, StoreError},
};

mod demo;

pub use demo::{BUNDLED_CHAIN, demo};

/// How long requests in progress may take to finish after a shutdown began.
const DRAIN: Duration = Duration::from_secs(10);

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
    #[error("admin: {0} is no loopback address; this listener has no access control")]
    AdminNotLoopback(SocketAddr),
    /// A listener failed while it ran.
    #[error("the {0} listener failed")]
    Listener(&'static str, #[source] io::Error),
    /// A part that must run has ended.
    #[error("the {0} task ended unexpectedly")]
    Ended(&'static str),
    /// The bundled chain can't be put into a store.
    #[error("the bundled chain: {0}")]
    Bundled(String),
}

/// A node: it answers the protocol from its own store.
pub struct Node {
    /// Answers queries.
    pub source: Arc<Source>,
    /// The swarm's client.
    pub p2p: P2pClient,
    store: Arc<dyn BlockStore>,
    swarm: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Node {
    /// Opens the store and starts the swarm.
    ///
    /// # Errors
    /// [`AppError::Store`], [`AppError::Identity`] or [`AppError::P2p`].
    pub async fn start(config: &Config) -> Result<Self, AppError> {
        let options = OpenOptions { connections: config.store_connections, ..OpenOptions::default() };
        let store = store::open(config.database_url.as_str(), &options).await?;
        let keypair = p2p::load_or_create(&config.identity)?;
        Self::start_with(config, store, keypair).await
    }

    /// Starts the swarm over a store that is open.
    ///
    /// # Errors
    /// [`AppError::P2p`].
    pub async fn start_with(config: &Config, store: Arc<dyn BlockStore>, keypair: Keypair) -> Result<Self, AppError> {
        let settings = Settings {
            finality_depth: config.finality_depth,
            peer_timeout: config.peer_timeout,
            cache_bytes: config.cache_mib << 20,
        };
        let source = Arc::new(Source::new(store.clone(), keypair.public().to_peer_id(), settings));
        let config = P2pConfig { listen: config.listen.clone(), peers: config.peer.clone(), ..P2pConfig::new(keypair) };
        let shutdown = CancellationToken::new();
        let (p2p, swarm) = p2p::start(config, source.clone(), shutdown.clone()).await?;
        source.join(p2p.clone());
        Ok(Self { source, p2p, store, swarm, shutdown })
    }

    /// The addresses that others reach us at, each with our peer id.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.p2p.dial_addresses()
    }

    /// Runs until `shutdown`, then stops.
    ///
    /// # Errors
    /// [`AppError::Ended`] if the swarm ends before that.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), AppError> {
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = &mut self.swarm => return Err(AppError::Ended("libp2p")),
        }
        self.stop().await;
        Ok(())
    }

    /// Stops the swarm and closes the store.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let _ = self.swarm.await;
        self.store.close().await;
    }
}

/// A gateway: a node with an HTTP door.
pub struct Gateway {
    /// The node behind the door.
    pub node: Node,
    /// Where the public door is.
    pub http: SocketAddr,
    /// Where the admin door is.
    pub admin: SocketAddr,
    doors: [(&'static str, JoinHandle<io::Result<()>>); 2],
    closing: CancellationToken,
}

impl Gateway {
    /// Binds the HTTP listeners, then starts a node.
    ///
    /// # Errors
    /// [`AppError::Bind`], [`AppError::AdminNotLoopback`], and those of [`Node::start`].
    pub async fn start(config: &Config) -> Result<Self, AppError> {
        let listeners = bind(config).await?;
        Ok(Self::open(Node::start(config).await?, listeners))
    }

    /// Puts the doors before a node that runs.
    fn open(node: Node, listeners: Listeners) -> Self {
        let gateway = http::Gateway::new(node.source.clone());
        let closing = CancellationToken::new();
        let serve = |listener, router| tokio::spawn(http::serve(listener, router, closing.clone()));
        let doors = [
            ("HTTP", serve(listeners.http.0, http::router(gateway.clone()))),
            ("admin", serve(listeners.admin.0, http::admin::router(gateway))),
        ];
        Self { node, http: listeners.http.1, admin: listeners.admin.1, doors, closing }
    }

    /// Runs until `shutdown`, then stops: no new requests, those in progress finish, then the node.
    ///
    /// # Errors
    /// [`AppError::Ended`] or [`AppError::Listener`] if a part ends before that.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), AppError> {
        let [(http, http_task), (admin, admin_task)] = &mut self.doors;
        let (name, ended) = tokio::select! {
            () = shutdown.cancelled() => {
                self.stop().await;
                return Ok(());
            }
            _ = &mut self.node.swarm => return Err(AppError::Ended("libp2p")),
            ended = http_task => (*http, ended),
            ended = admin_task => (*admin, ended),
        };
        match ended {
            Ok(Err(error)) => Err(AppError::Listener(name, error)),
            _ => Err(AppError::Ended(name)),
        }
    }

    /// Stops in reverse order.
    pub async fn stop(self) {
        self.closing.cancel();
        for (name, door) in self.doors {
            let aborter = door.abort_handle();
            if tokio::time::timeout(DRAIN, door).await.is_err() {
                tracing::warn!(door = name, "requests still in progress were cut off");
                aborter.abort();
            }
        }
        self.node.stop().await;
    }
}

struct Listeners {
    http: (TcpListener, SocketAddr),
    admin: (TcpListener, SocketAddr),
}

async fn bind(config: &Config) -> Result<Listeners, AppError> {
    if !config.admin.ip().is_loopback() {
        return Err(AppError::AdminNotLoopback(config.admin));
    }
    let bind = async |what, address| {
        let failed = |source| AppError::Bind { what, address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        Ok::<_, AppError>((listener, bound))
    };
    Ok(Listeners { http: bind("HTTP", config.http).await?, admin: bind("admin", config.admin).await? })
}

/// The `serve` command: a gateway until `shutdown`.
///
/// # Errors
/// Whatever keeps it from starting or ends it early.
pub async fn serve(config: Config, shutdown: CancellationToken) -> Result<(), AppError> {
    let gateway = Gateway::start(&config).await?;
    eprintln!("http http://{}", gateway.http);
    eprintln!("admin http://{}", gateway.admin);
    announce(&gateway.node);
    gateway.run(shutdown).await
}

/// The `node` command: a node without HTTP until `shutdown`.
///
/// # Errors
/// Whatever keeps it from starting or ends it early.
pub async fn node(config: Config, shutdown: CancellationToken) -> Result<(), AppError> {
    let node = Node::start(&config).await?;
    announce(&node);
    node.run(shutdown).await
}

/// Prints the addresses really bound, one a line.
fn announce(node: &Node) {
    for address in node.addresses() {
        eprintln!("libp2p {address}");
    }
    eprintln!("peer-id {}", node.p2p.local_peer_id());
}

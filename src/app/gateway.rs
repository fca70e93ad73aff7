//! A gateway: the HTTP listeners before a node.

use std::{net::SocketAddr, sync::Arc};

use axum::http::HeaderValue;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    error::{AppError, DRAIN},
    node::Node,
};
use crate::{
    config::{Config, Secret},
    http::{
        self, Access, AddressRules,
        server::{ConnectionLimits, Endpoint, Tls, raise_file_limit},
    },
};

/// Connections of the admin listener, in all.
const ADMIN_CONNECTIONS: usize = 64;

/// A gateway: a node with HTTP listeners.
pub struct Gateway {
    /// The node.
    pub node: Node,
    /// The address of the public listener.
    pub http: SocketAddr,
    /// The address of the admin listener.
    pub admin: SocketAddr,
    listeners: [(&'static str, JoinHandle<()>); 2],
    closing: CancellationToken,
    tls: bool,
}

impl Gateway {
    /// Binds the HTTP listeners, then starts a node.
    ///
    /// # Errors
    /// [`AppError::Bind`], [`AppError::AdminNotLoopback`], [`AppError::AdminToken`], [`AppError::Tls`], and those of
    /// [`Node::start`].
    pub async fn start(config: &Config) -> Result<Self, AppError> {
        let listeners = bind(config).await?;
        // The ports really bound are those that no peer may have the node dial.
        let config = Config { http: listeners.http.1, admin: listeners.admin.1, ..config.clone() };
        Ok(Self::open(Node::start(&config).await?, listeners, &config))
    }

    /// Starts the listeners of a node that runs.
    pub(super) fn open(mut node: Node, listeners: Listeners, config: &Config) -> Self {
        node.watch();
        let closing = CancellationToken::new();
        let addresses =
            AddressRules { proxies: config.trusted_proxy.clone(), unlimited: config.unlimited_client.clone() };
        let settings = settings(config, addresses.clone());
        let gateway = http::Gateway::new(node.source.clone(), settings, closing.clone());
        let (limits, tls) = (limits(config), listeners.tls.is_some());
        let admin_limits = ConnectionLimits { connections: ADMIN_CONNECTIONS, client_connections: 0, ..limits.clone() };
        let access = Access::new(listeners.admin_token.as_ref().map(Secret::expose), listeners.admin.1);
        let public = Endpoint {
            routes: http::public_routes(gateway.clone()),
            limits,
            addresses: addresses.clone(),
            tls: listeners.tls,
            counters: gateway.counters().public.clone(),
        };
        let admin = Endpoint {
            counters: gateway.counters().admin.clone(),
            routes: http::admin_routes(gateway, access),
            limits: admin_limits,
            addresses,
            tls: None,
        };
        let public = tokio::spawn(http::serve(listeners.http.0, public, closing.clone()));
        let admin = tokio::spawn(http::serve(listeners.admin.0, admin, closing.clone()));
        let tasks = [("HTTP", public), ("admin", admin)];
        Self { node, http: listeners.http.1, admin: listeners.admin.1, listeners: tasks, closing, tls }
    }

    /// The base URL of the public listener.
    pub fn base(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.http)
    }

    /// Runs until `shutdown`, then stops: no new requests, those in progress finish, then the node. The same when a
    /// part ends before that: what is left is stopped in order, so that a supervisor can start the process anew.
    ///
    /// # Errors
    /// What the part ended with; [`AppError::Ended`] where it says nothing.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), AppError> {
        let [(http, http_task), (admin, admin_task)] = &mut self.listeners;
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            error = self.node.ended() => Err(error),
            _ = http_task => Err(AppError::Ended(http)),
            _ = admin_task => Err(AppError::Ended(admin)),
        };
        self.stop().await;
        ended
    }

    /// Stops in reverse order.
    pub async fn stop(self) {
        self.closing.cancel();
        // Each cuts off what has not finished in time.
        for (name, listener) in self.listeners {
            // One that has ended by itself is the reason why we stop, and was looked at then.
            if !listener.is_finished() && listener.await.is_err() {
                tracing::error!(listener = name, "the listener's task panicked");
            }
        }
        self.node.stop().await;
    }
}

/// What is bound and read before a node starts, so that what is wrong with it is reported at once.
pub(super) struct Listeners {
    http: (TcpListener, SocketAddr),
    admin: (TcpListener, SocketAddr),
    tls: Option<Arc<Tls>>,
    admin_token: Option<Secret>,
}

pub(super) async fn bind(config: &Config) -> Result<Listeners, AppError> {
    let admin_token = admin_token(config)?;
    if !config.admin.ip().is_loopback() && admin_token.is_none() {
        return Err(AppError::AdminNotLoopback(config.admin));
    }
    let tls = match (&config.tls_cert, &config.tls_key) {
        (Some(certificate), Some(key)) => Some(Arc::new(Tls::load(certificate.clone(), key.clone())?)),
        _ => None,
    };
    let bind = async |what, address| {
        let failed = |source| AppError::Bind { what, address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        Ok::<_, AppError>((listener, bound))
    };
    let (http, admin) = (bind("HTTP", config.http).await?, bind("admin", config.admin).await?);
    Ok(Listeners { http, admin, tls, admin_token })
}

fn admin_token(config: &Config) -> Result<Option<Secret>, AppError> {
    let Some(path) = &config.admin_token_file else { return Ok(config.admin_token.clone()) };
    let failed = |problem| AppError::AdminToken { path: path.clone(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| failed(format!("can't be read: {error}")))?;
    // An editor's byte order mark is no part of the token.
    text.trim_start_matches('\u{feff}')
        .parse()
        .map(Some)
        .map_err(|expected| failed(format!("holds no token: {expected}")))
}

fn settings(config: &Config, addresses: AddressRules) -> http::Settings {
    http::Settings {
        addresses,
        rate_limit: config.rate_limit,
        rate_burst: config.rate_burst,
        max_requests: config.max_requests,
        max_streams: config.max_streams,
        request_timeout: config.request_timeout,
        // Origins that are no header's value are refused with the other settings.
        cors_origins: config.cors_origin.iter().filter_map(|origin| HeaderValue::try_from(origin).ok()).collect(),
        tls: config.tls_cert.is_some(),
        access_log: config.access_log,
        network: Arc::new(config.network.clone()),
        representation_bytes: (config.cache_mib << 20) / 4,
    }
}

fn limits(config: &Config) -> ConnectionLimits {
    let allowed = raise_file_limit();
    if allowed < config.max_connections {
        tracing::warn!(connections = allowed, "fewer than max_connections: the system allows too few open files");
    }
    ConnectionLimits {
        connections: config.max_connections.min(allowed),
        client_connections: config.client_connections,
        header_timeout: config.header_timeout,
        idle_timeout: config.idle_timeout,
        drain: DRAIN,
        ..ConnectionLimits::default()
    }
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;
    use tokio::net::TcpStream;

    use super::*;
    use crate::store::{self, OpenOptions};

    #[tokio::test]
    async fn a_dead_swarm_stops_the_whole_gateway_in_order() {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        let config = Config { http: anywhere, admin: anywhere, listen, sync: false, ..Config::default() };
        let store = store::open("sqlite::memory:", &OpenOptions::default()).await.unwrap();
        let node = Node::start_with(&config, store.clone(), Keypair::generate_ed25519()).await.unwrap();
        let gateway = Gateway::open(node, bind(&config).await.unwrap(), &config);
        let (listeners, p2p) = ([gateway.http, gateway.admin], gateway.node.p2p.clone());
        for listener in listeners {
            TcpStream::connect(listener).await.unwrap();
        }
        gateway.node.cut_off("libp2p");
        let error = gateway.run(CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "the libp2p task ended unexpectedly");
        for listener in listeners {
            TcpStream::connect(listener).await.unwrap_err();
        }
        assert_eq!(p2p.wait_connected("anybody", super::DRAIN).await, Err(crate::p2p::P2pError::Stopped));
        store.state().await.expect_err("the store is closed");
    }
}

//! A gateway: the HTTP listeners before a node.

use std::{io, net::SocketAddr};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{AppError, DRAIN, Node};
use crate::{config::Config, http};

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
    pub(super) fn open(node: Node, listeners: Listeners) -> Self {
        let closing = CancellationToken::new();
        let gateway = http::Gateway::new(node.source.clone(), closing.clone());
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
            error = self.node.ended() => return Err(error),
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

pub(super) struct Listeners {
    http: (TcpListener, SocketAddr),
    admin: (TcpListener, SocketAddr),
}

pub(super) async fn bind(config: &Config) -> Result<Listeners, AppError> {
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

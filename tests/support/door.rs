//! The HTTP doors alone: both listeners over a store that a test writes to, without the node that would write there too.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use libp2p::PeerId;
use modal_gateway::{
    http::{
        self, Access, AddressRules, Gateway, Settings,
        counters::Counters,
        server::{ConnectionLimits, Tls},
    },
    source::{self, LocalSource, Source},
    store::{self, BlockStore, OpenOptions},
};
use reqwest::{Client, Method, RequestBuilder, Response};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::gateway::{PATIENCE, TestStore};

/// What the doors grant, and want.
pub struct Terms {
    pub settings: Settings,
    pub limits: ConnectionLimits,
    pub tls: Option<Arc<Tls>>,
    pub token: Option<&'static str>,
}

impl Default for Terms {
    fn default() -> Self {
        Self { settings: unlimited(), limits: ConnectionLimits::default(), tls: None, token: None }
    }
}

/// This machine as a trusted proxy, so that a test can ask as any client.
pub fn proxy_here() -> AddressRules {
    AddressRules { proxies: vec!["127.0.0.0/8".parse().unwrap()], ..AddressRules::default() }
}

/// Settings under which this machine has no limits of one client.
pub fn unlimited() -> Settings {
    let addresses = AddressRules { unlimited: vec!["127.0.0.0/8".parse().unwrap()], ..AddressRules::default() };
    Settings { addresses, ..Settings::default() }
}

/// Public and admin door.
pub struct Door {
    /// What the doors answer from, for the test to write to.
    pub store: Arc<dyn BlockStore>,
    pub place: TestStore,
    /// Ends the doors.
    pub closing: CancellationToken,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub counters: Arc<Counters>,
    /// What the public door serves.
    pub router: axum::Router,
    tasks: Vec<JoinHandle<()>>,
    client: Client,
    _closing: DropGuard,
}

impl Door {
    /// Doors before `place`, reached at `url`. `sync`: whether the store counts as kept level with the network.
    pub async fn open(place: TestStore, url: &str, sync: bool) -> Self {
        Self::with(place, url, sync, Terms::default()).await
    }

    /// The same, on other terms.
    pub async fn with(place: TestStore, url: &str, sync: bool, terms: Terms) -> Self {
        let options = OpenOptions { acquire_timeout: Duration::from_secs(1), ..OpenOptions::default() };
        let store = store::open(url, &options).await.unwrap();
        let settings =
            source::Settings { finality_depth: 40, peer_timeout: Duration::from_secs(2), cache_bytes: 0, sync };
        let source =
            Arc::new(Source::local_only(Arc::new(LocalSource::new(store.clone(), PeerId::random(), settings))));
        let closing = CancellationToken::new();
        let Terms { settings, limits, tls, token } = terms;
        let addresses = settings.addresses.clone();
        let gateway = Gateway::new(source, settings, closing.clone());
        let counters = gateway.counters().clone();
        let listeners =
            [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let [public, admin] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let router = http::router(gateway.clone());
        let doors = [
            http::server::Endpoint {
                router: router.clone(),
                limits: limits.clone(),
                addresses: addresses.clone(),
                tls,
                counters: counters.public.clone(),
            },
            http::server::Endpoint {
                router: http::admin_router(gateway, Access::new(token, admin)),
                limits,
                addresses,
                tls: None,
                counters: counters.admin.clone(),
            },
        ];
        let mut tasks = Vec::new();
        for (listener, door) in listeners.into_iter().zip(doors) {
            tasks.push(tokio::spawn(http::serve(listener, door, closing.clone())));
        }
        let client = Client::builder().no_proxy().build().unwrap();
        let _closing = closing.clone().drop_guard();
        Self { store, place, public, admin, counters, router, tasks, client, _closing, closing }
    }

    /// Stops the doors; returns once they have.
    pub async fn close(self) {
        self.closing.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }

    /// A request at the public door.
    pub fn public(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.public))
    }

    /// A request at the admin door.
    pub fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.admin))
    }
}

/// Sends a request and waits for the answer's head.
pub async fn send(request: RequestBuilder) -> Response {
    tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer in time").unwrap()
}

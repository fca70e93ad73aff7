//! Both HTTP listeners alone, over a store that a test writes to, without the node that would write there too.

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

/// Options of the listeners.
pub struct ListenerOptions {
    pub settings: Settings,
    pub limits: ConnectionLimits,
    pub tls: Option<Arc<Tls>>,
    pub token: Option<&'static str>,
}

impl Default for ListenerOptions {
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

/// A public and an admin listener.
pub struct Listeners {
    /// The store that answers come from, for the test to write to.
    pub store: Arc<dyn BlockStore>,
    pub test_store: TestStore,
    /// Stops the listeners.
    pub closing: CancellationToken,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub counters: Arc<Counters>,
    /// The router of the public listener.
    pub routes: http::PublicRoutes,
    tasks: Vec<JoinHandle<()>>,
    client: Client,
    _closing: DropGuard,
}

impl Listeners {
    /// Listeners over `test_store`, reached at `url`. `sync`: whether the store counts as kept level with the network.
    pub async fn open(test_store: TestStore, url: &str, sync: bool) -> Self {
        Self::with(test_store, url, sync, ListenerOptions::default()).await
    }

    /// The same, with other options.
    pub async fn with(test_store: TestStore, url: &str, sync: bool, options: ListenerOptions) -> Self {
        let store_options = OpenOptions { acquire_timeout: Duration::from_secs(1), ..OpenOptions::default() };
        let store = store::open(url, &store_options).await.unwrap();
        let settings = source::Settings {
            finality_depth: 40,
            peer_timeout: Duration::from_secs(2),
            cache_bytes: 0,
            sync,
            network: Arc::default(),
        };
        let source =
            Arc::new(Source::local_only(Arc::new(LocalSource::new(store.clone(), PeerId::random(), settings))));
        let closing = CancellationToken::new();
        let ListenerOptions { settings, limits, tls, token } = options;
        let addresses = settings.addresses.clone();
        let gateway = Gateway::new(source, settings, closing.clone());
        let counters = gateway.counters().clone();
        let listeners =
            [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let [public, admin] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let routes = http::public_routes(gateway.clone());
        let public_endpoint = http::server::Endpoint {
            routes: routes.clone(),
            limits: limits.clone(),
            addresses: addresses.clone(),
            tls,
            counters: counters.public.clone(),
        };
        let admin_endpoint = http::server::Endpoint {
            routes: http::admin_routes(gateway, Access::new(token, admin)),
            limits,
            addresses,
            tls: None,
            counters: counters.admin.clone(),
        };
        let [public_listener, admin_listener] = listeners;
        let tasks = vec![
            tokio::spawn(http::serve(public_listener, public_endpoint, closing.clone())),
            tokio::spawn(http::serve(admin_listener, admin_endpoint, closing.clone())),
        ];
        let client = Client::builder().no_proxy().build().unwrap();
        let _closing = closing.clone().drop_guard();
        Self { store, test_store, public, admin, counters, routes, tasks, client, _closing, closing }
    }

    /// Stops the listeners; returns once they have stopped.
    pub async fn close(self) {
        self.closing.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }

    /// The base URL of the public listener.
    pub fn url(&self) -> String {
        format!("http://{}", self.public)
    }

    /// A request to the public listener.
    pub fn public(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.public))
    }

    /// A request to the admin listener.
    pub fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.admin))
    }
}

/// Sends a request and waits for the answer's head.
pub async fn send(request: RequestBuilder) -> Response {
    tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer in time").unwrap()
}

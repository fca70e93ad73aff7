//! The HTTP doors alone: both listeners over a store that a test writes to, without the node that would write there too.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use libp2p::PeerId;
use modal_gateway::{
    http::{self, Gateway},
    source::{Settings, Source},
    store::{self, BlockStore, OpenOptions},
};
use reqwest::{Client, Method, RequestBuilder, Response};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::gateway::{PATIENCE, TestStore};

/// Public and admin door.
pub struct Door {
    /// What the doors answer from, for the test to write to.
    pub store: Arc<dyn BlockStore>,
    pub place: TestStore,
    /// Ends the doors.
    pub closing: CancellationToken,
    public: SocketAddr,
    admin: SocketAddr,
    client: Client,
    _closing: DropGuard,
}

impl Door {
    /// Doors before `place`, reached at `url`. `sync`: whether the store counts as kept level with the network.
    pub async fn open(place: TestStore, url: &str, sync: bool) -> Self {
        let options = OpenOptions { wait: Duration::from_secs(1), ..OpenOptions::default() };
        let store = store::open(url, &options).await.unwrap();
        let settings = Settings { finality_depth: 40, peer_timeout: Duration::from_secs(2), cache_bytes: 0, sync };
        let source = Arc::new(Source::new(store.clone(), PeerId::random(), settings));
        let closing = CancellationToken::new();
        let gateway = Gateway::new(source, closing.clone());
        let serve = async |router| {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(http::serve(listener, router, closing.clone()));
            address
        };
        let (public, admin) = (serve(http::router(gateway.clone())).await, serve(http::admin::router(gateway)).await);
        let client = Client::builder().no_proxy().build().unwrap();
        Self { store, place, public, admin, client, _closing: closing.clone().drop_guard(), closing }
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

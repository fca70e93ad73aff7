//! The defences of the HTTP listeners against hostile clients, over real sockets.

mod support;

#[path = "http_limits/admin.rs"]
mod admin;
#[path = "http_limits/browser.rs"]
mod browser;
#[path = "http_limits/deadlines.rs"]
mod deadlines;
#[path = "http_limits/in_flight.rs"]
mod in_flight;
#[path = "http_limits/lengths.rs"]
mod lengths;
#[path = "http_limits/rate.rs"]
mod rate;
#[path = "http_limits/raw_client.rs"]
mod raw_client;
#[path = "http_limits/shutdown.rs"]
mod shutdown;
#[path = "http_limits/standards.rs"]
mod standards;
#[path = "http_limits/tls.rs"]
mod tls;

use modal_gateway::chain::Level;
use support::{
    gateway::{Backend, TestStore, chain, synthetic},
    listeners::{ListenerOptions, Listeners},
};

/// Listeners of a gateway with the bundled chain.
async fn open(options: ListenerOptions) -> Listeners {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(chain(), Level::Linked).await;
    listen(store, options).await
}

/// Listeners of a gateway with a chain that is too long for the buffers between the gateway and a client.
async fn open_long(options: ListenerOptions) -> Listeners {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(30_000), Level::None).await;
    listen(store, options).await
}

async fn listen(store: TestStore, options: ListenerOptions) -> Listeners {
    let url = store.url.clone();
    Listeners::with(store, &url, false, options).await
}

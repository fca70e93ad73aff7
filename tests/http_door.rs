//! The defences of the HTTP listeners against hostile clients, over real sockets.

mod support;

#[path = "http_door/admin.rs"]
mod admin;
#[path = "http_door/browser.rs"]
mod browser;
#[path = "http_door/deadlines.rs"]
mod deadlines;
#[path = "http_door/lengths.rs"]
mod lengths;
#[path = "http_door/limits.rs"]
mod limits;
#[path = "http_door/rate.rs"]
mod rate;
#[path = "http_door/shutdown.rs"]
mod shutdown;
#[path = "http_door/standards.rs"]
mod standards;
#[path = "http_door/tls.rs"]
mod tls;
#[path = "http_door/wire.rs"]
mod wire;

use modal_gateway::chain::Level;
use support::{
    door::{Door, Terms},
    gateway::{Backend, TestStore, chain, synthetic},
};

/// Doors before the bundled chain.
async fn open(terms: Terms) -> Door {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(chain(), Level::Linked).await;
    before(store, terms).await
}

/// Doors before a chain that is too long for the buffers between the gateway and a client.
async fn open_long(terms: Terms) -> Door {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(30_000), Level::None).await;
    before(store, terms).await
}

async fn before(store: TestStore, terms: Terms) -> Door {
    let url = store.url.clone();
    Door::with(store, &url, false, terms).await
}

//! The explorer over HTTP, without scripts: every page on real stores.

mod support;

#[path = "explorer/beside.rs"]
mod beside;
#[path = "explorer/colours.rs"]
mod colours;
#[path = "explorer/failures.rs"]
mod failures;
#[path = "explorer/hostile.rs"]
mod hostile;
#[path = "explorer/markup.rs"]
mod markup;
#[path = "explorer/pages.rs"]
mod pages;
#[path = "explorer/peers.rs"]
mod peers;
#[path = "explorer/requests.rs"]
mod requests;
#[path = "explorer/search.rs"]
mod search;
#[path = "explorer/world.rs"]
mod world;

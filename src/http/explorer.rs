//! The explorer: pages for people, made on the server, complete without scripts.
//!
//! A page is read (`read`), described as texts and links (one file a page), and written by a typed template of
//! `templates/explorer/`, which escapes every text. All links are relative, so pages work under any path. What is
//! final, verified or orphaned is shown in words ([`Mark`](parts::Mark)).
//!
//! * `visit`: a request for a page
//! * `read`: what pages read from the source
//! * `frame`: what is around every page: source, tip, age, navigation
//! * `page`: a page becomes a response; failures as pages
//! * `parts`, `figures`, `peers`, `chart`: parts of pages
//! * `text`: numbers, times, ages, texts of blocks
//! * `assets`: stylesheet, script, icon
//! * `home`, `blocks`, `block`, `epochs`, `epoch`, `nominees`, `network`, `forks`, `reorganisations`, `search`: the
//!   pages

use std::sync::Arc;

use axum::{Router, routing::get};

use super::gateway::Gateway;

mod assets;
mod block;
mod blocks;
mod chart;
mod epoch;
mod epochs;
mod figures;
mod forks;
mod frame;
mod home;
mod network;
mod nominees;
mod page;
mod parts;
mod peers;
mod read;
mod reorganisations;
mod search;
mod text;
mod visit;

pub(super) use self::{page::FailurePage, visit::Trimmed};

/// The explorer's routes. They are for people, and not in the OpenAPI document.
pub(super) fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/", get(home::page))
        .route("/blocks", get(blocks::page))
        .route("/block/{id}", get(block::page))
        .route("/epochs", get(epochs::page))
        .route("/epoch/{epoch}", get(epoch::page))
        .route("/nominees", get(nominees::ranking))
        .route("/nominee/{peer}", get(nominees::nominee))
        .route("/network", get(network::page))
        .route("/forks", get(forks::page))
        .route("/reorganisations", get(reorganisations::page))
        .route("/search", get(search::page))
        .route(assets::ROUTE, get(assets::serve))
}

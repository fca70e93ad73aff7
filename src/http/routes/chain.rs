//! The routes under `/chain`: the chain as those want it who explore it. Their parameters are in `views`.

use std::sync::Arc;

use axum::{extract::State, response::Response};

use crate::{
    http::{
        envelope::{Envelope, Rejection},
        gateway::Gateway,
        respond,
        views::ViewRead,
    },
    source::view::model::{
        BlockDetail, BlockPage, EpochDetail, EpochPage, Found, NetworkFigures, Nominee, OrphanPage, Ranking,
        ReorganisationPage,
    },
};

/// The handler of a view, and its documentation.
macro_rules! view {
    ($(#[doc = $doc:literal])* $path:literal, $name:ident: $data:ty) => {
        $(#[doc = $doc])*
        #[utoipa::path(
            get, path = $path, tag = "chain",
            responses((status = 200, description = "The answer", body = Envelope<$data>))
        )]
        pub(super) async fn $name(State(gateway): State<Arc<Gateway>>, read: ViewRead) -> Result<Response, Rejection> {
            respond::view(&gateway, read).await
        }
    };
}

view! {
    /// Blocks, newest first
    ///
    /// In pages: `next_before` is the `before` of the next one, which stays where it is while new blocks come.
    "/chain/blocks", list_blocks: BlockPage
}
view! {
    /// A block with its neighbours
    ///
    /// By hash exactly that block, canonical or orphaned; by index the canonical one.
    "/chain/blocks/{id}", describe_block: BlockDetail
}
view! {
    /// Orphaned blocks, the highest first
    "/chain/orphans", list_orphans: OrphanPage
}
view! {
    /// Epochs, newest first
    ///
    /// An epoch has the blocks 40E+1 to 40E+40, as in the network's mining library; genesis belongs to none. What the
    /// protocol's own path gives for an epoch are the blocks that carry its number, which may be other ones.
    "/chain/epochs", list_epochs: EpochPage
}
view! {
    /// An epoch: its blocks, and the validators that follow from it
    ///
    /// The nominees of a complete epoch, shuffled, are the validators of the epoch after the next. `election` is
    /// provisional until the epoch's last block is below the finality depth.
    "/chain/epochs/{epoch}", describe_epoch: EpochDetail
}
view! {
    /// Nominees by number of nominations
    "/chain/nominees", rank_nominees: Ranking
}
view! {
    /// The canonical blocks that nominate a peer, newest first
    ///
    /// A peer that no block nominates has a `total` of 0.
    "/chain/nominees/{peer}", describe_nominee: Nominee
}
view! {
    /// The network's figures
    ///
    /// Hash rate, difficulty, block times, the progress of the epoch and its validators.
    "/chain/network", describe_network: NetworkFigures
}
view! {
    /// Reorganisations as they happened, newest first
    ///
    /// As many as the event log of the store holds: the last 10,000 events.
    "/chain/reorganisations", list_reorganisations: ReorganisationPage
}
view! {
    /// Search by index, epoch, hash or nominee
    "/chain/search", search_chain: Found
}

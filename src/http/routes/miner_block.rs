//! The paths of the sync protocol. `GET` takes the request's `data` as query parameters, `POST` as the JSON body; one
//! handler answers both. Parameters and request bodies are documented from the parser's own table, in `openapi`.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde_json::Value;

use crate::{
    http::{
        envelope::{Envelope, Rejection},
        extract::Read,
        gateway::Gateway,
        respond,
    },
    protocol::{
        answer::{CanonicalData, ChainInfoData, DebugIndexData, EpochData, FindAncestorData, InspectData, RangeData},
        schema::Block,
    },
};

/// The handlers of a path, and their documentation.
macro_rules! mirror {
    ($(#[doc = $doc:literal])* $path:literal, $get:ident, $post:ident: $data:ty) => {
        mirror! { $(#[doc = $doc])* get $path, $get: $data }
        mirror! { $(#[doc = $doc])* post $path, $post: $data }
    };
    ($(#[doc = $doc:literal])* $method:ident $path:literal, $name:ident: $data:ty) => {
        $(#[doc = $doc])*
        #[utoipa::path(
            $method, path = $path, tag = "protocol",
            responses((status = 200, description = "The answer", body = Envelope<$data>))
        )]
        pub(super) async fn $name(State(gateway): State<Arc<Gateway>>, read: Read) -> Result<Response, Rejection> {
            respond::answer(&gateway, read).await
        }
    };
}

mirror! {
    /// Echo
    ///
    /// The query parameters come back as an object of texts.
    get "/ping", ping: Value
}
mirror! {
    /// Echo
    ///
    /// The body comes back, byte for byte.
    post "/ping", ping_by_post: Value
}
mirror! {
    /// State of the node and its store
    "/inspect", inspect, inspect_by_post: InspectData
}
mirror! {
    /// One block by hash, orphans too
    "/data/miner_block/get", get_block, get_block_by_post: Block
}
mirror! {
    /// The whole canonical chain
    ///
    /// By ascending index, streamed.
    "/data/miner_block/canonical", get_canonical_chain, get_canonical_chain_by_post: CanonicalData
}
mirror! {
    /// The canonical blocks of an epoch
    ///
    /// An epoch that is unknown is an empty list.
    "/data/miner_block/epoch", get_epoch, get_epoch_by_post: EpochData
}
mirror! {
    /// Canonical blocks by index
    ///
    /// Up to 1000 at a time: `has_more` says whether some are left, `next_from_index` where they begin.
    "/data/miner_block/range", get_range, get_range_by_post: RangeData
}
mirror! {
    /// The tip and its work
    ///
    /// And, if asked, the blocks that the asker lacks.
    "/data/miner_block/chain_info", get_chain_info, get_chain_info_by_post: ChainInfoData
}
mirror! {
    /// Which of the asker's check points are on the canonical chain
    ///
    /// `POST` only: a list of check points doesn't fit a query string.
    post "/data/miner_block/find_ancestor", find_ancestor: FindAncestorData
}
mirror! {
    /// Every block at an index, and how it fits the next canonical block
    "/data/miner_block/debug_index", debug_index, debug_index_by_post: DebugIndexData
}

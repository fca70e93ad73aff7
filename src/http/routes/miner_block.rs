//! The routes that mirror the protocol's paths. Each answers `GET` with the request's `data` as query parameters and
//! `POST` with it as the JSON body; both are the same handler, so this file is documentation more than code.

use std::{collections::HashMap, sync::Arc};

use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        envelope::{Envelope, Rejection},
        extract::Read,
        gateway::Gateway,
        respond,
    },
    protocol::{
        answer::{CanonicalData, ChainInfoData, DebugIndexData, EpochData, FindAncestorData, InspectData, RangeData},
        query::CheckPoint,
        schema::Block,
    },
};

/// Parameters of `/inspect`.
#[derive(Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct InspectQuery {
    /// `basic`, `datastore` or `full`; every level gives the same answer.
    level: Option<String>,
}

/// Parameters of `/data/miner_block/get`.
#[derive(Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct GetQuery {
    /// Hash of the block, orphaned or not.
    hash: String,
}

/// Parameters of `/data/miner_block/epoch`.
#[derive(Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct EpochQuery {
    /// Number of the epoch, as the blocks carry it.
    epoch: u64,
}

/// Parameters of `/data/miner_block/range`.
#[derive(Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct RangeQuery {
    /// First index.
    from_index: u64,
    /// Last index, included; at least `from_index`. It may lie beyond the tip.
    to_index: u64,
    /// Most blocks to give. Absent, or above 1000: 1000.
    #[param(minimum = 1)]
    #[schema(minimum = 1)]
    max_chunk_size: Option<u64>,
}

/// Parameters of `/data/miner_block/chain_info`.
#[derive(Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(style = Form, parameter_in = Query)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct ChainInfoQuery {
    /// Hashes of the asker's blocks: the highest that is canonical here is the common ancestor. In a query string they
    /// are separated by commas.
    #[param(explode = false)]
    local_block_hashes: Option<Vec<String>>,
    /// Whether to send blocks, at most 1000.
    include_blocks: Option<bool>,
    /// First block to send. Absent: the one after the common ancestor, or the first.
    from_index: Option<u64>,
}

/// Body of `/data/miner_block/find_ancestor`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct FindAncestorQuery {
    /// Blocks of the asker's chain.
    check_points: Vec<CheckPoint>,
}

/// Parameters of `/data/miner_block/debug_index`.
#[derive(Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct DebugIndexQuery {
    /// The index.
    index: u64,
}

/// What `GET /ping` echoes.
#[derive(ToSchema)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct Echo(HashMap<String, String>);

type Answer = Result<Response, Rejection>;

/// A handler, its route and its documentation. What all have in common is added in `docs`.
macro_rules! mirror {
    ($(#[doc = $doc:literal])* $name:ident, $method:ident $path:literal, $data:ty $(, $key:ident($($value:tt)*))*) => {
        $(#[doc = $doc])*
        #[utoipa::path(
            $method, path = $path, tag = "protocol",
            responses((status = 200, description = "The answer", body = Envelope<$data>)),
            $($key($($value)*)),*
        )]
        pub(super) async fn $name(State(gateway): State<Arc<Gateway>>, read: Read) -> Answer {
            respond::answer(&gateway.source, read).await
        }
    };
}

mirror! {
    /// Echo
    ///
    /// The query parameters come back as an object of texts.
    ping, get "/ping", serde_json::Value,
    params(("echo" = inline(Option<Echo>), Query, style = Form, explode, description = "Any names and values"))
}
mirror! {
    /// Echo
    ///
    /// The body comes back, byte for byte.
    ping_by_post, post "/ping", serde_json::Value,
    request_body(content = Option<serde_json::Value>, description = "Any JSON")
}
mirror! {
    /// State of the node and its store
    inspect, get "/inspect", InspectData, params(InspectQuery)
}
mirror! {
    /// State of the node and its store
    inspect_by_post, post "/inspect", InspectData, request_body(content = Option<InspectQuery>)
}
mirror! {
    /// One block by hash, orphans too
    get_block, get "/data/miner_block/get", Block, params(GetQuery)
}
mirror! {
    /// One block by hash, orphans too
    get_block_by_post, post "/data/miner_block/get", Block, request_body(content = GetQuery)
}
mirror! {
    /// The whole canonical chain
    ///
    /// By ascending index, streamed.
    get_canonical_chain, get "/data/miner_block/canonical", CanonicalData
}
mirror! {
    /// The whole canonical chain
    ///
    /// By ascending index, streamed.
    get_canonical_chain_by_post, post "/data/miner_block/canonical", CanonicalData
}
mirror! {
    /// The canonical blocks of an epoch
    ///
    /// An epoch that is unknown is an empty list.
    get_epoch, get "/data/miner_block/epoch", EpochData, params(EpochQuery)
}
mirror! {
    /// The canonical blocks of an epoch
    ///
    /// An epoch that is unknown is an empty list.
    get_epoch_by_post, post "/data/miner_block/epoch", EpochData, request_body(content = EpochQuery)
}
mirror! {
    /// Canonical blocks by index
    ///
    /// Up to 1000 at a time: `has_more` says whether some are left, `next_from_index` where they begin.
    get_range, get "/data/miner_block/range", RangeData, params(RangeQuery)
}
mirror! {
    /// Canonical blocks by index
    ///
    /// Up to 1000 at a time: `has_more` says whether some are left, `next_from_index` where they begin.
    get_range_by_post, post "/data/miner_block/range", RangeData, request_body(content = RangeQuery)
}
mirror! {
    /// The tip and its work
    ///
    /// And, if asked, the blocks that the asker lacks.
    get_chain_info, get "/data/miner_block/chain_info", ChainInfoData, params(ChainInfoQuery)
}
mirror! {
    /// The tip and its work
    ///
    /// And, if asked, the blocks that the asker lacks.
    get_chain_info_by_post, post "/data/miner_block/chain_info", ChainInfoData,
    request_body(content = Option<ChainInfoQuery>)
}
mirror! {
    /// Which of the asker's check points are on the canonical chain
    ///
    /// `POST` only: a list of check points doesn't fit a query string.
    find_ancestor, post "/data/miner_block/find_ancestor", FindAncestorData, request_body(content = FindAncestorQuery)
}
mirror! {
    /// Every block at an index, and how it fits the next canonical block
    debug_index, get "/data/miner_block/debug_index", DebugIndexData, params(DebugIndexQuery)
}
mirror! {
    /// Every block at an index, and how it fits the next canonical block
    debug_index_by_post, post "/data/miner_block/debug_index", DebugIndexData,
    request_body(content = DebugIndexQuery)
}

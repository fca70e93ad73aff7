//! The routes that mirror the protocol's paths. Each answers `GET` with the request's `data` as query parameters and
//! `POST` with it as the JSON body; both are the same handler, so this file is documentation more than code.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Gateway, error::Rejection, extract::Read, respond};
use crate::protocol::{
    answer::{CanonicalData, ChainInfoData, DebugIndexData, EpochData, FindAncestorData, InspectData, RangeData},
    query::CheckPoint,
};

/// An answer: `ok` is true and `errors` null, or the other way round.
#[derive(Serialize, ToSchema)]
pub struct Envelope<T> {
    /// Whether the question was answered.
    #[schema(example = true)]
    ok: bool,
    /// The answer.
    data: T,
    /// Null in a good answer.
    errors: Option<crate::protocol::Failure>,
}

impl<T> Envelope<T> {
    /// A good answer.
    pub fn ok(data: T) -> Self {
        Self { ok: true, data, errors: None }
    }
}

/// Parameters of `/inspect`.
#[derive(Deserialize, IntoParams, ToSchema)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct InspectQuery {
    /// `basic`, `datastore` or `full`; every level gives the same answer.
    #[param(example = "full")]
    #[schema(example = "full")]
    level: Option<String>,
}

/// Parameters of `/data/miner_block/get`.
#[derive(Deserialize, IntoParams, ToSchema)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct GetQuery {
    /// Hash of the block, orphaned or not.
    #[param(example = "0098469404e2f8e97f63bf0585b74495586e49001b7c00428b71a22d64a698f8")]
    #[schema(example = "0098469404e2f8e97f63bf0585b74495586e49001b7c00428b71a22d64a698f8")]
    hash: String,
}

/// Parameters of `/data/miner_block/epoch`.
#[derive(Deserialize, IntoParams, ToSchema)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct EpochQuery {
    /// Number of the epoch, as the blocks carry it.
    #[param(example = 0)]
    #[schema(example = 0)]
    epoch: u64,
}

/// Parameters of `/data/miner_block/range`.
#[derive(Deserialize, IntoParams, ToSchema)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct RangeQuery {
    /// First index.
    #[param(example = 3)]
    #[schema(example = 3)]
    from_index: u64,
    /// Last index, included; at least `from_index`. It may lie beyond the tip.
    #[param(example = 7)]
    #[schema(example = 7)]
    to_index: u64,
    /// Most blocks to give: 1 to 1000, and 1000 where it is absent or larger.
    #[param(minimum = 1)]
    #[schema(minimum = 1)]
    max_chunk_size: Option<u64>,
}

/// Parameters of `/data/miner_block/chain_info`.
#[derive(Deserialize, IntoParams, ToSchema)]
#[into_params(style = Form, parameter_in = Query)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct ChainInfoQuery {
    /// Hashes of the asker's blocks, separated by commas: the highest that is canonical here is the common ancestor.
    #[param(explode = false)]
    local_block_hashes: Option<Vec<String>>,
    /// Whether to send blocks: from `from_index`, else from the one after the common ancestor, at most 1000.
    include_blocks: Option<bool>,
    /// First block to send.
    from_index: Option<u64>,
}

/// Body of `/data/miner_block/find_ancestor`.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct FindAncestorQuery {
    /// Blocks of the asker's chain.
    check_points: Vec<CheckPoint>,
}

/// Parameters of `/data/miner_block/debug_index`.
#[derive(Deserialize, IntoParams, ToSchema)]
#[allow(dead_code, reason = "documents what `protocol::query` reads")]
pub struct DebugIndexQuery {
    /// The index.
    #[param(example = 5)]
    #[schema(example = 5)]
    index: u64,
}

/// The mirrored routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(ping, post_ping))
        .routes(routes!(inspect, post_inspect))
        .routes(routes!(get, post_get))
        .routes(routes!(canonical, post_canonical))
        .routes(routes!(epoch, post_epoch))
        .routes(routes!(range, post_range))
        .routes(routes!(chain_info, post_chain_info))
        .routes(routes!(find_ancestor))
        .routes(routes!(debug_index, post_debug_index))
}

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
        async fn $name(State(gateway): State<Gateway>, read: Read) -> Answer {
            respond::answer(&gateway.source, read).await
        }
    };
}

mirror! {
    /// Echo: the query parameters come back as an object of texts.
    ping, get "/ping", serde_json::Value
}
mirror! {
    /// Echo: the body comes back, byte for byte.
    post_ping, post "/ping", serde_json::Value, request_body(content = serde_json::Value, description = "Any JSON")
}
mirror! {
    /// State of the node and its store.
    inspect, get "/inspect", InspectData, params(InspectQuery)
}
mirror! {
    /// State of the node and its store.
    post_inspect, post "/inspect", InspectData, request_body(content = Option<InspectQuery>)
}
mirror! {
    /// One block by hash, orphans too.
    get, get "/data/miner_block/get", crate::protocol::schema::Block, params(GetQuery)
}
mirror! {
    /// One block by hash, orphans too.
    post_get, post "/data/miner_block/get", crate::protocol::schema::Block, request_body(content = GetQuery)
}
mirror! {
    /// The whole canonical chain, by ascending index; streamed.
    canonical, get "/data/miner_block/canonical", CanonicalData
}
mirror! {
    /// The whole canonical chain, by ascending index; streamed.
    post_canonical, post "/data/miner_block/canonical", CanonicalData
}
mirror! {
    /// The canonical blocks of an epoch. An epoch that is unknown is an empty list.
    epoch, get "/data/miner_block/epoch", EpochData, params(EpochQuery)
}
mirror! {
    /// The canonical blocks of an epoch. An epoch that is unknown is an empty list.
    post_epoch, post "/data/miner_block/epoch", EpochData, request_body(content = EpochQuery)
}
mirror! {
    /// Canonical blocks by index, up to 1000 at a time: `has_more` says whether some are left, `next_from_index` where
    /// they begin.
    range, get "/data/miner_block/range", RangeData, params(RangeQuery)
}
mirror! {
    /// Canonical blocks by index, up to 1000 at a time: `has_more` says whether some are left, `next_from_index` where
    /// they begin.
    post_range, post "/data/miner_block/range", RangeData, request_body(content = RangeQuery)
}
mirror! {
    /// The tip, its work and, if asked, the blocks that the asker lacks.
    chain_info, get "/data/miner_block/chain_info", ChainInfoData, params(ChainInfoQuery)
}
mirror! {
    /// The tip, its work and, if asked, the blocks that the asker lacks.
    post_chain_info, post "/data/miner_block/chain_info", ChainInfoData, request_body(content = Option<ChainInfoQuery>)
}
mirror! {
    /// Which of the asker's check points are on the canonical chain.
    find_ancestor, post "/data/miner_block/find_ancestor", FindAncestorData, request_body(content = FindAncestorQuery)
}
mirror! {
    /// Every block at an index, and how it fits the next canonical block.
    debug_index, get "/data/miner_block/debug_index", DebugIndexData, params(DebugIndexQuery)
}
mirror! {
    /// Every block at an index, and how it fits the next canonical block.
    post_debug_index, post "/data/miner_block/debug_index", DebugIndexData, request_body(content = DebugIndexQuery)
}

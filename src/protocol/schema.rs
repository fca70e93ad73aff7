//! Documentation of what is written by hand or by `serde` code of our own: the forms that OpenAPI shows.

use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, Type, schema::SchemaType},
};

use super::Failure;

/// A miner block as this gateway writes it: the union of both dialects of the network.
#[derive(ToSchema)]
#[schema(as = MinerBlock)]
#[allow(dead_code, reason = "documents what `chain::MinerBlock` writes")]
pub struct Block {
    /// Hash of the header and the nonce: 64 hex digits on the network.
    hash: String,
    /// Height; genesis has 0.
    index: u64,
    /// Epoch of its index.
    epoch: u64,
    /// When mining of the block began, in unix seconds: the parent's `seen_at` at its miner. Genesis has 0.
    timestamp: i64,
    /// Hash of the parent; `0` for genesis.
    previous_hash: String,
    /// SHA-256 of the nominated peer id and the miner number.
    data_hash: String,
    /// What the miner searched for: a u128 in decimal.
    nonce: String,
    /// The same as `target_difficulty`, as the first release calls it.
    difficulty: String,
    /// Difficulty that the block had to meet: a u128 in decimal.
    target_difficulty: String,
    /// Difficulty that its hash would have met: a u128 in decimal.
    actualized_difficulty: String,
    /// Peer that the miner nominates; empty for genesis.
    nominated_peer_id: String,
    /// A number of the miner's choice: any up to 2^64-1. A client that reads this as `int64`, or as a double, can't
    /// read the larger ones: the parameter `numbers` gives them as strings.
    miner_number: u64,
    /// Whether it is on the canonical chain.
    is_canonical: bool,
    /// Whether it was orphaned.
    is_orphaned: bool,
    /// When it was first seen, in unix seconds: by this gateway if it came by gossip, by the sender if it was imported
    /// or forwarded. Null if it was synced.
    #[schema(required)]
    seen_at: Option<i64>,
    /// When it was orphaned, in unix seconds.
    #[schema(required)]
    orphaned_at: Option<i64>,
    /// Why it was orphaned.
    #[schema(required)]
    orphan_reason: Option<String>,
    /// Height of the sender's chain when that saw it. Null if it came by gossip or was synced.
    #[schema(required)]
    height_at_time: Option<u64>,
    /// Hash of the tip of the chain that replaced it.
    #[schema(required)]
    competing_hash: Option<String>,
    /// Rules that it deviates from and that the network doesn't enforce, `schedule` and `timestamp`; absent where there
    /// are none.
    #[schema(required = false)]
    deviations: Vec<String>,
}

/// A failed answer.
#[derive(ToSchema)]
#[allow(dead_code, reason = "documents what `Failure` writes")]
pub struct ErrorEnvelope {
    /// Always false.
    ok: bool,
    /// Always null.
    #[schema(schema_with = null)]
    data: (),
    /// What went wrong.
    errors: Failure,
}

/// A member that is always null. Its type is not `null` alone, on which generators of clients fail; they take it for an
/// optional object.
pub fn null() -> Object {
    let kind = SchemaType::from_iter([Type::Object, Type::Null]);
    ObjectBuilder::new().schema_type(kind).max_properties(Some(0)).description(Some("Always null.")).build()
}

//! The network's own descriptions, which its nodes read: JSON with `name`, `bootstrappers` and a few more members, or a
//! node's settings with the same members among others.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Enforcement, Network, Position};

/// Why a text describes no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DescriptionError(String);

/// The members that say something here; others are the nodes' own.
#[derive(Deserialize)]
struct Description {
    name: Option<String>,
    #[serde(default)]
    bootstrappers: Vec<String>,
    #[serde(default, deserialize_with = "super::difficulty")]
    initial_difficulty: Option<u128>,
    #[serde(default)]
    checkpoints: Option<Vec<Checkpoint>>,
    #[serde(default)]
    forced_blocks: Option<BTreeMap<u64, String>>,
    minimum_block_timestamp: Option<i64>,
    miner_hash_func: Option<String>,
}

/// A block that a chain must contain. One without a hash marks a place and says nothing about its block.
#[derive(Deserialize)]
struct Checkpoint {
    #[serde(alias = "block_index")]
    index: u64,
    #[serde(alias = "block_hash")]
    hash: Option<String>,
}

impl Network {
    /// The network that a JSON text describes, which `file_name` names if it doesn't itself.
    ///
    /// # Errors
    /// What can't be read, with its line.
    pub fn described(text: &str, file_name: &str) -> Result<Self, DescriptionError> {
        let description: Description =
            serde_json::from_str(text).map_err(|error| DescriptionError(error.to_string()))?;
        let name = description.name.unwrap_or_else(|| file_name.to_owned());
        let marked = description.checkpoints.into_iter().flatten();
        let marked = marked.filter_map(|point| Some(Position { index: point.index, hash: point.hash? }));
        let mut checkpoints: Vec<_> = marked.collect();
        let marked = checkpoints.len();
        let forced = description.forced_blocks.into_iter().flatten();
        checkpoints.extend(forced.map(|(index, hash)| Position { index, hash }));
        let field = |i| if i < marked { "checkpoints" } else { "forced_blocks" };
        super::check_points(&checkpoints, field).map_err(DescriptionError)?;
        let usual = Self::named(&name).unwrap_or_else(|| Self::public(&name, &[]));
        let pow = match description.miner_hash_func.as_deref() {
            None | Some("randomx") => usual.pow.clone(),
            Some("sha256") => super::PowAlgorithm::Sha256,
            Some(other) => return Err(DescriptionError(format!("miner_hash_func: `{other}` is not known here"))),
        };
        let initial_difficulty = description.initial_difficulty.unwrap_or(usual.initial_difficulty);
        if initial_difficulty == 0 {
            return Err(DescriptionError("initial_difficulty: must be above zero".into()));
        }
        // Nodes that all listen on this machine are no public network.
        let local = |address: &String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
        let public = description.bootstrappers.is_empty() || !description.bootstrappers.iter().all(local);
        Ok(Self {
            name,
            pow,
            genesis_hash: None,
            difficulty_schedule: Enforcement::Report,
            initial_difficulty,
            checkpoints,
            minimum_block_timestamp: description.minimum_block_timestamp,
            bootstrap: description.bootstrappers,
            public,
            target_block_time: 60,
            ..usual
        })
    }
}

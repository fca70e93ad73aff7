//! The chain in the store: its weight, and the network's checkpoints that it has, lacks or breaks.

use crate::{
    chain::{Network, Weight, unix_now},
    source::job::Genesis,
    store::{BlockStore, ChainState, StoreError},
};

/// Why a block left the chain, as its `orphan_reason` says.
pub const REASON: &str = "a chain with more work";

/// The weight of the chain in the store.
pub fn weight(state: &ChainState) -> Weight {
    let tip_hash = state.tip.as_ref().map(|tip| tip.hash.clone()).unwrap_or_default();
    Weight { work: state.cumulative_difficulty, length: state.length, tip_hash }
}

/// Index of the lowest checkpoint of the network's that our chain lacks: it has another block there, or ends before.
///
/// # Errors
/// The store's.
pub async fn lacking_checkpoint(store: &dyn BlockStore, network: &Network) -> Result<Option<u64>, StoreError> {
    let indexes: Vec<_> = network.checkpoints.iter().map(|point| point.index).collect();
    if indexes.is_empty() {
        return Ok(None);
    }
    let ours = store.canonical_hashes(&indexes).await?;
    let lacking = network.checkpoints.iter().filter(|point| ours.get(&point.index) != Some(&point.hash));
    Ok(lacking.map(|point| point.index).min())
}

/// Index of a checkpoint of the network's that our chain holds above the block at `ancestor`. A branch that leaves ours
/// there can't hold it, however much the branch weighs before it comes so far.
///
/// # Errors
/// The store's.
pub async fn checkpoint_above(
    store: &dyn BlockStore,
    network: &Network,
    ancestor: u64,
) -> Result<Option<u64>, StoreError> {
    let above: Vec<_> = network.checkpoints.iter().filter(|point| point.index > ancestor).collect();
    if above.is_empty() {
        return Ok(None);
    }
    let indexes: Vec<_> = above.iter().map(|point| point.index).collect();
    let ours = store.canonical_hashes(&indexes).await?;
    // One that was named after our chain had come so far may be missing from it: then another chain is what we need.
    Ok(above.into_iter().find(|point| ours.get(&point.index) == Some(&point.hash)).map(|point| point.index))
}

/// A chain that was rewound below a checkpoint at which it had another block.
#[derive(Debug, Clone)]
pub struct Rewound {
    /// Index of the checkpoint.
    pub index: u64,
    /// What is told of it until the chain has the checkpoint's block.
    pub reason: String,
}

/// Rewinds the chain below the first checkpoint at which it has another block: named after it was stored, or by another
/// program.
///
/// # Errors
/// The store's.
pub async fn enforce_checkpoints(store: &dyn BlockStore, network: &Network) -> Result<Option<Rewound>, StoreError> {
    let indexes: Vec<_> = network.checkpoints.iter().map(|point| point.index).collect();
    if indexes.is_empty() {
        return Ok(None);
    }
    let ours = store.canonical_hashes(&indexes).await?;
    let broken = |index: u64, hash: &str| ours.get(&index).is_some_and(|ours| ours != hash);
    let points = network.checkpoints.iter().filter(|point| broken(point.index, &point.hash));
    let Some(point) = points.min_by_key(|point| point.index) else { return Ok(None) };
    let reason = format!("the network's checkpoint at {} has another block", point.index);
    let mut writer = store.write().await?;
    writer.clear_stage().await?;
    let rewound = writer.rewind(point.index.checked_sub(1), &reason, Some(&point.hash), unix_now()).await?;
    writer.commit().await?;
    if point.index == 0 && network.genesis_hash.is_none() {
        // Another genesis is needed than the one that was settled for.
        Genesis::open(store).await?;
    }
    tracing::warn!(checkpoint = point.index, blocks = rewound, "the chain in the store was rewound below a checkpoint");
    let reason = format!("{reason}: {rewound} blocks were taken back, and a chain that has it is waited for");
    Ok(Some(Rewound { index: point.index, reason }))
}

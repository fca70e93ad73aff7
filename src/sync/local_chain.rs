//! The chain in the store: its weight, and the network's checkpoints that it has, lacks or breaks.

use std::collections::HashMap;

use crate::{
    chain::{AssumeValid, Level, Network, Position, Weight, unix_now},
    source::job::Genesis,
    store::{BlockStore, ChainState, StoreError},
};

/// The `orphan_reason` of blocks that a heavier branch replaced.
pub const ORPHAN_REASON: &str = "a chain with more work";

/// The weight of the chain in the store.
pub fn weight(state: &ChainState) -> Weight {
    let tip_hash = state.tip.as_ref().map(|tip| tip.hash.clone()).unwrap_or_default();
    Weight { work: state.cumulative_difficulty, length: state.length, tip_hash }
}

/// The hashes that the chain in the store has at the network's checkpoints, by index.
async fn at_checkpoints(store: &dyn BlockStore, network: &Network) -> Result<HashMap<u64, String>, StoreError> {
    let indexes: Vec<_> = network.checkpoints.iter().map(|point| point.index).collect();
    if indexes.is_empty() { Ok(HashMap::new()) } else { store.canonical_hashes(&indexes).await }
}

/// Index of the lowest checkpoint that the chain in the store lacks: it has another block there, or ends below.
///
/// # Errors
/// The store's.
pub async fn missing_checkpoint(store: &dyn BlockStore, network: &Network) -> Result<Option<u64>, StoreError> {
    let ours = at_checkpoints(store, network).await?;
    let missing = network.checkpoints.iter().filter(|point| ours.get(&point.index) != Some(&point.hash));
    Ok(missing.map(|point| point.index).min())
}

/// Index of a checkpoint above `ancestor` that the chain in the store has. A branch from `ancestor` can't have it,
/// whatever the branch weighs before it gets there.
///
/// # Errors
/// The store's.
pub async fn checkpoint_above(
    store: &dyn BlockStore,
    network: &Network,
    ancestor: u64,
) -> Result<Option<u64>, StoreError> {
    let ours = at_checkpoints(store, network).await?;
    // The chain may lack a checkpoint that was configured after it was stored: then another chain is needed.
    let held = |point: &&Position| point.index > ancestor && ours.get(&point.index) == Some(&point.hash);
    Ok(network.checkpoints.iter().find(held).map(|point| point.index))
}

/// Whether the work of the chain up to `ancestor` is only that of claimed hashes: what the assume-valid block vouches for
/// is the sum at that block, which says little about a branch from a block before.
///
/// # Errors
/// The store's.
pub async fn rests_on_assumed(
    store: &dyn BlockStore,
    assume_valid: Option<&AssumeValid>,
    ancestor: u64,
) -> Result<bool, StoreError> {
    let Some(pin) = assume_valid.filter(|pin| ancestor < pin.index) else { return Ok(false) };
    let holds_pin = store.canonical_hashes(&[pin.index]).await?.get(&pin.index) == Some(&pin.hash);
    Ok(holds_pin && store.block_at(ancestor).await?.is_some_and(|(_, level)| level < Level::Pow))
}

/// Rewinds the chain below the first checkpoint at which it has another block: the checkpoint is newer, or another
/// program wrote the block. Returns the checkpoint's index, and why the sync is stalled until the chain has its block.
///
/// # Errors
/// The store's.
pub async fn enforce_checkpoints(
    store: &dyn BlockStore,
    network: &Network,
) -> Result<Option<(u64, String)>, StoreError> {
    // Before the rewind: once that is committed, nothing would show that the store has settled for the wrong genesis.
    if network.genesis_hash.is_none()
        && let Some(first) = network.checkpoints.iter().find(|point| point.index == 0)
        && Genesis::read(store, None).await?.is_some_and(|genesis| genesis.hash != first.hash)
    {
        Genesis::open(store).await?;
    }
    let ours = at_checkpoints(store, network).await?;
    let broken = |point: &&Position| ours.get(&point.index).is_some_and(|ours| *ours != point.hash);
    let Some(point) = network.checkpoints.iter().filter(broken).min_by_key(|point| point.index) else {
        return Ok(None);
    };
    let reason = format!("the network's checkpoint at {} has another block", point.index);
    let mut writer = store.write().await?;
    writer.clear_stage().await?;
    let rewound = writer.rewind(point.index.checked_sub(1), &reason, Some(&point.hash), unix_now()).await?;
    writer.commit().await?;
    tracing::warn!(checkpoint = point.index, blocks = rewound, "the chain in the store was rewound below a checkpoint");
    let reason = format!("{reason}: {rewound} blocks were taken back, and a chain that has it is waited for");
    Ok(Some((point.index, reason)))
}

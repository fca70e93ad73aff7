//! How far the blocks that were assumed valid are verified by now. Written to the store for every process on it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    chain::{AssumeValid, Level, Position},
    store::{BlockStore, StoreError},
};

/// Key of the [`AssumedBlocks`] in the store.
const KEY: &str = "assume_valid";

/// Blocks whose levels are counted at once.
const PAGE: u64 = 10_000;

/// The network's assume-valid block, and what is still to be verified of the chain up to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AssumedBlocks {
    /// Index of the assume-valid block.
    pub index: u64,
    /// Hash of the assume-valid block.
    pub hash: String,
    /// Canonical blocks up to it that are not verified to `pow` yet; null while the chain does not contain the block.
    #[schema(required)]
    pub blocks_left: Option<u64>,
    /// The block that failed the verification in the background, with the rule; null: none did. Nothing more is
    /// verified in the background then.
    #[schema(required)]
    pub failure: Option<String>,
}

impl AssumedBlocks {
    /// What was written last about this block.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(store: &dyn BlockStore, pin: &AssumeValid) -> Result<Self, StoreError> {
        let none = Self { index: pin.index, hash: pin.hash.clone(), blocks_left: None, failure: None };
        let Some(note) = store.get_note(KEY).await? else { return Ok(none) };
        let written: Self = serde_json::from_str(&note.value)
            .map_err(|error| StoreError::Damaged(format!("assumed blocks: {error}")))?;
        // Another one was configured then.
        Ok(if (written.index, &written.hash) == (pin.index, &pin.hash) { written } else { none })
    }

    /// Counts what is left, and writes it. A failure stays as long as anything is left.
    ///
    /// # Errors
    /// The store's.
    pub async fn count(store: &dyn BlockStore, pin: &AssumeValid) -> Result<Self, StoreError> {
        let before = Self::read(store, pin).await?;
        let blocks_left = count_left(store, pin).await?;
        let failure = before.failure.clone().filter(|_| blocks_left != Some(0));
        let now = Self { blocks_left, failure, ..before.clone() };
        if now != before {
            now.write(store).await?;
        }
        Ok(now)
    }

    /// Writes it to the store.
    ///
    /// # Errors
    /// The store's.
    pub async fn write(&self, store: &dyn BlockStore) -> Result<(), StoreError> {
        // Plain data: writing it as JSON doesn't fail.
        store.put_note(KEY, &serde_json::to_string(self).unwrap_or_default()).await
    }
}

async fn count_left(store: &dyn BlockStore, pin: &AssumeValid) -> Result<Option<u64>, StoreError> {
    let (ours, work) = (store.canonical_hashes(&[pin.index]).await?, store.work_at(pin.index).await?);
    let block = ours.get(&pin.index).map(|hash| Position { index: pin.index, hash: hash.clone() });
    if !block.zip(work).is_some_and(|(block, work)| pin.is(&block, work)) {
        return Ok(None);
    }
    if store.state().await?.level == Some(Level::Pow) {
        return Ok(Some(0));
    }
    let (mut left, mut from) = (0, 0);
    while from <= pin.index {
        let to = pin.index.min(from + PAGE - 1);
        left += store.count_below(Level::Pow, from, to).await?;
        from = to + 1;
    }
    Ok(Some(left))
}

//! What the store had before the import, read page by page: a block that is already there costs no round trip of its
//! own.

use std::collections::HashMap;

use crate::store::{BlockStore, StoreError};

/// Hashes read at once.
const PAGE: u64 = 1000;

/// Hashes of the canonical blocks. They don't change while the import's transaction keeps other writers out.
pub(super) struct Stored<'a> {
    store: &'a dyn BlockStore,
    /// Number of the blocks.
    length: u64,
    page: HashMap<u64, String>,
}

impl<'a> Stored<'a> {
    /// Those of a store whose chain has `length` blocks.
    pub(super) fn new(store: &'a dyn BlockStore, length: u64) -> Self {
        Self { store, length, page: HashMap::new() }
    }

    /// The hash at `index`, if the store had a block there.
    pub(super) async fn hash(&mut self, index: u64) -> Result<Option<String>, StoreError> {
        if index < self.length && !self.page.contains_key(&index) {
            let indexes: Vec<u64> = (index..self.length.min(index + PAGE)).collect();
            self.page = self.store.canonical_hashes(&indexes).await?;
        }
        Ok(self.page.get(&index).cloned())
    }
}

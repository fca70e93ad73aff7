//! Blocks, epochs and nominees by a text.

use super::{
    BlockId, MAX_NEIGHBOURS, Viewed, Views,
    model::{BlockStatus, Found, Neighbour},
};
use crate::{
    chain::{block::MAX_KEY_BYTES, election},
    protocol::Failure,
    source::store_answers::store_failure,
    store::{ChainState, StoreError},
};

/// Fewest digits of a hash that are looked for.
const MIN_PREFIX: usize = 8;

impl Views {
    /// What a text may mean: an index, an epoch, a hash or at least 8 digits of its beginning, a nominee.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`](crate::protocol::Code::StoreUnavailable).
    pub async fn search(&self, known: &ChainState, text: &str) -> Result<Viewed<Found>, Failure> {
        let text = text.trim();
        let mut found = self.find_blocks(text).await.map_err(store_failure)?;
        let has_more = found.len() > MAX_NEIGHBOURS;
        found.truncate(MAX_NEIGHBOURS);
        let newest = known.tip.as_ref().and_then(|tip| election::epoch_of(tip.index));
        let epoch = match BlockId::from(text) {
            BlockId::Index(number) => Some(number).filter(|number| newest.is_some_and(|newest| *number <= newest)),
            BlockId::Hash(_) => None,
        };
        let is_nominated = !text.is_empty() && self.store.nominations(text).await.map_err(store_failure)? > 0;
        let nominee = is_nominated.then(|| text.to_owned());
        let data = Found { query: text.to_owned(), blocks: found, epoch, nominee, has_more };
        Ok(Viewed { snapshot: known.snapshot(None), settled: false, data })
    }

    /// The blocks at that index, with that hash, or whose hash begins so; one more than are listed shows that there are
    /// more.
    async fn find_blocks(&self, text: &str) -> Result<Vec<Neighbour>, StoreError> {
        let mut found = Vec::new();
        if text.is_empty() || text.len() > MAX_KEY_BYTES {
            return Ok(found);
        }
        if let BlockId::Index(index) = BlockId::from(text) {
            let (entries, ..) = self.store.at_index(index).await?;
            found.extend(entries.into_iter().take(MAX_NEIGHBOURS + 1).map(Neighbour::from));
        }
        let prefix = text.to_ascii_lowercase();
        if prefix.len() >= MIN_PREFIX && prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let entries = self.store.with_prefix(&prefix, MAX_NEIGHBOURS as u64 + 1).await?;
            found.extend(entries.into_iter().map(Neighbour::from));
        }
        // Without verification a hash may be any text.
        if found.is_empty()
            && let Some(block) = self.store.get(text).await?
        {
            let (entries, ..) = self.store.at_index(block.index).await?;
            let named = entries.into_iter().map(Neighbour::from).find(|neighbour| neighbour.hash == text);
            let status = if block.canonical { BlockStatus::Canonical } else { BlockStatus::Orphaned };
            // An index may have more blocks than are read.
            let alone = Neighbour { index: block.index, hash: text.to_owned(), status, orphan_reason: None };
            found.push(named.unwrap_or(alone));
        }
        Ok(found)
    }
}

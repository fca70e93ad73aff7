//! Blocks newest first, a block with its neighbours, and orphans.

use super::{
    BlockId, MAX_NEIGHBOURS, MAX_PAGE, Viewed, Views, max_blocks,
    model::{BlockDetail, BlockPage, BlockStatus, Neighbour, OrphanPage},
};
use crate::{
    chain::{Level, MinerBlock, Position, election},
    protocol::{Code, Failure},
    source::store_answers::{read_consistently, store_failure},
    store::{Anchor, ChainState, IndexEntry, StoreError},
};

impl Views {
    /// Canonical blocks below the index `before`, or from the tip on, newest first.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn blocks(
        &self,
        known: &ChainState,
        before: Option<u64>,
        limit: u64,
    ) -> Result<Viewed<BlockPage>, Failure> {
        let limit = limit.clamp(1, MAX_PAGE).min(max_blocks(known));
        let tip = known.tip.as_ref().map(|tip| tip.index);
        let top = tip.and_then(|tip| before.map_or(Some(tip), |before| before.checked_sub(1)).map(|top| top.min(tip)));
        let Some(top) = top else {
            let data = BlockPage { blocks: Vec::new(), count: 0, next_before: None };
            return Ok(Viewed { snapshot: known.snapshot(None), settled: false, data });
        };
        let first = |top: u64| (top + 1).saturating_sub(limit);
        let (snapshot, mut blocks) = match before {
            None => self.up_to_tip(top, first).await?,
            Some(_) => self.range(first(top), top).await?,
        };
        blocks.reverse();
        let settled = before.is_some() && self.settled(&snapshot, top);
        let next_before = blocks.last().map(|last| last.index).filter(|index| *index > 0);
        let count = blocks.len() as u64;
        Ok(Viewed { snapshot, settled, data: BlockPage { blocks, count, next_before } })
    }

    /// A block with its neighbours. By index it is the canonical one.
    ///
    /// # Errors
    /// [`Code::BlockNotFound`], [`Code::StoreUnavailable`].
    pub async fn block(&self, id: &BlockId) -> Result<Viewed<BlockDetail>, Failure> {
        let (state, found) = read_consistently(&self.store, |_| self.find(id)).await?;
        let (level, data) = found.ok_or_else(|| Failure::new(Code::BlockNotFound))?;
        let snapshot = state.snapshot(Some(level));
        let is_final = data.status == BlockStatus::Canonical && self.settled(&snapshot, data.block.index);
        // Its neighbours may change when it is final itself: the next block, and orphans that arrive late.
        Ok(Viewed { snapshot, settled: false, data: BlockDetail { is_final, ..data } })
    }

    async fn find(&self, id: &BlockId) -> Result<Option<(Level, BlockDetail)>, StoreError> {
        let (block, level) = match id {
            BlockId::Index(index) => match self.store.block_at(*index).await? {
                Some(found) => found,
                None => return Ok(None),
            },
            BlockId::Hash(hash) => match self.store.get(hash).await? {
                Some(found) => {
                    let block: Result<MinerBlock, _> = serde_json::from_str(&found.json);
                    let block = block.map_err(|error| StoreError::Damaged(format!("a stored block: {error}")))?;
                    (MinerBlock { is_canonical: found.canonical, ..block }, found.snapshot.level.unwrap_or(Level::None))
                }
                None => return Ok(None),
            },
        };
        let neighbours = async |index: Option<u64>| match index {
            Some(index) => self.store.at_index(index).await.map(|(entries, ..)| entries),
            None => Ok(Vec::new()),
        };
        let below = neighbours(block.index.checked_sub(1)).await?;
        let beside = neighbours(Some(block.index)).await?;
        let above = neighbours(block.index.checked_add(1)).await?;
        let branched_from = match block.is_canonical {
            true => None,
            false => match self.store.anchor(&block.hash).await? {
                (Anchor::Orphaned(ancestor), _) => ancestor.map(|(index, hash)| Position { index, hash }),
                _ => None,
            },
        };
        let detail = BlockDetail {
            status: if block.is_canonical { BlockStatus::Canonical } else { BlockStatus::Orphaned },
            is_final: false,
            verification: level.as_str(),
            in_epoch: election::epoch_of(block.index),
            previous: first_of(below, |entry| entry.hash == block.previous_hash).pop(),
            next: first_of(above, |entry| entry.previous_hash == block.hash),
            siblings: first_of(beside, |entry| entry.hash != block.hash),
            branched_from,
            block,
        };
        Ok(Some((level, detail)))
    }

    /// Orphaned blocks behind the one with this index and hash, or all, the highest first.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn orphans(&self, before: Option<&(u64, String)>, limit: u64) -> Result<Viewed<OrphanPage>, Failure> {
        let limit = limit.clamp(1, MAX_PAGE);
        let (from, after) = before.map_or((u64::MAX, ""), |(index, hash)| (*index, hash.as_str()));
        let run = self.store.orphans(from, after, limit).await.map_err(store_failure)?;
        let last = run.blocks.last().filter(|_| run.more_below.is_some());
        let next_before = last.map(|last| format!("{}:{}", last.index, last.hash));
        let count = run.blocks.len() as u64;
        let data = OrphanPage { blocks: run.blocks, count, next_before };
        Ok(Viewed { snapshot: run.snapshot, settled: false, data })
    }
}

fn first_of(entries: Vec<IndexEntry>, which: impl FnMut(&IndexEntry) -> bool) -> Vec<Neighbour> {
    entries.into_iter().filter(which).take(MAX_NEIGHBOURS).map(Neighbour::from).collect()
}

//! One chain out of a peer's answers, which may have several blocks at an index, stale blocks and gaps.

use super::{
    block_set::{BlockSet, Paths, is_run},
    remote::{BRANCH, Chunk, RemotePeer, parse},
};
use crate::{
    chain::{MinerBlock, Position},
    protocol::{
        MAX_CHUNK, Query,
        answer::{CanonicalData, EpochData},
    },
    sync::failure::PeerFault,
};

/// Most requests for a window of 1000 blocks. Today's nodes need 20 with their default of 50 blocks; a peer that sends
/// fewer than 16 blocks at a time is given up.
const MAX_REQUESTS_PER_WINDOW: usize = 64;

/// Most blocks of a window that are requested by hash because the answer lacks them.
const MAX_GAPS: usize = 64;

/// Blocks beyond the end of a window that are read to find out which of several blocks is on the chain: as many as an
/// abandoned branch is likely to have, then one full answer.
const LOOK_AHEAD: [u64; 2] = [BRANCH, MAX_CHUNK];

impl RemotePeer {
    /// Fetches the blocks from `from` to `to` of the chain that ends with `tip`, in as many answers as it takes. `keep`
    /// gets certain blocks at once, so that a later failure does not lose them. The peer may reorganise between two
    /// answers: earlier blocks stay. `parent` is a hint: the hash of the block below `from`.
    pub async fn range(
        &self,
        from: u64,
        to: u64,
        tip: &Position,
        parent: Option<&str>,
        mut keep: impl FnMut(Vec<MinerBlock>),
    ) -> Result<(), PeerFault> {
        // Blocks from `open` on are not passed on yet; the next request starts at `next`.
        let (mut open, mut next, mut end, mut set) = (from, from, None::<String>, BlockSet::default());
        for _ in 0..MAX_REQUESTS_PER_WINDOW {
            let Chunk { blocks, to_index } = self.chunk(next, to).await?;
            if blocks.is_empty() && set.len() == 0 {
                return Err(PeerFault::Missing(next));
            }
            let is_last = to_index >= to;
            next = to_index.saturating_add(1);
            let blocks = if set.len() == 0
                && is_run(&blocks, open, to_index)
                && (to_index < tip.index || blocks.last().is_some_and(|last| last.hash == tip.hash))
            {
                blocks
            } else {
                set.add(blocks);
                if set.is_full() {
                    return Err(PeerFault::Ambiguous(open));
                }
                let parent = end.as_deref().or(parent);
                match set.paths(open, to_index, parent) {
                    Paths::One(blocks) if !is_last || to < tip.index => blocks,
                    // Later answers show which of several blocks it is.
                    Paths::Several | Paths::None if !is_last => continue,
                    _ => self.resolve(&mut set, open, to, tip, parent).await?,
                }
            };
            if end.is_some_and(|end| blocks.first().is_some_and(|first| first.previous_hash != end)) {
                return Err(PeerFault::Reorganised(open));
            }
            end = blocks.last().map(|block| block.hash.clone());
            open = next;
            set = BlockSet::default();
            self.count(&blocks);
            keep(blocks);
            if is_last {
                return Ok(());
            }
        }
        Err(PeerFault::TooFewBlocks(MAX_CHUNK as usize / MAX_REQUESTS_PER_WINDOW + 1))
    }

    /// Resolves the chain from `from` to `to` that ends with `tip`, from the set and further requests: for blocks
    /// above, which show the one on the chain, and for missing blocks by hash.
    async fn resolve(
        &self,
        set: &mut BlockSet,
        from: u64,
        to: u64,
        tip: &Position,
        parent: Option<&str>,
    ) -> Result<Vec<MinerBlock>, PeerFault> {
        if to < tip.index
            && let Some(blocks) = self.only_chain(set, from, to, parent).await?
        {
            return Ok(blocks);
        }
        let (mut reached, mut asked) = (to, 0);
        for ahead in LOOK_AHEAD {
            let wanted = to.saturating_add(ahead).min(tip.index);
            while reached < wanted {
                let Chunk { blocks, to_index } = self.chunk(reached.saturating_add(1), wanted).await?;
                set.add(blocks);
                (reached, asked) = (to_index, asked + 1);
                if set.is_full() || asked > MAX_REQUESTS_PER_WINDOW {
                    return Err(PeerFault::Ambiguous(to));
                }
            }
            let whole = match reached >= tip.index {
                true => Some(self.linked_down(set, &tip.hash, from, tip.index).await?),
                false => self.only_chain(set, from, reached, parent).await?,
            };
            if let Some(mut blocks) = whole {
                blocks.retain(|block| block.index <= to);
                return Ok(blocks);
            }
        }
        Err(PeerFault::Ambiguous(to))
    }

    /// The chain from `from` to `to`, if only one block at `to` can be on it.
    async fn only_chain(
        &self,
        set: &mut BlockSet,
        from: u64,
        to: u64,
        parent: Option<&str>,
    ) -> Result<Option<Vec<MinerBlock>>, PeerFault> {
        match (set.paths(from, to, parent), set.at(to)) {
            (Paths::One(blocks), _) => Ok(Some(blocks)),
            (Paths::None, [top]) => {
                let top = top.clone();
                self.linked_down(set, &top, from, to).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The chain from `from` up to the block `top` at `to`; missing blocks are requested by hash.
    async fn linked_down(
        &self,
        set: &mut BlockSet,
        top: &str,
        from: u64,
        to: u64,
    ) -> Result<Vec<MinerBlock>, PeerFault> {
        for _ in 0..=MAX_GAPS {
            let Some(gap) = set.gap(top, from, to) else { return Ok(set.chain(top, from)) };
            if gap.misplaced.is_some() {
                return Err(PeerFault::Unlinked(Box::new(gap)));
            }
            match self.get(&gap.hash).await? {
                Some(block) => set.put(block),
                None => return Err(PeerFault::Unlinked(Box::new(gap))),
            }
        }
        Err(PeerFault::Ambiguous(to))
    }

    /// The blocks from `from` to `to` of an epoch. Nodes number epochs in two ways: a block that the answer lacks at
    /// either end is in the neighbouring epoch.
    pub async fn epoch(&self, epoch: u64, from: u64, to: u64, tip: &Position) -> Result<Vec<MinerBlock>, PeerFault> {
        let mut set = BlockSet::default();
        let mut beside = vec![epoch];
        while let Some(asked) = beside.pop() {
            let blocks = self.ask(&Query::Epoch { epoch: asked }, |data| Ok(parse::<EpochData>(data)?.blocks)).await?;
            set.add(blocks.into_iter().filter(|block| (from..=to).contains(&block.index)));
            if asked == epoch {
                let lacks = |index: u64| set.at(index).is_empty();
                beside.extend(lacks(to).then(|| epoch.saturating_add(1)));
                beside.extend(epoch.checked_sub(1).filter(|_| lacks(from)));
            }
        }
        let blocks = self.resolve(&mut set, from, to, tip, None).await?;
        self.count(&blocks);
        Ok(blocks)
    }

    /// The whole chain in one answer, cut to `from` and `to`.
    pub async fn canonical(&self, from: u64, to: u64, tip: &Position) -> Result<Vec<MinerBlock>, PeerFault> {
        let blocks = self.ask(&Query::Canonical, |data| Ok(parse::<CanonicalData>(data)?.blocks)).await?;
        let mut set = BlockSet::default();
        set.add(blocks.into_iter().filter(|block| (from..=to).contains(&block.index)));
        let blocks = self.resolve(&mut set, from, to, tip, None).await?;
        self.count(&blocks);
        Ok(blocks)
    }

    fn count(&self, blocks: &[MinerBlock]) {
        self.tracker.peer(self.peer, |counts| counts.blocks += blocks.len() as u64);
    }
}

//! One peer's chain, put together from its answers: it may keep several blocks at an index, strays, and gaps.

use super::{
    block_set::{Pile, Way, is_run},
    remote::{BRANCH, Chunk, Remote, parse},
};
use crate::{
    chain::{MinerBlock, Position},
    protocol::{
        MAX_CHUNK, Query,
        answer::{CanonicalData, EpochData},
    },
    sync::failure::Fault,
};

/// Requests that a window of 1000 blocks may take. Today's nodes need 20 when they give the 50 that are their default; a
/// peer that gives less than 16 at a time is left.
const MAX_REQUESTS_PER_WINDOW: usize = 64;

/// Blocks of one window that are asked for by their hashes because its answer lacks them.
const MAX_HOLES: usize = 64;

/// How far beyond the end of a window is looked for which of several blocks there is on the chain: as far as an abandoned
/// branch is likely to reach, then once more.
const LOOK_AHEAD: [u64; 2] = [BRANCH, MAX_CHUNK];

impl Remote {
    /// The blocks from `from` to `to` of the chain that ends with `tip`, in as many answers as it takes. What is certain
    /// goes to `keep` as it comes: it is not lost when the next answer fails. Between two of them the peer may reorganise:
    /// what it gave before that stays. `parent` is the block before the first, where that is known: a hint.
    pub async fn range(
        &self,
        from: u64,
        to: u64,
        tip: &Position,
        parent: Option<&str>,
        mut keep: impl FnMut(Vec<MinerBlock>),
    ) -> Result<(), Fault> {
        // What is not handed on yet begins at `open`; answers go on at `next`.
        let (mut open, mut next, mut end, mut pile) = (from, from, None::<String>, Pile::default());
        for _ in 0..MAX_REQUESTS_PER_WINDOW {
            let Chunk { blocks, to_index } = self.chunk(next, to).await?;
            if blocks.is_empty() && pile.len() == 0 {
                return Err(Fault::Missing(next));
            }
            let is_last = to_index >= to;
            next = to_index.saturating_add(1);
            let blocks = if pile.len() == 0
                && is_run(&blocks, open, to_index)
                && (to_index < tip.index || blocks.last().is_some_and(|last| last.hash == tip.hash))
            {
                blocks
            } else {
                pile.add(blocks);
                if pile.is_full() {
                    return Err(Fault::Tangled(open));
                }
                let parent = end.as_deref().or(parent);
                match pile.way(open, to_index, parent) {
                    Way::One(blocks) if !is_last || to < tip.index => blocks,
                    // Which of several it is shows in the answers to come.
                    Way::Several | Way::None if !is_last => continue,
                    _ => self.resolve(&mut pile, open, to, tip, parent).await?,
                }
            };
            if end.is_some_and(|end| blocks.first().is_some_and(|first| first.previous_hash != end)) {
                return Err(Fault::Moved(open));
            }
            end = blocks.last().map(|block| block.hash.clone());
            open = next;
            pile.clear();
            self.tracker.peer(self.peer, |counts| counts.blocks += blocks.len() as u64);
            keep(blocks);
            if is_last {
                return Ok(());
            }
        }
        Err(Fault::Tiny(MAX_CHUNK as usize / MAX_REQUESTS_PER_WINDOW + 1))
    }

    /// Puts the chain from `from` to `to` together that ends with `tip`, from what is in the pile and more where that is
    /// needed: later blocks to tell which of several is on the chain, and blocks that only their hash leads to.
    async fn resolve(
        &self,
        pile: &mut Pile,
        from: u64,
        to: u64,
        tip: &Position,
        parent: Option<&str>,
    ) -> Result<Vec<MinerBlock>, Fault> {
        if to < tip.index {
            match (pile.way(from, to, parent), pile.at(to)) {
                (Way::One(blocks), _) => return Ok(blocks),
                // Only one can be meant.
                (Way::None, [top]) => {
                    let top = top.clone();
                    return self.down(pile, &top, from, to).await;
                }
                _ => {}
            }
        }
        let (mut reached, mut asked) = (to, 0);
        for ahead in LOOK_AHEAD {
            let wanted = to.saturating_add(ahead).min(tip.index);
            while reached < wanted {
                let Chunk { blocks, to_index } = self.chunk(reached.saturating_add(1), wanted).await?;
                pile.add(blocks);
                (reached, asked) = (to_index, asked + 1);
                if pile.is_full() || asked > MAX_REQUESTS_PER_WINDOW {
                    return Err(Fault::Tangled(to));
                }
            }
            let mut whole = match reached >= tip.index {
                true => self.down(pile, &tip.hash, from, tip.index).await?,
                false => match (pile.way(from, reached, parent), pile.at(reached)) {
                    (Way::One(blocks), _) => blocks,
                    (Way::None, [top]) => {
                        let top = top.clone();
                        self.down(pile, &top, from, reached).await?
                    }
                    _ => continue,
                },
            };
            whole.retain(|block| block.index <= to);
            return Ok(whole);
        }
        Err(Fault::Tangled(to))
    }

    /// The chain from `from` up to the block `top` at `to`, asking for blocks that are missing by their hashes.
    async fn down(&self, pile: &mut Pile, top: &str, from: u64, to: u64) -> Result<Vec<MinerBlock>, Fault> {
        for _ in 0..=MAX_HOLES {
            let Some(hole) = pile.hole(top, from, to) else { return Ok(pile.chain(top, from)) };
            if hole.misplaced.is_some() {
                return Err(Fault::Unlinked(Box::new(hole)));
            }
            match self.get(&hole.hash).await? {
                Some(block) => pile.put(block),
                None => return Err(Fault::Unlinked(Box::new(hole))),
            }
        }
        Err(Fault::Tangled(to))
    }

    /// The blocks from `from` to `to`, which are those of an epoch. Nodes number epochs in two ways: what one of its answers
    /// lacks at either end is in the epoch beside.
    pub async fn epoch(&self, epoch: u64, from: u64, to: u64, tip: &Position) -> Result<Vec<MinerBlock>, Fault> {
        let mut pile = Pile::default();
        let mut beside = vec![epoch];
        while let Some(asked) = beside.pop() {
            let blocks = self.ask(&Query::Epoch { epoch: asked }, |data| Ok(parse::<EpochData>(data)?.blocks)).await?;
            pile.add(blocks.into_iter().filter(|block| (from..=to).contains(&block.index)));
            if asked == epoch {
                let lacks = |index: u64| pile.at(index).is_empty();
                beside.extend(lacks(to).then(|| epoch.saturating_add(1)));
                beside.extend(epoch.checked_sub(1).filter(|_| lacks(from)));
            }
        }
        self.counted(self.resolve(&mut pile, from, to, tip, None).await)
    }

    /// Its whole chain, from `from` to `to`, in one answer.
    pub async fn canonical(&self, from: u64, to: u64, tip: &Position) -> Result<Vec<MinerBlock>, Fault> {
        let blocks = self.ask(&Query::Canonical, |data| Ok(parse::<CanonicalData>(data)?.blocks)).await?;
        let mut pile = Pile::default();
        pile.add(blocks.into_iter().filter(|block| (from..=to).contains(&block.index)));
        self.counted(self.resolve(&mut pile, from, to, tip, None).await)
    }

    fn counted(&self, blocks: Result<Vec<MinerBlock>, Fault>) -> Result<Vec<MinerBlock>, Fault> {
        if let Ok(blocks) = &blocks {
            self.tracker.peer(self.peer, |counts| counts.blocks += blocks.len() as u64);
        }
        blocks
    }
}

//! One chain out of the blocks that a peer serves. Real nodes serve several blocks at an index, stale blocks that link
//! to nothing, and gaps. Each block names its parent, so there is one path down from a block.

use std::collections::HashMap;

use crate::chain::MinerBlock;

/// Most blocks at one index that are kept as received. Beyond that, a block of the chain is requested by its hash.
const MAX_AT_INDEX: usize = 8;

/// Most bytes of text of a set's blocks: three of the longest answers.
const MAX_SET_BYTES: usize = 30 << 20;

/// Blocks of one peer, by hash.
#[derive(Debug, Default)]
pub struct BlockSet {
    blocks: HashMap<String, MinerBlock>,
    at: HashMap<u64, Vec<String>>,
    bytes: usize,
}

/// The end of a path down that ends too early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Index of the missing block.
    pub index: u64,
    /// Hash of the missing block.
    pub hash: String,
    /// The block that names it as its parent; `None` if the top is missing.
    pub child: Option<Box<MinerBlock>>,
    /// A block with that hash at another index.
    pub misplaced: Option<Box<MinerBlock>>,
}

/// The paths down through a set from the blocks at its highest index.
#[derive(Debug, PartialEq, Eq)]
pub enum Paths {
    /// One block has a path.
    One(Vec<MinerBlock>),
    /// No block has one.
    None,
    /// Several have one; blocks above will show which is on the chain.
    Several,
}

/// Whether `blocks` are one linked run from `from` to `to`, as nearly every answer is.
pub fn is_run(blocks: &[MinerBlock], from: u64, to: u64) -> bool {
    blocks.iter().map(|block| block.index).eq(from..=to)
        && blocks.windows(2).all(|pair| pair[1].previous_hash == pair[0].hash)
}

impl BlockSet {
    /// Adds blocks, up to 8 at an index; a block that is there stays.
    pub fn add(&mut self, blocks: impl IntoIterator<Item = MinerBlock>) {
        for block in blocks {
            if self.at(block.index).len() < MAX_AT_INDEX {
                self.put(block);
            }
        }
    }

    /// Adds a block that is needed, beyond the limit too.
    pub fn put(&mut self, block: MinerBlock) {
        let hash = block.hash.clone();
        if self.blocks.contains_key(&hash) {
            return;
        }
        self.bytes += hash.len() + block.previous_hash.len() + block.nominated_peer_id.len() + block.data_hash.len();
        self.at.entry(block.index).or_default().push(hash.clone());
        self.blocks.insert(hash, block);
    }

    /// The number of blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether the set is over its limit.
    pub fn is_full(&self) -> bool {
        self.bytes > MAX_SET_BYTES
    }

    /// Hashes of the blocks at `index`.
    pub fn at(&self, index: u64) -> &[String] {
        self.at.get(&index).map_or(&[], Vec::as_slice)
    }

    /// The first gap on the path from the block `top` at `to` down to index `from`, if there is one.
    pub fn gap(&self, top: &str, from: u64, to: u64) -> Option<Gap> {
        let (mut wanted, mut child) = (top, None::<&MinerBlock>);
        for index in (from..=to).rev() {
            let found = self.blocks.get(wanted);
            match found.filter(|block| block.index == index) {
                Some(block) => (wanted, child) = (&block.previous_hash, Some(block)),
                None => {
                    let (child, misplaced) = (child.cloned().map(Box::new), found.cloned().map(Box::new));
                    return Some(Gap { index, hash: wanted.to_owned(), child, misplaced });
                }
            }
        }
        None
    }

    /// The blocks on the path from the block `top` down to index `from`, ascending. It must have no [`gap`](Self::gap).
    pub fn chain(&self, top: &str, from: u64) -> Vec<MinerBlock> {
        let mut blocks: Vec<_> = self.down(top, from).cloned().collect();
        blocks.reverse();
        blocks
    }

    /// The blocks from `top` down to index `from`, or to the first gap.
    fn down(&self, top: &str, from: u64) -> impl Iterator<Item = &MinerBlock> {
        let parent = |block: &&MinerBlock| {
            self.blocks.get(&block.previous_hash).filter(|parent| parent.index.checked_add(1) == Some(block.index))
        };
        std::iter::successors(self.blocks.get(top), parent).take_while(move |block| block.index >= from)
    }

    /// The paths from index `to` down to `from`; `parent` is the block below `from`, if known.
    pub fn paths(&self, from: u64, to: u64, parent: Option<&str>) -> Paths {
        let tops = self.at(to).iter().filter(|top| self.gap(top, from, to).is_none());
        let parent_of = |top: &str| self.down(top, from).last().map(|lowest| lowest.previous_hash.as_str());
        let tops: Vec<_> = tops.map(|top| (top, parent_of(top))).collect();
        let fit: Vec<_> =
            tops.iter().filter(|(_, below)| parent.is_some_and(|parent| *below == Some(parent))).collect();
        // Where none fits, the peer has changed to another chain; the caller, which knows the parent, finds that out.
        match (fit.as_slice(), tops.as_slice()) {
            ([(top, _)], _) | ([], [(top, _)]) => Paths::One(self.chain(top, from)),
            ([], []) => Paths::None,
            _ => Paths::Several,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(hash: &str, index: u64, previous_hash: &str) -> MinerBlock {
        MinerBlock { hash: hash.into(), index, previous_hash: previous_hash.into(), ..MinerBlock::default() }
    }

    fn set(blocks: &[(&str, u64, &str)]) -> BlockSet {
        let mut set = BlockSet::default();
        set.add(blocks.iter().map(|(hash, index, parent)| block(hash, *index, parent)));
        set
    }

    fn hashes(paths: Paths) -> Vec<String> {
        match paths {
            Paths::One(blocks) => blocks.into_iter().map(|block| block.hash).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn stale_and_second_blocks_are_left_out() {
        // As on the second miner of the recorded network: its own genesis, and a stale block 2.
        let set =
            set(&[("g", 0, "0"), ("own", 0, "0"), ("1", 1, "g"), ("2", 2, "1"), ("stale", 2, "gone"), ("3", 3, "2")]);
        assert_eq!(hashes(set.paths(0, 3, None)), ["g", "1", "2", "3"]);
        assert_eq!(set.gap("3", 0, 3), None);
        assert_eq!(set.gap("stale", 0, 2).map(|gap| (gap.index, gap.hash)), Some((1, "gone".into())));
        assert_eq!(set.paths(2, 2, None), Paths::Several, "which of the two shows further up");
        assert_eq!(hashes(set.paths(2, 2, Some("1"))), ["2"], "or by the parent");
        assert_eq!(set.paths(0, 4, None), Paths::None);
    }

    #[test]
    fn a_gap_and_a_block_at_another_index_are_gaps() {
        let mut set = set(&[("g", 0, "0"), ("1", 1, "g"), ("3", 3, "2")]);
        let gap = set.gap("3", 0, 3).unwrap();
        assert_eq!((gap.index, gap.hash.as_str(), gap.misplaced), (2, "2", None));
        assert_eq!(gap.child.unwrap().hash, "3");
        set.add([block("2", 7, "1")]);
        assert_eq!(set.gap("3", 0, 3).unwrap().misplaced.unwrap().index, 7);
        let top = set.gap("9", 0, 9).unwrap();
        assert_eq!((top.index, top.child), (9, None));
        assert_eq!(set.len(), 4);
    }

    #[test]
    fn blocks_at_one_index_are_bounded() {
        let mut set = set(&[("g", 0, "0"), ("1", 1, "g")]);
        set.add((0..1000).map(|number| block(&format!("stale {number}"), 2, "1")));
        assert_eq!(set.len(), 2 + MAX_AT_INDEX);
        assert_eq!(set.paths(0, 2, None), Paths::Several);
        set.put(block("2", 2, "1"));
        assert_eq!(set.chain("2", 0).len(), 3, "the one that is needed has room");
        assert!(!set.is_full());
        set.put(block(&"x".repeat(MAX_SET_BYTES), 3, "2"));
        assert!(set.is_full());
    }

    #[test]
    fn a_run_has_each_index_once_and_every_link() {
        let run = |blocks: &[(&str, u64, &str)], from, to| {
            let blocks: Vec<_> = blocks.iter().map(|(hash, index, parent)| block(hash, *index, parent)).collect();
            is_run(&blocks, from, to)
        };
        assert!(run(&[("1", 1, "g"), ("2", 2, "1"), ("3", 3, "2")], 1, 3));
        assert!(run(&[("a", u64::MAX - 1, "x"), ("b", u64::MAX, "a")], u64::MAX - 1, u64::MAX));
        assert!(!run(&[("1", 1, "g"), ("2", 2, "1")], 1, 3), "too short");
        assert!(!run(&[("1", 1, "g"), ("2", 2, "1")], 1, 1), "too long");
        assert!(!run(&[("1", 1, "g"), ("2", 2, "g")], 1, 2), "a link that is broken");
        assert!(!run(&[("1", 1, "g"), ("2", 2, "1"), ("3", 2, "1")], 1, 2), "two at an index");
        assert!(!run(&[("2", 2, "1"), ("1", 1, "g")], 1, 2), "in another order");
    }

    #[test]
    fn the_highest_indexes_do_not_overflow() {
        let set = set(&[("a", u64::MAX - 1, "x"), ("b", u64::MAX, "a")]);
        assert_eq!(hashes(set.paths(u64::MAX - 1, u64::MAX, None)), ["a", "b"]);
        assert_eq!(set.chain("b", u64::MAX).len(), 1);
    }
}

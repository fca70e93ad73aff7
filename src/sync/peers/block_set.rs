//! One chain out of what a peer keeps: real nodes serve several blocks at an index, blocks that link to nothing, and gaps.
//! A block names its parent, so that the way down from a known block is always one.

use std::collections::HashMap;

use crate::chain::MinerBlock;

/// Blocks at one index that are kept as they come. Of more, what is on the chain is asked for by its hash.
const MAX_AT_INDEX: usize = 8;

/// Text that a pile's blocks may have together: three of the longest answers.
const MAX_PILE_BYTES: usize = 30 << 20;

/// Blocks of one peer, by their hashes.
#[derive(Debug, Default)]
pub struct Pile {
    blocks: HashMap<String, MinerBlock>,
    at: HashMap<u64, Vec<String>>,
    bytes: usize,
}

/// A place where the way down ends too early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// Index of the block that is missing.
    pub index: u64,
    /// Its hash.
    pub hash: String,
    /// The block that names it as its parent; `None` where it is the top itself.
    pub child: Option<Box<MinerBlock>>,
    /// A block with that hash, which claims another index.
    pub misplaced: Option<Box<MinerBlock>>,
}

/// What can be said of the chain through a pile.
#[derive(Debug, PartialEq, Eq)]
pub enum Way {
    /// One block at the top has a way down.
    One(Vec<MinerBlock>),
    /// None has.
    None,
    /// Several have, and which is the chain's shows further up.
    Several,
}

/// Whether `blocks` are one linked run from `from` to `to`, as nearly every answer is: nothing has to be put together.
pub fn is_run(blocks: &[MinerBlock], from: u64, to: u64) -> bool {
    blocks.iter().map(|block| block.index).eq(from..=to)
        && blocks.windows(2).all(|pair| pair[1].previous_hash == pair[0].hash)
}

impl Pile {
    /// Adds blocks, of which many at one index are left out; one that is there already stays.
    pub fn add(&mut self, blocks: impl IntoIterator<Item = MinerBlock>) {
        for block in blocks {
            if self.at(block.index).len() < MAX_AT_INDEX {
                self.put(block);
            }
        }
    }

    /// Adds a block that is needed, however many are there.
    pub fn put(&mut self, block: MinerBlock) {
        let hash = block.hash.clone();
        if self.blocks.contains_key(&hash) {
            return;
        }
        self.bytes += hash.len() + block.previous_hash.len() + block.nominated_peer_id.len() + block.data_hash.len();
        self.at.entry(block.index).or_default().push(hash.clone());
        self.blocks.insert(hash, block);
    }

    /// How many blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether it holds as much as it may.
    pub fn is_full(&self) -> bool {
        self.bytes > MAX_PILE_BYTES
    }

    /// Takes all blocks out.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Hashes of the blocks at `index`.
    pub fn at(&self, index: u64) -> &[String] {
        self.at.get(&index).map_or(&[], Vec::as_slice)
    }

    /// The first hole on the way down from the block `top` at `to` to an index of `from`, if there is one.
    pub fn hole(&self, top: &str, from: u64, to: u64) -> Option<Hole> {
        let (mut wanted, mut child) = (top, None::<&MinerBlock>);
        for index in (from..=to).rev() {
            let found = self.blocks.get(wanted);
            match found.filter(|block| block.index == index) {
                Some(block) => (wanted, child) = (&block.previous_hash, Some(block)),
                None => {
                    let (child, misplaced) = (child.cloned().map(Box::new), found.cloned().map(Box::new));
                    return Some(Hole { index, hash: wanted.to_owned(), child, misplaced });
                }
            }
        }
        None
    }

    /// The blocks on the way down from the block `top`, which has no [`hole`](Self::hole) between its index and `from`,
    /// in ascending order.
    pub fn chain(&self, top: &str, from: u64) -> Vec<MinerBlock> {
        let mut blocks = Vec::new();
        let mut next = self.blocks.get(top);
        while let Some(block) = next.filter(|block| block.index >= from) {
            blocks.push(block.clone());
            next =
                self.blocks.get(&block.previous_hash).filter(|parent| parent.index.checked_add(1) == Some(block.index));
        }
        blocks.reverse();
        blocks
    }

    /// The way from an index `to` down to `from`, there to a block whose parent is `parent` if that is known.
    pub fn way(&self, from: u64, to: u64, parent: Option<&str>) -> Way {
        let tops = self.at(to).iter().filter(|top| self.hole(top, from, to).is_none());
        let tops: Vec<_> = tops.map(|top| (top, self.parent_of(top, from))).collect();
        let fit: Vec<_> =
            tops.iter().filter(|(_, below)| parent.is_some_and(|parent| *below == Some(parent))).collect();
        // Where none fits, the peer has gone over to another chain, which is for whoever knows the parent to say.
        match (fit.as_slice(), tops.as_slice()) {
            ([(top, _)], _) | ([], [(top, _)]) => Way::One(self.chain(top, from)),
            ([], []) => Way::None,
            _ => Way::Several,
        }
    }

    /// The parent of the block at `from` on the way down from `top`.
    fn parent_of(&self, top: &str, from: u64) -> Option<&str> {
        let mut next = self.blocks.get(top)?;
        while next.index > from {
            next = self
                .blocks
                .get(&next.previous_hash)
                .filter(|parent| parent.index.checked_add(1) == Some(next.index))?;
        }
        Some(&next.previous_hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(hash: &str, index: u64, previous_hash: &str) -> MinerBlock {
        MinerBlock { hash: hash.into(), index, previous_hash: previous_hash.into(), ..MinerBlock::default() }
    }

    fn pile(blocks: &[(&str, u64, &str)]) -> Pile {
        let mut pile = Pile::default();
        pile.add(blocks.iter().map(|(hash, index, parent)| block(hash, *index, parent)));
        pile
    }

    fn hashes(way: Way) -> Vec<String> {
        match way {
            Way::One(blocks) => blocks.into_iter().map(|block| block.hash).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn strays_and_second_blocks_are_left_aside() {
        // As the second miner of the recorded network: its own genesis, and a stale block 2.
        let pile =
            pile(&[("g", 0, "0"), ("own", 0, "0"), ("1", 1, "g"), ("2", 2, "1"), ("stale", 2, "gone"), ("3", 3, "2")]);
        assert_eq!(hashes(pile.way(0, 3, None)), ["g", "1", "2", "3"]);
        assert_eq!(pile.hole("3", 0, 3), None);
        assert_eq!(pile.hole("stale", 0, 2).map(|hole| (hole.index, hole.hash)), Some((1, "gone".into())));
        assert_eq!(pile.way(2, 2, None), Way::Several, "which of the two shows further up");
        assert_eq!(hashes(pile.way(2, 2, Some("1"))), ["2"], "or by the parent");
        assert_eq!(pile.way(0, 4, None), Way::None);
    }

    #[test]
    fn a_gap_and_a_block_at_another_index_are_holes() {
        let mut pile = pile(&[("g", 0, "0"), ("1", 1, "g"), ("3", 3, "2")]);
        let hole = pile.hole("3", 0, 3).unwrap();
        assert_eq!((hole.index, hole.hash.as_str(), hole.misplaced), (2, "2", None));
        assert_eq!(hole.child.unwrap().hash, "3");
        pile.add([block("2", 7, "1")]);
        assert_eq!(pile.hole("3", 0, 3).unwrap().misplaced.unwrap().index, 7);
        let top = pile.hole("9", 0, 9).unwrap();
        assert_eq!((top.index, top.child), (9, None));
        assert_eq!(pile.len(), 4);
    }

    #[test]
    fn a_crowd_at_one_index_takes_no_room() {
        let mut pile = pile(&[("g", 0, "0"), ("1", 1, "g")]);
        pile.add((0..1000).map(|number| block(&format!("stray {number}"), 2, "1")));
        assert_eq!(pile.len(), 2 + MAX_AT_INDEX);
        assert_eq!(pile.way(0, 2, None), Way::Several);
        pile.put(block("2", 2, "1"));
        assert_eq!(pile.chain("2", 0).len(), 3, "the one that is needed has room");
        assert!(!pile.is_full());
        pile.put(block(&"x".repeat(MAX_PILE_BYTES), 3, "2"));
        assert!(pile.is_full());
        pile.clear();
        assert!(pile.len() == 0 && !pile.is_full());
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
    fn the_ends_of_the_numbers_are_no_trouble() {
        let pile = pile(&[("a", u64::MAX - 1, "x"), ("b", u64::MAX, "a")]);
        assert_eq!(hashes(pile.way(u64::MAX - 1, u64::MAX, None)), ["a", "b"]);
        assert_eq!(pile.chain("b", u64::MAX).len(), 1);
    }
}

//! What a node knows: every block by its hash, and which of them it takes for canonical. Nothing keeps it from taking
//! several for canonical at one index.

use std::collections::{BTreeMap, BTreeSet};

use super::Block;

/// The blocks of a node, in the order of their hashes: the order in which a real store lists them.
#[derive(Debug, Default)]
pub struct Store {
    blocks: BTreeMap<String, Block>,
    /// Indexes that are left out wherever canonical blocks are listed.
    pub(super) hidden: BTreeSet<u64>,
}

impl Store {
    /// Keeps a block in place of what was known of it.
    pub fn put(&mut self, block: Block) {
        self.blocks.insert(block.hash.clone(), block);
    }

    /// Any block, orphans too.
    pub fn get(&self, hash: &str) -> Option<&Block> {
        self.blocks.get(hash)
    }

    /// Every canonical block by index; those at one index by hash.
    pub fn canonical(&self) -> Vec<&Block> {
        let shown = |block: &&Block| block.is_canonical && !self.hidden.contains(&block.index);
        let mut blocks: Vec<_> = self.blocks.values().filter(shown).collect();
        blocks.sort_by_key(|block| block.index);
        blocks
    }

    /// Every block at an index, by hash.
    pub fn at(&self, index: u64) -> impl Iterator<Item = &Block> {
        self.blocks.values().filter(move |block| block.index == index)
    }

    /// The canonical block at an index; of several, the first by hash.
    pub fn canonical_at(&self, index: u64) -> Option<&Block> {
        self.at(index).find(|block| block.is_canonical)
    }

    /// The canonical block of the highest index; of several, the last by hash.
    pub fn tip(&self) -> Option<&Block> {
        self.blocks.values().filter(|block| block.is_canonical).max_by_key(|block| block.index)
    }

    /// The blocks that the tip is built on, genesis first; as far as the links lead.
    pub fn linked(&self) -> Vec<Block> {
        let parent = |block: &&Block| self.get(&block.previous_hash).filter(|parent| parent.index + 1 == block.index);
        let mut chain: Vec<_> = std::iter::successors(self.tip(), parent).cloned().collect();
        chain.reverse();
        chain
    }

    /// How many blocks it has orphaned.
    pub fn orphans(&self) -> usize {
        self.blocks.values().filter(|block| block.is_orphaned).count()
    }

    /// Takes a block that is known out of the canonical ones.
    pub fn orphan(&mut self, hash: &str, reason: String, competing: Option<String>) {
        if let Some(block) = self.blocks.get_mut(hash) {
            block.orphan(reason, competing);
        }
    }
}

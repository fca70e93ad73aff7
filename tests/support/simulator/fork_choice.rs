//! What a node does with a block that it hears of, and with a chain that it adopts. It checks links and weight only.

use std::collections::HashSet;

use super::{Block, Store, Switches};

/// What became of a block that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is known already.
    Known,
    /// It is the next block of the chain.
    Extended,
    /// It has taken the place of a lighter one, whose descendants are orphaned.
    Replaced,
    /// The block in its place is heavier, or was there before.
    Lost,
    /// Its parent is not the canonical block below it.
    Refused,
    /// Its parent is unknown: its sender may know more.
    Orphan,
}

/// Takes in a block from gossip. A block at an index that is taken is weighed against the one there, whatever its
/// parent.
pub fn hear(store: &mut Store, block: Block) -> Heard {
    if store.get(&block.hash).is_some() {
        return Heard::Known;
    }
    if let Some(existing) = store.canonical_at(block.index).cloned() {
        if !wins(&block, &existing) {
            return Heard::Lost;
        }
        replace(store, &existing, block);
        return Heard::Replaced;
    }
    if block.index > 0 {
        let Some(parent) = store.get(&block.previous_hash) else { return Heard::Orphan };
        let below = store.canonical_at(block.index - 1).map(|below| &below.hash);
        if !parent.is_canonical || parent.index != block.index - 1 || below != Some(&block.previous_hash) {
            return Heard::Refused;
        }
    }
    store.put(block);
    Heard::Extended
}

/// Whether a block takes the place of the one at its index: the heavier; of equals the one seen first, to the second;
/// then that of the lower hash.
fn wins(block: &Block, existing: &Block) -> bool {
    let key = |block: &Block| (u128::MAX - block.worth(), block.seen_at.unwrap_or(i64::MAX), block.hash.clone());
    key(block) < key(existing)
}

/// Orphans a block, and what is built on it.
fn replace(store: &mut Store, old: &Block, new: Block) {
    let mut gone = HashSet::from([old.hash.clone()]);
    store.orphan(&old.hash, format!("Replaced by gossiped block (hash: {})", new.hash), Some(new.hash.clone()));
    let above: Vec<_> = store.canonical().into_iter().filter(|block| block.index > old.index).cloned().collect();
    for block in above {
        if gone.contains(&block.previous_hash) {
            store.orphan(&block.hash, format!("Built on orphaned block {}", old.hash), None);
            gone.insert(block.hash);
        }
    }
    store.put(new);
}

/// Takes over blocks of a heavier chain as they are. Those above the common ancestor make way; a genesis never does,
/// since index 0 is not above anything.
///
/// # Errors
/// Blocks that don't follow each other.
pub fn adopt(store: &mut Store, mut blocks: Vec<Block>, switches: &Switches) -> Result<(), String> {
    blocks.sort_by_key(|block| block.index);
    for pair in blocks.windows(2) {
        if pair[1].index != pair[0].index + 1 || pair[1].previous_hash != pair[0].hash {
            return Err(format!("block {} does not follow block {}", pair[1].index, pair[0].index));
        }
    }
    let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Ok(()) };
    let ancestor = first.index.saturating_sub(1);
    let adopted: HashSet<_> = blocks.iter().map(|block| &block.hash).collect();
    let leaving = |block: &&Block| block.index > ancestor && !adopted.contains(&block.hash);
    let leaving: Vec<_> = store.canonical().into_iter().filter(leaving).cloned().collect();
    // It never is above the new tip: the tip that is told is the right one.
    let stale = leaving.iter().rfind(|block| switches.stale_branch && block.index < last.index);
    for block in &leaving {
        if stale.is_none_or(|stale| stale.hash != block.hash) {
            let winner = blocks.iter().find(|other| other.index == block.index).map(|winner| winner.hash.clone());
            store.orphan(&block.hash, "Replaced by a peer's heavier chain".into(), winner);
        }
    }
    blocks.into_iter().for_each(|block| store.put(block));
    Ok(())
}

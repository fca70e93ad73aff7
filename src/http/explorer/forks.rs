//! The branches beside the chain that this store has seen.

use std::collections::HashMap;

use askama::Template;
use axum::response::Response;

use super::{
    frame::{Frame, Section},
    page::respond,
    parts::{Id, Links, Mark, Moment, Numbered},
    peers::heard,
    read,
    reorganisations::{self, Depths},
    text::{Shown, escaped},
    visit::{Visit, invalid},
};
use crate::{
    chain::{MinerBlock, block::MAX_KEY_BYTES},
    http::envelope::Rejection,
    p2p::PeerInfo,
    protocol::Failure,
};

/// Orphaned blocks whose branches a page shows: with the longest texts it still is no longer than a page may be.
const ORPHANS: u64 = 45;
/// The parameter that hides branches of one block.
const HIDE: &str = "hide";

#[derive(Template)]
#[template(path = "explorer/forks.html")]
struct ForksPage {
    frame: Frame,
    branches: Vec<Branch>,
    /// Branches of one block that are left out.
    hidden: usize,
    hides: bool,
    depths: Depths,
    is_first: bool,
    /// The parameters of the same list as JSON.
    limit: u64,
    before: Option<String>,
    older: Option<String>,
}

/// A branch beside the chain.
struct Branch {
    parts_after: Option<Numbered>,
    parent: Id,
    /// Whether more of it may be on the next page.
    goes_on: bool,
    /// Blocks from its first to its highest.
    length: usize,
    blocks: usize,
    first_seen: Option<Moment>,
    /// When the last of its blocks left the chain; `None` if none ever was on it.
    left: Option<Moment>,
    reason: String,
    tip: Id,
    /// A peer at one of its blocks, and how many others there are.
    holder: Option<Id>,
    other_holders: usize,
    /// The branch as a tree, one line a block.
    tree: Vec<Line>,
}

/// A block in a tree.
struct Line {
    /// What leads to it.
    stem: String,
    index: Numbered,
    hash: Id,
    mark: Mark,
}

/// Index and hash of the last block of the page before, of a text with a colon between them.
fn behind(text: &str) -> Result<(u64, String), Failure> {
    let block = text.split_once(':').and_then(|(index, hash)| Some((index.parse().ok()?, hash.to_owned())));
    // No block has a longer hash, and the page has it twice.
    let block = block.filter(|(_, hash)| hash.len() <= MAX_KEY_BYTES);
    block.ok_or_else(|| invalid("before", "expected an index, a colon and a hash"))
}

/// The page of branches, those with blocks behind `before`.
pub(super) async fn page(visit: Visit) -> Result<Response, Rejection> {
    let before = visit.parameter("before").filter(|text| !text.is_empty()).map(behind).transpose()?;
    let hides = visit.parameter(HIDE) == Some("1");
    let viewed = read::orphans(&visit, before.as_ref(), ORPHANS).await?;
    let seen = read::reorganisations(&visit, None, reorganisations::PER_PAGE).await?;
    let peers = visit.gateway.peers();
    let mut branches = branches(&visit, &viewed.data.blocks, viewed.data.next_before.is_some(), &peers);
    let all = branches.len();
    if hides {
        branches.retain(|branch| branch.length > 1 || branch.goes_on);
    }
    let page = ForksPage {
        hidden: all - branches.len(),
        branches,
        hides,
        depths: Depths::of(&seen.data.reorganisations),
        is_first: before.is_none(),
        limit: ORPHANS,
        before: before.map(|(index, hash)| escaped(&format!("{index}:{hash}"))),
        older: viewed.data.next_before.as_deref().map(escaped),
        frame: visit.frame(Section::Forks, "Forks", &viewed.snapshot).await?,
    };
    Ok(respond(&visit, &page.frame, &page)?)
}

/// Puts orphaned blocks, the highest first, together to branches.
fn branches(visit: &Visit, orphans: &[MinerBlock], has_more: bool, peers: &[PeerInfo]) -> Vec<Branch> {
    let by_hash: HashMap<&str, &MinerBlock> = orphans.iter().map(|block| (block.hash.as_str(), block)).collect();
    let mut children: HashMap<&str, Vec<&MinerBlock>> = HashMap::new();
    for block in orphans.iter().rev() {
        children.entry(&block.previous_hash).or_default().push(block);
    }
    let lowest = orphans.iter().map(|block| block.index).min();
    // A parent is one below, which no text of an unverified chain can turn into a ring.
    let has_parent = |block: &MinerBlock| {
        by_hash.get(block.previous_hash.as_str()).is_some_and(|parent| parent.index.checked_add(1) == Some(block.index))
    };
    let roots = orphans.iter().filter(|block| !has_parent(block));
    // The blocks of the lowest index may go on, on the next page, and so may the parents of those above them.
    let goes_on = |root: &MinerBlock| has_more && lowest.is_some_and(|lowest| root.index <= lowest.saturating_add(1));
    roots.map(|root| branch(visit, root, &children, goes_on(root), peers)).collect()
}

fn branch(
    visit: &Visit,
    root: &MinerBlock,
    children: &HashMap<&str, Vec<&MinerBlock>>,
    goes_on: bool,
    peers: &[PeerInfo],
) -> Branch {
    let links = &visit.links;
    let (mut open, mut tree, mut members) = (vec![(root, 0)], Vec::new(), Vec::new());
    while let Some((block, level)) = open.pop() {
        members.push(block);
        tree.push(line(links, block, level));
        let next = children.get(block.hash.as_str()).map_or(&[][..], Vec::as_slice);
        let next: Vec<_> = next.iter().filter(|child| Some(child.index) == block.index.checked_add(1)).collect();
        let level = if next.len() > 1 { level + 1 } else { level };
        open.extend(next.into_iter().rev().map(|child| (*child, level)));
    }
    let tip = members.iter().max_by_key(|block| block.index).copied().unwrap_or(root);
    let holds = |peer: &&PeerInfo| {
        let chain = peer.chain.as_ref();
        chain.is_some_and(|chain| members.iter().any(|block| block.hash == chain.tip_hash))
    };
    let holders: Vec<_> = heard(peers).filter(holds).filter_map(|peer| peer.peer_id.as_deref()).collect();
    let time = |at: Option<i64>| at.map(|at| Moment::new(at, visit.now));
    Branch {
        parts_after: root.index.checked_sub(1).map(|index| links.index(index)),
        parent: links.block(&root.previous_hash),
        goes_on,
        length: usize::try_from(tip.index - root.index).unwrap_or_default() + 1,
        blocks: members.len(),
        first_seen: time(members.iter().filter_map(|block| block.seen_at).min()),
        left: time(members.iter().filter_map(|block| block.orphaned_at).max()),
        reason: root.orphan_reason.as_deref().map(|reason| Shown::listed(reason).text).unwrap_or_default(),
        tip: links.block(&tip.hash),
        holder: holders.first().map(|id| links.nominee(id)),
        other_holders: holders.len().saturating_sub(1),
        tree,
    }
}

fn line(links: &Links, block: &MinerBlock, level: usize) -> Line {
    Line {
        stem: format!("{}├", "│ ".repeat(level.min(8))),
        index: links.index(block.index),
        hash: links.block(&block.hash),
        mark: Mark::Orphaned,
    }
}

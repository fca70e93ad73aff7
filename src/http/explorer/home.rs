//! The first page: the chain now.

use askama::Template;
use axum::response::Response;

use super::{
    figures::Figures,
    frame::{Frame, Section},
    page::respond,
    parts::BlockRow,
    peers::Standings,
    read,
    reorganisations::ReorganisationRow,
    visit::Visit,
};
use crate::http::envelope::Rejection;

/// Blocks that the first page lists.
const BLOCKS: u64 = 15;
/// Orphaned blocks among them.
const ORPHANS: u64 = 10;
/// Reorganisations that it lists.
const REORGANISATIONS: u64 = 3;

#[derive(Template)]
#[template(path = "explorer/home.html")]
struct HomePage {
    frame: Frame,
    figures: Figures,
    rows: Vec<BlockRow>,
    older: Option<u64>,
    /// How many blocks of the chain are among the rows.
    limit: u64,
    reorganisations: Vec<ReorganisationRow>,
    peers: Standings,
}

/// The first page.
pub(super) async fn page(visit: Visit) -> Result<Response, Rejection> {
    let figures = read::network(&visit).await?;
    let blocks = read::blocks(&visit, None, BLOCKS).await?;
    let orphans = read::orphans(&visit, None, ORPHANS).await?;
    let reorganisations = read::reorganisations(&visit, None, REORGANISATIONS).await?;
    let lowest = blocks.data.blocks.last().map_or(0, |block| block.index);
    let (mut all, mut beside) = (blocks.data.blocks, orphans.data.blocks);
    beside.retain(|orphan| orphan.index >= lowest);
    let shown = read::with_level(&blocks.snapshot, orphans.snapshot.level.filter(|_| !beside.is_empty()));
    all.extend(beside);
    // The chain's block at an index comes before those that it replaced.
    all.sort_by_key(|block| (std::cmp::Reverse(block.index), !block.is_canonical));
    let is_final = |index| read::is_final(&visit, &blocks.snapshot, index);
    let rows = all.iter().map(|block| BlockRow::new(&visit.links, block, is_final(block.index), visit.now));
    let page = HomePage {
        rows: rows.collect(),
        older: blocks.data.next_before,
        limit: BLOCKS,
        figures: Figures::new(&visit, &figures.data),
        reorganisations: ReorganisationRow::all(&visit, &reorganisations.data.reorganisations),
        peers: Standings::of(&visit.gateway.peers(), blocks.snapshot.tip.as_ref()),
        frame: visit.frame(Section::Home, "Chain", &shown).await?,
    };
    Ok(respond(&visit, &page.frame, &page)?)
}

//! A block: by its hash exactly that block, by an index the canonical one there.

use askama::Template;
use axum::response::Response;

use super::{
    frame::{Frame, Section},
    page::respond,
    parts::{BlockLink, Id, Mark, Moment, Numbered, Related},
    read,
    text::{self, Shown},
    visit::Visit,
};
use crate::{
    http::envelope::Rejection,
    source::view::{
        BlockId,
        model::{BlockDetail, BlockStatus},
    },
};

#[derive(Template)]
#[template(path = "explorer/block.html")]
struct BlockPage {
    frame: Frame,
    /// Whether the page follows the chain at an index.
    by_index: bool,
    index: Numbered,
    number: String,
    /// The block, without a link where this is its own page.
    hash: Id,
    /// The block's page, and its name in addresses; `None` where it has none.
    own: Option<Id>,
    segment: Option<String>,
    is_orphaned: bool,
    marks: Vec<Mark>,
    confirmations: String,
    epoch: Option<Numbered>,
    claimed_epoch: String,
    claims_other_epoch: bool,
    mined: Moment,
    seen: Option<Moment>,
    previous_hash: Id,
    previous: Option<Related>,
    is_genesis: bool,
    next: Vec<Related>,
    siblings: Vec<Related>,
    nominee: Id,
    /// The nominee where it is too long for a list, and whether it is too long for this page as well.
    long_nominee: Option<Shown>,
    miner_number: String,
    nonce: String,
    target_difficulty: String,
    actualized_difficulty: String,
    data_hash: Id,
    deviations: Vec<&'static str>,
    orphaned: Option<Orphaned>,
}

/// What became of an orphaned block.
struct Orphaned {
    /// When it left the chain; `None` if it never was on it.
    at: Option<Moment>,
    reason: String,
    winner: Option<Id>,
    branched_from: Option<BlockLink>,
}

/// The page of a block.
pub(super) async fn page(visit: Visit) -> Result<Response, Rejection> {
    let id = BlockId::from(visit.name.as_str());
    let viewed = read::block(&visit, &id).await?;
    let by_index = matches!(id, BlockId::Index(_));
    let title = format!("Block {}", text::grouped(viewed.data.block.index));
    let frame = visit.frame(Section::Other, title, &viewed.snapshot).await?;
    let tip = viewed.snapshot.tip.map_or(0, |tip| tip.index);
    let page = describe(&visit, frame, by_index, tip, viewed.data);
    Ok(respond(&visit, &page.frame, &page)?)
}

fn describe(visit: &Visit, frame: Frame, by_index: bool, tip: u64, detail: BlockDetail) -> BlockPage {
    let (links, now, block) = (&visit.links, visit.now, detail.block);
    let confirmations = (tip + 1).saturating_sub(block.index);
    let is_orphaned = detail.status == BlockStatus::Orphaned;
    let mut marks = match is_orphaned {
        true => vec![Mark::Orphaned],
        false => vec![Mark::Canonical, Mark::finality(detail.is_final)],
    };
    marks.push(Mark::named(detail.verification));
    let own = links.own(&block.hash);
    let long = Shown::whole(&block.nominated_peer_id);
    let nominee = links.nominee_of(&block);
    let orphaned = is_orphaned.then(|| Orphaned {
        at: block.orphaned_at.map(|at| Moment::new(at, now)),
        reason: block.orphan_reason.as_deref().map(|reason| Shown::listed(reason).text).unwrap_or_default(),
        winner: block.competing_hash.as_deref().map(|hash| links.block(hash)),
        branched_from: detail.branched_from.as_ref().map(|position| BlockLink::new(links, position)),
    });
    BlockPage {
        frame,
        by_index,
        index: links.index(block.index),
        number: text::grouped(block.index),
        hash: Id::whole(&block.hash),
        segment: text::block_segment(&block.hash),
        own: by_index.then_some(own),
        is_orphaned,
        marks,
        confirmations: text::grouped(confirmations),
        epoch: detail.in_epoch.map(|epoch| links.epoch(epoch)),
        claimed_epoch: text::grouped(block.epoch),
        claims_other_epoch: detail.in_epoch.is_some_and(|epoch| epoch != block.epoch),
        mined: Moment::new(block.timestamp, now),
        seen: block.seen_at.map(|at| Moment::new(at, now)),
        previous_hash: Id::plain(&block.previous_hash),
        previous: detail.previous.as_ref().map(|previous| Related::new(links, previous)),
        is_genesis: block.index == 0,
        next: detail.next.iter().map(|next| Related::new(links, next)).collect(),
        siblings: detail.siblings.iter().map(|sibling| Related::new(links, sibling)).collect(),
        long_nominee: nominee.is_cut().then_some(long),
        nominee,
        miner_number: block.miner_number.to_string(),
        nonce: block.nonce.to_string(),
        target_difficulty: text::grouped(block.target_difficulty),
        actualized_difficulty: text::grouped(block.actualized_difficulty),
        data_hash: Id::plain(&block.data_hash),
        deviations: block.deviations.iter().map(|deviation| deviation.as_str()).collect(),
        orphaned,
    }
}

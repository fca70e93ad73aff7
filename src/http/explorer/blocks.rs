//! The chain's blocks, newest first.

use askama::Template;
use axum::response::Response;

use super::{
    frame::{Frame, Section},
    page::respond,
    parts::BlockRow,
    read,
    visit::Visit,
};
use crate::http::envelope::Rejection;

/// Blocks on a page.
pub(super) const PER_PAGE: u64 = 50;

#[derive(Template)]
#[template(path = "explorer/blocks.html")]
struct BlocksPage {
    frame: Frame,
    rows: Vec<BlockRow>,
    is_first: bool,
    /// The parameters of the same list as JSON.
    limit: u64,
    before: Option<u64>,
    older: Option<u64>,
}

/// A page of blocks, those below the index `before`.
pub(super) async fn page(visit: Visit) -> Result<Response, Rejection> {
    let before = visit.number("before")?;
    let blocks = read::blocks(&visit, before, PER_PAGE).await?;
    let page = BlocksPage {
        rows: read::rows(&visit, &blocks.snapshot, &blocks.data.blocks),
        is_first: before.is_none(),
        limit: PER_PAGE,
        before,
        older: blocks.data.next_before,
        frame: visit.frame(Section::Blocks, "Blocks", &blocks.snapshot).await?,
    };
    Ok(respond(&visit, &page.frame, &page)?)
}

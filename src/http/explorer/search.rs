//! Search by index, epoch, hash, beginning of a hash, or peer id.

use askama::Template;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    frame::{Frame, Section},
    page::respond,
    parts::{Id, Numbered, Related},
    read,
    text::{self, Shown},
    visit::Visit,
};
use crate::{
    http::{envelope::Rejection, views::MAX_TEXT},
    source::view::model::Found,
    store::Snapshot,
};

#[derive(Template)]
#[template(path = "explorer/search.html")]
struct SearchPage {
    frame: Frame,
    /// What was looked for; empty before a search.
    query: String,
    /// All of it, as the value of a parameter; empty where the API takes none of that length.
    escaped: String,
    blocks: Vec<Related>,
    epoch: Option<Numbered>,
    nominee: Option<Id>,
    /// A peer of that id that nobody nominates.
    peer: Option<Id>,
    has_more: bool,
}

/// The results. A reader who looks for the whole name of one thing is sent to it.
pub(super) async fn page(visit: Visit) -> Result<Response, Rejection> {
    let query = plain(visit.parameter("q").unwrap_or_default());
    let (found, snapshot) = match query.is_empty() {
        true => (None, visit.gateway.source.state().await?.snapshot(None)),
        false => {
            let viewed = read::search(&visit, &query).await?;
            (Some(viewed.data), viewed.snapshot)
        }
    };
    let peers = visit.gateway.peers();
    let peer = peers.iter().filter_map(|peer| peer.peer_id.as_deref()).find(|id| *id == query);
    if let Some(address) = found.as_ref().and_then(|found| only(&visit, found, &query)) {
        return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, address)]).into_response());
    }
    let page = results(&visit, query.clone(), found, peer, &snapshot).await?;
    Ok(respond(&visit, &page.frame, &page)?)
}

async fn results(
    visit: &Visit,
    query: String,
    found: Option<Found>,
    peer: Option<&str>,
    snapshot: &Snapshot,
) -> Result<SearchPage, Rejection> {
    let links = &visit.links;
    let shown = Shown::listed(&query).text;
    let title = if shown.is_empty() { "Search".into() } else { format!("Search for {shown}") };
    let frame = visit.frame(Section::Other, title, snapshot).await?;
    let nominee = found.as_ref().and_then(|found| found.nominee.as_deref());
    Ok(SearchPage {
        frame,
        query: shown,
        escaped: if query.len() > MAX_TEXT { String::new() } else { text::escaped(&query) },
        peer: peer.filter(|_| nominee.is_none()).map(|peer| links.nominee(peer)),
        nominee: nominee.map(|peer| links.nominee(peer)),
        epoch: found.as_ref().and_then(|found| found.epoch).map(|epoch| links.epoch(epoch)),
        has_more: found.as_ref().is_some_and(|found| found.has_more),
        blocks: found.iter().flat_map(|found| &found.blocks).map(|block| Related::new(links, block)).collect(),
    })
}

/// The query without what a reader may have copied with it: spaces around, and separators within a number.
fn plain(query: &str) -> String {
    let query = query.trim();
    let is_separator = |c: char| c.is_whitespace() || matches!(c, text::GROUP | ',' | '\'' | '_' | '.');
    match query.starts_with(|c: char| c.is_ascii_digit())
        && query.chars().all(|c| c.is_ascii_digit() || is_separator(c))
    {
        true => query.chars().filter(char::is_ascii_digit).collect(),
        false => query.to_owned(),
    }
}

/// The address of the one thing that has the query as its whole name.
fn only(visit: &Visit, found: &Found, query: &str) -> Option<HeaderValue> {
    let path = match (&found.blocks[..], found.epoch, &found.nominee) {
        ([block], None, None) if block.hash == query && !text::is_index(query) => {
            format!("block/{}", text::segment(query)?)
        }
        ([], None, Some(peer)) => format!("nominee/{}", text::segment(peer)?),
        _ => return None,
    };
    HeaderValue::try_from(format!("{}{path}", visit.links.root)).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(" 12\u{202f}345 ", "12345")]
    #[case("12,345", "12345")]
    #[case("1 000 000", "1000000")]
    #[case("00ab 12", "00ab 12")]
    #[case("  00ab12 ", "00ab12")]
    #[case("", "")]
    fn separators_of_numbers_are_left_out(#[case] query: &str, #[case] expected: &str) {
        assert_eq!(plain(query), expected);
    }
}

//! The nominees of the last epochs, the most nominated first; and the blocks that nominate one peer.

use askama::Template;
use axum::response::Response;

use super::{
    blocks,
    frame::{Frame, Section},
    page::respond,
    parts::{BlockRow, Id, Mark, Numbered},
    peers::PeerRow,
    read,
    text::{self, Shown},
    visit::{Visit, invalid},
};
use crate::{
    http::envelope::Rejection,
    protocol::{Code, Failure},
};

/// Epochs that are counted unless the reader says otherwise, and those offered in the form.
const EPOCHS: u64 = 5;
const CHOICES: [u64; 4] = [1, 5, 10, 25];
/// Nominees that a page lists.
const LISTED: usize = 100;

#[derive(Template)]
#[template(path = "explorer/nominees.html")]
struct NomineesPage {
    frame: Frame,
    epochs: u64,
    choices: Vec<u64>,
    from: Numbered,
    to: Numbered,
    is_one_epoch: bool,
    blocks: String,
    ranked: Vec<Ranked>,
    /// Nominees that are left out at the end.
    left_out: usize,
    definition: &'static str,
}

/// A nominee with its rank.
struct Ranked {
    rank: usize,
    peer: Id,
    blocks: String,
    share: String,
    last: Numbered,
}

/// The ranking.
pub(super) async fn ranking(visit: Visit) -> Result<Response, Rejection> {
    let epochs = visit.number("epochs")?.unwrap_or(EPOCHS);
    if !(1..=25).contains(&epochs) {
        return Err(invalid("epochs", "expected 1 to 25").into());
    }
    let viewed = read::nominees(&visit, epochs).await?;
    let ranking = &viewed.data;
    let ranked = ranking.nominees.iter().take(LISTED).enumerate().map(|(i, nominee)| Ranked {
        rank: i + 1,
        peer: visit.links.nominee(&nominee.peer),
        blocks: text::grouped(nominee.blocks),
        share: format!("{:.1} %", nominee.share * 100.0),
        last: visit.links.index(nominee.last_index),
    });
    let mut choices = CHOICES.to_vec();
    if !choices.contains(&epochs) {
        choices.push(epochs);
        choices.sort_unstable();
    }
    let page = NomineesPage {
        epochs,
        choices,
        from: visit.links.epoch(ranking.from_epoch),
        to: visit.links.epoch(ranking.to_epoch),
        is_one_epoch: ranking.from_epoch == ranking.to_epoch,
        blocks: text::grouped(ranking.blocks),
        ranked: ranked.collect(),
        left_out: ranking.nominees.len().saturating_sub(LISTED),
        definition: ranking.definition,
        frame: visit.frame(Section::Nominees, "Nominees", &viewed.snapshot).await?,
    };
    Ok(respond(&visit, &page.frame, &page)?)
}

#[derive(Template)]
#[template(path = "explorer/nominee.html")]
struct NomineePage {
    frame: Frame,
    peer: Id,
    segment: Option<String>,
    total: String,
    /// What is known of the peer itself.
    known: Option<PeerRow>,
    rows: Vec<BlockRow>,
    is_first: bool,
    /// The parameters of the same list as JSON.
    limit: u64,
    before: Option<u64>,
    older: Option<u64>,
}

/// The blocks that nominate a peer.
pub(super) async fn nominee(visit: Visit) -> Result<Response, Rejection> {
    let before = visit.number("before")?;
    let known = visit.gateway.peers().into_iter().find(|peer| peer.peer_id.as_ref() == Some(&visit.name));
    let viewed = read::nominee(&visit, &visit.name, before, blocks::PER_PAGE).await?;
    if viewed.data.total == 0 && known.is_none() {
        let detail = format!(
            "no canonical block nominates {}, and it is no peer of this gateway",
            Shown::listed(&visit.name).text
        );
        return Err(Failure::with_detail(Code::UnknownPeer, detail).into());
    }
    let title = format!("Nominee {}", Shown::listed(&visit.name).text);
    let page = NomineePage {
        peer: Id::whole(&visit.name),
        segment: text::segment(&visit.name),
        total: text::grouped(viewed.data.total),
        known: known.map(|peer| PeerRow::new(&visit, &peer, viewed.snapshot.tip.as_ref())),
        rows: read::rows(&visit, &viewed.snapshot, &viewed.data.blocks),
        is_first: before.is_none(),
        limit: blocks::PER_PAGE,
        before,
        older: viewed.data.next_before,
        frame: visit.frame(Section::Nominees, title, &viewed.snapshot).await?,
    };
    Ok(respond(&visit, &page.frame, &page)?)
}

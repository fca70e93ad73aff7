//! The network: its figures, the validators of now, and the peers with the chain that each is on.

use askama::Template;
use axum::response::Response;

use super::{
    figures::Figures,
    frame::{Frame, Section},
    page::respond,
    parts::Id,
    peers::{ChainRow, PeerRow, Standings, chains},
    read,
    visit::Visit,
};
use crate::{http::envelope::Rejection, source::view::model::Validator};

/// Peers on a page.
const PER_PAGE: usize = 40;

#[derive(Template)]
#[template(path = "explorer/network.html")]
struct NetworkPage {
    frame: Frame,
    figures: Figures,
    validators: Option<Vec<(Id, u64)>>,
    peers: Standings,
    chains: Vec<ChainRow>,
    peer_rows: Vec<PeerRow>,
    page: usize,
    pages: usize,
    definition: &'static str,
}

/// The page of the network.
pub(super) async fn page(visit: Visit) -> Result<Response, Rejection> {
    let viewed = read::network(&visit).await?;
    let mut peers = visit.gateway.peers();
    // Stable: configured peers stay first among those that are connected.
    peers.sort_by_key(|peer| !peer.connected);
    let pages = peers.len().div_ceil(PER_PAGE).max(1);
    let page = usize::try_from(visit.number("page")?.unwrap_or(1)).unwrap_or(usize::MAX).clamp(1, pages);
    let shown = peers.iter().skip((page - 1) * PER_PAGE).take(PER_PAGE);
    let staked = |list: &Vec<Validator>| -> Vec<(Id, u64)> {
        list.iter().map(|validator| (visit.links.nominee(&validator.peer), validator.stake)).collect()
    };
    let tip = viewed.snapshot.tip.as_ref();
    let page = NetworkPage {
        figures: Figures::new(&visit, &viewed.data),
        validators: viewed.data.validators.as_ref().map(staked),
        peers: Standings::of(&peers, tip),
        chains: chains(&visit, &peers, tip),
        peer_rows: shown.map(|peer| PeerRow::new(&visit, peer, tip)).collect(),
        page,
        pages,
        definition: viewed.data.definition,
        frame: visit.frame(Section::Network, "Network", &viewed.snapshot).await?,
    };
    Ok(respond(&visit, &page.frame, &page)?)
}

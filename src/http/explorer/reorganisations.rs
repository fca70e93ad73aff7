//! The reorganisations that this store has seen, as they happened.

use askama::Template;
use axum::response::Response;

use super::{
    frame::{Frame, Section},
    page::respond,
    parts::{BlockLink, Moment, Numbered},
    read,
    text::{self, Shown},
    visit::Visit,
};
use crate::{
    chain::{BLOCKS_PER_EPOCH, Position, election},
    http::envelope::Rejection,
    source::view::model::SeenReorganisation,
};

/// Reorganisations on a page.
pub(super) const PER_PAGE: u64 = 40;

#[derive(Template)]
#[template(path = "explorer/reorganisations.html")]
struct ReorganisationsPage {
    frame: Frame,
    reorganisations: Vec<ReorganisationRow>,
    depths: Depths,
    is_first: bool,
    /// The parameters of the same list as JSON.
    limit: u64,
    before: Option<u64>,
    older: Option<u64>,
}

/// A reorganisation, as texts.
pub(super) struct ReorganisationRow {
    pub time: Moment,
    pub ancestor: Option<BlockLink>,
    pub old_tip: Option<BlockLink>,
    pub new_tip: Option<BlockLink>,
    pub orphaned: String,
    pub adopted: String,
    pub reason: String,
    /// The first and the last epoch whose blocks it changed; one where both are the same.
    pub epochs: Vec<Numbered>,
}

impl ReorganisationRow {
    pub(super) fn all(visit: &Visit, seen: &[SeenReorganisation]) -> Vec<Self> {
        seen.iter().map(|seen| Self::new(visit, seen)).collect()
    }

    fn new(visit: &Visit, seen: &SeenReorganisation) -> Self {
        let links = &visit.links;
        let place = |position: &Option<Position>| position.as_ref().map(|position| BlockLink::new(links, position));
        let first = seen.ancestor.as_ref().map_or(0, |ancestor| ancestor.index + 1);
        let last = seen.old_tip.iter().chain(&seen.new_tip).map(|tip| tip.index).max();
        // Genesis belongs to none.
        let epoch = |index: u64| election::epoch_of(index.max(1)).unwrap_or_default();
        let mut epochs = vec![epoch(first), epoch(last.unwrap_or_default().max(first))];
        epochs.dedup();
        Self {
            time: Moment::new(seen.at, visit.now),
            ancestor: place(&seen.ancestor),
            old_tip: place(&seen.old_tip),
            new_tip: place(&seen.new_tip),
            orphaned: text::grouped(seen.orphaned),
            adopted: text::grouped(seen.adopted),
            reason: Shown::listed(&seen.reason).text,
            epochs: epochs.into_iter().map(|epoch| links.epoch(epoch)).collect(),
        }
    }
}

/// How deep reorganisations were.
pub(super) struct Depths {
    pub bars: Vec<Bar>,
    /// Reorganisations that were counted.
    pub counted: u64,
    pub most: u64,
}

/// The number of reorganisations of some depths.
pub(super) struct Bar {
    pub depth: String,
    pub count: u64,
}

impl Depths {
    /// Counts by depth: each up to 6, then in steps that grow.
    pub(super) fn of(seen: &[SeenReorganisation]) -> Self {
        let edges = [1, 2, 3, 4, 5, 6, 7, 11, 21, BLOCKS_PER_EPOCH + 1, u64::MAX];
        let bars = edges.windows(2).map(|edge| {
            let (from, to) = (edge[0], edge[1] - 1);
            let depth = match to {
                to if to == from => from.to_string(),
                to if to == u64::MAX - 1 => format!("{from} or more"),
                to => format!("{from} to {to}"),
            };
            Bar { depth, count: seen.iter().filter(|seen| (from..=to).contains(&seen.orphaned)).count() as u64 }
        });
        let bars: Vec<_> = bars.collect();
        let most = bars.iter().map(|bar| bar.count).max().unwrap_or_default();
        Self { counted: bars.iter().map(|bar| bar.count).sum(), most: most.max(1), bars }
    }
}

/// A page of reorganisations, those before the one with the id `before`.
pub(super) async fn page(visit: Visit) -> Result<Response, Rejection> {
    let before = visit.number("before")?;
    let viewed = read::reorganisations(&visit, before, PER_PAGE).await?;
    let page = ReorganisationsPage {
        reorganisations: ReorganisationRow::all(&visit, &viewed.data.reorganisations),
        depths: Depths::of(&viewed.data.reorganisations),
        is_first: before.is_none(),
        limit: PER_PAGE,
        before,
        older: viewed.data.next_before,
        frame: visit.frame(Section::Reorganisations, "Reorganisations", &viewed.snapshot).await?,
    };
    Ok(respond(&visit, &page.frame, &page)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(orphaned: u64) -> SeenReorganisation {
        SeenReorganisation {
            id: 1,
            at: 0,
            ancestor: None,
            old_tip: None,
            new_tip: None,
            orphaned,
            adopted: 1,
            reason: String::new(),
        }
    }

    #[test]
    fn every_depth_is_counted_once() {
        let depths = Depths::of(&[1, 1, 3, 7, 10, 40, 41, 1_000_000].map(seen));
        let counts: Vec<_> =
            depths.bars.iter().filter(|bar| bar.count > 0).map(|bar| (&*bar.depth, bar.count)).collect();
        assert_eq!(counts, [("1", 2), ("3", 1), ("7 to 10", 2), ("21 to 40", 1), ("41 or more", 2)]);
        assert_eq!((depths.counted, depths.most), (8, 2));
    }
}

//! The epochs, newest first, with charts.

use askama::Template;
use axum::response::Response;

use super::{
    chart::Chart,
    epoch::EpochFigures,
    frame::{Frame, Section},
    page::respond,
    parts::Mark,
    read, text,
    visit::Visit,
};
use crate::{http::envelope::Rejection, source::view::model::EpochSummary};

/// Epochs on a page.
const PER_PAGE: u64 = 20;

#[derive(Template)]
#[template(path = "explorer/epochs.html")]
struct EpochsPage {
    frame: Frame,
    rows: Vec<EpochFigures>,
    charts: Vec<Chart>,
    is_first: bool,
    /// The parameters of the same list as JSON.
    limit: u64,
    before: Option<u64>,
    older: Option<u64>,
    definition: &'static str,
}

/// A page of epochs, those below the epoch `before`.
pub(super) async fn page(visit: Visit) -> Result<Response, Rejection> {
    let before = visit.number("before")?;
    let viewed = read::epochs(&visit, before, PER_PAGE).await?;
    let epochs = &viewed.data.epochs;
    let values = |value: fn(&EpochSummary) -> Option<f64>| -> Vec<(u64, Option<f64>)> {
        epochs.iter().rev().map(|epoch| (epoch.epoch, value(epoch))).collect()
    };
    let page = EpochsPage {
        rows: epochs.iter().map(|epoch| EpochFigures::new(&visit, epoch)).collect(),
        charts: vec![
            Chart::new("time", "Mean block time", &values(|epoch| epoch.mean_block_time), text::duration),
            Chart::new("difficulty", "Difficulty", &values(|epoch| epoch.difficulty.parse().ok()), number),
            Chart::new("rate", "Hash rate", &values(|epoch| epoch.hash_rate), text::hash_rate),
        ],
        is_first: before.is_none(),
        limit: PER_PAGE,
        before,
        older: viewed.data.next_before,
        definition: viewed.data.definition,
        frame: visit.frame(Section::Epochs, "Epochs", &viewed.snapshot).await?,
    };
    Ok(respond(&visit, &page.frame, &page)?)
}

/// A value in as many digits as fit beside a chart.
fn number(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{v:.2e}"),
        v if v >= 10.0 => text::grouped(format!("{v:.0}")),
        v => format!("{v:.1}"),
    }
}

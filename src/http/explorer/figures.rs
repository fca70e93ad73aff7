//! The network's figures as texts.

use super::{parts::Numbered, text, visit::Visit};
use crate::source::view::model::NetworkFigures;

/// The network in figures, as texts. Where a chain is too short to tell there is a dash.
pub(super) struct Figures {
    pub length: String,
    pub difficulty: String,
    pub hash_rate: String,
    pub block_time: String,
    pub target_block_time: String,
    pub work: String,
    pub epoch: Option<Progress>,
}

/// How far the current epoch is.
pub(super) struct Progress {
    pub epoch: Numbered,
    pub blocks: u64,
    pub of: u64,
    pub left: String,
    pub next_difficulty: String,
}

impl Figures {
    pub(super) fn new(visit: &Visit, figures: &NetworkFigures) -> Self {
        let dash = || "–".to_owned();
        let epoch = figures.epoch.as_ref().map(|epoch| Progress {
            epoch: visit.links.epoch(epoch.epoch),
            blocks: epoch.blocks,
            of: epoch.of,
            left: epoch.seconds_left.map_or_else(dash, text::duration),
            next_difficulty: epoch.next_difficulty.as_ref().map_or_else(dash, text::grouped),
        });
        Self {
            length: text::grouped(figures.length),
            difficulty: figures.difficulty.as_ref().map_or_else(dash, text::grouped),
            hash_rate: figures.hash_rate.map_or_else(dash, text::hash_rate),
            block_time: figures.mean_block_time.map_or_else(dash, text::duration),
            target_block_time: text::grouped(figures.target_block_time),
            work: text::grouped(&figures.work),
            epoch,
        }
    }
}

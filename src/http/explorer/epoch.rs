//! An epoch: its positions, whom they nominate, the shuffled order and the validators that follow.

use std::collections::HashMap;

use askama::Template;
use axum::response::Response;

use super::{
    frame::{Frame, Section},
    page::respond,
    parts::{BlockRow, Id, Mark, Moment, Numbered},
    read, text,
    visit::{Visit, invalid},
};
use crate::{
    chain::{self, BLOCKS_PER_EPOCH, Level, MinerBlock, election},
    http::envelope::Rejection,
    protocol::{Code, Failure},
    source::view::{
        Viewed,
        model::{Election, EpochDetail, EpochSummary, Validator},
    },
    store::Snapshot,
};

/// Orphaned blocks of an epoch that are read, and those that its page lists, of both kinds together: with the longest
/// texts it still is no longer than a page may be.
const ORPHANS: u64 = 100;
const LISTED: usize = 10;

#[derive(Template)]
#[template(path = "explorer/epoch.html")]
struct EpochPage {
    frame: Frame,
    number: String,
    name: u64,
    figures: EpochFigures,
    mark: Mark,
    blocks_short: String,
    positions: Vec<Position>,
    elected: Option<Elected>,
    /// The epoch that the validators of this one serve.
    serves: Numbered,
    /// The epoch whose nominations the validators of this one follow from.
    served_by: Option<Numbered>,
    previous: Option<Numbered>,
    next: Option<Numbered>,
    /// Blocks that were in this epoch before a reorganisation.
    replaced: Listed,
    /// Blocks that never were on the chain of this store.
    beside: Listed,
    /// Whether the store has orphaned blocks of this epoch that were not read.
    is_cut: bool,
    before: Option<Before>,
    definition: &'static str,
}

/// An epoch in figures, as texts.
pub(super) struct EpochFigures {
    pub epoch: Numbered,
    pub first: Numbered,
    pub last: String,
    pub blocks: u64,
    pub difficulty: String,
    pub work: String,
    pub block_time: String,
    pub hash_rate: String,
    pub first_time: Moment,
    pub last_time: Moment,
    pub nominees: u64,
    pub mark: Mark,
}

impl EpochFigures {
    pub(super) fn new(visit: &Visit, epoch: &EpochSummary) -> Self {
        let dash = || "–".to_owned();
        Self {
            epoch: visit.links.epoch(epoch.epoch),
            first: visit.links.index(epoch.first_index),
            last: text::grouped(epoch.last_index),
            blocks: epoch.blocks,
            difficulty: text::grouped(&epoch.difficulty),
            work: text::grouped(&epoch.work),
            block_time: epoch.mean_block_time.map_or_else(dash, text::duration),
            hash_rate: epoch.hash_rate.map_or_else(dash, text::hash_rate),
            first_time: Moment::new(epoch.first_time, visit.now),
            last_time: Moment::new(epoch.last_time, visit.now),
            nominees: epoch.nominees,
            mark: match (epoch.complete, epoch.is_final) {
                (false, _) => Mark::Incomplete,
                (true, false) => Mark::NotFinal,
                (true, true) => Mark::Final,
            },
        }
    }
}

/// A block of the epoch.
struct Position {
    position: usize,
    index: Numbered,
    hash: Id,
    time: Moment,
    nominee: Id,
}

/// What follows from a complete epoch.
struct Elected {
    seed: String,
    mark: Mark,
    order: Vec<(Numbered, Id)>,
    validators: Vec<(Id, u64)>,
    alternates: Vec<(Id, u64)>,
}

/// What followed from the epoch before a reorganisation.
struct Before {
    seed: String,
    validators: Vec<(Id, u64)>,
}

impl Before {
    fn new(election: &chain::Election) -> Self {
        let validators = election.validators.iter().map(|(peer, stake)| (Id::plain(peer), *stake));
        Self { seed: election.seed.to_string(), validators: validators.collect() }
    }
}

/// The first blocks of a list.
struct Listed {
    rows: Vec<BlockRow>,
    /// How many more of them were read.
    left_out: usize,
}

impl Listed {
    fn new(visit: &Visit, chain: &Snapshot, blocks: &[MinerBlock], most: usize) -> Self {
        let rows = read::rows(visit, chain, &blocks[..blocks.len().min(most)]);
        Self { left_out: blocks.len() - rows.len(), rows }
    }
}

/// The orphaned blocks of an epoch.
struct Orphans {
    /// Those that a reorganisation took out.
    replaced: Listed,
    /// Those that never were on the chain of this store: they came beside it.
    beside: Listed,
    is_cut: bool,
    /// What followed from the last of the branches that the epoch was complete with.
    election: Option<chain::Election>,
    /// The weakest verification level of the blocks that were read, where some are of the epoch.
    level: Option<Level>,
}

/// Reads the orphaned blocks of an epoch.
async fn orphans(visit: &Visit, epoch: &EpochSummary) -> Result<Orphans, Failure> {
    // Every hash is behind an empty one.
    let from = (epoch.last_index, String::new());
    let Viewed { snapshot, data, .. } = read::orphans(visit, Some(&from), ORPHANS).await?;
    let mut blocks = data.blocks;
    let is_cut = data.next_before.is_some() && blocks.last().is_some_and(|last| last.index >= epoch.first_index);
    blocks.retain(|block| block.index >= epoch.first_index);
    blocks.sort_by_key(|block| block.index);
    let level = snapshot.level.filter(|_| !blocks.is_empty());
    // Only what leaves the chain gets that time.
    let (replaced, beside): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|block| block.orphaned_at.is_some());
    let last = replaced.iter().filter(|block| block.index == epoch.last_index).max_by_key(|block| block.orphaned_at);
    let election = match last {
        Some(last) => {
            let kept = read::blocks(visit, epoch.last_index.checked_add(1), BLOCKS_PER_EPOCH).await?;
            branch(last, &replaced, &kept.data.blocks, epoch.first_index).map(|blocks| chain::Election::of(&blocks))
        }
        None => None,
    };
    // Each kind has half of the rows, and what the other one leaves.
    let replaced = Listed::new(visit, &snapshot, &replaced, LISTED - beside.len().min(LISTED / 2));
    let beside = Listed::new(visit, &snapshot, &beside, LISTED - replaced.rows.len());
    Ok(Orphans { replaced, beside, is_cut, election, level })
}

/// The blocks from the index `first` to `last`, of which some are orphaned and the others canonical, by ascending
/// index; `None` where one is missing.
fn branch(last: &MinerBlock, orphans: &[MinerBlock], kept: &[MinerBlock], first: u64) -> Option<Vec<MinerBlock>> {
    let mut blocks = vec![last.clone()];
    while let Some(block) = blocks.last().filter(|block| block.index > first) {
        let is_parent = |other: &&MinerBlock| other.index + 1 == block.index && other.hash == block.previous_hash;
        let parent = orphans.iter().chain(kept).find(is_parent)?.clone();
        blocks.push(parent);
    }
    blocks.reverse();
    Some(blocks)
}

/// The page of an epoch.
pub(super) async fn page(visit: Visit) -> Result<Response, Rejection> {
    let epoch: u64 = visit.name.parse().map_err(|_| invalid("epoch", "expected an integer from 0"))?;
    // The code's own text is about a block.
    let named = |failure: Failure| match failure.code {
        Code::BlockNotFound => Failure { error: "Epoch not found".into(), ..failure },
        _ => failure,
    };
    let viewed = read::epoch(&visit, epoch).await.map_err(named)?;
    let orphans = orphans(&visit, &viewed.data.summary).await?;
    let title = format!("Epoch {}", text::grouped(epoch));
    let shown = read::with_level(&viewed.snapshot, orphans.level);
    let frame = visit.frame(Section::Epochs, title, &shown).await?;
    let newest = viewed.snapshot.tip.as_ref().and_then(|tip| election::epoch_of(tip.index));
    let page = describe(&visit, frame, viewed.data, orphans, newest);
    Ok(respond(&visit, &page.frame, &page)?)
}

fn describe(
    visit: &Visit,
    frame: Frame,
    EpochDetail { summary, positions, election, definition }: EpochDetail,
    orphans: Orphans,
    newest: Option<u64>,
) -> EpochPage {
    let (links, epoch) = (&visit.links, summary.epoch);
    let nominees: HashMap<u64, &str> = positions.iter().map(|block| (block.index, block.nominee.as_str())).collect();
    let elected = election.map(|election| elected(visit, &election, &nominees));
    let figures = EpochFigures::new(visit, &summary);
    EpochPage {
        frame,
        number: text::grouped(epoch),
        name: epoch,
        mark: figures.mark,
        figures,
        blocks_short: text::grouped(summary.last_index.saturating_sub(summary.first_index) + 1 - summary.blocks),
        positions: positions
            .iter()
            .enumerate()
            .map(|(i, block)| Position {
                position: i + 1,
                index: links.index(block.index),
                hash: links.block(&block.hash),
                time: Moment::new(block.timestamp, visit.now),
                nominee: links.nominee(&block.nominee),
            })
            .collect(),
        elected,
        serves: links.epoch_until(epoch.saturating_add(election::EPOCHS_UNTIL_SERVICE), newest),
        served_by: epoch.checked_sub(election::EPOCHS_UNTIL_SERVICE).map(|epoch| links.epoch(epoch)),
        previous: epoch.checked_sub(1).map(|epoch| links.epoch(epoch)),
        next: newest.is_some_and(|newest| newest > epoch).then(|| links.epoch(epoch.saturating_add(1))),
        replaced: orphans.replaced,
        beside: orphans.beside,
        is_cut: orphans.is_cut,
        before: orphans.election.map(|election| Before::new(&election)),
        definition,
    }
}

fn elected(visit: &Visit, election: &Election, nominees: &HashMap<u64, &str>) -> Elected {
    let links = &visit.links;
    let staked = |validators: &[Validator]| -> Vec<(Id, u64)> {
        validators.iter().map(|validator| (links.nominee(&validator.peer), validator.stake)).collect()
    };
    let nominee = |index: &u64| Id::plain(nominees.get(index).copied().unwrap_or_default());
    Elected {
        seed: election.seed.clone(),
        mark: if election.provisional { Mark::Provisional } else { Mark::Settled },
        order: election.shuffled.iter().map(|index| (links.index(*index), nominee(index))).collect(),
        validators: staked(&election.validators),
        alternates: staked(&election.alternates),
    }
}

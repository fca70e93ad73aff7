//! The chain as those want it who explore it: pages of blocks, epochs and their validators, nominees, the network's
//! figures, reorganisations, search. Each view reads a bounded number of blocks, wherever in the chain they are.
//!
//! * [`model`]: the data of the views
//! * `blocks`: blocks newest first, a block with its neighbours, orphans
//! * `epochs`: epochs, and what follows from one
//! * `nominees`: who is nominated how often
//! * `network`: hash rate, difficulty, progress of the epoch
//! * `history`: reorganisations
//! * `search`: blocks, epochs and nominees by a text

use std::sync::Arc;

use serde::Serialize;

use super::{
    answer::{AnsweredBy, EncodedAnswer},
    peer::parse_blocking,
    store_answers::{MAX_LIST_BYTES, store_failure},
};
use crate::{
    chain::{MinerBlock, Network},
    protocol::{BlockList, Code, Failure},
    store::{BlockStore, ChainState, Snapshot, StoreError},
};

mod blocks;
mod epochs;
mod history;
pub mod model;
mod network;
mod nominees;
mod search;

/// Most blocks, orphans or reorganisations of a page.
pub const MAX_PAGE: u64 = 100;
/// Most epochs of a page.
pub const MAX_EPOCHS: u64 = 20;
/// Most epochs that a ranking counts.
pub const MAX_RANKED_EPOCHS: u64 = 25;
/// Most neighbours of each kind, and most blocks that a search finds.
const MAX_NEIGHBOURS: usize = 20;

/// What to view.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ViewQuery {
    /// Canonical blocks below an index, newest first.
    Blocks {
        /// The index; `None`: from the tip on.
        before: Option<u64>,
        /// Most blocks, at most [`MAX_PAGE`].
        limit: u64,
    },
    /// A block with its neighbours.
    Block(BlockId),
    /// Orphaned blocks, the highest first.
    Orphans {
        /// Index and hash of the last one of the page before.
        before: Option<(u64, String)>,
        /// Most blocks, at most [`MAX_PAGE`].
        limit: u64,
    },
    /// Epochs below one, newest first.
    Epochs {
        /// The epoch; `None`: from the tip's on.
        before: Option<u64>,
        /// Most epochs, at most [`MAX_EPOCHS`].
        limit: u64,
    },
    /// An epoch with what follows from it.
    Epoch(u64),
    /// Nominees by number of nominations.
    Nominees {
        /// Number of epochs that count, the newest; at most [`MAX_RANKED_EPOCHS`].
        epochs: u64,
    },
    /// The blocks that nominate a peer, newest first.
    Nominee {
        /// The peer.
        peer: String,
        /// The index; `None`: from the tip on.
        before: Option<u64>,
        /// Most blocks, at most [`MAX_PAGE`].
        limit: u64,
    },
    /// The network's figures.
    Network,
    /// Reorganisations, newest first.
    Reorganisations {
        /// Id of the last one of the page before.
        before: Option<u64>,
        /// Most of them, at most [`MAX_PAGE`].
        limit: u64,
    },
    /// Blocks, epochs and nominees by a text.
    Search(String),
}

impl ViewQuery {
    /// The text that a client has chosen, if there is one.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Block(BlockId::Hash(text)) | Self::Nominee { peer: text, .. } | Self::Search(text) => text,
            Self::Orphans { before: Some((_, hash)), .. } => hash,
            _ => "",
        }
    }
}

/// What names a block.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BlockId {
    /// Its index: the canonical block there.
    Index(u64),
    /// Its hash.
    Hash(String),
}

impl From<&str> for BlockId {
    /// At most 19 digits are an index: a hash has 64.
    fn from(text: &str) -> Self {
        let is_index = text.len() <= 19 && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(index) if is_index => Self::Index(index),
            _ => Self::Hash(text.to_owned()),
        }
    }
}

/// What was viewed, and the chain that it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Viewed<T> {
    /// The chain, and the weakest verification level of the blocks that were read.
    pub snapshot: Snapshot,
    /// Whether every block that the view can hold is deeper than the finality depth.
    pub settled: bool,
    /// The view.
    pub data: T,
}

/// Reads views from the store. `known` is the state of the chain, which may be a little older than what is read.
pub struct Views {
    pub(super) store: Arc<dyn BlockStore>,
    finality_depth: u64,
    network: Arc<Network>,
}

impl Views {
    pub(super) fn new(store: Arc<dyn BlockStore>, finality_depth: u64, network: Arc<Network>) -> Self {
        Self { store, finality_depth, network }
    }

    /// The view, encoded as an answer.
    pub(super) async fn answer(&self, query: &ViewQuery, known: &ChainState) -> Result<EncodedAnswer, Failure> {
        match query {
            ViewQuery::Blocks { before, limit } => encode(self.blocks(known, *before, *limit).await?),
            ViewQuery::Block(id) => encode(self.block(id).await?),
            ViewQuery::Orphans { before, limit } => encode(self.orphans(before.as_ref(), *limit).await?),
            ViewQuery::Epochs { before, limit } => encode(self.epochs(known, *before, *limit).await?),
            ViewQuery::Epoch(epoch) => encode(self.epoch(*epoch).await?),
            ViewQuery::Nominees { epochs } => encode(self.nominees(known, *epochs).await?),
            ViewQuery::Nominee { peer, before, limit } => encode(self.nominee(peer, *before, *limit).await?),
            ViewQuery::Network => encode(self.network(known).await?),
            ViewQuery::Reorganisations { before, limit } => encode(self.reorganisations(known, *before, *limit).await?),
            ViewQuery::Search(text) => encode(self.search(known, text).await?),
        }
    }

    /// Whether the block at `index` of this chain is deeper than the finality depth.
    pub fn settled(&self, chain: &Snapshot, index: u64) -> bool {
        chain.tip.as_ref().is_some_and(|tip| index.saturating_add(self.finality_depth) <= tip.index)
    }

    /// The canonical blocks from `from` to `to`, both included, in index order.
    async fn range(&self, from: u64, to: u64) -> Result<(Snapshot, Vec<MinerBlock>), Failure> {
        let blocks = self.store.range(from, to).await.map_err(store_failure)?;
        Ok((blocks.snapshot, parse(blocks.list).await?))
    }

    /// The canonical blocks from `first` of the tip's index to the tip, which is the one that the snapshot names. `tip`
    /// is that of a moment ago.
    async fn up_to_tip(
        &self,
        mut tip: u64,
        first: impl Fn(u64) -> u64,
    ) -> Result<(Snapshot, Vec<MinerBlock>), Failure> {
        loop {
            let (snapshot, blocks) = self.range(first(tip), tip).await?;
            match &snapshot.tip {
                Some(newer) if newer.index > tip => tip = newer.index,
                _ => return Ok((snapshot, blocks)),
            }
        }
    }
}

/// Most blocks that a view reads at once where it may choose: so many of the chain's longest fit an answer.
fn max_blocks(known: &ChainState) -> u64 {
    known.blocks_within(MAX_LIST_BYTES)
}

async fn parse(list: BlockList) -> Result<Vec<MinerBlock>, Failure> {
    let parsed = parse_blocking(list.json.len(), move || list.parse()).await;
    let parsed = parsed.ok_or_else(|| Failure::new(Code::Internal))?;
    parsed.map_err(|error| store_failure(StoreError::Damaged(format!("a stored block: {error}"))))
}

fn encode<T: Serialize>(viewed: Viewed<T>) -> Result<EncodedAnswer, Failure> {
    let Viewed { snapshot, settled, data } = viewed;
    let data = serde_json::to_string(&data).map_err(|_| Failure::new(Code::Internal))?;
    Ok(EncodedAnswer { settled, ..EncodedAnswer::of_data(&data, AnsweredBy::Local, snapshot)? })
}

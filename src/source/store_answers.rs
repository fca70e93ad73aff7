//! Answers from the store, one query at a time.

use std::{
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::stream::{self, Stream};
use tokio_util::task::AbortOnDropHandle;

use super::answer::{AnsweredBy, EncodedAnswer};
use crate::{
    chain::{Header, Level},
    protocol::{
        Ancestor, Answer, Code, Failure, MAX_CHUNK, MAX_RESPONSE_BYTES, Query,
        answer::{self, ChainInfoData, Datastore, DebugBlock, FindAncestorData, HeadersData, InspectData, Match},
        query::CheckPoint,
    },
    store::{Anchor, BlockStore, Blocks, ChainState, Snapshot, StoreError, Tip},
};

/// Bytes of blocks that are read for one answer: the rest is for the envelope and the other members.
pub(super) const MAX_LIST_BYTES: u64 = MAX_RESPONSE_BYTES as u64 - 1024;
/// More blocks than fit 10 MiB: each has at least 400 bytes.
const MAX_EPOCH_BLOCKS: u64 = MAX_RESPONSE_BYTES as u64 / 400;
/// Shortest time between two log lines about a failing store.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Times that an answer of several reads is attempted: the chain may change between them.
pub(super) const MAX_ATTEMPTS: u32 = 5;

/// Answers queries from the store, without a cache.
pub(super) struct StoreAnswers {
    pub(super) store: Arc<dyn BlockStore>,
    peer_id: String,
    finality_depth: u64,
}

impl StoreAnswers {
    pub(super) fn new(store: Arc<dyn BlockStore>, peer_id: String, finality_depth: u64) -> Self {
        Self { store, peer_id, finality_depth }
    }

    /// Answers from the store as it is now. `known`, which may be a little older, sets how many blocks are read at
    /// once.
    pub(super) async fn answer(&self, query: &Query, known: &ChainState) -> Result<EncodedAnswer, Failure> {
        let most = max_blocks(known);
        match query {
            Query::Ping { data } => encode(&Answer::Ping(data.clone()), Snapshot::default()),
            Query::Inspect => {
                let state = self.store.state().await.map_err(store_failure)?;
                encode(&Answer::Inspect(self.inspect(&state)), state.snapshot(None))
            }
            Query::Get { hash } => {
                let found = self.store.get(hash).await.map_err(store_failure)?;
                let found = found.ok_or_else(|| Failure::new(Code::BlockNotFound))?;
                let settled = found.canonical && self.settled(&found.snapshot, found.index);
                Ok(EncodedAnswer { settled, ..encode(&Answer::Get(found.json), found.snapshot)? })
            }
            Query::Canonical => self.canonical().await,
            Query::Epoch { epoch } => {
                let Blocks { snapshot, list: blocks, last_index, .. } = self.epoch(*epoch, known).await?;
                let settled = last_index.is_some_and(|last| self.settled(&snapshot, last));
                let complete = blocks.count > 0;
                Ok(EncodedAnswer { settled, complete, ..encode(&Answer::Epoch { epoch: *epoch, blocks }, snapshot)? })
            }
            Query::Range { from_index, to_index, chunk_size } => {
                self.range(*from_index, *to_index, (*chunk_size).min(most)).await
            }
            Query::Headers { from_index, to_index, chunk_size } => {
                self.headers(*from_index, *to_index, *chunk_size, most).await
            }
            Query::ChainInfo { local_block_hashes, include_blocks, from_index } => {
                let read = |state| self.chain_info(state, local_block_hashes, *include_blocks, *from_index);
                let (state, (answer, level)) = read_consistently(&self.store, read).await?;
                encode(&answer, state.snapshot(level))
            }
            Query::FindAncestor { check_points } => {
                let (state, answer) =
                    read_consistently(&self.store, |state| self.find_ancestor(state, check_points)).await?;
                encode(&answer, state.snapshot(None))
            }
            Query::DebugIndex { index } => {
                let (state, answer) = read_consistently(&self.store, |_| self.debug_index(*index)).await?;
                let complete = !matches!(&answer, Answer::DebugIndex(data) if data.blocks.is_empty());
                Ok(EncodedAnswer { complete, ..encode(&answer, state.snapshot(None))? })
            }
        }
    }

    /// Checks that `hash` is canonical; returns the chain's version at that time.
    ///
    /// # Errors
    /// [`Code::AnchorNotCanonical`] with the common ancestor, [`Code::BlockNotFound`].
    pub(super) async fn check_anchor(&self, hash: &str) -> Result<u64, Failure> {
        let (anchor, version) = self.store.anchor(hash).await.map_err(store_failure)?;
        match anchor {
            Anchor::Canonical => Ok(version),
            Anchor::Orphaned(ancestor) => Err(Failure {
                common_ancestor: ancestor.map(|(index, hash)| Ancestor { index, hash }),
                ..Failure::new(Code::AnchorNotCanonical)
            }),
            Anchor::Unknown => Err(Failure::with_detail(Code::BlockNotFound, "anchor: no block has this hash")),
        }
    }

    async fn canonical(&self) -> Result<EncodedAnswer, Failure> {
        let state = self.store.state().await.map_err(store_failure)?;
        if state.bytes + state.length > MAX_RESPONSE_BYTES as u64 {
            return Err(Failure::new(Code::AnswerTooLarge));
        }
        let last = state.tip.map_or(0, |tip| tip.index);
        let Blocks { snapshot, list, .. } = self.store.range(0, last).await.map_err(store_failure)?;
        encode(&Answer::Canonical(list), snapshot)
    }

    /// The blocks of an epoch. Any number of blocks may claim one epoch, and all of them may be long.
    async fn epoch(&self, epoch: u64, known: &ChainState) -> Result<Blocks, Failure> {
        let most = match known.bytes + known.length > MAX_RESPONSE_BYTES as u64 {
            // One more than certainly fits shows whether there are more.
            true => MAX_EPOCH_BLOCKS.min(known.blocks_within(MAX_LIST_BYTES).saturating_add(1)),
            false => MAX_EPOCH_BLOCKS,
        };
        let blocks = self.store.epoch(epoch, most).await.map_err(store_failure)?;
        if blocks.list.count == most { Err(Failure::new(Code::AnswerTooLarge)) } else { Ok(blocks) }
    }

    async fn range(&self, from_index: u64, requested_to: u64, chunk_size: u64) -> Result<EncodedAnswer, Failure> {
        let end = answer::clamped_end(from_index, requested_to, chunk_size);
        let Blocks { snapshot, list: blocks, .. } = self.store.range(from_index, end).await.map_err(store_failure)?;
        let height = snapshot.tip.as_ref().map(|tip| tip.index);
        let has_more = requested_to > end && height.is_some_and(|height| height > end);
        let settled = self.settled(&snapshot, end);
        let answer = Answer::Range { from_index, to_index: end, requested_to, chunk_size, has_more, blocks };
        let complete = height.is_some_and(|height| height >= end);
        Ok(EncodedAnswer { settled, complete, ..encode(&answer, snapshot)? })
    }

    /// The headers of a range, for peers; HTTP has no such route. Headers are short whatever their blocks are, so
    /// `most` blocks at a time are read.
    async fn headers(
        &self,
        from_index: u64,
        requested_to: u64,
        chunk_size: u64,
        most: u64,
    ) -> Result<EncodedAnswer, Failure> {
        let to_index = answer::clamped_end(from_index, requested_to, chunk_size);
        let mut headers: Vec<Header> = Vec::new();
        let (mut next, mut first) = (from_index, None::<Snapshot>);
        let snapshot = loop {
            let end = to_index.min(next.saturating_add(most - 1));
            let Blocks { snapshot, list, .. } = self.store.range(next, end).await.map_err(store_failure)?;
            let read = list.parse::<Header>().map_err(|error| StoreError::Damaged(error.to_string()));
            headers.extend(read.map_err(store_failure)?);
            // Headers of two chains are no answer.
            if !first.get_or_insert_with(|| snapshot.clone()).same_chain(&snapshot) {
                return Err(chain_changed());
            }
            match end < to_index && snapshot.tip.as_ref().is_some_and(|tip| tip.index > end) {
                true => next = end + 1,
                false => break snapshot,
            }
        };
        let has_more = requested_to > to_index && snapshot.tip.as_ref().is_some_and(|tip| tip.index > to_index);
        let count = headers.len() as u64;
        encode(&Answer::Headers(HeadersData { from_index, to_index, headers, count, has_more }), snapshot)
    }

    async fn chain_info(
        &self,
        state: ChainState,
        hashes: &[String],
        include_blocks: bool,
        from_index: Option<u64>,
    ) -> Result<(Answer, Option<Level>), StoreError> {
        let common_ancestor_index = if hashes.is_empty() { None } else { self.store.highest_canonical(hashes).await? };
        let (mut level, mut blocks) = (None, None);
        if include_blocks {
            let from = from_index.or(common_ancestor_index.map(|index| index.saturating_add(1))).unwrap_or(0);
            let read = self.store.range(from, from.saturating_add(max_blocks(&state) - 1)).await?;
            (level, blocks) = (read.snapshot.level, Some(read.list));
        }
        let info = ChainInfoData {
            cumulative_difficulty: state.cumulative_difficulty.to_string(),
            chain_length: state.length,
            chain_height: state.tip.as_ref().map_or(0, |tip| tip.index),
            tip_epoch: state.tip.as_ref().map_or(0, |tip| tip.epoch),
            tip_hash: state.tip.map(|tip| tip.hash),
            common_ancestor_index,
            blocks: None,
        };
        Ok((Answer::ChainInfo { info, blocks }, level))
    }

    async fn find_ancestor(&self, state: ChainState, check_points: &[CheckPoint]) -> Result<Answer, StoreError> {
        let indexes: Vec<u64> = check_points.iter().map(|point| point.index).collect();
        let ours = self.store.canonical_hashes(&indexes).await?;
        let matches: Vec<Match> = check_points
            .iter()
            .map(|CheckPoint { index, hash }| Match {
                index: *index,
                hash: hash.clone(),
                matches: ours.get(index) == Some(hash),
            })
            .collect();
        Ok(Answer::FindAncestor(FindAncestorData {
            chain_length: state.length,
            highest_match: matches.iter().filter(|found| found.matches).map(|found| found.index).max(),
            matches,
            cumulative_difficulty: state.cumulative_difficulty.to_string(),
        }))
    }

    async fn debug_index(&self, index: u64) -> Result<Answer, StoreError> {
        let (entries, total, next) = self.store.at_index(index).await?;
        let blocks = entries
            .into_iter()
            .map(|entry| DebugBlock {
                hash: entry.hash,
                previous_hash: entry.previous_hash,
                is_canonical: entry.canonical,
                is_orphaned: entry.orphaned,
                orphan_reason: entry.orphan_reason,
            })
            .collect();
        let next = next.map(|next| Ancestor { index: next.index, hash: next.previous_hash });
        Ok(Answer::DebugIndex(answer::debug_index(index, total, blocks, next)))
    }

    fn inspect(&self, state: &ChainState) -> InspectData {
        InspectData {
            peer_id: self.peer_id.clone(),
            status: "running".into(),
            datastore: Some(Datastore {
                total_blocks: state.length,
                block_range: state.tip.as_ref().map(|tip| (0, tip.index)),
                chain_tip_height: state.tip.as_ref().map(|tip| tip.index),
                chain_tip_hash: state.tip.as_ref().map(|tip| tip.hash.clone()),
                epochs: state.epochs,
                unique_miners: state.miners,
            }),
        }
    }

    fn settled(&self, chain: &Snapshot, index: u64) -> bool {
        chain.tip.as_ref().is_some_and(|tip| index.saturating_add(self.finality_depth) <= tip.index)
    }
}

/// Most blocks that are read at once: so many of the chain's longest fit an answer.
fn max_blocks(state: &ChainState) -> u64 {
    state.blocks_within(MAX_LIST_BYTES).min(MAX_CHUNK)
}

/// The canonical chain up to the tip of `state`, in pages half as large as an answer: while one is sent, the next one
/// is read. If the tip is reorganised away meanwhile, the stream ends with [`Code::AnchorNotCanonical`].
pub(super) fn pages(
    store: Arc<dyn BlockStore>,
    state: &ChainState,
) -> impl Stream<Item = Result<Blocks, Failure>> + Send + use<> {
    let most = max_blocks(state).div_ceil(2);
    let read = move |from: u64, tip: Tip, last: Snapshot| {
        let page = page_of(store.clone(), from..=tip.index.min(from + most - 1), tip.hash.clone(), last);
        (AbortOnDropHandle::new(tokio::spawn(page)), tip)
    };
    let first = state.tip.clone().map(|tip| read(0, tip, state.snapshot(None)));
    stream::try_unfold(first, move |reading| {
        let read = read.clone();
        async move {
            let Some((page, tip)) = reading else { return Ok(None) };
            let Some(page) = page.await.map_err(|_| Failure::new(Code::Internal))?.map_err(store_failure)? else {
                return Err(Failure::new(Code::AnchorNotCanonical));
            };
            let next = page.last_index.filter(|last_index| *last_index < tip.index);
            let reading = next.map(|last_index| read(last_index + 1, tip, page.snapshot.clone()));
            Ok(Some((page, reading)))
        }
    })
}

/// Canonical blocks of the chain that the snapshot `last` is of and that has the block `tip`; `None` if that is no
/// longer the canonical chain.
async fn page_of(
    store: Arc<dyn BlockStore>,
    indexes: RangeInclusive<u64>,
    tip: String,
    last: Snapshot,
) -> Result<Option<Blocks>, StoreError> {
    let page = store.range(*indexes.start(), *indexes.end()).await?;
    let same_chain =
        page.snapshot.same_chain(&last) || store.anchor(&tip).await? == (Anchor::Canonical, page.snapshot.version);
    Ok(Some(page).filter(|page| same_chain && page.last_index.is_some()))
}

/// Runs reads that must see one chain, again if the chain changed between the first and the last.
pub(super) async fn read_consistently<T, R>(
    store: &Arc<dyn BlockStore>,
    mut read: impl FnMut(ChainState) -> R,
) -> Result<(ChainState, T), Failure>
where
    R: Future<Output = Result<T, StoreError>>,
{
    for _ in 0..MAX_ATTEMPTS {
        let state = store.state().await.map_err(store_failure)?;
        let read = read(state.clone()).await.map_err(store_failure)?;
        let after = store.state().await.map_err(store_failure)?;
        if after.snapshot(None) == state.snapshot(None) {
            return Ok((state, read));
        }
    }
    Err(chain_changed())
}

/// The failure of an answer whose reads saw different chains, again and again.
pub(super) fn chain_changed() -> Failure {
    Failure::with_detail(Code::StoreUnavailable, "the chain is changing too fast to be read; try again")
}

fn encode(answer: &Answer, snapshot: Snapshot) -> Result<EncodedAnswer, Failure> {
    EncodedAnswer::new(answer, AnsweredBy::Local, snapshot)
}

/// The failure that a client gets for a fault of the store, without its details. The log has them, once a minute: a
/// store that is down gets as many requests as one that is up.
pub(super) fn store_failure(error: StoreError) -> Failure {
    static LOGGED: Mutex<Option<Instant>> = Mutex::new(None);
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
        *logged = Some(Instant::now());
        tracing::warn!(error = &error as &dyn std::error::Error, "the store did not answer");
    }
    // A damaged store too: it can be repaired or restored, and other gateways have their own.
    Failure::new(Code::StoreUnavailable)
}

//! Events of the canonical chain, for followers.
//!
//! The store keeps the events; other processes on the same store write them too. A follower sends the id of its last
//! event and gets the next ones, so it misses none and gets none twice. A store may lose its last events and have
//! others in their place: the id also says which tip the chain had.
//!
//! * `cursor`: [`Cursor`], the id of an event
//! * `document`: the JSON objects of events
//! * `watcher`: one reader for many followers
//! * `topics`: events of the sync and of the peers
//! * `feeds`: [`Feeds`], what followers share

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use moka::future::Cache;
use serde_json::value::RawValue;

use super::store_answers::store_failure;
use crate::{
    chain::Position,
    protocol::{Ancestor, Code, Failure},
    store::{BlockStore, ChainState, Event, EventKind, MAX_EVENTS_LENGTH, Snapshot},
};

mod cursor;
mod document;
mod feeds;
mod topics;
mod watcher;

pub use cursor::{Cursor, MalformedCursor};
use document::sent_event;
pub use document::{ChangedEpochs, EventBlocks, ExtendedEvent, ReorganisedEvent, ResetEvent, ResetReason};
pub use feeds::Feeds;
pub use topics::{FollowedPeer, PeerEvent, PeersEvent, SyncEvent, Update};
pub use watcher::Followed;

/// Most events of one batch.
const MAX_BATCH: u64 = 100;

/// Length from which on a batch gets no more events, and most characters of the blocks that go with one event.
const MAX_LENGTH: u64 = MAX_EVENTS_LENGTH;

/// Bytes of the batches that are kept. Followers that are up to date all send the same id.
const MAX_CACHED_BYTES: u64 = 16 << 20;

/// Consecutive events, as server-sent events.
#[derive(Debug)]
pub struct EventBatch {
    /// Id of the last event, to send for the next ones.
    pub last: Cursor,
    /// Why the one event is a `reset`, if it is.
    pub reset: Option<ResetReason>,
    /// The events.
    pub text: Bytes,
    rewritten: OnceLock<Bytes>,
}

impl EventBatch {
    fn new(last: Cursor, reset: Option<ResetReason>, text: String) -> Arc<Self> {
        Arc::new(Self { last, reset, text: text.into(), rewritten: OnceLock::new() })
    }

    /// The events in another form, written once for all followers; `write` is always the same function.
    pub fn rewritten(&self, write: fn(&str) -> String) -> Bytes {
        let write = || std::str::from_utf8(&self.text).map(write).unwrap_or_default().into();
        self.rewritten.get_or_init(write).clone()
    }
}

/// What a batch is read for: the cursor that it follows, the chain, and whether it has blocks.
type Key = (Cursor, Snapshot, bool);

/// A batch; `None`: there is no event after the cursor.
type Batch = Option<Arc<EventBatch>>;

/// Reads events, and keeps the latest batches by cursor and chain.
pub(super) struct EventReader {
    store: Arc<dyn BlockStore>,
    pub(super) cache: Cache<Key, Batch>,
}

impl EventReader {
    pub(super) fn new(store: Arc<dyn BlockStore>) -> Self {
        let weight = |_: &Key, batch: &Batch| {
            // Twice for the other form.
            let bytes = 512 + batch.as_ref().map_or(0, |batch| 2 * batch.text.len());
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self { store, cache: Cache::builder().max_capacity(MAX_CACHED_BYTES).weigher(weight).build() }
    }

    /// The events after `after`, where `state` is the chain's latest state.
    pub(super) async fn since(&self, after: Cursor, state: &ChainState, blocks: bool) -> Result<Batch, Failure> {
        if state.version == after.version() && after.matches_tip(state.tip_hash()) {
            return Ok(None);
        }
        let key = (after, state.snapshot(None), blocks);
        self.cache.try_get_with(key, self.read(after, state, blocks)).await.map_err(Arc::unwrap_or_clone)
    }

    /// Reads the events after `after` from the store.
    pub(super) async fn read(&self, after: Cursor, seen: &ChainState, blocks: bool) -> Result<Batch, Failure> {
        // A follower that comes from another gateway may be ahead of what this one has read.
        if after.version() > seen.version {
            self.store.require(after.version()).await.map_err(store_failure)?;
        }
        let events = self.store.events(after.version(), MAX_BATCH).await.map_err(store_failure)?;
        // Read after the events: those of a store that was replaced must not pass for the next ones. If it is replaced
        // between the two reads, the next call notices.
        let known = match after.has_tip_digest() {
            true => self.store.event_at(after.version()).await.map_err(store_failure)?,
            false => None,
        };
        let replaced = known.is_some_and(|known| !after.matches_tip(known.tip.as_ref().map(|tip| tip.hash.as_str())));
        let follows = events.first().is_some_and(|first| first.id.saturating_sub(1) == after.version());
        if follows && !replaced {
            return self.batch(events, blocks).await;
        }
        // Versions without an event leave gaps between ids; deleted events leave one before the oldest. The state is
        // read last, so that it is at least as new as the events that are compared with it.
        let oldest = self.store.events(0, 1).await.map_err(store_failure)?;
        let state = self.store.state().await.map_err(store_failure)?;
        let oldest = oldest.first().map_or(state.version, |oldest| oldest.id.saturating_sub(1));
        // An event that was deleted can't be compared; the current tip can.
        let matches_tip = after.matches_tip(state.tip_hash());
        let reset = match after.version() {
            _ if replaced => Some(ResetReason::Replaced),
            version if version > state.version => Some(ResetReason::UnknownId),
            version if version < oldest => Some(ResetReason::TooOld),
            version if version == state.version && !matches_tip => Some(ResetReason::Replaced),
            _ => None,
        };
        let nothing = events.is_empty() && reset.is_none();
        // The batch is kept by the state `seen`, and the chain may come to that state again. A store that is behind it,
        // as a standby that takes over may be, must not answer with no events or a reset; nor must one that went on
        // after the events were read. The next call sees it as it is.
        let behind = state.version < seen.version || state.version == seen.version && state.tip != seen.tip;
        if (reset.is_some() || nothing) && behind || nothing && !matches_tip {
            return Err(Failure::new(Code::StoreUnavailable));
        }
        let Some(reason) = reset else { return self.batch(events, blocks).await };
        let missed = (reason == ResetReason::TooOld).then(|| state.version - after.version());
        let (id, tip) = (Cursor::from(&state), state.tip.as_ref().map(Position::from));
        let event = ResetEvent { tip: tip.map(ancestor), reason, missed };
        Ok(Some(EventBatch::new(id, Some(reason), sent_event(Some(id), "reset", &event))))
    }

    /// The batch of these events, or of the first ones.
    async fn batch(&self, events: Vec<Event>, blocks: bool) -> Result<Batch, Failure> {
        let (mut text, mut last) = (String::new(), None);
        for event in events {
            if text.len() as u64 >= MAX_LENGTH {
                break;
            }
            last = Some(Cursor::from(&event));
            text += &self.sent(event, blocks).await?;
        }
        Ok(last.map(|last| EventBatch::new(last, None, text)))
    }

    /// The text of an event.
    async fn sent(&self, event: Event, blocks: bool) -> Result<String, Failure> {
        let id = Some(Cursor::from(&event));
        let unreadable = |error: serde_json::Error| {
            tracing::error!(%error, event = event.id, "an event can't be read");
            Failure::new(Code::Internal)
        };
        let (at, name) = (event.at, event.kind.as_str());
        match event.kind {
            EventKind::Extended => {
                let mut data: ExtendedEvent = serde_json::from_str(&event.document).map_err(unreadable)?;
                data.at = at;
                data.complete();
                if blocks {
                    let (none, added) = (Vec::new(), data.added.as_ref().filter(|_| !data.truncated));
                    data.blocks = Some(self.blocks((Some(&none), added), data.from, Some(&data.tip)).await?);
                }
                Ok(sent_event(id, name, &data))
            }
            EventKind::Reorganised => {
                let mut data: ReorganisedEvent = serde_json::from_str(&event.document).map_err(unreadable)?;
                (data.at, data.tip) = (at, event.tip.map(ancestor));
                data.complete();
                if blocks {
                    let whole = |hashes: &Option<Vec<String>>| hashes.as_ref().filter(|_| !data.truncated).cloned();
                    let (removed, added) = (whole(&data.removed), whole(&data.added));
                    let from = data.ancestor.as_ref().map_or(0, |ancestor| ancestor.index + 1);
                    let tip = data.tip.as_ref().filter(|_| data.adopted > 0);
                    data.blocks = Some(self.blocks((removed.as_ref(), added.as_ref()), from, tip).await?);
                }
                Ok(sent_event(id, name, &data))
            }
        }
    }

    /// The blocks with the hashes of both lists; where there are too many, how to fetch those from index `from` to
    /// `tip`.
    async fn blocks(
        &self,
        lists: (Option<&Vec<String>>, Option<&Vec<String>>),
        from: u64,
        tip: Option<&Ancestor>,
    ) -> Result<EventBlocks, Failure> {
        if let (Some(removed), Some(added)) = lists {
            let all = [removed.as_slice(), added].concat();
            let documents = self.store.documents(&all, MAX_LENGTH).await.map_err(store_failure)?;
            if let Some(documents) = documents {
                let list = |hashes: &Vec<String>| {
                    let blocks = hashes.iter().filter_map(|hash| documents.get(hash).cloned());
                    blocks.map(RawValue::from_string).collect::<Result<Vec<_>, _>>()
                };
                let damaged = |_| Failure::new(Code::StoreUnavailable);
                let (removed, added) = (list(removed).map_err(damaged)?, list(added).map_err(damaged)?);
                return Ok(EventBlocks { removed: Some(removed), added: Some(added), fetch: None });
            }
        }
        Ok(EventBlocks { fetch: tip.map(|tip| range_path(from, tip)), ..EventBlocks::default() })
    }
}

/// The path, from that of the events, of a range up to `tip` on a chain that holds `tip`.
fn range_path(from: u64, tip: &Ancestor) -> String {
    let anchor = percent_encoding::utf8_percent_encode(&tip.hash, percent_encoding::NON_ALPHANUMERIC);
    format!("data/miner_block/range?from_index={from}&to_index={}&anchor={anchor}", tip.index)
}

fn ancestor(position: Position) -> Ancestor {
    Ancestor { index: position.index, hash: position.hash }
}

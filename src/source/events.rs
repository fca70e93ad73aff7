//! What becomes of the canonical chain, told to those who follow it.
//!
//! The store keeps the events; other processes on the same store write them too. Followers ask with the id of the last
//! event that they know, so that nobody is told twice and whoever was away gets what was missed. A store may also lose its
//! last events and have others in their place: the id says which tip it stood for.

use std::sync::Arc;

use moka::future::Cache;
use serde_json::{Map, Value, json};

use super::{Cursor, Source, local::store_failure, tip_hash};
use crate::{
    protocol::{Code, Failure},
    store::{BlockStore, ChainState, Event},
};

/// Most events that are told at once.
const BATCH: u64 = 100;

/// Answers that are kept: followers who are up to date all ask the same.
const KEPT: u64 = 64;

/// Something to tell a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// What to ask with for what comes next.
    pub id: Cursor,
    /// `extended`, `reorganised`, or `reset` where events are missing or are not so any more.
    pub name: &'static str,
    /// A JSON object. `tip`: the tip then, `{index, hash}` or null. Of an event also `at`, when it was committed in unix
    /// seconds, and what [`EventKind`](crate::store::EventKind) says.
    pub data: String,
}

/// What followers were told last, by what they knew, the chain's version and its tip.
pub(super) struct Followers {
    store: Arc<dyn BlockStore>,
    pub(super) told: Cache<(Cursor, u64, Option<String>), Arc<[News]>>,
}

impl Followers {
    pub(super) fn new(store: Arc<dyn BlockStore>) -> Self {
        Self { store, told: Cache::new(KEPT) }
    }

    /// What comes after `after`, for those who saw the state `seen` just now.
    pub(super) async fn read(&self, after: Cursor, seen: &ChainState) -> Result<Arc<[News]>, Failure> {
        let events = self.store.events(after.version(), BATCH).await.map_err(store_failure)?;
        // Read after the events, so that those of a store that has other ones now don't pass for what comes next. If it is
        // replaced between the two reads, the next look finds it out.
        let known = match after.is_marked() {
            true => self.store.event_at(after.version()).await.map_err(store_failure)?,
            false => None,
        };
        let replaced = known.is_some_and(|known| !after.fits(known.tip.as_ref().map(|tip| tip.hash.as_str())));
        let follows = events.first().is_some_and(|first| first.id.saturating_sub(1) == after.version());
        if follows && !replaced {
            return events.into_iter().map(news).collect();
        }
        // Versions without an event leave gaps between ids. Events that are gone leave one before the oldest. The state is
        // read last, so that it is at least as new as what is compared with it.
        let oldest = self.store.events(0, 1).await.map_err(store_failure)?;
        let state = self.store.state().await.map_err(store_failure)?;
        let oldest = oldest.first().map_or(state.version, |oldest| oldest.id.saturating_sub(1));
        let passed = (oldest..=state.version).contains(&after.version());
        // Events that are not kept can't be compared with; the current tip can.
        let fits = after.fits(tip_hash(&state).as_deref());
        let reset = replaced || !passed || state.version == after.version() && !fits;
        let nothing = events.is_empty() && !reset;
        // What is told is kept by what was seen, and the chain may come to that again. So a store that is behind it, as a
        // standby may be that takes over, says neither that nothing comes nor that it is another one; nor does one that
        // has gone on since the events were read. The next look sees it as it is.
        let behind = state.version < seen.version || state.version == seen.version && state.tip != seen.tip;
        if (reset || nothing) && behind || nothing && !fits {
            return Err(Failure::new(Code::StoreUnavailable));
        }
        if reset {
            let id = Cursor::from(&state);
            let tip = state.tip.map(|tip| json!({"index": tip.index, "hash": tip.hash}));
            return Ok([News { id, name: "reset", data: json!({ "tip": tip }).to_string() }].into());
        }
        events.into_iter().map(news).collect()
    }
}

fn news(event: Event) -> Result<News, Failure> {
    let id = Cursor::from(&event);
    let mut data: Map<String, Value> = serde_json::from_str(&event.document).map_err(|error| {
        tracing::error!(%error, event = event.id, "an event can't be read");
        Failure::new(Code::Internal)
    })?;
    data.insert("at".into(), event.at.into());
    data.insert("tip".into(), event.tip.map_or(Value::Null, |tip| json!({"index": tip.index, "hash": tip.hash})));
    Ok(News { id, name: event.kind.as_str(), data: Value::Object(data).to_string() })
}

impl Source {
    /// What comes after the event `after`, oldest first, at most [`BATCH`]; empty if nothing does. Where events are
    /// missing in between, because they are too old to be kept, or `after` is of another store or of events that the store
    /// has lost, it is one `reset` to the current state. May be as old as [`Self::state`]; cheap while nothing changes.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`], [`Code::Internal`].
    pub async fn news(&self, after: Cursor) -> Result<Arc<[News]>, Failure> {
        let state = self.state().await?;
        if state.version == after.version() && after.fits(tip_hash(&state).as_deref()) {
            return Ok([].into());
        }
        let Followers { told, .. } = &self.followers;
        let key = (after, state.version, tip_hash(&state));
        told.try_get_with(key, self.followers.read(after, &state)).await.map_err(Arc::unwrap_or_clone)
    }
}

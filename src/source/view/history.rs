//! Reorganisations as they happened, from the event log.

use serde::Deserialize;

use super::{
    MAX_PAGE, Viewed, Views,
    model::{ReorganisationPage, SeenReorganisation},
};
use crate::{
    chain::Position,
    protocol::Failure,
    source::store_answers::store_failure,
    store::{ChainState, Event, StoreError},
};

/// The members of an event's document that are shown.
#[derive(Deserialize)]
struct Document {
    ancestor: Option<Position>,
    old_tip: Option<Position>,
    new_tip: Option<Position>,
    orphaned: u64,
    adopted: u64,
    reason: String,
}

impl Views {
    /// The reorganisations before the one with the id `before`, or all, newest first: as many as the event log holds.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`](crate::protocol::Code::StoreUnavailable).
    pub async fn reorganisations(
        &self,
        known: &ChainState,
        before: Option<u64>,
        limit: u64,
    ) -> Result<Viewed<ReorganisationPage>, Failure> {
        let limit = limit.clamp(1, MAX_PAGE);
        let events = self.store.reorganisations(before.unwrap_or(u64::MAX), limit).await.map_err(store_failure)?;
        let next_before = events.last().map(|last| last.id).filter(|_| events.len() as u64 == limit);
        let reorganisations: Result<Vec<_>, StoreError> = events.into_iter().map(seen).collect();
        let data = ReorganisationPage { reorganisations: reorganisations.map_err(store_failure)?, next_before };
        Ok(Viewed { snapshot: known.snapshot(None), settled: false, data })
    }
}

fn seen(event: Event) -> Result<SeenReorganisation, StoreError> {
    let read = serde_json::from_str(&event.document);
    let Document { ancestor, old_tip, new_tip, orphaned, adopted, reason } =
        read.map_err(|error| StoreError::Damaged(format!("event {}: {error}", event.id)))?;
    Ok(SeenReorganisation { id: event.id, at: event.at, ancestor, old_tip, new_tip, orphaned, adopted, reason })
}

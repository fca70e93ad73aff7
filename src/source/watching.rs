//! Keeps a [`ChainWatch`](super::ChainWatch) current, and reads what only the metrics need.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{dispatch::Source, local::with_deadline, store_answers::store_failure, watch::ChainWatch};
use crate::{
    protocol::Failure,
    store::{ChainState, Event, EventKind},
};

/// How often the chain and the sync are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Most events that are read at once.
const BATCH: u64 = 100;

/// Figures of the store that only the metrics need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreFigures {
    /// Bytes of the database.
    pub bytes: u64,
    /// Number of blocks of the staged branch.
    pub staged_blocks: u64,
    /// Seconds since the canonical chain last changed; `None` if the event log does not say.
    pub unchanged_seconds: Option<u64>,
}

impl Source {
    /// What is known of the chain without a read.
    pub fn chain_watch(&self) -> &ChainWatch {
        &self.local.watch
    }

    /// Depth below the tip from which blocks count as final.
    pub fn finality_depth(&self) -> u64 {
        self.local.settings.finality_depth
    }

    /// Watches the chain and the sync until `stop`.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut counted = None;
        loop {
            // A store that can't be read is looked at again; `store_failure` has logged it.
            let _ = self.look(&mut counted).await;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(WATCH_EVERY) => {}
            }
        }
    }

    /// Looks at the chain once: also at the events after the version `counted`, which it advances.
    async fn look(&self, counted: &mut Option<u64>) -> Result<(), Failure> {
        let state = self.state().await?;
        self.chain_watch().see_sync(self.sync_status().await?.state);
        // The first look; or the store was replaced, or has lost its last writes.
        let Some(mut after) = counted.filter(|counted| *counted <= state.version) else {
            *counted = Some(state.version);
            return Ok(());
        };
        while after < state.version {
            let events = self.local.store().events(after, BATCH).await.map_err(store_failure)?;
            let reorganisations = events.iter().filter(|event| event.kind == EventKind::Reorganised);
            reorganisations.for_each(|event| self.chain_watch().count_reorganisation(depth(event)));
            // Versions without an event leave gaps.
            after = events.last().map_or(state.version, |last| last.id);
            *counted = Some(after);
        }
        Ok(())
    }

    /// Figures of the store, whose chain is in `state`.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`](crate::protocol::Code::StoreUnavailable).
    pub async fn figures(&self, state: &ChainState) -> Result<StoreFigures, Failure> {
        let store = self.local.store();
        let read = async {
            let last = store.event_at(state.version).await?;
            let unchanged_seconds = match last {
                Some(event) => Some(u64::try_from(store.now().await?.saturating_sub(event.at)).unwrap_or(0)),
                None => None,
            };
            let staged_blocks = store.staged().await?.map_or(0, |branch| branch.count);
            Ok(StoreFigures { bytes: store.size().await?, staged_blocks, unchanged_seconds })
        };
        with_deadline(async { read.await.map_err(store_failure) }).await
    }
}

/// Number of blocks that a reorganisation took back.
fn depth(event: &Event) -> u64 {
    let document: Value = serde_json::from_str(&event.document).unwrap_or_default();
    document["orphaned"].as_u64().unwrap_or(0)
}

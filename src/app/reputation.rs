//! What is remembered of peers across restarts: read from the store's notes at the start, written as it changes.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    p2p::{P2pClient, Reputation},
    store::{BlockStore, StoreError},
};

/// How often to see whether something changed.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long the last write may take.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// Keeps the peers' scores and bans in the store until `stop`. A store that is down loses nothing: it is tried again.
pub(super) async fn keep(store: Arc<dyn BlockStore>, p2p: P2pClient, stop: CancellationToken) {
    // Several nodes may share a store, and each has its own opinion.
    let key = format!("reputation/{}", p2p.local_peer_id());
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written = None;
    loop {
        let stopping = tokio::select! {
            _ = ticks.tick() => false,
            () = stop.cancelled() => true,
        };
        let step = step(&*store, &p2p, &key, &mut written);
        let done = if stopping {
            timeout(LAST_WRITE, step).await.unwrap_or(Ok(()))
        } else {
            stop.run_until_cancelled(step).await.unwrap_or(Ok(()))
        };
        if let Err(error) = done {
            tracing::debug!(%error, "the peers' scores are not written down yet");
        }
        if stopping {
            return;
        }
    }
}

/// Reads what is remembered, once; later writes what is new since the version that is `written`.
async fn step(store: &dyn BlockStore, p2p: &P2pClient, key: &str, written: &mut Option<u64>) -> Result<(), StoreError> {
    // What happened until the first read is added to what is read, so that has to be written too.
    let before = p2p.reputation_version();
    if written.is_none() {
        if let Some(note) = store.get_note(key).await? {
            match serde_json::from_str::<Vec<Reputation>>(&note.value) {
                Ok(known) => p2p.restore(&known),
                Err(error) => tracing::warn!(%error, "what was remembered of peers can't be read: it begins anew"),
            }
        }
        *written = Some(0);
    }
    if *written != Some(before) {
        let text = serde_json::to_string(&p2p.reputations()).unwrap_or_else(|_| "[]".into());
        store.put_note(key, &text).await?;
        *written = Some(before);
    }
    Ok(())
}

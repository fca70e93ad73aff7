//! What followers share: the state of the chain, of the sync, and the peers, each read by one task.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::{
    topics::{Update, watch_peers, watch_sync},
    watcher::{Followed, Watcher},
};
use crate::{p2p::P2pClient, source::local::LocalSource, store::ChainState};

/// How often the state of the chain is read while somebody follows it.
const READ_EVERY: Duration = Duration::from_millis(100);
/// How often it is read while the store fails.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// What followers share.
pub struct Feeds {
    local: Arc<LocalSource>,
    chain: Arc<Watcher<Arc<ChainState>>>,
    sync: Arc<Watcher<Arc<Update>>>,
    peers: Arc<Watcher<Arc<Update>>>,
}

impl Feeds {
    pub(in crate::source) fn new(local: Arc<LocalSource>) -> Self {
        Self { local, chain: Watcher::new(), sync: Watcher::new(), peers: Watcher::new() }
    }

    /// Follows the state of the chain.
    pub fn follow_chain(&self) -> Followed<Arc<ChainState>> {
        let local = self.local.clone();
        self.chain.follow(|latest| watch_chain(local, latest))
    }

    /// Follows the state of the sync.
    pub fn follow_sync(&self) -> Followed<Arc<Update>> {
        let (store, sync) = (self.local.store().clone(), self.local.settings.sync);
        self.sync.follow(|latest| watch_sync(store, sync, latest))
    }

    /// Follows the peers of `p2p`; `None` has none.
    pub fn follow_peers(&self, p2p: Option<&P2pClient>) -> Followed<Arc<Update>> {
        let p2p = p2p.cloned();
        self.peers.follow(|latest| watch_peers(p2p, latest))
    }
}

/// Reads the state of the chain without end.
async fn watch_chain(local: Arc<LocalSource>, latest: watch::Sender<Option<Arc<ChainState>>>) {
    loop {
        let pause = match local.state().await {
            Ok(state) => {
                let chain = state.snapshot(None);
                latest.send_if_modified(|latest| {
                    let changed = latest.as_ref().is_none_or(|latest| !latest.snapshot(None).same_chain(&chain));
                    if changed {
                        *latest = Some(state);
                    }
                    changed
                });
                READ_EVERY
            }
            Err(_) => RETRY_EVERY,
        };
        sleep(pause).await;
    }
}

//! What streams carry besides the chain: the sync's state, and the peers. There is no log of these: a follower gets the
//! state first, and then what changes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Serialize;
use tokio::{sync::watch, time::sleep};
use utoipa::ToSchema;

use super::document::sent_event;
use crate::{
    chain::unix_now,
    p2p::{P2pClient, PeerChain, PeerInfo},
    source::job::{Phase, SyncJob, SyncState, SyncStatus},
    store::{BlockStore, StoreError},
};

/// How often the sync's state and the peers are read while somebody follows them.
const READ_EVERY: Duration = Duration::from_millis(500);

/// The state of something, and its latest change.
#[derive(Debug)]
pub struct Update {
    /// Number of the change: one more than that of the change before.
    pub number: u64,
    /// Server-sent events with the state.
    pub state: Bytes,
    /// Server-sent events that lead from the state before to this one.
    pub change: Bytes,
}

/// `data` of `sync`: the state of the sync. Sent when anything but `at` or a number in `reason` changes.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SyncEvent {
    /// Time of the change, unix seconds.
    at: i64,
    /// The state.
    state: SyncState,
    /// Why the sync is stalled.
    #[schema(required)]
    reason: Option<String>,
    /// Peers that answered the last tip poll, strangers included.
    useful_peers: u64,
    /// The running job.
    #[schema(required)]
    job: Option<u64>,
    /// The phase of this job: `queued`, `planning`, `headers`, `blocks`, `done`, `failed` or `cancelled`.
    #[schema(value_type = Option<String>, required)]
    phase: Option<Phase>,
}

/// `data` of `peers`: the peers that are connected, or whose chain is known.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PeersEvent {
    /// Time of the reading, unix seconds.
    at: i64,
    /// The peers, by id.
    peers: Vec<FollowedPeer>,
    /// Number of peers.
    count: u64,
}

/// `data` of `peer`: a peer connected or disconnected, or claims another chain.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PeerEvent {
    /// Time of the change, unix seconds.
    at: i64,
    /// The peer after the change.
    peer: FollowedPeer,
}

/// A peer, as events have it; `/peers` has more.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct FollowedPeer {
    /// Id in base58.
    peer_id: String,
    /// Alias given by the operator.
    #[schema(required)]
    alias: Option<String>,
    /// Role in the network, from its agent string.
    #[schema(required)]
    role: Option<String>,
    /// Whether it is connected.
    connected: bool,
    /// Its claims about its chain; null until the sync has asked it.
    #[schema(required)]
    chain: Option<PeerChain>,
}

impl SyncEvent {
    async fn read(store: &dyn BlockStore, sync: bool) -> Result<Self, StoreError> {
        let SyncStatus { state, reason, useful_peers, job, .. } = SyncStatus::read(store, sync).await?;
        let phase = match job {
            // A job of another release can't be read; its phase is left out.
            Some(id) => store.job(id).await?.and_then(|job| SyncJob::try_from(job).ok()).map(|job| job.progress.phase),
            None => None,
        };
        Ok(Self { at: unix_now(), state, reason, useful_peers, job, phase })
    }

    /// What makes two states the same. A reason may tell how long something lasts.
    fn key(&self) -> impl PartialEq + use<> {
        let reason = self.reason.as_ref().map(|reason| reason.replace(|c: char| c.is_ascii_digit(), ""));
        (self.state, reason, self.useful_peers, self.job, self.phase)
    }
}

/// Reads the state of the sync without end. `sync`: whether this process syncs the store.
pub(in crate::source) async fn watch_sync(
    store: Arc<dyn BlockStore>,
    sync: bool,
    latest: watch::Sender<Option<Arc<Update>>>,
) {
    let (mut last, mut number) = (None, 0);
    loop {
        // While the store fails, the last state stays.
        if let Ok(event) = SyncEvent::read(&*store, sync).await {
            let key = Some(event.key());
            if key != last {
                (last, number) = (key, number + 1);
                let text = Bytes::from(sent_event(None, "sync", &event));
                latest.send_replace(Some(Arc::new(Update { number, state: text.clone(), change: text })));
            }
        }
        sleep(READ_EVERY).await;
    }
}

impl FollowedPeer {
    fn of(info: PeerInfo) -> Option<Self> {
        let PeerInfo { peer_id, alias, role, connected, chain, .. } = info;
        // One without an id was never reached.
        peer_id.filter(|_| connected || chain.is_some()).map(|peer_id| Self { peer_id, alias, role, connected, chain })
    }

    /// Without the time of the claims, which are made again and again.
    fn timeless(&self) -> Self {
        let chain = self.chain.clone().map(|chain| PeerChain { at: 0, ..chain });
        Self { chain, ..self.clone() }
    }
}

/// Reads the peers without end.
pub(in crate::source) async fn watch_peers(p2p: Option<P2pClient>, latest: watch::Sender<Option<Arc<Update>>>) {
    let (mut last, mut number) = (None, 0);
    loop {
        let infos = p2p.as_ref().map(P2pClient::peers).unwrap_or_default();
        let peers: BTreeMap<String, FollowedPeer> =
            infos.into_iter().filter_map(FollowedPeer::of).map(|peer| (peer.peer_id.clone(), peer)).collect();
        let change = last.as_ref().map(|last| changes(last, &peers)).unwrap_or_default();
        if last.is_none() || !change.is_empty() {
            number += 1;
            let list: Vec<_> = peers.values().cloned().collect();
            let event = PeersEvent { at: unix_now(), count: list.len() as u64, peers: list };
            let state = sent_event(None, "peers", &event).into();
            latest.send_replace(Some(Arc::new(Update { number, state, change: change.into() })));
        }
        last = Some(peers);
        sleep(READ_EVERY).await;
    }
}

/// An event for each peer that differs.
fn changes(before: &BTreeMap<String, FollowedPeer>, after: &BTreeMap<String, FollowedPeer>) -> String {
    let same = |peer: &FollowedPeer, others: &BTreeMap<String, FollowedPeer>| {
        others.get(&peer.peer_id).is_some_and(|other| other.timeless() == peer.timeless())
    };
    let changed = after.values().filter(|peer| !same(peer, before)).cloned();
    let gone = before.values().filter(|peer| !after.contains_key(&peer.peer_id));
    let gone = gone.map(|peer| FollowedPeer { connected: false, chain: None, ..peer.clone() });
    changed.chain(gone).map(|peer| sent_event(None, "peer", &PeerEvent { at: unix_now(), peer })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: &str, connected: bool) -> (String, FollowedPeer) {
        let peer = FollowedPeer { peer_id: id.into(), alias: None, role: None, connected, chain: None };
        (id.into(), peer)
    }

    #[test]
    fn peers_that_come_go_or_are_forgotten_are_told() {
        let before = BTreeMap::from([peer("a", true), peer("b", true), peer("c", true)]);
        let after = BTreeMap::from([peer("a", true), peer("b", false), peer("d", true)]);
        let text = changes(&before, &after);
        let told: Vec<serde_json::Value> =
            text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
        let told: Vec<_> = told
            .iter()
            .map(|event| (event["peer"]["peer_id"].as_str().unwrap(), event["peer"]["connected"] == true))
            .collect();
        assert_eq!(told, [("b", false), ("d", true), ("c", false)]);
        assert_eq!(changes(&after, &after), "");
    }
}

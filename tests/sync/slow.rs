//! Peers that take their time to tell their tips: what they have counts all the same.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use libp2p::identity::Keypair;
use modal_gateway::{
    chain::Level,
    p2p::{self, Accepted, P2pConfig, Responder},
    source::job::{Mode, SyncState, SyncStatus},
    sync::{Service, Settings},
};
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use super::{
    following::announcement,
    node::{Syncing, by, eventually, serve, settings},
};
use crate::support::{
    chain::main_chain,
    gateway::{Backend, PATIENCE},
    peer::{Reply, ScriptedPeer},
    serving::Serving,
};

/// How long a slow peer takes: longer than others are waited for once there is something to do, and less than an answer
/// may take.
const TAKES: Duration = Duration::from_secs(1);

/// A peer that is slow to tell its tip.
struct Slow(Serving);

impl Responder for Slow {
    fn accept(self: Arc<Self>, request: Bytes) -> Accepted {
        Accepted::short(async move {
            let request: serde_json::Value = serde_json::from_slice(&request).unwrap();
            if request["path"] == "/data/miner_block/chain_info" {
                let _ = tokio::time::timeout(TAKES, std::future::pending::<()>()).await;
            }
            let Reply::Json(answer) = self.0.answer(&request) else { panic!("no answer to {request}") };
            serde_json::to_vec(&answer).unwrap().into()
        })
    }
}

#[rstest]
#[tokio::test]
async fn a_slow_peer_with_the_better_chain_is_waited_for(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    // What the fast one has: what we have, or a better chain, and not the best.
    #[values(50, 60)] fast: usize,
) {
    let chain = main_chain().first(70);
    let syncing = Syncing::with(backend, &chain.first(50)).await.waiting(PATIENCE);
    let fast = serve(&Serving::of(&chain.first(fast))).await;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let config = P2pConfig { listen, target_peers: 0, ..P2pConfig::new(Keypair::generate_ed25519()) };
    let (slow, _) = p2p::start(config, Arc::new(Slow(Serving::of(&chain))), stop).await.unwrap();
    syncing.meet(&fast).await;
    syncing.meet_at(slow.dial_addresses().remove(0)).await;
    // The next look at the peers is an hour away.
    let _running = syncing.run();
    syncing.wait_for_tip(chain.tip()).await;
    syncing.wait_for(SyncState::Synced).await;
    syncing.assert_holds(&chain).await;
}

#[tokio::test]
async fn the_tip_of_a_peer_of_the_first_release_is_found_in_few_round_trips() {
    let chain = main_chain();
    for (theirs, most) in [(1_000, 3), (1_005, 7)] {
        let peer = serve(&Serving::of(&chain.first(theirs)).first_release()).await;
        let syncing = Syncing::with(Backend::Sqlite, &chain.first(1_000)).await;
        syncing.meet(&peer).await;
        syncing.sync(&by(Mode::Delta)).await.unwrap();
        syncing.assert_holds(&chain.first(theirs)).await;
        // That there is nothing behind its tip.
        let last = peer.requests().iter().position(|request| request["data"]["from_index"] == theirs);
        assert!(last.is_some_and(|last| last < most), "{:?}", peer.requests());
    }
}

#[rstest]
#[tokio::test]
async fn while_nobody_answers_a_poll_blocks_are_heard_and_the_service_can_stop(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let chain = main_chain().first(51);
    let peer = ScriptedPeer::start(|_| Reply::Silence).await;
    let syncing = Syncing::with(backend, &chain.first(50)).await;
    syncing.meet(&peer).await;
    let settings = Settings { peer_timeout: 3 * PATIENCE, ..settings(Level::Pow) };
    let service = Service::new(syncing.store.clone(), syncing.p2p.clone(), &settings).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(service.run(stop.clone()));
    eventually(async || (!peer.requests().is_empty()).then_some(())).await;
    peer.publish(announcement(chain.tip()));
    syncing.wait_for_tip(chain.tip()).await;
    // The poll goes on: it ends after ten seconds, when the peer's own library gives its silence up.
    let reason = SyncStatus::read(&*syncing.store, true).await.unwrap().reason;
    assert_eq!(reason.as_deref(), Some("the sync has not begun yet"));
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("it does not wait for the answer").unwrap();
}

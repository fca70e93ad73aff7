//! A peer that the operator named is followed again once it is honest, whatever it did before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use modal_gateway::{
    chain::Level,
    source::job::SyncState,
    sync::{Service, Settings},
};
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use super::{
    liars::{AT, HELD, beginning, honest},
    node::{Syncing, eventually, serve, settings},
};
use crate::support::{gateway::Backend, serving::Serving};

#[rstest]
#[tokio::test]
async fn the_only_configured_peer_is_asked_again_after_a_forged_proof_of_work(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let mended = Arc::new(AtomicBool::new(false));
    let forges = mended.clone();
    let peer = serve(&Serving::of(&honest()).blocks(move |blocks| {
        if !forges.load(Ordering::SeqCst) {
            blocks.iter_mut().filter(|block| block.index == AT as u64).for_each(|block| block.nonce += 1);
        }
    }))
    .await;
    let syncing = Syncing::with(backend, &honest()[..HELD]).await;
    syncing.meet(&peer).await;
    let settings = Settings { interval: Duration::from_millis(200), ..settings(Level::Pow) };
    let service = Service::new(syncing.store.clone(), syncing.p2p.clone(), &settings).unwrap();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(service.run(stop));
    eventually(async || (syncing.info(&peer).penalties > 0).then_some(())).await;
    let blamed = async || {
        let status = syncing.wait_for(SyncState::Stalled).await;
        status.reason.filter(|reason| reason.contains("rule `hash`"))
    };
    eventually(blamed).await;
    let info = syncing.info(&peer);
    assert_eq!((info.last_penalty, info.shunned), (Some("invalid_block"), true));
    assert!(info.score > 190.0, "a stranger would be banned: {info:?}");
    assert!(beginning(&syncing).await <= AT);
    let asked = peer.requests().len();
    eventually(async || (peer.requests().len() > asked).then_some(())).await;

    mended.store(true, Ordering::SeqCst);
    syncing.wait_for_tip(honest().tip()).await;
    syncing.wait_for(SyncState::Synced).await;
    syncing.assert_holds(&honest()).await;
}

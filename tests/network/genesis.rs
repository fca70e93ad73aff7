//! A network without a pinned genesis, and a stranger with another one under much more work.

use rstest::rstest;
use serde_json::Value;

use crate::{
    support::{
        chain::{HEAVY, LIGHT},
        gateway::Backend,
        simulator::{Setup, Simulator, Switches},
        until::within,
    },
    world::{Gateway, LONG, miner},
};

/// A stranger that dials the gateway and serves the chain of `other`.
async fn dialling(gateway: &Gateway, other: &Simulator) -> Simulator {
    let bootstrap = vec![gateway.address()];
    Simulator::start(Setup { blocks: other.chain(), bootstrap, ..Setup::default() }).await
}

/// Waits until its next look at the peers is over, and one more.
async fn wait_looks(gateway: &Gateway) {
    for _ in 0..2 {
        let looked = |status: &Value| status["sync"]["checked_at"].as_i64();
        let before = gateway.data("/status").await.as_ref().and_then(looked);
        gateway.wait_status(|status| looked(status) > before).await;
    }
}

/// Waits until this is how the peer's chain stands to the gateway's.
async fn wait_standing(gateway: &Gateway, peer: &Simulator, standing: &str) {
    let id = peer.peer_id.to_string();
    let stands = async || {
        let peers = gateway.data("/peers").await?;
        let peer = peers["peers"].as_array()?.iter().find(|peer| peer["peer_id"] == id.as_str())?.clone();
        (peer["chain"]["standing"] == standing).then_some(())
    };
    within(LONG, stands).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_genesis_is_never_taken(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let (whole, other) = (miner(12, Switches::default()).await, miner(0, Switches::default()).await);
    other.mine_apart(60, &HEAVY);
    // The operator's own peer has no chain yet.
    let own = Simulator::start(Setup::default()).await;
    let mut gateway = Gateway::start(backend, &[("own", &own)], &["--sync-interval", "1s"]).await;
    let stranger = dialling(&gateway, &other).await;
    gateway.wait_status(|status| status["peers"]["connected"] == 2).await;
    stranger.wait_listeners(1).await;
    stranger.mine_worth(1, &HEAVY);
    wait_looks(&gateway).await;
    let status = gateway.wait_status(|status| status["sync"]["state"] == "stalled").await;
    assert_eq!(status["chain"]["length"], 0, "{status:#}");
    let fetched = stranger.requests().into_iter().filter(|request| request.path.starts_with("/data/"));
    assert_eq!(fetched.collect::<Vec<_>>(), [], "it is not even asked");

    whole.chain().into_iter().for_each(|block| own.store().put(block));
    own.mine_apart(1, &LIGHT);
    gateway.assert_follows(&own.chain()).await;
    wait_standing(&gateway, &stranger, "other_genesis").await;
    gateway.assert_follows(&own.chain()).await;

    gateway.restart();
    let stranger = dialling(&gateway, &other).await;
    wait_standing(&gateway, &stranger, "other_genesis").await;
    gateway.assert_follows(&own.chain()).await;
}

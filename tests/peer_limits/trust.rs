//! With whom we have to do, and how long offences count.

use std::sync::Arc;
use std::time::Duration;

use libp2p::identity::Keypair;
use modal_gateway::app;
use modal_gateway::config::Config;
use modal_gateway::p2p::{Offence, P2pError, Trust};
use modal_gateway::store::{self, OpenOptions};
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use crate::support::gateway::{Backend, PATIENCE, TestStore};
use crate::{Node, until};

#[rstest]
#[case(Trust::Open, true, true)]
#[case(Trust::Listed, true, false)]
#[case(Trust::Closed, false, false)]
#[tokio::test]
async fn strangers_are_admitted_and_asked_as_far_as_they_are_trusted(
    #[case] mode: Trust,
    #[case] admitted: bool,
    #[case] asked: bool,
) {
    let friend = Node::start(|_| {}).await;
    let node = Node::start(|config| {
        config.trust.mode = mode;
        config.trust.allow = [friend.id()].into();
    })
    .await;
    friend.meet(&node).await;
    assert_eq!(friend.client.request(node.id(), "3".into(), PATIENCE).await.unwrap().len(), 3);
    assert_eq!(node.client.request(friend.id(), "3".into(), PATIENCE).await.unwrap().len(), 3);
    let stranger = Node::start(|_| {}).await;
    if admitted {
        stranger.meet(&node).await;
        assert_eq!(stranger.client.request(node.id(), "3".into(), PATIENCE).await.unwrap().len(), 3, "it is answered");
        let answer = node.client.request(stranger.id(), "3".into(), PATIENCE).await;
        assert_eq!(answer.is_ok(), asked, "{answer:?}");
        assert_eq!(node.client.find(&stranger.id().to_string()).is_ok(), asked);
        assert_eq!(node.client.candidates().contains(&stranger.id()), asked);
    } else {
        // The connection stands for the one that dials until the other refuses it.
        let _ = stranger.client.dial(node.address()).await;
        until("it is refused", async || refused(&node, "stranger") > 0 && !stranger.is_connected(&node)).await;
        assert!(!node.is_connected(&stranger));
        assert!(stranger.client.request(node.id(), "3".into(), Duration::from_secs(5)).await.is_err());
        // The operator may go to whomever he wants.
        node.client.dial(stranger.address()).await.unwrap();
        assert_eq!(node.client.request(stranger.id(), "3".into(), PATIENCE).await.unwrap().len(), 3);
    }
}

fn refused(node: &Node, why: &str) -> u64 {
    node.client.endpoint_stats().refused.iter().find(|(reason, _)| *reason == why).unwrap().1
}

#[tokio::test]
async fn a_denied_peer_is_refused_in_both_directions_and_unknown() {
    let foe = Node::start(|_| {}).await;
    let node = Node::start(|config| {
        config.trust.deny = [foe.id()].into();
        config.trust.allow = [foe.id()].into();
        config.peers = vec![format!("foe={}", foe.address()).parse().unwrap()];
    })
    .await;
    let _ = foe.client.dial(node.address()).await;
    until("it is refused", async || !foe.is_connected(&node) && refused(&node, "denied") > 1).await;
    assert!(matches!(node.client.dial(foe.address()).await, Err(P2pError::Unreachable(_))));
    assert_eq!(node.client.find("foe"), Err(P2pError::UnknownPeer));
    assert_eq!(node.client.request(foe.id(), "3".into(), PATIENCE).await, Err(P2pError::UnknownPeer));
    // Only because of the list: taken off it, it is a peer like any other.
    node.client.set_trust(foe.id(), true).unwrap();
    node.client.dial(foe.address()).await.unwrap();
    assert_eq!(node.client.request(foe.id(), "3".into(), PATIENCE).await.unwrap().len(), 3);
    // And put on it again, it is disconnected at once.
    node.client.set_trust(foe.id(), false).unwrap();
    until("it is disconnected", async || !node.is_connected(&foe)).await;
}

#[tokio::test]
async fn a_banned_peer_is_disconnected_and_refused_until_the_ban_ends() {
    let (node, liar, slow) = (Node::start(|_| {}).await, Node::start(|_| {}).await, Node::start(|_| {}).await);
    liar.meet(&node).await;
    slow.meet(&node).await;
    for _ in 0..100 {
        node.client.penalise(slow.id(), Offence::Unreliable);
    }
    node.client.penalise(liar.id(), Offence::InvalidBlock);
    until("it is disconnected", async || !node.is_connected(&liar)).await;
    let _ = liar.client.dial(node.address()).await;
    until("it is refused", async || refused(&node, "banned") > 0 && !liar.is_connected(&node)).await;
    assert!(node.is_connected(&slow), "slow is not malicious");
    node.client.remove_peer(&slow.id().to_string(), Some(Duration::from_secs(2))).await.unwrap();
    until("it is gone", async || !node.is_connected(&slow)).await;
    until("a ban expires", async || {
        let _ = slow.client.dial(node.address()).await;
        node.is_connected(&slow)
    })
    .await;
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn scores_and_bans_outlive_a_restart(#[case] backend: Backend) {
    let test_store = TestStore::create(backend).await;
    let keypair = Keypair::generate_ed25519();
    let config = Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        sync: false,
        network: modal_gateway::chain::Network::devnet(),
        ..Config::default()
    };
    let start = async |keypair: &Keypair| {
        let store =
            store::open(&test_store.url, &OpenOptions { connections: 2, ..OpenOptions::default() }).await.unwrap();
        let node = app::Node::start_with(&config, Arc::clone(&store), keypair.clone()).await.unwrap();
        let (client, stop) = (node.p2p.clone(), CancellationToken::new());
        (client, tokio::spawn(node.run(stop.clone())), stop)
    };
    let info = |client: &modal_gateway::p2p::P2pClient, id: &libp2p::PeerId| {
        client.peers().into_iter().find(|peer| peer.peer_id == Some(id.to_string()))
    };
    let liar = Node::start(|_| {}).await;
    let (client, running, stop) = start(&keypair).await;
    client.penalise(liar.id(), Offence::InvalidBlock);
    let before = info(&client, &liar.id()).unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();

    let (client, running, stop) = start(&keypair).await;
    until("it is remembered", async || info(&client, &liar.id()).is_some_and(|peer| peer.score > 0.0)).await;
    let after = info(&client, &liar.id()).unwrap();
    assert!(after.banned_until.unwrap().abs_diff(before.banned_until.unwrap()) <= 2, "{after:?}");
    assert!(after.score > 190.0 && after.score <= 200.0 && after.penalties == 1 && after.shunned, "{after:?}");
    assert_eq!(after.last_penalty, Some("invalid_block"));
    let _ = liar.client.dial(client.dial_addresses()[0].clone()).await;
    let banned = || client.endpoint_stats().refused.iter().any(|(why, count)| *why == "banned" && *count > 0);
    until("it is still refused", async || banned()).await;
    stop.cancel();
    running.await.unwrap().unwrap();

    // Another node on the same store has an opinion of its own. When it knows the marker, it has read all that it will.
    let (another, marker) = (Keypair::generate_ed25519(), libp2p::PeerId::random());
    let (client, running, stop) = start(&another).await;
    client.penalise(marker, Offence::InvalidBlock);
    stop.cancel();
    running.await.unwrap().unwrap();
    let (client, running, stop) = start(&another).await;
    until("the marker is remembered", async || info(&client, &marker).is_some_and(|peer| peer.score > 0.0)).await;
    liar.client.dial(client.dial_addresses()[0].clone()).await.unwrap();
    let known = async || info(&client, &liar.id()).is_some_and(|peer| peer.connected && peer.agent.is_some());
    until("the liar is let in", known).await;
    let peer = info(&client, &liar.id()).unwrap();
    assert_eq!((peer.banned_until, peer.penalties), (None, 0));
    stop.cancel();
    running.await.unwrap().unwrap();
}

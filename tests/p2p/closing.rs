//! No connection is closed by us while an answer is on its way to it.

use std::time::{Duration, Instant};

use libp2p::identity::Keypair;
use modal_gateway::p2p::{P2pConfig, P2pError};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::clock::judge;
use crate::peer::{Reply, ScriptedPeer};
use crate::{Node, PATIENCE, eventually};

/// How long a mute peer is waited for here.
const BRIEF: Duration = Duration::from_millis(300);

type Asked = JoinHandle<Result<bytes::Bytes, P2pError>>;

/// A peer that owes an answer, and the node that it owes it to.
async fn owing(closing_timeout: Duration) -> (ScriptedPeer, Node, Asked) {
    let peer = ScriptedPeer::start(Reply::Held).await;
    let node = Node::start(|config| {
        config.peers = vec![format!("peer={}", peer.address).parse().unwrap()];
        config.closing_timeout = closing_timeout;
    })
    .await;
    let id = node.client.wait_connected("peer", PATIENCE).await.unwrap();
    let client = node.client.clone();
    let asked = tokio::spawn(async move { client.request(id, "1".into(), PATIENCE).await });
    peer.until(|figures| figures.open == 1).await;
    (peer, node, asked)
}

#[tokio::test]
async fn shutdown_waits_for_answers_and_sends_nothing_new() {
    let (peer, node, asked) = owing(PATIENCE).await;
    let (client, id) = (node.client.clone(), peer.peer_id);
    let ask = |number: u64| {
        let client = client.clone();
        tokio::spawn(async move { client.request(id, number.to_string().into(), PATIENCE).await })
    };
    let given_up = ask(2);
    peer.until(|figures| figures.open == 2).await;
    given_up.abort();
    let waits = ask(3);
    eventually(async || (client.endpoint_stats().outbound_waiting == 1).then_some(())).await;
    node.shutdown.cancel();
    assert_eq!(waits.await.unwrap(), Err(P2pError::Stopped), "what waits for its turn ends at once");
    assert_eq!(ask(4).await.unwrap(), Err(P2pError::Stopped));
    assert!(!node.task.is_finished() && peer.figures().connections == 1);
    peer.release(1);
    assert_eq!(asked.await.unwrap().unwrap(), "1", "who still waits gets the answer");
    assert!(!node.task.is_finished() && peer.figures().connections == 1, "the other one was given up only");
    peer.release(1);
    node.task.await.unwrap();
    peer.until(|figures| figures.connections == 0).await;
    assert_eq!((peer.figures().lost, peer.requests()), (0, vec![json!(1), json!(2)]));
}

#[tokio::test]
async fn shutdown_does_not_wait_longer_than_its_timeout() {
    let (peer, node, asked) = owing(BRIEF).await;
    let began = Instant::now();
    node.shutdown.cancel();
    node.task.await.unwrap();
    assert!(began.elapsed() >= BRIEF, "{:?}", began.elapsed());
    judge(began.elapsed() < PATIENCE / 2, format_args!("{:?}", began.elapsed()));
    assert_eq!(asked.await.unwrap(), Err(P2pError::Stopped));
    peer.until(|figures| figures.connections == 0).await;
    assert_eq!(P2pConfig::new(Keypair::generate_ed25519()).closing_timeout, Duration::from_secs(10));
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_pending_dial() {
    // Accepts, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port());
    let node = Node::start(|_| {}).await;
    let client = node.client.clone();
    let dialled = tokio::spawn(async move { client.dial(address.parse().unwrap()).await });
    let _accepted = silent.accept().await.unwrap();
    node.stop().await;
    assert_eq!(dialled.await.unwrap(), Err(P2pError::Stopped));
}

/// What ends a connection.
type Act = fn(&Node, &ScriptedPeer) -> tokio::task::JoinHandle<()>;

const ACTS: [(&str, Act); 3] = [
    ("deny-list", |node, peer| {
        node.client.set_trust(peer.peer_id, false).unwrap();
        tokio::spawn(async {})
    }),
    ("removal", |node, _| {
        let client = node.client.clone();
        tokio::spawn(async move { _ = client.remove_peer("peer", None).await.unwrap() })
    }),
    ("ban", |node, _| {
        let client = node.client.clone();
        tokio::spawn(async move { _ = client.remove_peer("peer", Some(PATIENCE)).await.unwrap() })
    }),
];

#[tokio::test]
async fn a_closing_peer_answers_first_and_is_sent_nothing_new() {
    for (what, act) in ACTS {
        let (peer, node, asked) = owing(PATIENCE).await;
        act(&node, &peer).await.unwrap();
        let refused = node.client.request(peer.peer_id, "2".into(), PATIENCE).await.unwrap_err();
        assert!(matches!(refused, P2pError::Unreachable(_) | P2pError::UnknownPeer), "{what}: {refused:?}");
        assert_eq!(peer.figures().connections, 1, "{what}");
        peer.release(1);
        assert_eq!(asked.await.unwrap().unwrap(), "1", "{what}");
        peer.until(|figures| figures.connections == 0).await;
        assert_eq!((peer.figures().lost, peer.requests()), (0, vec![json!(1)]), "{what}");
    }
}

#[tokio::test]
async fn a_closing_peer_has_a_timeout() {
    for (what, act) in ACTS {
        let (peer, node, asked) = owing(BRIEF).await;
        let began = Instant::now();
        act(&node, &peer).await.unwrap();
        peer.until(|figures| figures.connections == 0).await;
        assert!(began.elapsed() >= BRIEF, "{what}: {:?}", began.elapsed());
        assert!(matches!(asked.await.unwrap(), Err(P2pError::Unreachable(_))), "{what}");
    }
}

#[tokio::test]
async fn a_closing_peer_that_is_trusted_again_stays() {
    let (peer, node, asked) = owing(PATIENCE).await;
    node.client.set_trust(peer.peer_id, false).unwrap();
    assert_eq!(node.client.request(peer.peer_id, "2".into(), PATIENCE).await, Err(P2pError::UnknownPeer));
    node.client.set_trust(peer.peer_id, true).unwrap();
    peer.release(2);
    assert_eq!(asked.await.unwrap().unwrap(), "1");
    assert_eq!(node.client.request(peer.peer_id, "3".into(), PATIENCE).await.unwrap(), "3");
    assert_eq!((peer.figures().connections, peer.figures().lost), (1, 0));
}

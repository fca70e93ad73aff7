//! Few requests at a time to a node of the network, and fair turns for whoever waits.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use modal_gateway::p2p::{P2pClient, P2pConfig, P2pError};
use modal_gateway::protocol::COMPRESSED_PROTOCOL;
use serde_json::{Value, json};

use crate::clock::judge;
use crate::peer::{Reply, ScriptedPeer};
use crate::{Node, PATIENCE, eventually};

/// Longer than what is asked here takes, shorter than anybody's patience.
const SHORT: Duration = Duration::from_millis(300);

/// A peer of the network's protocol that answers with the request, as it is released; and a node that is connected with
/// it.
async fn held(change: impl FnOnce(&mut P2pConfig)) -> (ScriptedPeer, Node) {
    let peer = ScriptedPeer::start(Reply::Held).await;
    let node = Node::start(|config| {
        config.peers = vec![format!("peer={}", peer.address).parse().unwrap()];
        change(config);
    })
    .await;
    node.client.wait_connected("peer", PATIENCE).await.unwrap();
    (peer, node)
}

/// Asks in a task of its own; the request is a number.
fn ask(client: &P2pClient, number: u64, limit: Duration) -> tokio::task::JoinHandle<Result<Bytes, P2pError>> {
    let (client, peer) = (client.clone(), client.find("peer").unwrap());
    tokio::spawn(async move { client.request(peer, number.to_string().into(), limit).await })
}

/// Waits until so many requests wait for a place.
async fn waiting(node: &Node, count: u64) {
    eventually(async || (node.client.endpoint_stats().outbound_waiting == count).then_some(())).await;
}

fn numbers(requests: &[Value]) -> Vec<u64> {
    requests.iter().map(|request| request.as_u64().unwrap()).collect()
}

#[tokio::test]
async fn two_requests_are_in_flight_and_own_ones_alternate_with_fifty_forwarded() {
    let (peer, node) = held(|_| {}).await;
    let clients = node.client.clone().with_answer_memory(1 << 20);
    let forwarded: Vec<_> = (0..50).map(|n| ask(&clients.on_behalf_of(n), n, PATIENCE)).collect();
    waiting(&node, 48).await;
    let own = ask(&node.client, 1000, PATIENCE);
    waiting(&node, 49).await;
    peer.until(|figures| figures.open == 2).await;
    assert_eq!((node.client.endpoint_stats().outbound, peer.requests().len()), (2, 2));
    peer.release(1);
    assert_eq!(eventually(async || peer.requests().get(2).cloned()).await, 1000, "its turn is next");
    peer.release(50);
    for (n, answer) in join_all(forwarded).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap().unwrap(), n.to_string());
    }
    assert_eq!(own.await.unwrap().unwrap(), "1000");
    assert_eq!((peer.requests().len(), peer.figures().most_open, peer.figures().lost), (51, 2, 0));
    let stats = node.client.endpoint_stats();
    assert_eq!((stats.outbound, stats.outbound_waiting, stats.outbound_given_up), (0, 0, 0));
}

#[tokio::test]
async fn clients_and_the_node_take_turns() {
    let (peer, node) = held(|config| config.node_requests = 1).await;
    let clients = node.client.clone().with_answer_memory(1 << 20);
    let mut asked = vec![ask(&node.client, 0, PATIENCE)];
    eventually(async || (peer.requests().len() == 1).then_some(())).await;
    let (greedy, modest) = (clients.on_behalf_of(1), clients.on_behalf_of(2));
    for (client, numbers) in [(&greedy, 100..140), (&node.client, 300..340), (&modest, 200..203)] {
        for number in numbers.clone() {
            asked.push(ask(client, number, PATIENCE));
        }
        waiting(&node, asked.len() as u64 - 1).await;
    }
    peer.release(asked.len());
    for answer in join_all(asked).await {
        answer.unwrap().unwrap();
    }
    let seen = numbers(&peer.requests());
    let turns: Vec<_> = (200..203).map(|n| seen.iter().position(|number| *number == n).unwrap()).collect();
    assert!(turns.is_sorted() && turns[2] <= 16, "each fourth turn is its own: {seen:?}");
    assert_eq!(peer.figures().most_open, 1);
}

#[tokio::test]
async fn a_peer_of_the_own_dialect_has_many_requests_in_flight() {
    let peer = ScriptedPeer::speaking(COMPRESSED_PROTOCOL, |_| Reply::Silence).await;
    let node = Node::knowing("peer", &peer.address).await;
    let asked: Vec<_> = (0..64).map(|n| ask(&node.client, n, PATIENCE)).collect();
    peer.until(|figures| figures.open == 64).await;
    assert_eq!(ask(&node.client, 64, PATIENCE).await.unwrap(), Err(P2pError::Busy), "at once");
    asked.into_iter().for_each(|asked| asked.abort());
}

#[tokio::test]
async fn a_request_that_would_wait_too_long_fails_at_once() {
    let (peer, node) = held(|_| {}).await;
    // Its answers take longer than this, as it turns out.
    assert_eq!(ask(&node.client, 0, SHORT).await.unwrap(), Err(P2pError::Timeout));
    peer.release(1);
    peer.until(|figures| figures.open == 0).await;
    eventually(async || (node.client.endpoint_stats().outbound == 0).then_some(())).await;
    let mut asked = vec![ask(&node.client, 1, PATIENCE), ask(&node.client, 2, PATIENCE)];
    peer.until(|figures| figures.open == 2).await;
    for number in 3..20 {
        asked.push(ask(&node.client, number, PATIENCE));
    }
    waiting(&node, 17).await;
    let began = Instant::now();
    assert_eq!(ask(&node.client, 99, 4 * SHORT).await.unwrap(), Err(P2pError::Busy));
    judge(began.elapsed() < 2 * SHORT, format_args!("{:?}", began.elapsed()));
    peer.release(19);
    for answer in join_all(asked).await {
        answer.unwrap().unwrap();
    }
    assert!(!numbers(&peer.requests()).contains(&99), "it was never sent");
    assert_eq!((peer.figures().most_open, peer.figures().lost), (2, 0));
}

#[tokio::test]
async fn an_abandoned_request_stays_in_flight_until_it_is_answered() {
    let (peer, node) = held(|_| {}).await;
    let dropped = ask(&node.client, 1, PATIENCE);
    peer.until(|figures| figures.open == 1).await;
    // Who hangs up, and who waits no longer.
    dropped.abort();
    assert_eq!(ask(&node.client, 2, SHORT).await.unwrap(), Err(P2pError::Timeout));
    let clients = node.client.clone().with_answer_memory(1 << 20);
    for client in [&node.client, &clients.on_behalf_of(7)] {
        let began = Instant::now();
        assert_eq!(ask(client, 3, SHORT).await.unwrap(), Err(P2pError::Busy), "it was not sent");
        assert!(began.elapsed() >= SHORT, "nobody knows how long the others take");
    }
    assert_eq!((peer.requests(), node.client.endpoint_stats().outbound), (vec![json!(1), json!(2)], 2));
    let waits = ask(&node.client, 4, PATIENCE);
    waiting(&node, 1).await;
    peer.release(2);
    eventually(async || (peer.requests().last() == Some(&json!(4))).then_some(())).await;
    peer.release(1);
    assert_eq!(waits.await.unwrap().unwrap(), "4");
    assert_eq!((peer.figures().most_open, peer.figures().lost, peer.figures().connections), (2, 0, 1));
    let info = node.client.peers().remove(0);
    assert_eq!((info.requests, info.failures, info.last_error), (3, 1, Some("timeout")), "each is counted once");
}

#[tokio::test]
async fn an_unanswered_request_stays_in_flight_until_its_timeout() {
    let (peer, node) = held(|config| (config.node_requests, config.hold_given_up) = (1, 3 * SHORT)).await;
    let began = Instant::now();
    assert_eq!(ask(&node.client, 1, SHORT).await.unwrap(), Err(P2pError::Timeout));
    let next = ask(&node.client, 2, PATIENCE);
    peer.until(|figures| figures.most_open == 2).await;
    assert!(began.elapsed() >= 3 * SHORT, "{:?}", began.elapsed());
    peer.release(2);
    assert_eq!(next.await.unwrap().unwrap(), "2");
    assert_eq!(P2pConfig::new(libp2p::identity::Keypair::generate_ed25519()).hold_given_up, Duration::from_secs(60));
}

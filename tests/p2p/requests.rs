//! Requests and answers, good and bad.

use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::PeerId;
use modal_gateway::p2p::P2pError;
use modal_gateway::protocol::{COMPRESSED_PROTOCOL, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES};
use serde_json::json;

use crate::clock::judge;
use crate::peer::{Reply, ScriptedPeer};
use crate::{Node, PATIENCE, TCP, WEBSOCKET, eventually, until};

#[tokio::test]
async fn two_nodes_send_requests_over_tcp_and_websocket() {
    for transport in [TCP, WEBSOCKET] {
        let far = Node::listening(transport).await;
        assert!(!far.address().to_string().contains("tcp/0"), "port 0 is resolved");
        let near = Node::knowing("far", &far.address()).await;
        assert_eq!(near.ask("far", "there").await.unwrap(), "there");
        let back = near.client.local_peer_id();
        far.client.wait_connected(&back.to_string(), PATIENCE).await.unwrap();
        assert_eq!(far.client.request(back, "back".into(), PATIENCE).await.unwrap(), "back");
        assert_eq!(near.client.candidates(), [far.client.local_peer_id()]);
        let full = near.ask("far", "full").await.unwrap();
        assert_eq!(full.len(), MAX_RESPONSE_BYTES, "an answer of exactly the limit arrives");
        let inbound = far.client.inbound_stats();
        assert_eq!((inbound.requests, inbound.answered, inbound.dropped, inbound.failed), (2, 2, 0, 0));
        let info = near.client.peers().into_iter().find(|peer| peer.alias.as_deref() == Some("far")).unwrap();
        assert!(info.configured && info.connected && info.latency_ms.is_some() && info.last_seen.is_some());
        assert_eq!((info.requests, info.failures, info.last_error), (2, 0, None));
        assert!(info.agent.unwrap().starts_with("modal-gateway/"));
    }
}

#[tokio::test]
async fn an_answer_of_any_bytes_is_returned() {
    for bytes in [&b"not json \xff\x00"[..], b"{\"ok\":tr"] {
        let peer = ScriptedPeer::start(move |_| Reply::Raw(bytes.into())).await;
        let node = Node::knowing("peer", &peer.address).await;
        let request = json!({"path": "/ping", "data": 1});
        assert_eq!(node.ask("peer", request.to_string()).await.unwrap(), bytes);
        assert_eq!(peer.requests(), [request]);
    }
}

#[tokio::test]
async fn each_misbehaviour_has_its_error_and_the_node_goes_on() {
    let good = Node::listening(TCP).await;
    let node = Node::knowing("good", &good.address()).await;
    let closing = ScriptedPeer::start(|_| Reply::Close).await;
    let long = ScriptedPeer::start(|_| Reply::Raw(vec![b'x'; 11 << 20].into())).await;
    let silent = ScriptedPeer::start(|_| Reply::Silence).await;
    let foreign = ScriptedPeer::speaking("/something/else", |_| Reply::Silence).await;

    for (peer, limit, check) in [
        (&closing, PATIENCE, (|error| matches!(error, P2pError::BadAnswer(_))) as fn(&P2pError) -> bool),
        (&long, PATIENCE, |error| *error == P2pError::TooLarge),
        (&silent, Duration::from_millis(200), |error| *error == P2pError::Timeout),
        (&foreign, PATIENCE, |error| *error == P2pError::Unsupported),
    ] {
        let id = node.client.dial(peer.address.clone()).await.unwrap();
        assert_eq!(id, peer.peer_id);
        let asked = Instant::now();
        let error = node.client.request(id, "{}".into(), limit).await.unwrap_err();
        assert!(check(&error), "{error:?}");
        judge(asked.elapsed() < limit + Duration::from_secs(2), format_args!("{:?}", asked.elapsed()));
        assert_eq!(node.ask("good", "still here").await.unwrap(), "still here");
    }
    let candidates = node.client.candidates();
    assert_eq!(candidates[0], good.client.local_peer_id(), "who answers is asked first");
    assert!(!candidates.contains(&foreign.peer_id));
    let info = |id: &PeerId| node.client.peers().into_iter().find(|p| p.peer_id == Some(id.to_string())).unwrap();
    assert_eq!((info(&long.peer_id).failures, info(&long.peer_id).last_error), (1, Some("too_large")));
    assert_eq!(info(&closing.peer_id).last_error, Some("bad_answer"));
}

#[tokio::test]
async fn a_request_that_timed_out_ends_with_a_peer_of_the_own_dialect() {
    let peer = Node::listening(TCP).await;
    let node = Node::start(|config| {
        config.peers = vec![format!("peer={}", peer.address()).parse().unwrap()];
        config.max_outbound_per_peer = 2;
    })
    .await;
    let id = node.client.wait_connected("peer", PATIENCE).await.unwrap();
    let ask = |request: &'static str, limit| node.client.request(id, request.into(), limit);
    let short = Duration::from_millis(300);
    let (first, second, third) = tokio::join!(ask("wait 1", short), ask("wait 2", short), ask("3", PATIENCE));
    assert_eq!((first, second), (Err(P2pError::Timeout), Err(P2pError::Timeout)));
    assert_eq!(third, Err(P2pError::Busy), "two are in flight already");
    // Once the worker has seen the two end, there is place again, long before the behaviour's own timeout of 60 s.
    let answer = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            match ask("answer", PATIENCE).await {
                Err(P2pError::Busy) => tokio::task::yield_now().await,
                answer => break answer,
            }
        }
    });
    assert_eq!(answer.await.unwrap().unwrap(), "answer");
}

#[tokio::test]
async fn requests_in_flight_are_reserved_for_the_nodes_own() {
    let peer = ScriptedPeer::speaking(COMPRESSED_PROTOCOL, |_| Reply::Silence).await;
    let node = Node::start(|config| {
        config.peers = vec![format!("peer={}", peer.address).parse().unwrap()];
        config.max_outbound_per_peer = 4;
    })
    .await;
    let id = node.client.wait_connected("peer", PATIENCE).await.unwrap();
    let forwarding = node.client.clone().with_answer_memory(1 << 20);
    let clients = [&forwarding, &forwarding, &forwarding, &forwarding, &node.client];
    let asked = clients.map(|client| client.request(id, "1".into(), Duration::from_millis(300)));
    let waited = || Err::<Bytes, _>(P2pError::Timeout);
    let expected = [waited(), waited(), waited(), Err(P2pError::Busy), waited()];
    assert_eq!(futures::future::join_all(asked).await, expected);
}

#[tokio::test]
async fn inbound_requests_are_limited() {
    let far = Node::start(|config| {
        config.listen = vec![TCP.parse().unwrap()];
        (config.max_inbound, config.delay_limit) = (2, Duration::ZERO);
    })
    .await;
    let near = Node::knowing("far", &far.address()).await;
    let (first, second) =
        tokio::join!(async { tokio::join!(near.ask("far", "wait 1"), near.ask("far", "wait 2")) }, async {
            // Both places are taken when a third request is turned away.
            let turned_away = async {
                loop {
                    match near.ask("far", "third").await.unwrap() {
                        answer if answer == "third" => tokio::task::yield_now().await,
                        refusal => break refusal,
                    }
                }
            };
            let refused = tokio::time::timeout(PATIENCE, turned_away).await.expect("a third request is turned away");
            far.gate.add_permits(2);
            refused
        });
    assert_eq!((first.0.unwrap(), first.1.unwrap()), ("wait 1".into(), "wait 2".into()));
    let refusal: serde_json::Value = serde_json::from_slice(&second).unwrap();
    assert_eq!(refusal["errors"], json!({"error": "Too many requests in progress", "code": "busy"}));
    assert_eq!(far.client.inbound_stats().dropped, 1);
    assert_eq!(near.ask("far", "free again").await.unwrap(), "free again");
}

#[tokio::test]
async fn an_inbound_request_counts_until_its_work_is_done() {
    let far = Node::start(|config| {
        config.listen = vec![TCP.parse().unwrap()];
        (config.max_inbound, config.delay_limit) = (1, Duration::ZERO);
    })
    .await;
    let gone = Node::start(|config| {
        config.peers = vec![format!("far={}", far.address()).parse().unwrap()];
        config.closing_timeout = Duration::from_millis(100);
    })
    .await;
    gone.client.wait_connected("far", PATIENCE).await.unwrap();
    let (client, id) = (gone.client.clone(), gone.client.find("far").unwrap());
    let (asked, ()) = tokio::join!(client.request(id, "wait".into(), PATIENCE), async {
        while far.client.inbound_stats().requests == 0 {
            tokio::task::yield_now().await;
        }
        gone.stop().await;
    });
    assert_eq!(asked, Err(P2pError::Stopped));
    until(&far.client, |client| client.peers().iter().all(|peer| !peer.connected)).await;
    let near = Node::knowing("far", &far.address()).await;
    assert_ne!(near.ask("far", "is there place").await.unwrap(), "is there place");
    far.gate.add_permits(1);
    eventually(async || (near.ask("far", "now").await.unwrap() == "now").then_some(())).await;
}

#[tokio::test]
async fn answers_that_cannot_be_sent_end_their_stream_only() {
    let far = Node::start(|config| {
        config.listen = vec![TCP.parse().unwrap()];
        config.max_inbound = 1;
    })
    .await;
    let near = Node::knowing("far", &far.address()).await;
    for request in ["long", "panic"] {
        let error = eventually(async || near.ask("far", request).await.err()).await;
        assert!(matches!(error, P2pError::BadAnswer(_)), "{request}: {error:?}");
    }
    let long = vec![b'x'; MAX_REQUEST_BYTES + 1];
    assert_eq!(near.ask("far", long).await, Err(P2pError::TooLarge));
    let longest = vec![b'x'; MAX_REQUEST_BYTES];
    eventually(async || (near.ask("far", longest.clone()).await.unwrap() == longest).then_some(())).await;
    eventually(async || (near.ask("far", "fine").await.unwrap() == "fine").then_some(())).await;
}

#[tokio::test]
async fn shutdown_ends_the_task_and_fails_all_calls() {
    let far = Node::listening(TCP).await;
    let near = Node::start(|config| {
        config.peers = vec![format!("far={}", far.address()).parse().unwrap()];
        config.closing_timeout = Duration::from_millis(100);
    })
    .await;
    near.client.wait_connected("far", PATIENCE).await.unwrap();
    let client = near.client.clone();
    let id = client.find("far").unwrap();
    let (asked, ()) = tokio::join!(client.request(id, "wait".into(), PATIENCE), async {
        while far.client.inbound_stats().requests == 0 {
            tokio::task::yield_now().await;
        }
        near.stop().await;
    });
    assert_eq!(asked, Err(P2pError::Stopped));
    assert_eq!(client.request(id, "{}".into(), PATIENCE).await, Err(P2pError::Stopped));
    assert_eq!(client.wait_connected("nobody", PATIENCE).await, Err(P2pError::Stopped));
    far.stop().await;
}

#[tokio::test]
async fn a_panic_in_the_swarm_ends_the_task_and_fails_all_calls() {
    let far = Node::listening(TCP).await;
    let near = Node::knowing("far", &far.address()).await;
    let id = near.client.local_peer_id();
    let asked = far.client.request(id, "wait".into(), PATIENCE);
    let (asked, killed) = tokio::join!(asked, async {
        while near.client.inbound_stats().requests == 0 {
            tokio::task::yield_now().await;
        }
        near.ask("far", "die").await
    });
    assert_eq!(asked, Err(P2pError::Stopped));
    assert!(killed.is_err(), "{killed:?}");
    assert!(far.task.await.unwrap_err().is_panic());
    assert_eq!(far.client.request(id, "{}".into(), PATIENCE).await, Err(P2pError::Stopped));
    assert_eq!(far.client.wait_connected("nobody", PATIENCE).await, Err(P2pError::Stopped));
    near.stop().await;
}

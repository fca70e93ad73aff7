//! Our node among real peers: two of ours, and scripted ones that misbehave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use modal_gateway::p2p::{self, P2pClient, P2pConfig, P2pError, Responder};
use modal_gateway::protocol::MAX_RESPONSE_BYTES;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::peer::{Reply, ScriptedPeer};

#[path = "support/bytes_codec.rs"]
mod bytes_codec;
#[path = "support/peer.rs"]
mod peer;

/// Longer than anything here takes, so that a test that fails does so by its assertion.
const PATIENCE: Duration = Duration::from_secs(20);
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const WEBSOCKET: &str = "/ip4/127.0.0.1/tcp/0/ws";

/// Answers with the request; `wait…` only after a permit; `long` with more than the protocol allows.
struct Echo(Arc<Semaphore>);

#[async_trait::async_trait]
impl Responder for Echo {
    async fn respond(&self, _: PeerId, request: Bytes) -> Bytes {
        if request.starts_with(b"wait") {
            self.0.acquire().await.unwrap().forget();
        }
        match &request[..] {
            b"long" => vec![b'x'; MAX_RESPONSE_BYTES + 1].into(),
            b"full" => vec![b'x'; MAX_RESPONSE_BYTES].into(),
            b"panic" => panic!("the responder of a test"),
            _ => request,
        }
    }
}

struct Node {
    client: P2pClient,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
    gate: Arc<Semaphore>,
}

impl Node {
    async fn try_start(change: impl FnOnce(&mut P2pConfig)) -> Result<Self, P2pError> {
        let mut config = P2pConfig::new(Keypair::generate_ed25519());
        config.redial_min = Duration::from_millis(20);
        change(&mut config);
        let (shutdown, gate) = (CancellationToken::new(), Arc::new(Semaphore::new(0)));
        let (client, task) = p2p::start(config, Arc::new(Echo(gate.clone())), shutdown.clone()).await?;
        Ok(Self { client, task, shutdown, gate })
    }

    async fn start(change: impl FnOnce(&mut P2pConfig)) -> Self {
        Self::try_start(change).await.unwrap()
    }

    async fn listening(on: &str) -> Self {
        Self::start(|config| config.listen = vec![on.parse().unwrap()]).await
    }

    /// A node that knows `address` as `alias`, connected with it.
    async fn knowing(alias: &str, address: &Multiaddr) -> Self {
        let node = Self::start(|config| config.peers = vec![format!("{alias}={address}").parse().unwrap()]).await;
        node.client.wait_connected(alias, PATIENCE).await.unwrap();
        node
    }

    fn address(&self) -> Multiaddr {
        self.client.dial_addresses()[0].clone()
    }

    async fn ask(&self, alias: &str, request: impl Into<Bytes>) -> Result<Bytes, P2pError> {
        self.client.request(self.client.resolve(alias).unwrap(), request.into(), PATIENCE).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// Waits for `condition` to hold, looking again whenever a peer comes or goes.
async fn until(client: &P2pClient, condition: impl Fn(&P2pClient) -> bool) {
    let mut changes = client.changes();
    tokio::time::timeout(PATIENCE, async {
        while !condition(client) {
            changes.changed().await.unwrap();
        }
    })
    .await
    .expect("the condition came to hold");
}

#[tokio::test]
async fn two_nodes_ask_each_other_over_tcp_and_websocket() {
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
        let inbound = far.client.inbound();
        assert_eq!((inbound.requests, inbound.answered, inbound.dropped, inbound.failed), (2, 2, 0, 0));
        let info = near.client.peers().into_iter().find(|peer| peer.alias.as_deref() == Some("far")).unwrap();
        assert!(info.configured && info.connected && info.latency_ms.is_some() && info.last_seen.is_some());
        assert_eq!((info.requests, info.failures, info.last_error), (2, 0, None));
        assert!(info.agent.unwrap().starts_with("modal-gateway/"));
    }
}

#[tokio::test]
async fn an_alias_without_an_id_gets_it_on_connecting() {
    let far = Node::listening(TCP).await;
    let bare = far.client.listen_addresses()[0].clone();
    let near = Node::knowing("far", &bare).await;
    assert_eq!(near.client.resolve("far"), Some(far.client.local_peer_id()));
    assert_eq!(near.ask("far", "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn names_are_resolved_when_dialling() {
    let far = Node::listening(TCP).await;
    let Some(Protocol::Tcp(port)) = far.address().iter().nth(1) else { panic!("a TCP address") };
    let near = Node::knowing("far", &format!("/dns4/localhost/tcp/{port}").parse().unwrap()).await;
    assert_eq!(near.client.resolve("far"), Some(far.client.local_peer_id()));
}

#[tokio::test]
async fn an_answer_of_any_bytes_is_passed_on() {
    for bytes in [&b"not json \xff\x00"[..], b"{\"ok\":tr"] {
        let peer = ScriptedPeer::start(move |_| Reply::Raw(bytes.into())).await;
        let node = Node::knowing("peer", &peer.address).await;
        let request = json!({"path": "/ping", "data": 1});
        assert_eq!(node.ask("peer", request.to_string()).await.unwrap(), bytes);
        assert_eq!(peer.requests(), [request]);
    }
}

#[tokio::test]
async fn each_way_to_misbehave_has_its_error_and_the_node_goes_on() {
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
        assert!(asked.elapsed() < limit + Duration::from_secs(2));
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
async fn a_request_that_timed_out_frees_its_place() {
    let peer = ScriptedPeer::start(|request| match request.as_u64() {
        Some(_) => Reply::Silence,
        None => Reply::Json(json!("answer")),
    })
    .await;
    let node = Node::start(|config| {
        config.peers = vec![format!("peer={}", peer.address).parse().unwrap()];
        config.max_outbound_per_peer = 2;
    })
    .await;
    let id = node.client.wait_connected("peer", PATIENCE).await.unwrap();
    let ask = |request: &'static str, limit| node.client.request(id, request.into(), limit);
    let short = Duration::from_millis(300);
    let (first, second, third) = tokio::join!(ask("1", short), ask("2", short), ask("3", PATIENCE));
    assert_eq!((first, second), (Err(P2pError::Timeout), Err(P2pError::Timeout)));
    assert_eq!(third, Err(P2pError::Busy), "two are in flight already");
    // Once the worker has seen the two end, there is place again, long before the behaviour's own timeout of 60 s.
    let answer = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            match ask("\"\"", PATIENCE).await {
                Err(P2pError::Busy) => tokio::task::yield_now().await,
                answer => break answer,
            }
        }
    });
    assert_eq!(answer.await.unwrap().unwrap(), "\"answer\"");
}

#[tokio::test]
async fn peers_that_are_down_and_peers_that_nobody_knows() {
    // Bound and not listening: the port is ours, and connections to it are refused.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let free = held.local_addr().unwrap().port();
    let down = PeerId::random();
    let node = Node::start(|config| {
        config.peers = vec![
            format!("down=/ip4/127.0.0.1/tcp/{free}/p2p/{down}").parse().unwrap(),
            format!("bare=/ip4/127.0.0.1/tcp/{free}").parse().unwrap(),
        ];
    })
    .await;
    let error = node.ask("down", "{}").await.unwrap_err();
    assert!(matches!(&error, P2pError::Unreachable(reason) if reason.contains("refused")), "{error:?}");
    assert!(matches!(node.client.find("bare"), Err(P2pError::Unreachable(_))));
    assert_eq!(node.client.find("nobody"), Err(P2pError::UnknownPeer));
    assert_eq!(node.client.resolve(&PeerId::random().to_string()), None);
    let unknown = node.client.request(PeerId::random(), "{}".into(), PATIENCE).await;
    assert_eq!(unknown, Err(P2pError::UnknownPeer));
    let error = node.client.dial(format!("/ip4/127.0.0.1/tcp/{free}").parse().unwrap()).await.unwrap_err();
    assert!(matches!(&error, P2pError::Unreachable(reason) if reason.contains("refused")), "{error:?}");
    let error = node.client.dial("/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, P2pError::Unreachable(_)), "{error:?}");
    let other = Node::listening(TCP).await;
    let wrong = other.client.listen_addresses()[0].clone().with(Protocol::P2p(down));
    let error = node.client.dial(wrong).await.unwrap_err();
    let there = other.client.local_peer_id().to_string();
    assert!(matches!(&error, P2pError::Unreachable(reason) if reason.contains(&there)), "{error:?}");
}

#[tokio::test]
async fn a_stranger_that_left_is_not_dialled() {
    let far = Node::listening(TCP).await;
    let near = Node::knowing("far", &far.address()).await;
    let id = near.client.local_peer_id();
    far.client.wait_connected(&id.to_string(), PATIENCE).await.unwrap();
    near.stop().await;
    until(&far.client, |client| client.peers().iter().all(|peer| !peer.connected)).await;
    let error = far.client.request(id, "{}".into(), PATIENCE).await.unwrap_err();
    assert!(matches!(&error, P2pError::Unreachable(reason) if reason.contains("no address")), "{error:?}");
}

#[tokio::test]
async fn a_peer_that_restarts_is_found_again() {
    let keypair = Keypair::generate_ed25519();
    let start = async |address: Multiaddr| {
        Node::start(|config| {
            config.keypair = keypair.clone();
            config.listen = vec![address];
        })
        .await
    };
    let far = start(TCP.parse().unwrap()).await;
    let address = far.client.listen_addresses()[0].clone();
    let near = Node::knowing("far", &address).await;
    far.stop().await;
    until(&near.client, |client| client.peers().iter().all(|peer| !peer.connected)).await;
    let far = start(address).await;
    near.client.wait_connected("far", PATIENCE).await.unwrap();
    assert_eq!(near.ask("far", "again").await.unwrap(), "again");
    far.stop().await;
}

#[tokio::test]
async fn our_own_address_among_the_peers_does_no_harm() {
    let good = Node::listening(TCP).await;
    let (node, port) = loop {
        // Nobody holds this port until the node does: somebody else may be faster.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let started = Node::try_start(|config| {
            config.listen = vec![format!("/ip4/0.0.0.0/tcp/{port}").parse().unwrap()];
            config.peers = vec![
                format!("self=/dns4/localhost/tcp/{port}").parse().unwrap(),
                format!("good={}", good.address()).parse().unwrap(),
            ];
        });
        match started.await {
            Err(P2pError::Listen { .. }) => {}
            started => break (started.unwrap(), port),
        }
    };
    node.client.wait_connected("good", PATIENCE).await.unwrap();
    assert!(matches!(node.client.find("self"), Err(P2pError::Unreachable(_))));
    let own = node.client.local_peer_id();
    assert_eq!(node.client.resolve(&own.to_string()), None);
    assert_eq!(node.client.request(own, "{}".into(), PATIENCE).await, Err(P2pError::UnknownPeer));
    let noticed = async {
        loop {
            match node.client.dial(format!("/dns4/localhost/tcp/{port}").parse().unwrap()).await.unwrap_err() {
                P2pError::Unreachable(reason) if reason.contains("own") => break,
                // Our listening half noticed first, and hung up on our dialling half.
                P2pError::Unreachable(_) => {}
                error => panic!("{error:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, noticed).await.expect("that it is our own address");
}

#[tokio::test]
async fn requests_of_others_are_bounded() {
    let far = Node::start(|config| {
        config.listen = vec![TCP.parse().unwrap()];
        config.max_inbound = 2;
    })
    .await;
    let near = Node::knowing("far", &far.address()).await;
    let (first, second) =
        tokio::join!(async { tokio::join!(near.ask("far", "wait 1"), near.ask("far", "wait 2")) }, async {
            // Both places are taken when a third request is turned away.
            let turned_away = async {
                loop {
                    match near.ask("far", "third").await {
                        Ok(_) => tokio::task::yield_now().await,
                        Err(error) => break error,
                    }
                }
            };
            let refused = tokio::time::timeout(PATIENCE, turned_away).await.expect("a third request is turned away");
            far.gate.add_permits(2);
            refused
        });
    assert_eq!((first.0.unwrap(), first.1.unwrap()), ("wait 1".into(), "wait 2".into()));
    assert!(matches!(second, P2pError::BadAnswer(_)), "{second:?}");
    assert_eq!(far.client.inbound().dropped, 1);
    assert_eq!(near.ask("far", "free again").await.unwrap(), "free again");
}

#[tokio::test]
async fn answers_that_cannot_be_sent_end_their_stream_only() {
    let far = Node::listening(TCP).await;
    let near = Node::knowing("far", &far.address()).await;
    for request in ["long", "panic"] {
        let error = near.ask("far", request).await.unwrap_err();
        assert!(matches!(error, P2pError::BadAnswer(_)), "{request}: {error:?}");
    }
    let long = vec![b'x'; modal_gateway::protocol::MAX_REQUEST_BYTES + 1];
    assert_eq!(near.ask("far", long).await, Err(P2pError::TooLarge));
    assert_eq!(near.ask("far", "fine").await.unwrap(), "fine");
}

#[tokio::test]
async fn shutdown_ends_the_task_and_everything_that_waits() {
    let far = Node::listening(TCP).await;
    let near = Node::knowing("far", &far.address()).await;
    let client = near.client.clone();
    let id = client.resolve("far").unwrap();
    let (asked, ()) = tokio::join!(client.request(id, "wait".into(), PATIENCE), async {
        while far.client.inbound().requests == 0 {
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
async fn an_address_that_cannot_be_bound_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = Node::listening(TCP).await;
    let ours = other.client.listen_addresses()[0].clone();
    let theirs: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port()).parse().unwrap();
    for (address, says) in [
        (theirs.clone(), "in use"),
        (theirs.with(Protocol::Ws("/".into())), "in use"),
        (ours, "in use"),
        ("/ip4/192.0.2.1/tcp/0".parse().unwrap(), "assign"),
        ("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap(), "transport"),
    ] {
        let result = Node::try_start(|config| config.listen = vec![TCP.parse().unwrap(), address.clone()]).await;
        let error = result.err().expect("it can't start");
        assert!(matches!(&error, P2pError::Listen { address: named, .. } if *named == address), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
    let twice = |config: &mut P2pConfig| {
        config.peers = ["n=/ip4/127.0.0.1/tcp/1", "n=/ip4/127.0.0.1/tcp/2"].map(|peer| peer.parse().unwrap()).into();
    };
    assert_eq!(Node::try_start(twice).await.err(), Some(P2pError::DuplicateAlias("n".into())));
}

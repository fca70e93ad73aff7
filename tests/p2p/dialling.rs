//! Who is found where, and who is not.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use modal_gateway::p2p::{P2pConfig, P2pError};

use crate::hole::Hole;
use crate::ports::free_port;
use crate::{Node, PATIENCE, TCP, until};

/// Where a node listens.
fn socket(node: &Node) -> SocketAddr {
    let Some(Protocol::Tcp(port)) = node.address().iter().nth(1) else { panic!("a TCP address") };
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Dials until it turns out that the address is the node's own.
async fn own_address_is_noticed(node: &Node, address: &Multiaddr) {
    let noticed = async {
        loop {
            match node.client.dial(address.clone()).await.unwrap_err() {
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
async fn an_alias_without_an_id_gets_it_on_connecting() {
    let far = Node::listening(TCP).await;
    let bare = far.client.listen_addresses()[0].clone();
    let near = Node::knowing("far", &bare).await;
    assert_eq!(near.client.find("far"), Ok(far.client.local_peer_id()));
    assert_eq!(near.ask("far", "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn names_are_resolved_when_dialling() {
    let far = Node::listening(TCP).await;
    let near = Node::knowing("far", &format!("/dns4/localhost/tcp/{}", socket(&far).port()).parse().unwrap()).await;
    assert_eq!(near.client.find("far"), Ok(far.client.local_peer_id()));
}

#[tokio::test]
async fn unreachable_and_unknown_peers_have_their_errors() {
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
    assert_eq!(node.client.find(&PeerId::random().to_string()), Err(P2pError::UnknownPeer));
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
async fn the_operator_dials_a_peer_with_another_pending_dial() {
    // Whoever dials these is not answered until it is given up.
    let (hole, another) = (
        tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
        tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let far = Node::listening(TCP).await;
    let id = far.client.local_peer_id();
    let at =
        |hole: &tokio::net::TcpListener| format!("/ip4/127.0.0.1/tcp/{}/p2p/{id}", hole.local_addr().unwrap().port());
    let node = Node::start(|config| config.peers = vec![format!("far={}", at(&hole)).parse().unwrap()]).await;
    let _unanswered = hole.accept().await.unwrap();
    assert_eq!(node.client.dial(far.address()).await, Ok(id));
    assert_eq!(node.ask("far", "there").await.unwrap(), "there");

    let node = Node::listening(TCP).await;
    let (dialled, ()) = tokio::join!(node.client.dial(at(&another).parse().unwrap()), async {
        let unanswered = another.accept().await.unwrap();
        far.client.dial(node.address()).await.unwrap();
        node.client.wait_connected(&id.to_string(), PATIENCE).await.unwrap();
        drop(unanswered);
    });
    assert_eq!(dialled, Ok(id), "it came by itself meanwhile");
}

#[tokio::test]
async fn a_disconnected_untrusted_peer_is_not_dialled() {
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
async fn a_restarted_peer_is_dialled_again() {
    let keypair = Keypair::generate_ed25519();
    let start = async |address: Multiaddr| {
        Node::start(|config| {
            config.keypair = keypair.clone();
            config.listen = vec![address];
        })
        .await
    };
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", free_port()).parse().unwrap();
    let far = start(address.clone()).await;
    let near = Node::knowing("far", &address).await;
    far.stop().await;
    until(&near.client, |client| client.peers().iter().all(|peer| !peer.connected)).await;
    let far = start(address).await;
    near.client.wait_connected("far", PATIENCE).await.unwrap();
    assert_eq!(near.ask("far", "again").await.unwrap(), "again");
    far.stop().await;
}

#[tokio::test]
async fn the_own_address_among_the_peers_is_ignored() {
    let good = Node::listening(TCP).await;
    let port = free_port();
    let node = Node::start(|config| {
        config.listen = vec![format!("/ip4/0.0.0.0/tcp/{port}").parse().unwrap()];
        config.peers = vec![
            format!("self=/dns4/localhost/tcp/{port}").parse().unwrap(),
            format!("good={}", good.address()).parse().unwrap(),
        ];
    })
    .await;
    node.client.wait_connected("good", PATIENCE).await.unwrap();
    assert!(matches!(node.client.find("self"), Err(P2pError::Unreachable(_))));
    let own = node.client.local_peer_id();
    assert_eq!(node.client.find(&own.to_string()), Err(P2pError::UnknownPeer));
    assert_eq!(node.client.request(own, "{}".into(), PATIENCE).await, Err(P2pError::UnknownPeer));
    own_address_is_noticed(&node, &format!("/dns4/localhost/tcp/{port}").parse().unwrap()).await;
}

#[tokio::test]
async fn a_dns_name_that_resolved_to_this_node_is_retried() {
    let node = Node::start(|config| {
        config.listen = vec![TCP.parse().unwrap()];
        config.redial_max = Duration::from_millis(100);
    })
    .await;
    let hole = Hole::before(socket(&node)).await;
    let name: Multiaddr = format!("/dns4/localhost/tcp/{}", hole.address.port()).parse().unwrap();
    node.client.add_peer(format!("far={name}").parse().unwrap()).await.unwrap();
    own_address_is_noticed(&node, &name).await;
    let far = Node::listening(TCP).await;
    hole.lead_to(socket(&far));
    assert_eq!(node.client.wait_connected("far", PATIENCE).await, Ok(far.client.local_peer_id()));
}

#[tokio::test]
async fn a_peer_whose_host_vanishes_times_out_and_is_dialled_again() {
    let far = Node::start(|config| {
        config.listen = vec![TCP.parse().unwrap()];
        config.ping_interval = Duration::from_millis(100);
    })
    .await;
    let hole = Hole::before(socket(&far)).await;
    let near = Node::start(|config| {
        config.ping_interval = Duration::from_millis(100);
        config.peers = vec![format!("far=/ip4/127.0.0.1/tcp/{}", hole.address.port()).parse().unwrap()];
    })
    .await;
    near.client.wait_connected("far", PATIENCE).await.unwrap();
    let gone =
        async |node: &Node| until(&node.client, |client| client.peers().iter().all(|peer| !peer.connected)).await;
    // Who has nothing to say stays: each ping is a tick later, and took another time.
    let pinged = async {
        let (mut looks, mut times) = (tokio::time::interval(Duration::from_millis(10)), HashSet::new());
        while times.len() < 8 {
            looks.tick().await;
            times.extend(near.client.peers()[0].latency_ms.map(f64::to_bits));
        }
    };
    tokio::select! {
        () = pinged => {}
        () = gone(&near) => panic!("it lives"),
    }
    hole.open();
    let lost = near.ask("far", "lost").await.unwrap_err();
    assert!(matches!(&lost, P2pError::Unreachable(reason) if reason.contains("closed")), "{lost:?}");
    tokio::join!(gone(&near), gone(&far));
    hole.close();
    near.client.wait_connected("far", PATIENCE).await.unwrap();
    assert_eq!(near.ask("far", "again").await.unwrap(), "again");
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

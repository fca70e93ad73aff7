//! Peers that nobody configured.

use libp2p::Multiaddr;
use libp2p::identity::Keypair;

use crate::{Node, PATIENCE, TCP, ports::free_port, until};

#[tokio::test]
async fn a_discovered_peer_is_kept_and_dialled_again() {
    let hub = Node::listening(TCP).await;
    let keypair = Keypair::generate_ed25519();
    let start = async |address: Multiaddr| {
        let node = Node::start(|config| {
            config.keypair = keypair.clone();
            config.listen = vec![address];
            config.peers = vec![format!("hub={}", hub.address()).parse().unwrap()];
        })
        .await;
        node.client.wait_connected("hub", PATIENCE).await.unwrap();
        node
    };
    let found = start(format!("/ip4/127.0.0.1/tcp/{}", free_port()).parse().unwrap()).await;
    let (id, address) = (found.client.local_peer_id().to_string(), found.client.listen_addresses()[0].clone());
    // It does not listen, so nobody finds it: the connection is of its own making.
    let node = Node::knowing("hub", &hub.address()).await;
    node.client.wait_connected(&id, PATIENCE).await.unwrap();
    found.stop().await;
    until(&node.client, |client| client.peers().iter().any(|p| p.peer_id.as_ref() == Some(&id) && !p.connected)).await;
    let _found = start(address).await;
    node.client.wait_connected(&id, PATIENCE).await.unwrap();
    let info = node.client.peers().into_iter().find(|info| info.peer_id.as_ref() == Some(&id)).unwrap();
    assert!(!info.configured && info.connected);
}

//! Gossip among nodes that hear of each other's blocks directly, or through a third.

use std::time::Duration;

use bytes::Bytes;
use libp2p::identity::Keypair;
use modal_gateway::p2p::{Gossip, MAX_GOSSIP_BYTES, Offence, P2pError, Verdict};
use tokio::sync::mpsc::Receiver;

use crate::{Node, PATIENCE, TCP, eventually};

/// Publishes until the other one hears it: nobody says when a subscription has arrived.
async fn tell(from: &Node, data: impl Into<Bytes>, to: &mut Receiver<Gossip>) -> Gossip {
    let data = data.into();
    eventually(async || {
        from.client.publish(data.clone()).unwrap();
        hear(to, &data).await
    })
    .await
}

/// What comes within a moment, if it is this.
async fn hear(receiver: &mut Receiver<Gossip>, data: &Bytes) -> Option<Gossip> {
    let heard = tokio::time::timeout(Duration::from_millis(50), receiver.recv()).await;
    heard.ok().flatten().filter(|gossip| gossip.data == *data)
}

#[tokio::test]
async fn a_message_reaches_a_third_node_only_when_it_is_accepted() {
    let middle = Node::listening(TCP).await;
    // Neither listens: what passes between them passes through the middle.
    let first = Node::knowing("middle", &middle.address()).await;
    let third = Node::knowing("middle", &middle.address()).await;
    let mut in_middle = middle.client.gossip().unwrap();
    let mut at_third = third.client.gossip().unwrap();
    assert!(middle.client.gossip().is_none(), "given out once");

    let hello = tell(&middle, "hello", &mut at_third).await;
    assert_eq!(hello.from, middle.client.local_peer_id());
    for (data, verdict) in [("ignored", Verdict::Ignore), ("rejected", Verdict::Reject), ("accepted", Verdict::Accept)]
    {
        let gossip = tell(&first, data, &mut in_middle).await;
        assert_eq!(gossip.from, first.client.local_peer_id());
        middle.client.report_verdict(&gossip, verdict);
    }
    let mut others = Vec::new();
    let passed_on = eventually(async || {
        let gossip = at_third.recv().await.unwrap();
        if gossip.data == "accepted" {
            return Some(gossip);
        }
        others.push(gossip.data);
        None
    })
    .await;
    assert_eq!(passed_on.from, middle.client.local_peer_id(), "who passed it on, not who wrote it");
    assert!(others.iter().all(|data| data == "hello"), "{others:?}");
}

/// Publishes so often, and waits until all of it has arrived.
async fn flood(from: &Node, to: &Node, times: u64) {
    eventually(async || {
        let sent = from.client.gossip_stats().published;
        if sent < times {
            from.client.publish("news".into()).unwrap();
            return None;
        }
        (to.client.gossip_stats().received == sent).then_some(())
    })
    .await;
}

#[tokio::test]
async fn gossip_of_an_untrusted_peer_is_rate_limited() {
    let far = Node::listening(TCP).await;
    let near = Node::knowing("far", &far.address()).await;
    flood(&near, &far, 200).await;
    let stats = far.client.gossip_stats();
    let heard = stats.received - stats.dropped;
    // Two more for each second that it took.
    assert!((64..=64 + 2 * PATIENCE.as_secs()).contains(&heard), "{heard} of {}", stats.received);
}

#[tokio::test]
async fn gossip_over_the_queue_is_dropped_and_counted() {
    let keypair = Keypair::generate_ed25519();
    let far = Node::start(|config| {
        config.listen = vec![TCP.parse().unwrap()];
        config.trust.allow = [keypair.public().to_peer_id()].into();
    })
    .await;
    let near = Node::start(|config| {
        config.keypair = keypair.clone();
        config.peers = vec![format!("far={}", far.address()).parse().unwrap()];
    })
    .await;
    flood(&near, &far, 300).await;
    let stats = far.client.gossip_stats();
    assert_eq!((stats.received, stats.dropped), (300, 300 - 256));
    let mut receiver = far.client.gossip().unwrap();
    assert!(receiver.try_recv().is_ok(), "what was in time is there");
}

#[tokio::test]
async fn gossip_of_a_shunned_peer_is_dropped() {
    let far = Node::listening(TCP).await;
    let near = Node::knowing("far", &far.address()).await;
    let mut receiver = far.client.gossip().unwrap();
    tell(&near, "before", &mut receiver).await;
    let id = near.client.local_peer_id();
    far.client.wait_connected(&id.to_string(), PATIENCE).await.unwrap();
    assert_eq!(far.client.candidates(), [id]);
    far.client.penalise(id, Offence::BrokenAnswer);
    assert_eq!(far.client.candidates(), []);
    eventually(async || {
        near.client.publish("after".into()).unwrap();
        tokio::task::yield_now().await;
        (far.client.gossip_stats().dropped > 0).then_some(())
    })
    .await;
    while let Ok(gossip) = receiver.try_recv() {
        assert_eq!(gossip.data, "before");
    }
    let info = far.client.peers().into_iter().find(|info| info.peer_id == Some(id.to_string())).unwrap();
    assert!(info.shunned && info.score > 99.0);
    assert_eq!(far.client.request(id, "asked by name".into(), PATIENCE).await.unwrap(), "asked by name");
}

#[tokio::test]
async fn the_longest_message_arrives_and_a_longer_one_is_refused() {
    let far = Node::listening(TCP).await;
    let near = Node::knowing("far", &far.address()).await;
    let mut receiver = far.client.gossip().unwrap();
    let long = Bytes::from(vec![7; MAX_GOSSIP_BYTES]);
    tell(&near, long.clone(), &mut receiver).await;
    let longer = Bytes::from(vec![7; MAX_GOSSIP_BYTES + 1]);
    assert_eq!(near.client.publish(longer), Err(P2pError::TooLarge));

    let alone = Node::start(|config| config.gossip = false).await;
    assert!(alone.client.gossip().is_none());
    assert_eq!(alone.client.publish(long), Ok(()), "nobody to tell is no error");
}

//! Requests of others are answered late rather than refused.

use std::time::{Duration, Instant};

use futures::future::join_all;
use libp2p::identity::Keypair;
use modal_gateway::p2p::P2pConfig;
use serde_json::Value;

use crate::{Node, PATIENCE, TCP, clock::judge, eventually};

/// A node with two places.
async fn narrow(change: impl FnOnce(&mut P2pConfig)) -> Node {
    Node::start(|config| {
        config.listen = vec![TCP.parse().unwrap()];
        config.max_inbound = 2;
        change(config);
    })
    .await
}

/// Waits until so many requests wait for room.
async fn waiting(node: &Node, count: u64) {
    eventually(async || (node.client.endpoint_stats().inbound_waiting == count).then_some(())).await;
}

fn code(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    Some(answer["errors"]["code"].as_str()?.to_owned())
}

#[tokio::test]
async fn requests_over_a_limit_wait_in_order() {
    let far = narrow(|_| {}).await;
    let near = Node::knowing("far", &far.address()).await;
    let first = join_all([near.ask("far", "wait 1"), near.ask("far", "wait 2")]);
    let late = async {
        eventually(async || (far.client.endpoint_stats().inbound == 2).then_some(())).await;
        near.ask("far", "late").await
    };
    let release = async {
        waiting(&far, 1).await;
        assert_eq!((far.client.inbound_stats().dropped, far.client.endpoint_stats().delayed), (0, 1));
        far.gate.add_permits(2);
    };
    let (first, late, ()) = tokio::join!(first, late, release);
    assert_eq!((first[0].as_ref().unwrap(), first[1].as_ref().unwrap()), (&"wait 1".into(), &"wait 2".into()));
    assert_eq!(late.unwrap(), "late");
    assert_eq!((far.client.inbound_stats().dropped, far.client.endpoint_stats().inbound_waiting), (0, 0));
}

#[tokio::test]
async fn a_request_is_refused_after_the_delay_limit_or_where_the_queue_is_full() {
    let limit = Duration::from_millis(500);
    let far = narrow(|config| (config.delay_limit, config.max_inbound_per_peer) = (limit, 4)).await;
    let near = Node::knowing("far", &far.address()).await;
    let (client, id) = (near.client.clone(), far.client.local_peer_id());
    let held: Vec<_> = (0..2)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.request(id, format!("wait {n}").into(), PATIENCE).await })
        })
        .collect();
    eventually(async || (far.client.endpoint_stats().inbound == 2).then_some(())).await;
    let began = Instant::now();
    let asked = (0..4).map(|n| near.ask("far", format!("{n}")));
    let timed = asked.map(async |asked| (asked.await.unwrap(), began.elapsed()));
    let answers = join_all(timed).await;
    assert!(answers.iter().all(|(answer, _)| code(answer).as_deref() == Some("busy")), "{answers:?}");
    // The list has as many as there are places for strangers, half as many of one peer as it may have places.
    assert_eq!((far.client.inbound_stats().dropped, far.client.endpoint_stats().delayed), (4, 2));
    let at_once = answers.iter().filter(|(_, after)| *after < limit).count();
    judge(at_once == 2, format_args!("{at_once} of 2 refused at once"));
    far.gate.add_permits(2);
    for held in held {
        assert!(held.await.unwrap().unwrap().starts_with(b"wait"));
    }
    assert_eq!(near.ask("far", "free again").await.unwrap(), "free again");
    assert_eq!(P2pConfig::new(Keypair::generate_ed25519()).delay_limit, Duration::from_secs(8));
}

#[tokio::test]
async fn a_delayed_request_whose_stream_closed_is_not_served() {
    let far = narrow(|config| config.max_inbound = 1).await;
    let (holder, gone, other) = (
        Node::knowing("far", &far.address()).await,
        Node::start(|config| {
            config.peers = vec![format!("far={}", far.address()).parse().unwrap()];
            config.closing_timeout = Duration::from_millis(10);
        })
        .await,
        Node::knowing("far", &far.address()).await,
    );
    gone.client.wait_connected("far", PATIENCE).await.unwrap();
    let client = gone.client.clone();
    let held = holder.ask("far", "wait");
    let rest = async {
        eventually(async || (far.client.endpoint_stats().inbound == 1).then_some(())).await;
        let asked = tokio::spawn(async move {
            let far = client.find("far").unwrap();
            client.request(far, "wait for nobody".into(), PATIENCE).await
        });
        waiting(&far, 1).await;
        gone.stop().await;
        asked.await.unwrap().unwrap_err();
        eventually(async || {
            let answered = far.client.endpoint_stats().connections_in;
            (answered == 2).then_some(())
        })
        .await;
        // One permit: were the request of whoever is gone worked at, it would wait for another one for ever.
        far.gate.add_permits(1);
        other.ask("far", "after it").await
    };
    let (held, after) = tokio::join!(held, rest);
    assert_eq!((held.unwrap(), after.unwrap()), ("wait".into(), "after it".into()));
    waiting(&far, 0).await;
}

//! What one peer may ask, and what its answers may take.

use futures::future::join_all;
use modal_gateway::p2p::BLOCK_BYTES;
use serde_json::Value;

use crate::support::gateway::PATIENCE;
use crate::{Node, until};

const MIB: usize = 1 << 20;

fn code(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    Some(answer["errors"]["code"].as_str()?.to_owned())
}

#[tokio::test]
async fn who_asks_too_much_is_told_so_and_others_are_answered() {
    let server = Node::start(|config| config.peer_rate_limit = 100).await;
    let (greedy, modest) = (Node::start(|_| {}).await, Node::start(|_| {}).await);
    greedy.meet(&server).await;
    modest.meet(&server).await;
    // 1000 blocks may be had at once, and each of these answers costs 101.
    let mut given = 0;
    let refusal = loop {
        let request = (100 * BLOCK_BYTES).to_string();
        let answer = greedy.client.request(server.id(), request.into(), PATIENCE).await.unwrap();
        match code(&answer) {
            None => given += 1,
            Some(code) => break code,
        }
        assert!(given < 40, "there is a limit");
    };
    assert_eq!(refusal, "rate_limited");
    assert!((9..20).contains(&given), "{given} answers of 100 blocks");
    let answer = modest.client.request(server.id(), "7".into(), PATIENCE).await.unwrap();
    assert_eq!(answer.len(), 7);
    let inbound = server.client.inbound();
    assert_eq!((inbound.rate_limited, inbound.dropped), (1, 0));
    until("it may ask again later", async || {
        code(&greedy.client.request(server.id(), "7".into(), PATIENCE).await.unwrap()).is_none()
    })
    .await;
}

#[tokio::test]
async fn trusted_peers_have_no_rate() {
    let trusted = Node::start(|_| {}).await;
    let server = Node::start(|config| {
        config.peer_rate_limit = 1;
        config.trust.allow = [trusted.id()].into();
    })
    .await;
    trusted.meet(&server).await;
    for _ in 0..100 {
        assert_eq!(trusted.client.request(server.id(), "7000".into(), PATIENCE).await.unwrap().len(), 7000);
    }
}

#[tokio::test]
async fn answers_that_would_take_too_much_memory_are_refused_and_the_memory_comes_back() {
    let server = Node::start(|config| {
        config.answer_bytes = 12 * MIB;
        config.peer_rate_limit = 0;
    })
    .await;
    let client = Node::start(|_| {}).await;
    client.meet(&server).await;
    let ask = |bytes: usize| client.client.request(server.id(), bytes.to_string().into(), PATIENCE);
    let answers = join_all((0..32).map(|_| ask(2 * MIB))).await;
    let (given, refused): (Vec<_>, Vec<_>) = answers.into_iter().map(Result::unwrap).partition(|a| code(a).is_none());
    assert!(!given.is_empty() && given.iter().all(|answer| answer.len() == 2 * MIB));
    assert!(!refused.is_empty() && refused.iter().all(|answer| code(answer).as_deref() == Some("busy")));
    eprintln!("answer budget of 12 MiB, 32 answers of 2 MiB at once: {} given, {} refused", given.len(), refused.len());
    until("the memory is free again", async || server.client.door().answer_bytes == 0).await;
    assert_eq!(ask(9 * MIB).await.unwrap().len(), 9 * MIB, "one answer always fits");
}

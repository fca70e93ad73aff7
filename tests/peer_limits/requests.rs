//! What one peer may ask, and what its answers may take.

use std::time::{Duration, Instant};

use futures::future::join_all;
use modal_gateway::p2p::BLOCK_BYTES;
use serde_json::Value;

use crate::support::clock::judge;
use crate::support::gateway::PATIENCE;
use crate::{Node, until};

const MIB: usize = 1 << 20;
/// How long requests wait here.
const DELAY: Duration = Duration::from_secs(3);

fn code(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    Some(answer["errors"]["code"].as_str()?.to_owned())
}

#[tokio::test]
async fn a_peer_over_its_limit_waits_or_is_refused_and_others_are_answered() {
    let server = Node::start(|config| (config.peer_rate_limit, config.delay_limit) = (100, DELAY)).await;
    let (greedy, modest) = (Node::start(|_| {}).await, Node::start(|_| {}).await);
    greedy.meet(&server).await;
    modest.meet(&server).await;
    // 1000 blocks may be had at once, each of these answers costs 101, and another one is earned in a second.
    let request = || (100 * BLOCK_BYTES).to_string();
    let asked = (0..40).map(|_| greedy.client.request(server.id(), request().into(), PATIENCE));
    let began = Instant::now();
    let answers: Vec<_> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
    let took = began.elapsed();
    let refused = answers.iter().filter(|answer| code(answer).as_deref() == Some("rate_limited")).count();
    let given = answers.iter().filter(|answer| code(answer).is_none()).count();
    assert_eq!(given + refused, 40);
    assert!((10..20).contains(&given), "{given} answers of 100 blocks");
    assert!(took >= DELAY, "{took:?}");
    judge(took < DELAY + Duration::from_secs(2), format_args!("{took:?}"));
    let inbound = server.client.inbound_stats();
    assert_eq!((inbound.rate_limited, inbound.dropped), (refused as u64, 0));
    let answer = modest.client.request(server.id(), "7".into(), PATIENCE).await.unwrap();
    assert_eq!(answer.len(), 7);
    // Who asks one after the other is slowed down, and never refused.
    for _ in 0..3 {
        let answer = greedy.client.request(server.id(), request().into(), PATIENCE).await.unwrap();
        assert_eq!(code(&answer), None);
    }
    let stats = server.client.endpoint_stats();
    assert!(stats.delayed > 0 && stats.inbound_waiting == 0);
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
async fn answers_that_would_take_too_much_memory_wait_for_it() {
    let server = Node::start(|config| (config.answer_bytes, config.peer_rate_limit) = (12 * MIB, 0)).await;
    let client = Node::start(|_| {}).await;
    client.meet(&server).await;
    let ask = |bytes: usize| client.client.request(server.id(), bytes.to_string().into(), PATIENCE);
    let answers = join_all((0..32).map(|_| ask(2 * MIB)));
    let watch = async {
        let mut most = 0;
        loop {
            most = server.client.endpoint_stats().answer_bytes.max(most);
            assert!(most <= 12 * MIB as u64, "{most}");
            tokio::task::yield_now().await;
        }
    };
    let answers = tokio::select! { answers = answers => answers, () = watch => unreachable!() };
    assert!(answers.into_iter().all(|answer| answer.unwrap().len() == 2 * MIB), "none is refused");
    assert!(server.client.endpoint_stats().delayed > 0, "and some had to wait");
    until("the memory is free again", async || server.client.endpoint_stats().answer_bytes == 0).await;
    assert_eq!(server.client.inbound_stats().dropped, 0);
}

#[tokio::test]
async fn answers_that_would_take_too_much_memory_for_too_long_are_refused_and_the_memory_comes_back() {
    let server = Node::start(|config| {
        config.answer_bytes = 12 * MIB;
        config.peer_rate_limit = 0;
        config.delay_limit = Duration::ZERO;
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
    until("the memory is free again", async || server.client.endpoint_stats().answer_bytes == 0).await;
    assert_eq!(ask(9 * MIB).await.unwrap().len(), 9 * MIB, "one answer always fits");
}

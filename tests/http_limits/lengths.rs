//! How a client knows that it has all of an answer.

use crate::{open, open_long, raw_client::RawClient, support::listeners::ListenerOptions};

/// Asks for the whole chain, a block a line.
fn whole(version: &str) -> String {
    format!("GET /data/miner_block/canonical HTTP/{version}\r\nhost: x\r\naccept: application/x-ndjson\r\n\r\n")
}

#[tokio::test]
async fn the_chain_has_a_length_where_a_stream_that_breaks_off_would_look_whole() {
    let listeners = open(ListenerOptions::default()).await;
    let mut old = RawClient::connect(listeners.public).await;
    old.send(whole("1.0")).await;
    let (head, lines) = old.answer().await;
    assert!(head.contains(" 200 ") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 61);
    // One that has no length has a chunk that ends it.
    let mut new = RawClient::connect(listeners.public).await;
    new.send(whole("1.1")).await;
    let head = new.head().await;
    assert!(head.contains(" 200 ") && head.contains("transfer-encoding: chunked"), "{head}");
}

#[tokio::test]
async fn a_chain_that_is_too_long_for_that_is_refused() {
    let listeners = open_long(ListenerOptions::default()).await;
    let mut old = RawClient::connect(listeners.public).await;
    old.send(whole("1.0")).await;
    let (head, body) = old.answer().await;
    let body = String::from_utf8(body).unwrap();
    assert!(head.contains(" 413 ") && body.contains("\"answer_too_large\""), "{head}{body}");
}

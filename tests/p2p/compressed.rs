//! The compressed protocol among gateways, and the network's own with everybody else.

use bytes::Bytes;
use modal_gateway::p2p::P2pError;
use modal_gateway::protocol::{COMPRESSED_PROTOCOL, MAX_RESPONSE_BYTES};
use serde_json::json;

use crate::peer::{Reply, ScriptedPeer, ask_plainly};
use crate::{Node, PATIENCE, TCP};

#[tokio::test]
async fn two_gateways_compress_requests_and_answers() {
    let far = Node::listening(TCP).await;
    let near = Node::knowing("far", &far.address()).await;
    let id = far.client.local_peer_id();
    let (body, wire_bytes) = near.client.request_within(id, "full".into(), MAX_RESPONSE_BYTES, PATIENCE).await.unwrap();
    assert_eq!(body.len(), MAX_RESPONSE_BYTES);
    assert!(wire_bytes > 0 && wire_bytes < MAX_RESPONSE_BYTES / 1000, "{wire_bytes} bytes on the wire");
    let (body, wire_bytes) =
        near.client.request_within(id, "short".into(), MAX_RESPONSE_BYTES, PATIENCE).await.unwrap();
    assert_eq!((&body[..], wire_bytes), (&b"short"[..], 5), "short ones are not worth it");
}

#[tokio::test]
async fn other_nodes_are_sent_plain_json() {
    let peer = ScriptedPeer::start(|_| Reply::Json(json!("plain"))).await;
    let node = Node::knowing("peer", &peer.address).await;
    let request = json!({"path": "/ping", "data": 1});
    let answer = node.client.request_within(peer.peer_id, request.to_string().into(), MAX_RESPONSE_BYTES, PATIENCE);
    let (body, wire_bytes) = answer.await.unwrap();
    assert_eq!((&body[..], wire_bytes), (&b"\"plain\""[..], 7));
    assert_eq!(peer.requests(), [request], "it could read what it was asked");

    let serving = Node::listening(TCP).await;
    assert_eq!(ask_plainly(&serving.address(), "{}".into()).await, "{}");
}

#[tokio::test]
async fn decompression_bombs_and_broken_frames_are_refused() {
    let good = Node::listening(TCP).await;
    let node = Node::knowing("good", &good.address()).await;
    let bomb = zstd::bulk::compress(&vec![0; MAX_RESPONSE_BYTES + 1], 1).unwrap();
    let mut torn = zstd::bulk::compress(b"{\"ok\":true,\"data\":null,\"errors\":null}", 1).unwrap();
    torn.pop();
    let is_bad = |error: &P2pError| matches!(error, P2pError::BadAnswer(_));
    for (raw, check) in
        [(bomb, (|error| *error == P2pError::TooLarge) as fn(&P2pError) -> bool), (torn, is_bad), (vec![], is_bad)]
    {
        let raw = Bytes::from(raw);
        let peer = ScriptedPeer::speaking(COMPRESSED_PROTOCOL, move |_| Reply::Raw(raw.clone())).await;
        let id = node.client.dial(peer.address.clone()).await.unwrap();
        let error = node.client.request(id, "{}".into(), PATIENCE).await.unwrap_err();
        assert!(check(&error), "{error:?}");
        assert_eq!(node.ask("good", "still here").await.unwrap(), "still here");
    }
}

//! Blocks as long as gossip carries: of these, fewer are given at once.

use modal_gateway::{
    chain::{Header, Level, MinerBlock},
    protocol::{self, Answer, Code, MAX_RESPONSE_BYTES, Query},
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::gateway::{Backend, TestGateway, TestStore, synthetic_block};

/// Some 12 MB, which no answer holds; the escapes of a NUL are six bytes each.
fn long_chain() -> Vec<MinerBlock> {
    let nominees = ["n".repeat(60_000), "\0".repeat(10_000), "n".repeat(59_000)];
    (0..200u64)
        .map(|index| MinerBlock {
            nominated_peer_id: nominees[index as usize % 3].clone(),
            ..synthetic_block(index, "main", "main")
        })
        .collect()
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn a_list_of_long_blocks_ends_where_it_says(#[case] backend: Backend) {
    let (chain, store) = (long_chain(), TestStore::create(backend).await);
    store.append(chain.clone(), Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;

    let (mut next, mut pages, mut given) = (Some(0), 0, Vec::new());
    while let Some(from) = next {
        let reply = gateway.get(&format!("/data/miner_block/range?from_index={from}&to_index=5000")).await;
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body[..100.min(reply.body.len())]));
        assert!(reply.body.len() <= MAX_RESPONSE_BYTES && reply.body.len() > 1 << 20);
        let data = reply.json()["data"].take();
        let blocks: Vec<MinerBlock> = serde_json::from_value(data["blocks"].clone()).unwrap();
        assert_eq!(data["count"], json!(blocks.len()));
        next = data["next_from_index"].as_u64();
        assert_eq!(data["has_more"], json!(next.is_some()));
        if let Some(next) = next {
            assert_eq!((&data["to_index"], blocks.last().unwrap().index), (&json!(next - 1), next - 1));
        }
        given.extend(blocks);
        pages += 1;
    }
    assert_eq!((pages, given.len()), (2, chain.len()));
    assert!(given == chain, "as they were stored");

    // All of them are of a few epochs, of 40 blocks or 41.
    let epoch = gateway.get("/data/miner_block/epoch?epoch=2").await.json()["data"].take();
    assert_eq!(epoch["count"], 40);
    let one = gateway.get("/data/miner_block/get?hash=main-1").await.json()["data"].take();
    assert_eq!(one["nominated_peer_id"], json!(chain[1].nominated_peer_id));
    let info = gateway.get("/data/miner_block/chain_info?include_blocks=true&from_index=10").await;
    let blocks: Vec<Value> = serde_json::from_value(info.json()["data"]["blocks"].take()).unwrap();
    assert!((100..190).contains(&blocks.len()) && blocks[0]["index"] == 10, "{} blocks", blocks.len());
    assert!(info.body.len() <= MAX_RESPONSE_BYTES);
    // Over HTTP the chain is a stream without end, in pages of as many blocks; over libp2p it is too long.
    let whole = gateway.get("/data/miner_block/canonical").await;
    let blocks: Vec<MinerBlock> = serde_json::from_value(whole.json()["data"]["blocks"].take()).unwrap();
    assert!(whole.body.len() > MAX_RESPONSE_BYTES && blocks == chain, "{} blocks", blocks.len());
    let bytes = gateway.ask(protocol::encode_request(&Query::Canonical)).await;
    assert_eq!(protocol::open_envelope(&bytes).unwrap().unwrap_err().code, Code::AnswerTooLarge);

    // Headers are short, so a list of them is whole.
    let query = Query::Headers { from_index: 5, to_index: 999, chunk_size: 1000 };
    let bytes = gateway.ask(protocol::encode_request(&query)).await;
    let Answer::Headers(data) = Answer::decode(&query, protocol::open_envelope(&bytes).unwrap().unwrap()).unwrap()
    else {
        panic!("headers")
    };
    let headers: Vec<Header> = chain[5..].iter().map(Header::from).collect();
    assert!(data.headers == headers && (data.to_index, data.has_more) == (999, false), "{} headers", data.count);
    let query = Query::Headers { from_index: 0, to_index: 999, chunk_size: 180 };
    let bytes = gateway.ask(protocol::encode_request(&query)).await;
    let Answer::Headers(data) = Answer::decode(&query, protocol::open_envelope(&bytes).unwrap().unwrap()).unwrap()
    else {
        panic!("headers")
    };
    assert_eq!((data.count, data.to_index, data.has_more), (180, 179, true));

    let info = gateway.get("/inspect").await.json()["data"].take();
    assert_eq!(info["datastore"]["unique_miners"], 3);
}

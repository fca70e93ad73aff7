//! Headers: what gateways ask each other and nobody else knows.

use modal_gateway::{
    chain::Header,
    protocol::{self, Answer, Code, Failure, Query, answer::HeadersData},
};

use crate::support::gateway::{Backend, TestGateway, TestStore, chain};

async fn ask(gateway: &TestGateway, from_index: u64, to_index: u64, chunk_size: u64) -> Result<HeadersData, Failure> {
    let query = Query::Headers { from_index, to_index, chunk_size };
    let bytes = gateway.ask(protocol::encode_request(&query)).await;
    let answer = Answer::decode(&query, protocol::open_envelope(&bytes).unwrap()?).unwrap();
    let Answer::Headers(data) = answer else { panic!("{answer:?}") };
    Ok(data)
}

#[tokio::test]
async fn headers_are_those_of_the_blocks() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let headers: Vec<Header> = chain().iter().map(Header::from).collect();
    assert_eq!(headers.len(), 61);
    for (from, to, chunk, count, has_more) in [
        (0, 60, 1000, 61, false),
        (0, u64::MAX, 1000, 61, false),
        (10, 20, 11, 11, false),
        (10, 20, 5, 5, true),
        (60, 60, 1, 1, false),
        (59, 90, 1, 1, true),
        (60, 90, 1, 1, false),
        (61, 90, 1000, 0, false),
    ] {
        let data = ask(&gateway, from, to, chunk).await.unwrap();
        let start = (from as usize).min(61);
        assert_eq!(data.headers, headers[start..start + count], "{from}..{to} by {chunk}");
        assert_eq!((data.from_index, data.to_index), (from, to.min(from + chunk - 1)));
        assert_eq!((data.count, data.has_more), (count as u64, has_more), "{from}..{to} by {chunk}");
    }
    assert_eq!(ask(&gateway, 2, 1, 1).await.unwrap_err().code, Code::InvalidRange);
    assert!(ask(&gateway, 0, 1, 0).await.is_err(), "a chunk of nothing");

    let reply = gateway.get("/data/miner_block/headers?from_index=0&to_index=1").await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "unknown_path"), "peers only");
}

#[tokio::test]
async fn an_empty_chain_has_no_headers() {
    let gateway = TestGateway::over(TestStore::create(Backend::Sqlite).await, &[], |config| config).await;
    let data = ask(&gateway, 0, 9, 1000).await.unwrap();
    assert_eq!((data.headers, data.count, data.has_more), (vec![], 0, false));
}

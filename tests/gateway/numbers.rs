//! `?numbers=string`: miner numbers as strings, in every answer with blocks and nowhere else.

use modal_gateway::{
    chain::{Level, MinerBlock},
    http::{Numbers, openapi_json},
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::gateway::{Backend, Reply, TestGateway, TestStore, synthetic};

const NUMBERS: [u64; 4] = [7, (1 << 53) + 1, (1 << 63) + 1, u64::MAX];

/// A gateway whose blocks have these numbers.
async fn gateway(backend: Backend) -> TestGateway {
    let store = TestStore::create(backend).await;
    let numbered = |(block, miner_number)| MinerBlock { miner_number, ..block };
    store.append(synthetic(4).into_iter().zip(NUMBERS).map(numbered).collect(), Level::None).await;
    TestGateway::over(store, &[], |config| config).await
}

/// The answer with each miner number as a string.
fn quoted(mut answer: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(members) => members.iter_mut().for_each(|(name, member)| match name.as_str() {
                "miner_number" => *member = json!(member.to_string()),
                _ => walk(member),
            }),
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut answer);
    answer
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn every_answer_with_blocks_has_them_as_strings(#[case] backend: Backend) {
    let gateway = gateway(backend).await;
    for query in [
        "get?hash=main-3",
        "canonical?",
        "epoch?epoch=0",
        "range?from_index=0&to_index=3",
        "chain_info?include_blocks=true",
    ] {
        let path = format!("/data/miner_block/{query}");
        let plain = gateway.get(&path).await;
        let named = gateway.get(&format!("{path}&numbers=number")).await;
        assert_eq!((&named.body, named.header("etag")), (&plain.body, plain.header("etag")), "{path}");
        let strings = gateway.get(&format!("{path}&numbers=string")).await;
        assert_eq!((strings.status, strings.json()), (200, quoted(plain.json())), "{path}");
        assert!(strings.body.windows(22).any(|text| text == br#""18446744073709551615""#), "{path}");
        let tag = strings.header("etag").unwrap();
        assert_ne!(Some(tag), plain.header("etag"), "{path}");
        let again = async |query: &str| gateway.get_with(&format!("{path}{query}"), "if-none-match", tag).await.status;
        assert_eq!((again("&numbers=string").await, again("").await), (304, 200), "{path}");
    }
    let posted = gateway.post("/data/miner_block/epoch?numbers=string", r#"{"epoch":0}"#).await;
    assert_eq!(posted.json()["data"]["blocks"][3]["miner_number"], "18446744073709551615");
}

#[tokio::test]
async fn lists_have_them_as_strings_too() {
    let gateway = gateway(Backend::Sqlite).await;
    let lines = async |path: &str| gateway.get_with(path, "accept", "application/x-ndjson").await;
    let numbers = |reply: &Reply| -> Vec<Value> {
        let text = std::str::from_utf8(&reply.body).unwrap().lines();
        text.map(|line| serde_json::from_str::<Value>(line).unwrap()["miner_number"].take()).collect()
    };
    for path in ["/data/miner_block/canonical", "/data/miner_block/range?from_index=0&to_index=3"] {
        let joint = if path.contains('?') { '&' } else { '?' };
        let (plain, strings) = (lines(path).await, lines(&format!("{path}{joint}numbers=string")).await);
        assert_eq!(numbers(&plain), NUMBERS.map(Value::from), "{path}");
        assert_eq!(numbers(&strings), NUMBERS.map(|number| Value::from(number.to_string())), "{path}");
        assert_ne!(strings.header("etag"), plain.header("etag"), "{path}");
    }
}

#[tokio::test]
async fn what_is_no_such_parameter_is_refused() {
    let gateway = gateway(Backend::Sqlite).await;
    for (query, code) in [
        ("epoch?epoch=0&numbers=text", "invalid_parameter"),
        ("epoch?epoch=0&numbers=", "invalid_parameter"),
        ("epoch?epoch=0&numbers=string&numbers=string", "invalid_parameter"),
        ("debug_index?index=0&numbers=string", "unknown_parameter"),
    ] {
        let reply = gateway.get(&format!("/data/miner_block/{query}")).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, code), "{query}");
        assert!(reply.json()["errors"]["detail"].as_str().unwrap().contains("numbers"), "{query}");
    }
    let echo = gateway.get("/ping?numbers=string").await;
    assert_eq!(echo.json()["data"], json!({"numbers": "string"}));
}

#[tokio::test]
async fn each_form_has_a_document() {
    let gateway = gateway(Backend::Sqlite).await;
    for (query, numbers) in
        [("", Numbers::Number), ("?numbers=number", Numbers::Number), ("?numbers=string", Numbers::String)]
    {
        let served = gateway.get(&format!("/openapi.json{query}")).await;
        assert_eq!((served.status, served.header("content-type")), (200, Some("application/json")), "{query}");
        assert_eq!(served.json(), serde_json::from_str::<Value>(&openapi_json(numbers)).unwrap(), "{query}");
    }
    let refused = gateway.get("/openapi.json?numbers=text").await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_parameter"));
}

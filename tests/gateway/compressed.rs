//! Content codings: what is sent compressed, and how often it is compressed.

use std::{io::Read as _, time::Instant};

use futures::future::join_all;
use modal_gateway::{chain::Level, config::Config};
use reqwest::Method;

use crate::support::{
    gateway::{Backend, PATIENCE, Reply, TestGateway, TestStore, chain, synthetic},
    peer::ScriptedPeer,
    serving::Serving,
};

const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];
const RANGE: &str = "/data/miner_block/range?from_index=3&to_index=40";
const LINES: &str = "application/x-ndjson";

async fn ask(gateway: &TestGateway, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
    let request = gateway.request(|http, base| {
        headers
            .iter()
            .fold(http.request(method, format!("{base}{path}")), |request, (name, value)| request.header(*name, *value))
    });
    request.await
}

async fn get(gateway: &TestGateway, path: &str, accept: &str, codings: &str) -> Reply {
    ask(gateway, Method::GET, path, &[("accept", accept), ("accept-encoding", codings)]).await
}

/// The body without its coding.
pub fn decoded(reply: &Reply) -> Vec<u8> {
    let mut body = Vec::new();
    match reply.header("content-encoding") {
        None => body.extend_from_slice(&reply.body),
        Some("zstd") => body = zstd::decode_all(&reply.body[..]).unwrap(),
        Some("br") => brotli::BrotliDecompress(&mut &reply.body[..], &mut body).unwrap(),
        Some("gzip") => {
            flate2::read::GzDecoder::new(&reply.body[..]).read_to_end(&mut body).unwrap();
        }
        Some(other) => panic!("{other}"),
    }
    body
}

/// A value of the admin listener's metrics.
async fn metric(gateway: &TestGateway, name: &str) -> u64 {
    let url = format!("{}/metrics", gateway.admin);
    let text = gateway.request(|http, _| http.get(url)).await;
    let text = std::str::from_utf8(&text.body).unwrap().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

#[tokio::test]
async fn every_answer_comes_in_each_coding_under_a_tag_of_its_own() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let strings = format!("{RANGE}&numbers=string");
    for (path, accept) in [
        (RANGE, "*/*"),
        (RANGE, LINES),
        (RANGE, "text/csv"),
        (&strings, "*/*"),
        (&strings, LINES),
        ("/data/miner_block/epoch?epoch=0", "*/*"),
        ("/data/miner_block/chain_info?include_blocks=true", "*/*"),
        // A stream.
        ("/data/miner_block/canonical", "*/*"),
        ("/data/miner_block/canonical", LINES),
        ("/data/miner_block/canonical", "text/csv"),
    ] {
        let plain = get(&gateway, path, accept, "identity").await;
        assert_eq!((plain.status, plain.header("content-encoding")), (200, None), "{path} {accept}");
        let mut tags = vec![plain.header("etag").unwrap().to_owned()];
        for coding in CODINGS {
            let at = format!("{path} {accept} {coding}");
            let reply = get(&gateway, path, accept, coding).await;
            assert_eq!((reply.status, reply.header("content-encoding")), (200, Some(coding)), "{at}");
            assert_eq!(decoded(&reply), plain.body, "{at}");
            assert!(reply.body.len() < plain.body.len() / 2, "{at}: {} bytes", reply.body.len());
            assert_eq!(reply.header("content-type"), plain.header("content-type"), "{at}");
            for reply in [&plain, &reply] {
                assert_eq!(reply.header("vary"), Some("accept, accept-encoding"), "{at}");
            }
            let tag = reply.header("etag").unwrap();
            assert!(tag.starts_with('"') && !tags.iter().any(|other| other == tag), "{at}: {tag}");
            let again = [("accept", accept), ("accept-encoding", coding), ("if-none-match", tag)];
            let current = ask(&gateway, Method::GET, path, &again).await;
            assert_eq!((current.status, current.body.len(), current.header("etag")), (304, 0, Some(tag)), "{at}");
            let other = [("accept", accept), ("accept-encoding", coding), ("if-none-match", &tags[0])];
            assert_eq!(ask(&gateway, Method::GET, path, &other).await.status, 200, "{at}");
            tags.push(tag.to_owned());
        }
    }
}

#[tokio::test]
async fn head_and_post_are_as_get() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    for coding in CODINGS {
        let by_get = get(&gateway, RANGE, "*/*", coding).await;
        let by_head = ask(&gateway, Method::HEAD, RANGE, &[("accept-encoding", coding)]).await;
        assert_eq!((by_head.status, by_head.body.len()), (200, 0));
        let length = by_get.body.len().to_string();
        for name in ["content-encoding", "content-length", "etag", "vary"] {
            assert_eq!(by_head.header(name), by_get.header(name), "{name}");
        }
        assert_eq!(by_head.header("content-length"), Some(length.as_str()));
        let body = r#"{"from_index":3,"to_index":40}"#;
        let by_post = gateway.request(|http, base| {
            let request = http.post(format!("{base}/data/miner_block/range")).header("accept-encoding", coding);
            request.header("content-type", "application/json").body(body)
        });
        let by_post = by_post.await;
        assert!(by_post.body == by_get.body && by_post.header("etag") == by_get.header("etag"), "{coding}");
        let stream = ask(&gateway, Method::HEAD, "/data/miner_block/canonical", &[("accept-encoding", coding)]).await;
        let (encoding, length) = (stream.header("content-encoding"), stream.header("content-length"));
        assert_eq!((stream.status, encoding, length), (200, Some(coding), None));
    }
}

#[tokio::test]
async fn short_answers_errors_and_events_are_sent_as_they_are() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let block = format!("/data/miner_block/get?hash={}", chain()[5].hash);
    for path in [&block, "/ping?a=b", "/health/live", "/nope", "/data/miner_block/get?hash=nope"] {
        let reply = get(&gateway, path, "*/*", "gzip, br").await;
        assert_eq!(reply.header("content-encoding"), None, "{path}");
    }
    // Unless the client takes nothing else.
    let reply = get(&gateway, &block, "*/*", "gzip, identity;q=0").await;
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert_eq!(decoded(&reply), get(&gateway, &block, "*/*", "identity").await.body);

    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    for accept in ["*/*", "text/event-stream"] {
        let events = client.get(format!("{}/events?after=0", gateway.base)).header("accept", accept);
        let mut events = events.header("accept-encoding", "gzip, br, zstd").send().await.unwrap();
        assert!(!events.headers().contains_key("content-encoding"));
        assert!(events.headers()["cache-control"].to_str().unwrap().contains("no-transform"));
        assert!(events.chunk().await.unwrap().unwrap().starts_with(b"id: "));
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_ours_is_told_so() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    for path in [RANGE, "/data/miner_block/canonical", "/status", "/openapi.json", "/ping"] {
        let refused = get(&gateway, path, "*/*", "identity;q=0, deflate").await;
        assert_eq!((refused.status, refused.code().as_str()), (406, "not_acceptable"), "{path}");
        let detail = refused.json()["errors"]["detail"].as_str().unwrap().to_owned();
        assert_eq!(detail, "this is answered with the codings identity, zstd, br, gzip", "{path}");
    }
    assert_eq!(get(&gateway, "/nope", "*/*", "identity;q=0").await.status, 404);
    assert_eq!(get(&gateway, "/health/ready", "*/*", "identity;q=0").await.status, 200);
}

#[tokio::test]
async fn pages_and_documents_are_compressed_too() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    for path in ["/openapi.json", "/docs/", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"] {
        let plain = get(&gateway, path, "*/*", "identity").await;
        for coding in CODINGS {
            let reply = get(&gateway, path, "*/*", coding).await;
            let compressed = plain.body.len() >= 1024;
            assert_eq!((reply.status, reply.header("content-encoding")), (200, compressed.then_some(coding)), "{path}");
            assert!(decoded(&reply) == plain.body, "{path}");
            assert!(reply.headers.get_all("vary").iter().any(|vary| vary == "accept-encoding"), "{path}");
        }
    }
    assert_eq!(get(&gateway, "/docs/favicon-32x32.png", "*/*", "gzip").await.header("content-encoding"), None);
}

#[tokio::test]
async fn an_answer_is_compressed_once() {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(1000), Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    let range = "/data/miner_block/range?from_index=0&to_index=899";
    let made = async || metric(&gateway, "modal_representations_made_total").await;
    let replies = join_all((0..20).map(|_| get(&gateway, range, "*/*", "br"))).await;
    assert!(replies.iter().all(|reply| reply.status == 200 && reply.body == replies[0].body));
    assert_eq!(made().await, 1);
    get(&gateway, range, "*/*", "gzip").await;
    get(&gateway, range, LINES, "br").await;
    assert_eq!(made().await, 3);

    // The old blocks are the same while the chain grows, and so is what was made of them.
    gateway.store.append(synthetic(1010).split_off(1000), Level::None).await;
    let deadline = std::time::Instant::now() + PATIENCE;
    while !get(&gateway, "/data/miner_block/chain_info", "*/*", "identity").await.body.windows(4).any(|s| s == b"1009")
    {
        assert!(std::time::Instant::now() < deadline, "the chain never grows");
    }
    assert!(get(&gateway, range, "*/*", "br").await.body == replies[0].body);
    assert_eq!(made().await, 3);
    let bytes = metric(&gateway, "modal_representation_bytes").await;
    assert!(metric(&gateway, "modal_representation_entries").await == 3 && bytes > replies[0].body.len() as u64);
}

#[tokio::test]
async fn a_copy_that_is_current_costs_no_read_and_no_compression() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let tag = get(&gateway, RANGE, "*/*", "zstd").await.header("etag").unwrap().to_owned();
    let counts = async || {
        let read = metric(&gateway, "modal_store_read_duration_seconds_count").await;
        (read, metric(&gateway, "modal_representations_made_total").await)
    };
    let before = counts().await;
    for method in [Method::GET, Method::HEAD] {
        for _ in 0..50 {
            let copy = [("accept-encoding", "zstd"), ("if-none-match", tag.as_str())];
            assert_eq!(ask(&gateway, method.clone(), RANGE, &copy).await.status, 304);
        }
    }
    assert_eq!(counts().await, before);
    // Nor where the compressed body was never asked for.
    let copy = tag.replace("-zstd", "-br");
    let current = ask(&gateway, Method::GET, RANGE, &[("accept-encoding", "br"), ("if-none-match", &copy)]).await;
    assert_eq!((current.status, counts().await), (304, before));
}

#[tokio::test]
async fn a_chain_of_many_pages_is_compressed_as_it_is_sent() {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(2_345), Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    for accept in ["application/json", LINES, "text/csv"] {
        let plain = get(&gateway, "/data/miner_block/canonical", accept, "identity").await;
        for coding in CODINGS {
            let reply = get(&gateway, "/data/miner_block/canonical", accept, coding).await;
            assert_eq!((reply.header("content-encoding"), reply.header("content-length")), (Some(coding), None));
            assert!(decoded(&reply) == plain.body, "{accept} {coding}");
        }
    }
    assert_eq!(metric(&gateway, "modal_representations_made_total").await, 0);
}

/// As in `rate.rs`: bytes of an answer that cost a unit.
const UNIT_BYTES: usize = 64 << 10;

#[tokio::test]
async fn an_answer_costs_what_it_has_before_compression() {
    let peer = ScriptedPeer::start(Serving::of(&synthetic(1000)).script()).await;
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(1000), Level::None).await;
    let adjust = |config| Config { rate_limit: 1, rate_burst: 1000, ..config };
    let gateway = TestGateway::over(store, &[format!("peer={}", peer.address)], adjust).await;
    gateway.p2p.wait_connected("peer", PATIENCE).await.unwrap();
    let mut clients = 0..;
    let mut left = async |path: &str, coding: &str| {
        let client = format!("192.0.2.{}", clients.next().unwrap());
        let headers = [("x-forwarded-for", client.as_str()), ("accept-encoding", coding)];
        let start = Instant::now();
        let reply = ask(&gateway, Method::GET, path, &headers).await;
        let left = reply.header("ratelimit").unwrap().strip_prefix("\"client\";r=").unwrap();
        // One comes back each second.
        let come_back = 0..=start.elapsed().as_secs() as usize;
        (left.split(';').next().unwrap().parse::<usize>().unwrap(), come_back, reply)
    };
    let range = "/data/miner_block/range?from_index=0&to_index=999";
    for (path, price) in [(range.to_owned(), 1), (format!("{range}&peer=peer"), 5), ("/openapi.json".to_owned(), 1)] {
        let (plain_left, come_back, plain) = left(&path, "identity").await;
        let units = plain.body.len() / UNIT_BYTES;
        let least = 1000 - price * (1 + units);
        assert!(units > 0 && come_back.contains(&(plain_left - least)), "{path}: {plain_left} left");
        for coding in CODINGS {
            let (left, come_back, compressed) = left(&path, coding).await;
            assert!(compressed.header("content-encoding") == Some(coding), "{path}");
            assert!(
                come_back.contains(&(left - least)),
                "{path} {coding}: {left} left, {} bytes",
                compressed.body.len()
            );
        }
    }
}

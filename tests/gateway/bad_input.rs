//! Bad input to the HTTP listener: a clear error of the documented status, and the gateway goes on.

use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::gateway::{Backend, TestGateway};

#[tokio::test]
async fn parameters_that_are_wrong_are_named() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let m = "/data/miner_block";
    let long = "9".repeat(5000);
    for (path, status, code, named) in [
        (format!("{m}/epoch"), 400, "missing_parameter", "epoch"),
        (format!("{m}/epoch?epoch="), 400, "invalid_parameter", "epoch"),
        (format!("{m}/epoch?epoch=-1"), 400, "invalid_parameter", "epoch"),
        (format!("{m}/epoch?epoch=1.5"), 400, "invalid_parameter", "epoch"),
        (format!("{m}/epoch?epoch=1e3"), 400, "invalid_parameter", "epoch"),
        (format!("{m}/epoch?epoch=0x10"), 400, "invalid_parameter", "epoch"),
        (format!("{m}/epoch?epoch=one"), 400, "invalid_parameter", "epoch"),
        (format!("{m}/epoch?epoch=18446744073709551616"), 400, "invalid_parameter", "epoch"),
        (format!("{m}/epoch?epoch={long}"), 400, "invalid_parameter", "epoch"),
        (format!("{m}/epoch?epoch=1&epoch=2"), 400, "invalid_parameter", "epoch"),
        (format!("{m}/epoch?epohc=1"), 400, "unknown_parameter", "epohc"),
        (format!("{m}/canonical?epoch=1"), 400, "unknown_parameter", "epoch"),
        (format!("{m}/get"), 400, "missing_parameter", "hash"),
        (format!("{m}/get?index=5"), 400, "unknown_parameter", "for a block by index ask /data/miner_block/range"),
        (format!("{m}/get?height=5"), 400, "unknown_parameter", "for a block by index ask /data/miner_block/range"),
        (format!("{m}/range?from_index=1"), 400, "missing_parameter", "to_index"),
        (format!("{m}/range?to_index=1"), 400, "missing_parameter", "from_index"),
        (format!("{m}/range?from_index=2&to_index=1"), 400, "invalid_range", "from_index"),
        (format!("{m}/range?from_index=0&to_index=1&max_chunk_size=0"), 400, "invalid_parameter", "max_chunk_size"),
        (format!("{m}/range?from_index=0&to_index=1&max_chunk_size=-1"), 400, "invalid_parameter", "max_chunk_size"),
        (format!("{m}/chain_info?include_blocks=yes"), 400, "invalid_parameter", "include_blocks"),
        (format!("{m}/debug_index?index=NaN"), 400, "invalid_parameter", "index"),
        (format!("{m}/get?hash=nope"), 404, "block_not_found", "Block"),
        (format!("{m}/get?hash={}", "a".repeat(9000)), 404, "block_not_found", "Block"),
        (format!("{m}/get?hash=%00"), 404, "block_not_found", "Block"),
        (format!("{m}/get?hash=x&anchor=y"), 400, "invalid_parameter", "anchor"),
        (format!("{m}/epoch?epoch=%ff"), 400, "malformed_query", "UTF-8"),
        (format!("{m}/epoch?{}", "x".repeat(20_000)), 414, "uri_too_long", "20000"),
        (format!("{m}/nope"), 404, "unknown_path", "path"),
    ] {
        let reply = gateway.get(&path).await;
        let shown = &path[..path.len().min(100)];
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{shown}");
        let text = reply.json()["errors"].to_string();
        assert!(text.contains(named), "{shown}: {text}");
        assert_eq!(reply.json()["ok"], false);
        assert!(reply.body.len() < 1000, "an error is short: {shown}");
    }
    assert_eq!(gateway.get("/data/miner_block/epoch?epoch=0").await.status, 200);
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn numbers_near_the_limits_are_numbers(#[case] backend: Backend) {
    let gateway = TestGateway::start(backend).await;
    let max = u64::MAX;
    let half = i64::MAX as u64;
    let m = "/data/miner_block";
    for (path, count) in [
        (format!("{m}/epoch?epoch={max}"), 0),
        (format!("{m}/epoch?epoch={}", half + 1), 0),
        (format!("{m}/range?from_index={max}&to_index={max}"), 0),
        (format!("{m}/range?from_index=0&to_index={max}"), 61),
        (format!("{m}/range?from_index={half}&to_index={max}"), 0),
        (format!("{m}/range?from_index={}&to_index={}", half - 1, half + 1), 0),
        (format!("{m}/range?from_index=50&to_index={max}&max_chunk_size=1000000000"), 11),
        (format!("{m}/range?from_index=50&to_index={max}&max_chunk_size={max}"), 11),
    ] {
        let reply = gateway.get(&path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.json()["data"]["count"], count, "{path}");
        assert!(!reply.json()["data"]["has_more"].as_bool().unwrap_or_default(), "{path}");
    }
    let at = gateway.get(&format!("{m}/debug_index?index={max}")).await.json();
    assert_eq!((&at["data"]["index"], &at["data"]["total_blocks_at_index"]), (&max.into(), &0.into()));
    let info = gateway.get(&format!("{m}/chain_info?include_blocks=true&from_index={max}")).await.json();
    assert_eq!(info["data"]["blocks"], serde_json::json!([]));
}

#[tokio::test]
async fn bodies_that_are_wrong_are_refused() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let path = "/data/miner_block/epoch";
    for (body, status, code) in [
        ("", 400, "missing_parameter"),
        ("null", 400, "missing_parameter"),
        ("{}", 400, "missing_parameter"),
        ("{", 400, "malformed_body"),
        ("[1]", 400, "malformed_body"),
        ("\"x\"", 400, "malformed_body"),
        (r#"{"epoch":1}garbage"#, 400, "malformed_body"),
        (r#"{"epoch":"1"}"#, 400, "invalid_parameter"),
        (r#"{"epoch":-1}"#, 400, "invalid_parameter"),
        (r#"{"epoch":1.5}"#, 400, "invalid_parameter"),
        (r#"{"epoch":18446744073709551616}"#, 400, "invalid_parameter"),
        (r#"{"epoch":0,"epohc":1}"#, 400, "unknown_parameter"),
    ] {
        let reply = gateway.post(path, body).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{body}");
    }
    let not_utf8 = gateway.post(path, &b"{\"epoch\xff\":1}"[..]).await;
    assert_eq!((not_utf8.status, not_utf8.code().as_str()), (400, "malformed_body"));
    let deep = gateway.post("/ping", "[".repeat(10_000)).await;
    assert_eq!((deep.status, deep.code().as_str()), (400, "malformed_body"));
    let objects = vec!["{\"\":0}"; 100_000].join(",");
    let many = gateway.post("/data/miner_block/find_ancestor", format!("{{\"check_points\":[{objects}]}}")).await;
    assert_eq!((many.status, many.code().as_str()), (400, "malformed_body"));
    let in_query = gateway.post("/data/miner_block/epoch?epoch=0", "{}").await;
    assert_eq!((in_query.status, in_query.code().as_str()), (400, "unknown_parameter"));
    let not_json = gateway
        .request(|http, base| http.post(format!("{base}{path}")).header("content-type", "text/plain").body("{}"))
        .await;
    assert_eq!((not_json.status, not_json.code().as_str()), (415, "unsupported_media_type"));
    let large = gateway.post(path, " ".repeat((1 << 20) + 1)).await;
    assert_eq!((large.status, large.code().as_str()), (413, "request_too_large"));
    let empty_is_null = gateway.request(|http, base| http.post(format!("{base}/data/miner_block/canonical"))).await;
    assert_eq!(empty_is_null.json()["data"]["count"], 61);
}

#[tokio::test]
async fn an_unknown_parameter_is_told_what_the_query_string_may_have() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let m = "/data/miner_block";
    for (path, body, names) in [
        (format!("{m}/epoch?epohc=1"), None, "peer, anchor, numbers"),
        (format!("{m}/get?perr=any"), None, "peer, numbers"),
        (format!("{m}/debug_index?index=0&numbers=string"), None, "peer"),
        (format!("{m}/epoch"), Some(r#"{"epoch":0,"peer":"any"}"#), "peer, anchor, numbers"),
        (format!("{m}/epoch?epoch=0"), Some("{}"), "peer, anchor, numbers"),
    ] {
        let reply = match body {
            Some(body) => gateway.post(&path, body).await,
            None => gateway.get(&path).await,
        };
        assert_eq!((reply.status, reply.code().as_str()), (400, "unknown_parameter"), "{path}");
        let detail = reply.json()["errors"]["detail"].as_str().unwrap().to_owned();
        assert!(detail.ends_with(&format!("; the query string may have {names}")), "{path}: {detail}");
    }
}

#[tokio::test]
async fn wrong_methods_are_answered_with_the_allowed_ones() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let put = gateway.request(|http, base| http.put(format!("{base}/data/miner_block/epoch"))).await;
    assert_eq!((put.status, put.code().as_str()), (405, "method_not_allowed"));
    assert!(put.header("allow").unwrap().contains("POST"));
    let get = gateway.get("/data/miner_block/find_ancestor").await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    assert!(get.json()["errors"]["detail"].as_str().unwrap().contains("POST"));
    let head = gateway.request(|http, base| http.head(format!("{base}/data/miner_block/epoch?epoch=0"))).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

/// Sends bytes as they are, and returns the status line's code; 0 if the connection just closed.
async fn raw(gateway: &TestGateway, request: &[u8]) -> u16 {
    let address = gateway.base.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    // The gateway may answer and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = [0; 12];
    match stream.read_exact(&mut answer).await {
        Ok(_) => std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap(),
        Err(_) => 0,
    }
}

#[tokio::test]
async fn bytes_that_are_no_request_do_no_harm() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let get = |target: &[u8]| [b"GET ", target, b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"].concat();
    let epoch = b"/data/miner_block/epoch?";
    assert_eq!(raw(&gateway, &get(&[&epoch[..], b"epoch=0"].concat())).await, 200);
    assert_eq!(raw(&gateway, &get(&[&epoch[..], b"epoch=\xff\xfe"].concat())).await, 400);
    assert_eq!(raw(&gateway, &get(&[&epoch[..], &b"x".repeat(100_000)].concat())).await, 414);
    assert_eq!(raw(&gateway, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage\r\n\r\n").await, 400);
    let declared = b"POST /data/miner_block/epoch HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                     content-length: 10485760\r\n\r\n{";
    assert_eq!(raw(&gateway, declared).await, 413, "refused by its length, before it is sent");
    assert_eq!(gateway.get("/health/ready").await.status, 200);
}

#[tokio::test]
async fn requests_over_libp2p_are_answered_whatever_they_are() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    for (request, code) in [
        (&b"{"[..], "malformed_body"),
        (b"\xff\xfe", "malformed_body"),
        (b"[]", "malformed_body"),
        (br#"{"path":"/nope","data":null}"#, "unknown_path"),
        (br#"{"path":"/data/miner_block/epoch","data":{"epoch":"1"}}"#, "missing_parameter"),
        (
            br#"{"path":"/data/miner_block/range","data":{"from_index":0,"to_index":5,"max_chunk_size":0}}"#,
            "invalid_parameter",
        ),
    ] {
        let answer: serde_json::Value = serde_json::from_slice(&gateway.ask(request.to_vec()).await).unwrap();
        assert_eq!(answer["errors"]["code"], code, "{:?}", String::from_utf8_lossy(request));
    }
    let deep = format!(r#"{{"path":"/ping","data":{}}}"#, "[".repeat(10_000));
    let answer: serde_json::Value = serde_json::from_slice(&gateway.ask(deep).await).unwrap();
    assert_eq!(answer["errors"]["code"], "malformed_body");
}

#[tokio::test]
async fn a_path_may_be_written_in_other_ways() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let plain = gateway.get("/data/miner_block/epoch?epoch=0").await;
    for path in
        ["/data/miner%5Fblock/epoch?epoch=0", "/data/miner_block/epoch/?epoch=0", "/%64ata/miner_block/epoch/?epoch=0"]
    {
        let other = gateway.get(path).await;
        assert_eq!((other.status, &other.body), (200, &plain.body), "{path}");
    }
    // A slash that is encoded is none.
    assert_eq!(gateway.get("/data%2Fminer_block/epoch?epoch=0").await.code(), "unknown_path");
}

#[tokio::test]
async fn a_body_that_is_encoded_is_refused() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    for (coding, status) in [("gzip", 415), ("identity, br", 415), ("identity", 200), ("Identity", 200)] {
        let reply = gateway
            .request(|client, base| {
                let request = client.post(format!("{base}/data/miner_block/epoch"));
                request
                    .header("content-type", "application/json")
                    .header("content-encoding", coding)
                    .body(r#"{"epoch":0}"#)
            })
            .await;
        assert_eq!(reply.status, status, "{coding}");
    }
}

//! What the standards of HTTP ask of a server: hosts, conditions, negotiation, preflights, event streams.

use modal_gateway::http::Settings;
use reqwest::Method;
use rstest::rstest;
use serde_json::Value;

use crate::{
    open,
    rate::{EPOCH, ask, limited},
    raw_client::RawClient,
    support::listeners::{ListenerOptions, proxy_here, send},
};

async fn code(response: reqwest::Response) -> Value {
    response.json::<Value>().await.unwrap()["errors"]["code"].clone()
}

#[rstest]
#[case::none("GET /inspect HTTP/1.1\r\n\r\n", "400")]
#[case::two("GET /inspect HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "400")]
#[case::none_in_absolute_form("GET http://a/inspect HTTP/1.1\r\n\r\n", "400")]
#[case::malformed("GET /inspect HTTP/1.1\r\nhost: a/b\r\n\r\n", "400")]
#[case::none_in_http_1_0("GET /inspect HTTP/1.0\r\n\r\n", "200")]
#[case::absolute_form("GET http://a/inspect HTTP/1.1\r\nhost: a\r\n\r\n", "200")]
#[tokio::test]
async fn a_request_has_one_valid_host(#[case] request: &str, #[case] status: &str) {
    let listeners = open(ListenerOptions::default()).await;
    let admin = request.replace("/inspect", "/health/live");
    for (address, request) in [(listeners.public, request), (listeners.admin, &admin)] {
        let mut wire = RawClient::connect(address).await;
        wire.send(request).await;
        let (head, body) = wire.answer().await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{request:?}");
        assert_eq!(String::from_utf8(body).unwrap().contains("invalid_host"), status == "400", "{request:?}");
    }
}

#[rstest]
#[case::chunked("transfer-encoding: Chunked\r\n", 200)]
#[case::compressed("transfer-encoding: gzip, chunked\r\n", 501)]
#[case::compressed_by_another_line("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", 501)]
#[case::beside_another_fault("x-modal-tip: ?\r\ntransfer-encoding: gzip, chunked\r\n", 501)]
#[case::chunked_twice("transfer-encoding: chunked, chunked\r\n", 501)]
#[case::a_coding_in_the_second_line(
    "transfer-encoding: chunked\r\ncontent-encoding: identity\r\ncontent-encoding: gzip\r\n",
    415
)]
#[case::not_coded("transfer-encoding: chunked\r\ncontent-encoding: identity\r\ncontent-encoding: Identity\r\n", 200)]
#[case::two_types("transfer-encoding: chunked\r\ncontent-type: text/plain\r\n", 415)]
#[tokio::test]
async fn only_what_is_understood_of_a_body_is_read(#[case] lines: &str, #[case] status: u16) {
    let listeners = open(ListenerOptions::default()).await;
    for (address, path) in [(listeners.public, "/ping"), (listeners.admin, "/sync")] {
        let mut wire = RawClient::connect(address).await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n{lines}");
        wire.send(format!("{head}\r\n2\r\n{{}}\r\n0\r\n\r\n")).await;
        let (head, _) = wire.answer().await;
        // A requested job is accepted.
        let expected = if status == 200 && path == "/sync" { 202 } else { status };
        assert!(head.starts_with(&format!("http/1.1 {expected}")), "{path}: {head}");
        assert_eq!(head.contains("connection: close"), status == 501, "{path}: {head}");
    }
    let jobs = send(listeners.admin(Method::GET, "/sync")).await.json::<Value>().await.unwrap();
    assert_eq!(jobs["data"]["count"], u64::from(status == 200), "a refused request starts nothing");
}

#[rstest]
#[case("OPTIONS *", 204)]
#[case("CONNECT a:443", 405)]
#[tokio::test]
async fn what_names_no_path_is_answered_for_the_whole_server(#[case] target: &str, #[case] status: u16) {
    let listeners = open(ListenerOptions::default()).await;
    let mut wire = RawClient::connect(listeners.public).await;
    wire.send(format!("{target} HTTP/1.1\r\nhost: a:443\r\n\r\n")).await;
    let head = wire.head().await;
    assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
    assert!(head.contains("allow: get, head, post, options\r\n"), "{head}");
}

#[tokio::test]
async fn conditions_are_honoured() {
    let listeners = open(ListenerOptions::default()).await;
    for path in [EPOCH, "/data/miner_block/canonical"] {
        let tag = send(listeners.public(Method::GET, path)).await.headers()["etag"].to_str().unwrap().to_owned();
        for (name, value, status) in [
            ("if-match", tag.as_str(), 200),
            ("if-match", "*", 200),
            ("if-match", "\"x\"", 412),
            ("if-none-match", &tag, 304),
        ] {
            let response = send(listeners.public(Method::GET, path).header(name, value)).await;
            assert_eq!(response.status(), status, "{path} {name}: {value}");
        }
        let unlike_ours = send(listeners.public(Method::GET, path).header("if-match", &b"\"\xe4\""[..])).await;
        assert_eq!(code(unlike_ours).await, "precondition_failed");
        let failed = send(listeners.public(Method::GET, path).header("if-match", format!("W/{tag}"))).await;
        assert_eq!(code(failed).await, "precondition_failed");
    }
    let post = || {
        let request = listeners.public(Method::POST, "/data/miner_block/epoch").body(r#"{"epoch":0}"#);
        request.header("content-type", "application/json")
    };
    let tag = send(post()).await.headers()["etag"].clone();
    assert_eq!(send(post().header("if-none-match", tag)).await.status(), 412);
}

#[tokio::test]
async fn answers_without_a_tag_meet_no_condition_but_that_they_exist() {
    let listeners = open(ListenerOptions::default()).await;
    for path in ["/status", "/peers", "/sync", "/openapi.json", "/docs/"] {
        for (name, value, status) in [
            ("if-match", "\"x\"", 412),
            ("if-match", "*", 200),
            ("if-none-match", "\"x\"", 200),
            ("if-none-match", "*", 304),
        ] {
            let response = send(listeners.public(Method::GET, path).header(name, value)).await;
            assert_eq!(response.status(), status, "{path} {name}: {value}");
        }
    }
    for (name, value, status) in [("if-match", "\"x\"", 412), ("if-none-match", "*", 412), ("if-match", "*", 202)] {
        let response = send(listeners.admin(Method::POST, "/sync").header(name, value)).await;
        assert_eq!(response.status(), status, "{name}: {value}");
    }
    let jobs = send(listeners.admin(Method::GET, "/sync")).await.json::<Value>().await.unwrap();
    assert_eq!(jobs["data"]["count"], 1, "a condition that fails starts nothing");
}

#[rstest]
#[case("/status", "text/html", 406)]
#[case("/status", "text/html, */*;q=0.1", 200)]
#[case("/peers", "application/json;q=0, */*", 406)]
#[case("/health/live", "text/plain", 200)]
#[case("/openapi.json", "application/yaml", 406)]
#[case("/docs/", "application/json", 406)]
#[case("/docs/", "text/html", 200)]
#[case("/events", "application/json", 406)]
#[case(EPOCH, "text/html", 406)]
#[case("/nowhere", "text/html", 404)]
#[tokio::test]
async fn accept_means_the_same_on_all_routes(#[case] path: &str, #[case] accept: &str, #[case] status: u16) {
    let listeners = open(ListenerOptions::default()).await;
    let response = send(listeners.public(Method::GET, path).header("accept", accept)).await;
    assert_eq!(response.status(), status);
    if status == 406 {
        assert_eq!(code(response).await, "not_acceptable");
    }
}

#[rstest]
#[case("/sync", "text/html", 406)]
#[case("/peers", "application/json", 200)]
#[case("/metrics", "text/html", 406)]
#[case("/metrics", "text/*", 200)]
#[case("/health/ready", "text/plain", 200)]
#[case("/nowhere", "text/html", 404)]
#[tokio::test]
async fn accept_means_the_same_on_the_admin_listener(#[case] path: &str, #[case] accept: &str, #[case] status: u16) {
    let listeners = open(ListenerOptions::default()).await;
    assert_eq!(send(listeners.admin(Method::GET, path).header("accept", accept)).await.status(), status);
}

#[rstest]
#[case("/metrics/")]
#[case("/%73ync")]
#[case("/./peers/")]
#[case("/health/ready/")]
#[tokio::test]
async fn a_path_of_the_admin_listener_may_have_any_form(#[case] path: &str) {
    let listeners = open(ListenerOptions::default()).await;
    assert_eq!(send(listeners.admin(Method::GET, path)).await.status(), 200);
}

#[rstest]
#[case("/sync")]
#[case("/sync/")]
#[case("/sync//")]
#[tokio::test]
async fn the_address_of_a_job_is_relative_to_the_path_that_was_asked(#[case] path: &str) {
    let listeners = open(ListenerOptions::default()).await;
    let asked = send(listeners.admin(Method::POST, path)).await;
    let job = asked.url().join(asked.headers()["location"].to_str().unwrap()).unwrap();
    assert_eq!(send(listeners.admin(Method::GET, job.path())).await.status(), 200, "{job}");
}

#[tokio::test]
async fn only_who_accepts_html_gets_an_error_as_a_page() {
    let listeners = open(ListenerOptions::default()).await;
    for (accept, kind) in [
        ("text/html, */*;q=0.1", "text/html; charset=utf-8"),
        ("application/json, text/html;q=0", "application/json"),
        ("text/htmlx, */*", "application/json"),
    ] {
        let response = send(listeners.public(Method::GET, "/nowhere").header("accept", accept)).await;
        assert_eq!(response.headers()["content-type"], kind, "{accept}");
    }
}

#[tokio::test]
async fn a_member_that_is_there_twice_is_refused() {
    let listeners = open(ListenerOptions::default()).await;
    for path in ["/data/miner_block/epoch", "/ping"] {
        let post = listeners.public(Method::POST, path).header("content-type", "application/json");
        let refused = send(post.body(r#"{"epoch":0,"epoch":1}"#)).await;
        assert_eq!(refused.status(), 400, "{path}");
        let error = refused.json::<Value>().await.unwrap();
        assert!(error["errors"]["detail"].as_str().unwrap().contains("\"epoch\" is given twice"), "{path}: {error}");
    }
}

#[tokio::test]
async fn preflights_are_answered_whatever_the_path_and_the_limits() {
    let listeners = limited(1, 100).await;
    while ask(&listeners, "192.0.2.1", EPOCH).await.status() == 200 {}
    for path in [EPOCH, "/nowhere"] {
        let preflight = listeners.public(Method::OPTIONS, path).header("x-forwarded-for", "192.0.2.1");
        let preflight = preflight.header("origin", "https://a.example").header("access-control-request-method", "GET");
        let answer = send(preflight).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["access-control-allow-origin"]),
            (200, &"*".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn a_browser_that_follows_events_is_asked_to_come_back() {
    let settings = Settings { addresses: proxy_here(), ..Settings::default() };
    let listeners = open(ListenerOptions { settings, ..ListenerOptions::default() }).await;
    let follow = || listeners.public(Method::GET, "/events").header("x-forwarded-for", "192.0.2.1");
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(send(follow()).await);
    }
    assert_eq!(send(follow()).await.status(), 429);
    let later = send(follow().header("accept", "text/event-stream")).await;
    assert_eq!(
        (later.status().as_u16(), &later.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    assert!(later.text().await.unwrap().starts_with("retry: 1000\n"));
}

#[tokio::test]
async fn answers_for_shared_caches_name_no_tip() {
    // 61 blocks, of which those of the first 20 are final.
    let listeners = open(ListenerOptions::default()).await;
    let read = async |path: &str| send(listeners.public(Method::GET, path)).await.headers().clone();
    let settled = read("/data/miner_block/range?from_index=0&to_index=9").await;
    let recent = read("/data/miner_block/range?from_index=50&to_index=59").await;
    let public =
        |headers: &reqwest::header::HeaderMap| headers["cache-control"].to_str().unwrap().starts_with("public");
    assert_eq!((public(&settled), settled.contains_key("x-modal-tip")), (true, false));
    assert_eq!((public(&recent), recent.contains_key("x-modal-tip")), (false, true));
}

//! The rate limit.

use std::{collections::HashMap, time::Duration};

use modal_gateway::{chain::Level, http::Settings};
use reqwest::{Method, Response};
use rstest::rstest;
use tokio::time::{Instant, sleep_until};

use crate::{
    listen, open, open_long,
    support::{
        gateway::{Backend, TestStore, synthetic},
        listeners::{ListenerOptions, Listeners, proxy_here, send, unlimited},
    },
};

pub const EPOCH: &str = "/data/miner_block/epoch?epoch=0";

/// Listeners behind a proxy on this machine, where a client has so much.
pub async fn limited(rate: u32, burst: u32) -> Listeners {
    let addresses = proxy_here();
    let settings = Settings { addresses, rate_limit: rate, rate_burst: burst, ..Settings::default() };
    open(ListenerOptions { settings, ..ListenerOptions::default() }).await
}

pub async fn ask(listeners: &Listeners, client: &str, path: &str) -> Response {
    send(listeners.public(Method::GET, path).header("x-forwarded-for", client)).await
}

/// Asks twice as this client. One of the two is refused if it has no units left: another may come back in between.
async fn twice(listeners: &Listeners, client: &str) -> [u16; 2] {
    [ask(listeners, client, EPOCH).await, ask(listeners, client, EPOCH).await].map(|reply| reply.status().as_u16())
}

/// Checks what a client has left, of 1,000 units of which one comes back each second.
fn has_left(left: u64, cost: u64, since: Instant) {
    let least = 1000 - cost;
    assert!((least..=least + since.elapsed().as_secs()).contains(&left), "{left} left after {cost}");
}

/// A member of `ratelimit` or `ratelimit-policy`.
fn member(response: &Response, header: &str, name: &str) -> u64 {
    let value = response.headers().get(header).unwrap_or_else(|| panic!("{header}")).to_str().unwrap();
    assert!(value.starts_with("\"client\";"), "{value}");
    let members: HashMap<_, _> = value.split(';').filter_map(|member| member.split_once('=')).collect();
    members[name].parse().unwrap()
}

#[tokio::test]
async fn over_the_rate_a_client_learns_when_to_retry_and_then_may() {
    let listeners = limited(1, 100).await;
    let (mut answered, started) = (0, Instant::now());
    let refused = loop {
        let response = ask(&listeners, "192.0.2.1", EPOCH).await;
        assert_eq!(
            (member(&response, "ratelimit-policy", "q"), member(&response, "ratelimit-policy", "w")),
            (100, 100)
        );
        let left = member(&response, "ratelimit", "r");
        if response.status() == 429 {
            break response;
        }
        assert_eq!(response.status(), 200);
        answered += 1;
        let earned = started.elapsed().as_secs() + 1;
        assert!(left + answered <= 100 + earned && left + answered >= 99, "{left} left after {answered}");
        assert!(answered < 2000, "there is no limit");
    };
    assert!(answered >= 100, "{answered}");
    assert_eq!(listeners.counters.rate_limited.get(), 1);
    assert_eq!(member(&refused, "ratelimit", "r"), 0);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    let until = Instant::now() + Duration::from_secs(wait);
    let body: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(body["errors"]["code"], "rate_limited");
    assert!(body["errors"]["detail"].as_str().unwrap().contains("units"), "{body}");
    // Others are not concerned, nor is the word of the gateway's own health.
    assert_eq!(ask(&listeners, "192.0.2.2", EPOCH).await.status(), 200);
    let health = ask(&listeners, "192.0.2.1", "/health/ready").await;
    assert_eq!((health.status().as_u16(), health.headers().get("ratelimit")), (200, None));
    sleep_until(until).await;
    assert_eq!(ask(&listeners, "192.0.2.1", EPOCH).await.status(), 200);
}

#[rstest]
#[case::one_customer("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", 429)]
#[case::another_customer("2001:db8:0:1::1", "2001:db8:0:2::1", 200)]
#[case::one_address_in_two_forms("192.0.2.1", "::ffff:192.0.2.1", 429)]
#[case::made_up_by_the_client("192.0.2.1", "198.51.100.7, 192.0.2.1", 429)]
#[tokio::test]
async fn clients_are_identified_by_an_address_that_they_cannot_choose(
    #[case] first: &str,
    #[case] second: &str,
    #[case] status: u16,
) {
    let listeners = limited(1, 100).await;
    while ask(&listeners, first, EPOCH).await.status() == 200 {}
    let statuses = twice(&listeners, second).await;
    assert_eq!(statuses.contains(&429), status == 429, "{statuses:?}");
}

#[tokio::test]
async fn forwarding_headers_of_untrusted_clients_are_ignored() {
    // No proxy is trusted: what comes from this machine for another client counts as this machine's, but is limited.
    let settings = Settings { rate_limit: 1, rate_burst: 100, ..unlimited() };
    let listeners = open(ListenerOptions { settings, ..ListenerOptions::default() }).await;
    for number in 0..150 {
        let response = send(listeners.public(Method::GET, EPOCH)).await;
        assert_eq!((response.status().as_u16(), response.headers().get("ratelimit")), (200, None));
        _ = ask(&listeners, &format!("192.0.2.{number}"), EPOCH).await;
    }
    assert!(twice(&listeners, "192.0.2.200").await.contains(&429));
}

#[tokio::test]
async fn clients_on_this_machine_are_limited_as_all_others() {
    let settings = Settings { rate_limit: 1, rate_burst: 100, ..Settings::default() };
    let listeners = open(ListenerOptions { settings, ..ListenerOptions::default() }).await;
    let mut answered = 0;
    while send(listeners.public(Method::GET, EPOCH)).await.status() == 200 {
        answered += 1;
        assert!(answered < 1000, "there is no limit");
    }
    assert!(answered >= 100, "{answered}");
}

#[rstest]
#[case::from_the_store(EPOCH, 1)]
#[case::from_a_peer("/data/miner_block/epoch?epoch=0&peer=any", 5)]
#[case::from_a_peer_in_disguise("/data/miner_block/epoch?epoch=0&%70eer=any", 5)]
#[case::an_error("/nowhere", 1)]
#[tokio::test]
async fn forwarded_reads_cost_more(#[case] path: &str, #[case] cost: u64) {
    let (listeners, start) = (limited(1, 1000).await, Instant::now());
    has_left(member(&ask(&listeners, "192.0.2.1", path).await, "ratelimit", "r"), cost, start);
}

#[tokio::test]
async fn large_answers_cost_more_also_those_of_unknown_size() {
    let addresses = proxy_here();
    let settings = Settings { addresses, rate_limit: 1, rate_burst: 1000, ..Settings::default() };
    let listeners = open_long(ListenerOptions { settings, ..ListenerOptions::default() }).await;
    let start = Instant::now();
    let range = ask(&listeners, "192.0.2.1", "/data/miner_block/range?from_index=0&to_index=999").await;
    assert!(!range.headers().contains_key("ratelimit"), "any cache may keep it, and give it to others");
    let size = range.bytes().await.unwrap().len() as u64;
    assert!(size > 5 << 16, "{size}");
    let left = async |client| member(&ask(&listeners, client, "/data/miner_block/chain_info").await, "ratelimit", "r");
    has_left(left("192.0.2.1").await, 2 + size / (64 << 10), start);
    let start = Instant::now();
    let stream = ask(&listeners, "192.0.2.2", "/data/miner_block/canonical").await;
    assert_eq!(member(&stream, "ratelimit", "r"), 999, "nobody knows yet");
    let size = stream.bytes().await.unwrap().len() as u64;
    let left = left("192.0.2.2").await;
    // What is left over at each of the instalments is at most a unit, and some come back meanwhile.
    let expected = 1000 - 2 - size / (64 << 10);
    let most = expected + 20 + start.elapsed().as_secs();
    assert!((expected - 20..=most).contains(&left), "{left} {expected}");
}

#[tokio::test]
async fn the_end_of_a_stream_is_charged_too() {
    let addresses = proxy_here();
    let settings = Settings { addresses, rate_limit: 1, rate_burst: 1000, ..Settings::default() };
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(1000), Level::None).await;
    let listeners = listen(store, ListenerOptions { settings, ..ListenerOptions::default() }).await;
    let start = Instant::now();
    let size = ask(&listeners, "192.0.2.1", "/data/miner_block/canonical").await.bytes().await.unwrap().len() as u64;
    let units = size / (64 << 10);
    assert!((4..16).contains(&units), "{size}: less than what is paid for at once");
    let left = member(&ask(&listeners, "192.0.2.1", "/data/miner_block/chain_info").await, "ratelimit", "r");
    let most = 999 - units + start.elapsed().as_secs();
    assert!((998 - units..=most).contains(&left), "{left} left after {units} units");
}

#[tokio::test]
async fn bytes_of_requests_are_charged_too() {
    let (listeners, start) = (limited(1, 1000).await, Instant::now());
    let list = serde_json::json!({"local_block_hashes": vec!["0".repeat(64); 8000]});
    let post = listeners.public(Method::POST, "/data/miner_block/chain_info").json(&list);
    let answer = send(post.header("x-forwarded-for", "192.0.2.1")).await;
    assert_eq!(answer.status(), 200);
    let size = list.to_string().len() as u64;
    has_left(member(&answer, "ratelimit", "r"), 1 + 8 * (size + 28) / (64 << 10), start);
}

#[tokio::test]
async fn an_answer_pauses_while_its_client_is_in_debt() {
    let addresses = proxy_here();
    let settings = Settings { addresses, rate_limit: 100, rate_burst: 50, ..Settings::default() };
    let listeners = open_long(ListenerOptions { settings, ..ListenerOptions::default() }).await;
    let start = Instant::now();
    let size = ask(&listeners, "192.0.2.1", "/data/miner_block/canonical").await.bytes().await.unwrap().len() as f64;
    // All but the last instalment, of 16 units, are waited for.
    let seconds = (size / f64::from(64 << 10) - 50.0 - 2.0 * 16.0) / 100.0;
    assert!(seconds > 0.5, "{size} is too little");
    assert!(start.elapsed().as_secs_f64() > seconds, "{:?} for {size} bytes, {seconds} s worth", start.elapsed());
}

#[tokio::test]
async fn a_request_without_its_clients_address_is_refused() {
    let listeners = limited(0, 0).await;
    let request = axum::extract::Request::get("/status").body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(listeners.routes.clone(), request).await.unwrap();
    assert_eq!(response.status(), 500);
}

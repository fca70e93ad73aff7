//! Failures: pages for browsers, JSON for everybody else, with the same status.

use modal_gateway::http::Settings;
use reqwest::Method;

use crate::{
    markup::check,
    support::{
        gateway::{Backend, TestStore},
        html::Document,
        listeners::{ListenerOptions, Listeners, proxy_here},
    },
    world::{World, visit},
};

#[tokio::test]
async fn browsers_get_failures_as_pages() {
    let world = World::start(Backend::Sqlite).await;
    for (path, status, root) in [
        ("/block/9999", 404, "../"),
        ("/epoch/99", 404, "../"),
        ("/nowhere", 404, "./"),
        ("/nowhere/", 404, "../"),
        ("/a/b/c", 404, "../../"),
        ("/blocks?before=x", 400, "./"),
        ("/nominee/%ff", 404, "../"),
    ] {
        let reply = visit(&world.gateway, path).await;
        let body = String::from_utf8(reply.body.to_vec()).unwrap();
        assert_eq!(reply.status, status, "{path}: {body}");
        assert!(reply.header("content-type").unwrap().starts_with("text/html"), "{path}");
        assert!(reply.header("content-security-policy").unwrap().starts_with("default-src 'self'"), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        let page = Document::parse(&body);
        check(path, &page);
        let heading = page.one("h1").text.clone();
        assert!(!path.starts_with("/block/") || heading == "Block not found", "{heading}");
        assert!(!path.starts_with("/epoch/") || heading == "Epoch not found", "{heading}");
        let home = page.all("a").nth(1).unwrap().get("href").unwrap().to_owned();
        assert_eq!(home, root, "{path}");
    }
}

#[tokio::test]
async fn programs_get_failures_as_json() {
    let world = World::start(Backend::Sqlite).await;
    let long = format!("/forks?before=7:{}", "x".repeat(1025));
    for (path, status, code) in [
        (&*long, 400, "invalid_parameter"),
        ("/block/9999", 404, "block_not_found"),
        ("/nowhere", 404, "unknown_path"),
        ("/blocks?before=x", 400, "invalid_parameter"),
        ("/assets/nothing.css", 404, "unknown_path"),
    ] {
        let reply = world.gateway.get(path).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{path}");
    }
    // The API's own routes have no pages, whoever asks.
    let api = visit(&world.gateway, "/data/miner_block/get?hash=none").await;
    assert_eq!((api.status, api.code().as_str()), (404, "block_not_found"));
    let missing = visit(&world.gateway, "/data/nowhere").await;
    assert_eq!((missing.status, missing.code().as_str()), (404, "unknown_path"));
    let posted = world.gateway.post("/blocks", "{}").await;
    assert_eq!((posted.status, posted.code().as_str()), (405, "method_not_allowed"));
}

#[tokio::test]
async fn pages_count_against_the_clients_limit() {
    let settings = Settings { addresses: proxy_here(), rate_limit: 1, rate_burst: 10, ..Settings::default() };
    let store = TestStore::create(Backend::Sqlite).await;
    let url = store.url.clone();
    let listeners =
        Listeners::with(store, &url, false, ListenerOptions { settings, ..ListenerOptions::default() }).await;
    let ask = async |accept: &str| {
        let request =
            listeners.public(Method::GET, "/").header("x-forwarded-for", "192.0.2.1").header("accept", accept);
        request.send().await.unwrap()
    };
    let mut answered = 0;
    let refused = loop {
        let reply = ask("text/html").await;
        match reply.status().as_u16() {
            200 => answered += 1,
            status => break (status, reply),
        }
        assert!(answered < 20, "pages cost nothing");
    };
    assert_eq!(refused.0, 429);
    assert!(refused.1.headers().contains_key("retry-after"));
    let page = Document::parse(&refused.1.text().await.unwrap());
    assert_eq!(page.one("h1").text, "Too many requests");
    // A unit may come back between two requests.
    let mut codes = Vec::new();
    for _ in 0..2 {
        let mut json: serde_json::Value = ask("*/*").await.json().await.unwrap();
        codes.push(json["errors"]["code"].take());
    }
    assert!(codes.contains(&"rate_limited".into()), "{codes:?}");
}

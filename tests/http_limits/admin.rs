//! Access to the admin listener.

use std::net::SocketAddr;

use modal_gateway::{
    app::{AppError, Gateway},
    config::Config,
};
use reqwest::{Method, StatusCode};
use rstest::rstest;

use crate::{
    open,
    raw_client::RawClient,
    support::{
        gateway::{Backend, TestStore},
        listeners::{ListenerOptions, send},
    },
};

const TOKEN: &str = "0123456789abcdef-token";

#[tokio::test]
async fn with_a_token_every_request_must_show_it() {
    let listeners = open(ListenerOptions { token: Some(TOKEN), ..ListenerOptions::default() }).await;
    for (method, path) in [(Method::GET, "/metrics"), (Method::POST, "/sync"), (Method::GET, "/nowhere")] {
        for shown in ["", "Bearer", "Bearer 0123456789abcdef-tokem", "Bearer 0123456789abcdef-token1", TOKEN] {
            let refused = send(listeners.admin(method.clone(), path).header("authorization", shown)).await;
            assert_eq!(refused.status(), 401, "{method} {path} {shown}");
            assert_eq!(refused.headers()["www-authenticate"], "Bearer");
            assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["errors"]["code"], "unauthorized");
        }
    }
    let good = send(listeners.admin(Method::GET, "/metrics").bearer_auth(TOKEN)).await;
    assert_eq!(good.status(), 200);
    assert_eq!(send(listeners.public(Method::GET, "/status")).await.status(), 200, "the public listener wants none");
    assert_eq!(
        send(listeners.admin(Method::GET, "/health/live")).await.status(),
        200,
        "nor who looks whether it lives"
    );
}

#[rstest]
#[case::another_name("host: attacker.example:9090")]
#[case::another_name_that_begins_well("host: 127.0.0.1.attacker.example")]
#[case::another_page("host: {own}\r\norigin: https://attacker.example")]
#[case::a_page_on_this_machine("host: {own}\r\norigin: http://localhost:3000")]
#[case::no_page_at_all("host: {own}\r\norigin: null")]
#[tokio::test]
async fn without_a_token_no_web_page_starts_a_sync(#[case] headers: &str) {
    let listeners = open(ListenerOptions::default()).await;
    let headers = headers.replace("{own}", &listeners.admin.to_string());
    let post = |headers: &str| {
        format!("POST /sync HTTP/1.1\r\n{headers}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}")
    };
    let mut wire = RawClient::connect(listeners.admin).await;
    wire.send(post(&headers)).await;
    let (head, _) = wire.answer().await;
    assert!(head.starts_with("http/1.1 401"), "{head}");
    let jobs = async || {
        let answer = send(listeners.public(Method::GET, "/sync")).await;
        answer.json::<serde_json::Value>().await.unwrap()["data"]["count"].as_u64().unwrap()
    };
    assert_eq!(jobs().await, 0);
    // A program on this machine starts one.
    let mut wire = RawClient::connect(listeners.admin).await;
    wire.send(post(&format!("host: {}", listeners.admin))).await;
    let (head, _) = wire.answer().await;
    assert!(head.starts_with("http/1.1 202"), "{head}");
    assert_eq!(jobs().await, 1);
}

async fn start(change: impl FnOnce(Config, &std::path::Path) -> Config) -> Result<SocketAddr, AppError> {
    let store = TestStore::create(Backend::Sqlite).await;
    let config = Config {
        database_url: store.url.parse().unwrap(),
        http: ([127, 0, 0, 1], 0).into(),
        admin: ([127, 0, 0, 1], 0).into(),
        listen: Vec::new(),
        identity: store.folder.path().join("key"),
        sync: false,
        ..Config::default()
    };
    let gateway = Gateway::start(&change(config, store.folder.path())).await?;
    let admin = gateway.admin;
    // Dropped with the runtime: long after the test has asked.
    tokio::spawn(async move { gateway.run(Default::default()).await.map(|()| drop(store)) });
    Ok(admin)
}

#[tokio::test]
async fn an_admin_address_beyond_loopback_needs_a_token() {
    let everywhere: SocketAddr = ([0, 0, 0, 0], 0).into();
    let refused = start(|config, _| Config { admin: everywhere, ..config }).await.unwrap_err();
    assert!(matches!(refused, AppError::AdminNotLoopback(_)), "{refused:?}");
    assert!(refused.to_string().contains("admin_token"), "{refused}");
    let admin = start(|config, _| Config { admin: everywhere, admin_token: Some(TOKEN.parse().unwrap()), ..config });
    let admin = SocketAddr::from(([127, 0, 0, 1], admin.await.unwrap().port()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{admin}/metrics");
    assert_eq!(client.get(&url).send().await.unwrap().status(), 401);
    assert_eq!(client.get(&url).bearer_auth(TOKEN).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_token_may_be_in_a_file() {
    let in_file = |text: &'static str| {
        start(move |config, folder| {
            let path = folder.join("token");
            std::fs::write(&path, text).unwrap();
            Config { admin_token_file: Some(path), ..config }
        })
    };
    let admin = in_file("0123456789abcdef-token\n").await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = async |token: &str| {
        let answer = client.get(format!("http://{admin}/metrics")).bearer_auth(token).send().await.unwrap();
        answer.status()
    };
    assert_eq!((status("").await, status(TOKEN).await), (StatusCode::UNAUTHORIZED, StatusCode::OK));
    let short = in_file("short-s3cret").await.unwrap_err().to_string();
    assert!(short.contains("admin_token_file") && !short.contains("s3cret"), "{short}");
    let missing = start(|config, folder| Config { admin_token_file: Some(folder.join("nothing")), ..config }).await;
    let missing = missing.unwrap_err().to_string();
    assert!(missing.contains("admin_token_file") && missing.contains("can't be read"), "{missing}");
}

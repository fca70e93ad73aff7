//! CORS and security headers.

use modal_gateway::http::Settings;
use reqwest::Method;
use rstest::rstest;

use crate::{
    open,
    support::listeners::{ListenerOptions, Listeners, send, unlimited},
};

const READ: &str = "/data/miner_block/epoch?epoch=0";

async fn with_origins(origins: &[&str]) -> Listeners {
    let cors_origins = origins.iter().map(|origin| origin.parse().unwrap()).collect();
    open(ListenerOptions { settings: Settings { cors_origins, ..unlimited() }, ..ListenerOptions::default() }).await
}

#[rstest]
#[case::any(&["*"], "https://a.example", Some("*"))]
#[case::listed(&["https://a.example", "https://b.example"], "https://b.example", Some("https://b.example"))]
#[case::not_listed(&["https://a.example"], "https://a.example.evil.example", None)]
#[case::none(&[], "https://a.example", None)]
#[tokio::test]
async fn pages_of_listed_origins_may_read(
    #[case] origins: &[&str],
    #[case] origin: &str,
    #[case] allowed: Option<&str>,
) {
    let listeners = with_origins(origins).await;
    let text = |response: &reqwest::Response, name: &str| {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    let read = send(listeners.public(Method::GET, READ).header("origin", origin)).await;
    assert_eq!(read.status(), 200);
    assert_eq!(text(&read, "access-control-allow-origin").as_deref(), allowed);
    let exposed = text(&read, "access-control-expose-headers").unwrap();
    let own = ["x-modal-source", "x-modal-tip", "x-modal-tip-age", "x-modal-sync", "x-modal-verification"];
    for name in own.into_iter().chain(["etag", "retry-after", "ratelimit", "x-request-id", "server-timing"]) {
        assert!(exposed.split(',').any(|own| own == name), "{name} in {exposed}");
    }
    // What the answer depends on is told to caches.
    let vary: Vec<_> = read.headers().get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(vary.contains(&"origin"), origins != ["*"], "{vary:?}");
    assert!(vary.contains(&"accept, accept-encoding"), "{vary:?}");
    let preflight = listeners.public(Method::OPTIONS, READ).header("origin", origin);
    let preflight = preflight.header("access-control-request-method", "POST");
    let preflight = send(preflight.header("access-control-request-headers", "content-type")).await;
    assert_eq!(preflight.status(), 200);
    assert_eq!(text(&preflight, "access-control-allow-origin").as_deref(), allowed);
    assert_eq!(text(&preflight, "access-control-allow-credentials"), None);
    let headers = text(&preflight, "access-control-allow-headers").unwrap_or_default();
    assert!(headers.split(',').any(|name| name == "x-modal-tip"), "{headers}");
    let preflight =
        |path: &str| listeners.public(Method::OPTIONS, path).header("access-control-request-method", "POST");
    assert_eq!(send(preflight("/nowhere").header("origin", origin)).await.status(), 200);
    assert_eq!(
        send(listeners.public(Method::OPTIONS, READ).header("origin", origin)).await.status(),
        405,
        "asks nothing"
    );
    let error = send(listeners.public(Method::GET, "/nowhere").header("origin", origin)).await;
    assert_eq!(text(&error, "access-control-allow-origin").as_deref(), allowed, "errors can be read too");
    let admin = send(listeners.admin(Method::GET, "/metrics").header("origin", origin)).await;
    assert_eq!(text(&admin, "access-control-allow-origin"), None);
}

#[tokio::test]
async fn pages_load_nothing_from_elsewhere_and_are_not_framed() {
    let listeners = open(ListenerOptions::default()).await;
    let page = send(listeners.public(Method::GET, "/docs/")).await;
    let headers = page.headers();
    assert_eq!(headers["content-type"], "text/html");
    let policy = headers["content-security-policy"].to_str().unwrap();
    for rule in ["default-src 'none'", "script-src 'self';", "connect-src 'self';", "frame-ancestors 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert_eq!(
        (&headers["x-frame-options"], &headers["referrer-policy"]),
        (&"DENY".parse().unwrap(), &"no-referrer".parse().unwrap())
    );
    for path in ["/docs/", READ, "/nowhere", "/openapi.json", "/docs/swagger-ui-bundle.js"] {
        let response = send(listeners.public(Method::GET, path)).await;
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{path}");
        assert!(!response.headers().contains_key("strict-transport-security"), "{path}: there is no TLS");
    }
    let metrics = send(listeners.admin(Method::GET, "/metrics")).await;
    assert_eq!(metrics.headers()["x-content-type-options"], "nosniff");
    for path in ["/docs/nowhere", "/docs/%ff"] {
        let error = send(listeners.public(Method::GET, path)).await;
        assert_eq!(error.status(), 404, "{path}");
        assert_eq!(error.json::<serde_json::Value>().await.unwrap()["errors"]["code"], "unknown_path", "{path}");
    }
}

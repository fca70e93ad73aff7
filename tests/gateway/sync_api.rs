//! The sync as a resource: `/sync`, what `/status` and `/health/ready` say of it, and what the operator may do.

use std::time::{Duration, Instant};

use modal_gateway::{
    chain::Level,
    source::job::{Phase, Progress, SyncState, SyncStatus},
};
use reqwest::{Method, RequestBuilder};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{
    gateway::{Backend, PATIENCE, Reply, TestStore},
    listeners::{Listeners, send},
};

async fn listeners(backend: Backend) -> Listeners {
    let test_store = TestStore::create(backend).await;
    let url = test_store.url.clone();
    Listeners::open(test_store, &url, true).await
}

async fn reply(request: RequestBuilder) -> Reply {
    let response = send(request).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Reply { status, headers, body: response.bytes().await.unwrap() }
}

async fn get(listeners: &Listeners, path: &str) -> Reply {
    reply(listeners.public(Method::GET, path)).await
}

/// `data` of an answer, as if no second had passed since a status of an hour ago was written.
fn data(reply: &Reply) -> Value {
    let text = std::str::from_utf8(&reply.body).unwrap().replace("3601 s", "3600 s");
    serde_json::from_str::<Value>(&text).unwrap()["data"].take()
}

async fn post(listeners: &Listeners, body: &'static str) -> Reply {
    reply(listeners.admin(Method::POST, "/sync").header("content-type", "application/json").body(body)).await
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn synced_syncing_and_stalled_are_told_apart(#[case] backend: Backend) {
    let listeners = listeners(backend).await;
    let level = SyncStatus { state: SyncState::Synced, useful_peers: 2, checked_at: Some(7), ..SyncStatus::default() };
    let busy = SyncStatus { state: SyncState::Syncing, job: Some(3), ..SyncStatus::default() };
    let mut last = Value::Null;
    for (written, age, state, detail) in [
        (None, 0, "stalled", Some("stalled: the sync has not begun yet")),
        (Some(&level), 0, "synced", None),
        (Some(&busy), 0, "syncing", Some("syncing")),
        (Some(&SyncStatus::stalled("no useful peer")), 0, "stalled", Some("stalled: no useful peer")),
        (Some(&level), 3600, "stalled", Some("stalled: no process has synced this store for 3600 s")),
    ] {
        if let Some(status) = written {
            status.write(&*listeners.store).await.unwrap();
            if age > 0 {
                // As if so much time had gone by, by the database's clock.
                listeners.test_store.execute(&format!("UPDATE note SET at = at - {age}")).await;
            }
        }
        // What was just read counts as current for a moment.
        let (mut ticks, deadline) = (tokio::time::interval(Duration::from_millis(10)), Instant::now() + PATIENCE);
        let status = loop {
            ticks.tick().await;
            let status = data(&get(&listeners, "/status").await)["sync"].take();
            if status != last {
                break status;
            }
            assert!(Instant::now() < deadline, "it is never told");
        };
        last = status.clone();
        assert_eq!(status["state"], state);
        if age == 0
            && let Some(written) = written
        {
            assert_eq!(status, json!(written));
        }
        assert_eq!(data(&get(&listeners, "/sync").await), json!({"status": status, "jobs": [], "count": 0}));
        for path in ["/health/ready", "/health/ready?synced=false"] {
            let ready = get(&listeners, path).await;
            assert_eq!((ready.status, data(&ready)), (200, json!({"status": "ready", "sync": status})));
        }
        let strict = get(&listeners, "/health/ready?synced=true").await;
        match detail {
            None => assert_eq!((strict.status, &strict.json()["data"]["sync"]), (200, &status)),
            Some(detail) => {
                assert_eq!((strict.status, strict.code().as_str()), (503, "not_synced"), "{state}");
                // A second may have passed.
                let said = strict.json()["errors"]["detail"].as_str().unwrap().replace("3601 s", "3600 s");
                assert_eq!((said.as_str(), strict.header("retry-after")), (detail, Some("1")));
            }
        }
    }
}

#[tokio::test]
async fn a_gateway_with_sync_off_is_ready() {
    let test_store = TestStore::create(Backend::Sqlite).await;
    let url = test_store.url.clone();
    let listeners = Listeners::open(test_store, &url, false).await;
    let ready = get(&listeners, "/health/ready?synced=true").await;
    assert_eq!((ready.status, &ready.json()["data"]["sync"]["state"]), (200, &json!("off")));
    assert_eq!(ready.json()["data"]["sync"]["reason"], Value::Null);
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn a_job_is_asked_for_followed_and_ended(#[case] backend: Backend) {
    let listeners = listeners(backend).await;
    let before = listeners.store.now().await.unwrap();
    let mut ids = Vec::new();
    for (body, spec) in [
        ("", json!({"mode": "delta", "peer": null, "verify": null})),
        ("null", json!({"mode": "delta", "peer": null, "verify": null})),
        (
            r#"{"mode":"headers","peer":null,"verify":"linked"}"#,
            json!({"mode": "headers", "peer": null, "verify": "linked"}),
        ),
    ] {
        let asked = post(&listeners, body).await;
        assert_eq!(asked.status, 202, "{body}");
        let id = asked.json()["data"]["id"].as_u64().unwrap();
        let address = asked.header("location").unwrap();
        assert_eq!(address, format!("sync/{id}"), "relative to `/sync`, so that a proxy may add a prefix");
        let job = get(&listeners, &format!("/{address}")).await;
        assert_eq!((job.status, job.header("cache-control")), (200, Some("no-store")));
        let job = job.json()["data"].take();
        assert_eq!((&job["id"], &job["spec"], &job["cancel_requested"]), (&json!(id), &spec, &json!(false)));
        assert_eq!(job["progress"], json!(Progress::default()), "nothing is done yet");
        assert!(
            (before..=listeners.store.now().await.unwrap()).contains(&job["created_at"].as_i64().unwrap()),
            "{job}"
        );
        ids.insert(0, id);
    }
    let list = get(&listeners, "/sync").await.json()["data"].take();
    let listed: Vec<_> = list["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_u64().unwrap()).collect();
    assert_eq!((&listed, &list["count"]), (&ids, &json!(3)), "the newest first");
    assert_eq!(reply(listeners.admin(Method::GET, "/sync")).await.json()["data"], list, "the operator sees the same");

    let path = format!("/sync/{}", ids[0]);
    let progress = Progress {
        phase: Phase::Blocks,
        from_index: Some(0),
        to_index: Some(u64::MAX),
        bytes: u64::MAX,
        blocks_per_second: 12.5,
        verification: Some(Level::Linked),
        last_error: Some("a peer hung up".into()),
        ..Progress::default()
    };
    let text = serde_json::to_string(&progress).unwrap();
    listeners.store.update_job(ids[0], "blocks", &text).await.unwrap();
    let job = get(&listeners, &path).await.json()["data"].take();
    assert_eq!(job["progress"], json!(progress));
    let updated_at = job["updated_at"].as_i64().unwrap();
    assert!((before..=listeners.store.now().await.unwrap()).contains(&updated_at), "{job}");

    let ended = reply(listeners.admin(Method::DELETE, &path)).await;
    assert_eq!((ended.status, &ended.json()["data"]["cancel_requested"]), (202, &json!(true)));
    assert_eq!(ended.json()["data"]["progress"]["phase"], "blocks", "it is for the sync to end it");
    assert_eq!(get(&listeners, &path).await.json()["data"]["cancel_requested"], true);
    listeners.store.update_job(ids[0], "cancelled", &text).await.unwrap();
    let again = reply(listeners.admin(Method::DELETE, &path)).await;
    assert_eq!((again.status, again.code().as_str()), (404, "unknown_job"));
    assert_eq!(get(&listeners, &path).await.json()["data"]["progress"]["phase"], "cancelled", "still told of");
}

#[tokio::test]
async fn only_the_operator_may_write() {
    let listeners = listeners(Backend::Sqlite).await;
    let id = post(&listeners, "").await.json()["data"]["id"].as_u64().unwrap();
    for (method, path) in [(Method::POST, "/sync".into()), (Method::DELETE, format!("/sync/{id}"))] {
        let refused = reply(listeners.public(method, &path)).await;
        assert_eq!((refused.status, refused.code().as_str()), (405, "method_not_allowed"), "{path}");
        assert_eq!(refused.header("allow"), Some("GET,HEAD"));
    }
    assert_eq!(get(&listeners, "/sync").await.json()["data"]["jobs"][0]["cancel_requested"], false);
    assert_eq!(get(&listeners, "/metrics").await.status, 404);
}

#[tokio::test]
async fn an_invalid_request_has_an_error_that_names_the_fault() {
    let listeners = listeners(Backend::Sqlite).await;
    for (path, status, code, named) in [
        ("/sync?page=2", 400, "unknown_parameter", "page"),
        ("/status?peer=al", 400, "unknown_parameter", "peer"),
        ("/peers?page=2", 400, "unknown_parameter", "page"),
        ("/sync/1", 404, "unknown_job", "job"),
        ("/sync/18446744073709551615", 404, "unknown_job", "job"),
        ("/sync/18446744073709551616", 400, "invalid_parameter", "id"),
        ("/sync/latest", 400, "invalid_parameter", "id"),
        ("/sync/-1", 400, "invalid_parameter", "id"),
        ("/sync/+1", 400, "invalid_parameter", "id"),
        ("/sync/%ff", 400, "invalid_parameter", "id"),
        ("/sync/1?verbose=1", 400, "unknown_parameter", "verbose"),
        ("/sync/1/", 404, "unknown_job", "job"),
        ("/health/ready?synced=1", 400, "invalid_parameter", "synced"),
        ("/health/ready?synced=true&synced=true", 400, "invalid_parameter", "synced"),
        ("/health/ready?sync=true", 400, "unknown_parameter", "synced"),
    ] {
        let refused = get(&listeners, path).await;
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{path}");
        assert!(refused.json()["errors"].to_string().contains(named), "{path}: {:?}", refused.body);
    }
    for (body, status, code, named) in [
        ("{", 400, "malformed_body", "EOF"),
        ("[]", 400, "malformed_body", "object"),
        (r#"{"modes":"full"}"#, 400, "unknown_parameter", "modes"),
        (r#"{"mode":1}"#, 400, "invalid_parameter", "mode"),
        (r#"{"mode":"fast"}"#, 400, "invalid_parameter", "mode: expected full"),
        (r#"{"verify":"much"}"#, 400, "invalid_parameter", "verify"),
        (r#"{"verify":true}"#, 400, "invalid_parameter", "verify"),
        (r#"{"peer":["a"]}"#, 400, "invalid_parameter", "peer"),
        (r#"{"peer":"nobody"}"#, 404, "unknown_peer", "peer"),
        (r#"{"peer":"/ip4/127.0.0.1/tcp/1"}"#, 404, "unknown_peer", "peer"),
    ] {
        let refused = post(&listeners, body).await;
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{body}");
        assert!(refused.json()["errors"].to_string().contains(named), "{body}: {:?}", refused.body);
    }
    let not_json = reply(listeners.admin(Method::POST, "/sync").header("content-type", "text/plain").body("{}")).await;
    assert_eq!((not_json.status, not_json.code().as_str()), (415, "unsupported_media_type"));
    let in_query = reply(listeners.admin(Method::POST, "/sync?mode=full")).await;
    assert_eq!((in_query.status, in_query.code().as_str()), (400, "unknown_parameter"));
    let long = format!(r#"{{"verify":"{}"}}"#, "x".repeat(10_000));
    let long =
        reply(listeners.admin(Method::POST, "/sync").header("content-type", "application/json").body(long)).await;
    assert!(long.status == 400 && long.body.len() < 1000, "an error is short");
    for (method, path) in [(Method::DELETE, "/sync/x"), (Method::GET, "/sync/x")] {
        assert_eq!(reply(listeners.admin(method, path)).await.code(), "invalid_parameter");
    }
    assert_eq!(get(&listeners, "/sync").await.json()["data"]["count"], 0, "none of them was a job");
}

#[tokio::test]
async fn the_metrics_include_the_sync() {
    let listeners = listeners(Backend::Sqlite).await;
    let id = post(&listeners, "").await.json()["data"]["id"].as_u64().unwrap();
    let progress = serde_json::to_string(&Progress { blocks: 1234, ..Progress::default() }).unwrap();
    listeners.store.update_job(id, "blocks", &progress).await.unwrap();
    let busy = SyncStatus { state: SyncState::Syncing, job: Some(id), useful_peers: 3, ..SyncStatus::default() };
    busy.write(&*listeners.store).await.unwrap();
    let figures = reply(listeners.admin(Method::GET, "/metrics")).await;
    let figures = std::str::from_utf8(&figures.body).unwrap();
    for line in [
        "modal_sync_state{state=\"synced\"} 0",
        "modal_sync_state{state=\"syncing\"} 1",
        "modal_sync_state{state=\"stalled\"} 0",
        "modal_sync_state{state=\"off\"} 0",
        "# TYPE modal_sync_state gauge",
        "modal_sync_job_blocks 1234",
        "modal_sync_useful_peers 3",
        "modal_sync_waiting{stage=\"verify\"} 0",
        "modal_sync_waiting{stage=\"commit\"} 0",
        "modal_event_streams 0",
        "modal_chain_blocks 0",
    ] {
        assert!(figures.lines().any(|found| found == line), "{line}\n{figures}");
    }
}

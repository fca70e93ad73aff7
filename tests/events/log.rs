//! What becomes of the chain, to those who stay and to those who come back.

use std::time::Instant;

use modal_gateway::{
    chain::{Level, unix_now},
    http::Settings,
    store::KEPT_EVENTS,
};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    stream::{SentEvent, Stream, append, at, id, listeners},
    support::{
        gateway::{Backend, PATIENCE, TestStore, parent, synthetic, synthetic_block, verifier},
        listeners::{ListenerOptions, Listeners, send, unlimited},
        relay::Relay,
    },
};

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn every_change_is_sent_once_and_in_order(#[case] backend: Backend) {
    let listeners = listeners(backend, 3).await;
    let (mut stream, begin) = Stream::open(&listeners.url(), "", None).await;
    assert_eq!(begin, id(1, 2, "main"), "where to go on, though nothing has happened yet");

    // Another process on the same store.
    let other = listeners.test_store.open().await;
    append(&*other, (2, "main-2"), vec![synthetic_block(3, "main", "main"), synthetic_block(4, "main", "main")]).await;
    let mut extended = stream.next().await;
    let since = unix_now() - extended.data["at"].take().as_i64().unwrap();
    assert!((0..60).contains(&since), "{since}");
    let data = json!({
        "at": null, "from": 3, "to": 4, "previous_hash": "main-2", "added": ["main-3", "main-4"], "truncated": false,
        "tip": at(4, "main"),
    });
    assert_eq!(extended, SentEvent { id: id(2, 4, "main"), event: "extended".into(), data });

    let mut writer = other.write().await.unwrap();
    writer.rewind(Some(3), "heavier", Some("side-5"), 1).await.unwrap();
    let side = vec![synthetic_block(4, "side", "main"), synthetic_block(5, "side", "side")];
    writer.append(verifier(Level::None).verify(Some(&parent(3, "main-3")), side).unwrap()).await.unwrap();
    writer.commit().await.unwrap();
    let mut reorganised = stream.next().await;
    reorganised.data["at"].take();
    let data = json!({
        "at": null, "ancestor": at(3, "main"), "old_tip": at(4, "main"), "new_tip": at(5, "side"), "tip": at(5, "side"),
        "orphaned": 1, "adopted": 2, "depth": 1, "reason": "heavier", "removed": ["main-4"], "added": ["side-4", "side-5"],
        "truncated": false, "epochs": null,
    });
    assert_eq!(reorganised, SentEvent { id: id(3, 5, "side"), event: "reorganised".into(), data });

    let ids = [id(1, 2, "main"), id(2, 4, "main"), id(3, 5, "side")];
    for (after, last, expected) in [
        ("0", None, &ids[..]),
        ("0", Some("2"), &ids[2..]),
        ("0", Some("1"), &ids[1..]),
        ("0", Some(ids[0].as_str()), &ids[1..]),
        (ids[1].as_str(), None, &ids[2..]),
    ] {
        let (mut again, begin) = Stream::open(&listeners.url(), &format!("?after={after}"), last).await;
        assert_eq!(begin, last.unwrap_or(after), "{after} {last:?}");
        for id in expected {
            assert_eq!(again.next().await.id, *id, "{after} {last:?}");
        }
    }
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn a_client_that_was_away_too_long_gets_a_reset(#[case] backend: Backend) {
    let listeners = listeners(backend, 1).await;
    append(&*listeners.store, (0, "main-0"), vec![synthetic_block(1, "main", "main")]).await;
    append(&*listeners.store, (1, "main-1"), vec![synthetic_block(2, "main", "main")]).await;
    // As if so much had happened that the first two events are too old.
    listeners.test_store.execute("DELETE FROM event WHERE id <= 2").await;
    listeners.test_store.execute(&format!("UPDATE chain SET version = {}", KEPT_EVENTS + 1)).await;
    append(&*listeners.store, (2, "main-2"), vec![synthetic_block(3, "main", "main")]).await;
    let newest = KEPT_EVENTS + 2;
    let reset = |reason: &str, missed: Option<u64>| {
        let data = json!({"tip": at(3, "main"), "reason": reason, "missed": missed});
        SentEvent { id: id(newest, 3, "main"), event: "reset".into(), data }
    };
    let later = (newest + 1).to_string();
    for (after, expected) in [
        ("0", reset("too_old", Some(newest))),
        ("1", reset("too_old", Some(newest - 1))),
        (&id(1, 0, "main"), reset("too_old", Some(newest - 1))),
        (&later, reset("unknown_id", None)),
        ("9999999999999999999", reset("unknown_id", None)),
    ] {
        let (mut stream, _) = Stream::open(&listeners.url(), &format!("?after={after}"), None).await;
        assert_eq!(stream.next().await, expected, "after {after}");
    }
    assert_eq!(listeners.counters.resets(), [("too_old", 3), ("replaced", 0), ("unknown_id", 2)]);
    let figures = send(listeners.admin(Method::GET, "/metrics")).await.text().await.unwrap();
    assert!(figures.contains("\nmodal_event_resets_total{reason=\"too_old\"} 3\n"), "{figures}");
    for after in ["2", &id(2, 1, "main")] {
        let (mut complete, _) = Stream::open(&listeners.url(), &format!("?after={after}"), None).await;
        assert_eq!(complete.next().await.id, id(3, 2, "main"), "after {after}");
        assert_eq!(complete.next().await.id, id(newest, 3, "main"), "after {after}");
    }

    // And what comes after a reset is told.
    let (mut stream, _) = Stream::open(&listeners.url(), "?after=0", None).await;
    assert_eq!(stream.next().await, reset("too_old", Some(newest)));
    append(&*listeners.store, (3, "main-3"), vec![synthetic_block(4, "main", "main")]).await;
    assert_eq!(stream.next().await.data["from"], 4);
}

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn a_client_that_received_lost_events_gets_a_reset(#[case] backend: Backend) {
    let listeners = listeners(backend, 3).await;
    let (mut stream, _) = Stream::open(&listeners.url(), "", None).await;
    append(&*listeners.store, (2, "main-2"), vec![synthetic_block(3, "main", "main")]).await;
    let lost = stream.next().await.id;
    assert_eq!(lost, id(2, 3, "main"));
    drop(stream);

    // As after a failover to a standby that did not have it yet: version 2 comes anew, with another block.
    let mut writer = listeners.store.write().await.unwrap();
    writer.rewind(Some(2), "lost", None, 1).await.unwrap();
    writer.commit().await.unwrap();
    listeners.test_store.execute("DELETE FROM event WHERE id > 1").await;
    listeners.test_store.execute("UPDATE chain SET version = 1").await;
    append(&*listeners.store, (2, "main-2"), vec![synthetic_block(3, "side", "main")]).await;
    let reset = |version, index| {
        let id = id(version, index, "side");
        let data = json!({"tip": at(index, "side"), "reason": "replaced", "missed": null});
        SentEvent { id, event: "reset".into(), data }
    };
    let (mut stream, _) = Stream::open(&listeners.url(), "", Some(&lost)).await;
    assert_eq!(stream.next().await, reset(2, 3), "the version is the same");
    append(&*listeners.store, (3, "side-3"), vec![synthetic_block(4, "side", "side")]).await;
    let next = stream.next().await;
    assert_eq!((next.id, next.event.as_str()), (id(3, 4, "side"), "extended"));
    let (mut stream, _) = Stream::open(&listeners.url(), &format!("?after={lost}"), None).await;
    assert_eq!(stream.next().await, reset(3, 4), "there is a next version");

    // Whoever knows nothing that was lost goes on, and so does who doesn't say what it knows.
    for (after, expected) in [(id(1, 2, "main"), id(2, 3, "side")), ("2".into(), id(3, 4, "side"))] {
        let (mut stream, _) = Stream::open(&listeners.url(), &format!("?after={after}"), None).await;
        assert_eq!(stream.next().await.id, expected, "after {after}");
    }
}

#[tokio::test]
async fn more_events_than_one_batch_are_all_sent() {
    let listeners = listeners(Backend::Sqlite, 1).await;
    for index in 1..=230 {
        let after = format!("main-{}", index - 1);
        append(&*listeners.store, (index - 1, &after), vec![synthetic_block(index, "main", "main")]).await;
    }
    let (mut stream, _) = Stream::open(&listeners.url(), "?after=0", None).await;
    for version in 1..=231 {
        assert_eq!(stream.next().await.id, id(version, version - 1, "main"));
    }
}

#[tokio::test]
async fn streams_are_bounded_and_end_when_the_gateway_does() {
    let test_store = TestStore::create(Backend::Sqlite).await;
    test_store.append(synthetic(1), Level::None).await;
    let (url, settings) = (test_store.url.clone(), Settings { max_streams: 20, ..unlimited() });
    let listeners = Listeners::with(test_store, &url, true, ListenerOptions { settings, ..Default::default() }).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Stream::open(&listeners.url(), "", None).await.0);
    }
    let figures = send(listeners.admin(Method::GET, "/metrics")).await.text().await.unwrap();
    assert!(figures.contains("\nmodal_event_streams 20\n"), "{figures}");
    let open = async || send(listeners.public(Method::GET, "/events")).await;
    let refused = open().await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert_eq!(listeners.counters.shed.get(), 1);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(
        (&body["errors"]["code"], &body["errors"]["detail"]),
        (&json!("busy"), &json!("20 event streams are open"))
    );

    // Whoever leaves makes room.
    drop(streams.pop());
    let deadline = Instant::now() + PATIENCE;
    while open().await.status() != 200 {
        assert!(Instant::now() < deadline, "no stream is ever admitted again");
    }
    listeners.closing.cancel();
    for mut stream in streams {
        assert_eq!(stream.block().await.as_deref(), Some(": the gateway is shutting down"));
        assert_eq!(stream.block().await, None, "and that is the end");
    }
}

#[tokio::test]
async fn a_stream_outlives_a_database_that_comes_back() {
    let test_store = TestStore::create(Backend::Postgres).await;
    test_store.append(synthetic(1), Level::None).await;
    let relay = Relay::to(&test_store.url).await;
    let (direct, relayed) = (test_store.url.clone(), relay.url.clone());
    let listeners = Listeners::open(test_store, &relayed, true).await;
    let (mut stream, _) = Stream::open(&listeners.url(), "", None).await;
    let address = relay.cut().await;
    let other = listeners.test_store.open().await;
    append(&*other, (0, "main-0"), vec![synthetic_block(1, "main", "main")]).await;
    // A browser gives up for ever on an answer that is no stream.
    let deadline = Instant::now() + PATIENCE;
    let mut held = loop {
        let response = send(listeners.public(Method::GET, "/events")).await;
        assert_eq!(response.status(), 200);
        let mut held = Stream::of(response);
        if held.block().await.as_deref() == Some(": the store is unavailable") {
            break held;
        }
        assert!(Instant::now() < deadline, "the cut is never seen");
    };
    let _relay = Relay::at(address, &direct).await;
    assert_eq!(stream.next().await.data["tip"], at(1, "main"));
    // Before any event it says where it begins: who reconnects by then misses nothing.
    let begun = held.block().await.unwrap();
    let begun = begun.strip_prefix("id: ").and_then(|rest| rest.strip_suffix("\n: following")).expect(&begun);
    assert!([id(1, 0, "main"), id(2, 1, "main")].contains(&begun.to_owned()), "{begun}");
    // The held stream follows the chain from the last state on that was read, or that is read once the store can be.
    for index in 2.. {
        let parent = format!("main-{}", index - 1);
        append(&*other, (index - 1, &parent), vec![synthetic_block(index, "main", "main")]).await;
        if let Ok(event) = tokio::time::timeout(std::time::Duration::from_millis(500), held.next()).await {
            assert_eq!(event.event, "extended");
            assert!((1..=index).contains(&event.data["to"].as_u64().unwrap()), "{event:?}");
            break;
        }
        assert!(index < 60, "nothing comes");
    }
}

#[tokio::test]
async fn an_id_that_a_browser_keeps_is_never_refused() {
    let listeners = listeners(Backend::Sqlite, 1).await;
    for last in ["x", "18446744073709551616", "9223372036854775807", "7-0000000000000000"] {
        let (mut stream, _) = Stream::open(&listeners.url(), "?after=1", Some(last)).await;
        let event = stream.next().await;
        assert_eq!((event.event.as_str(), &event.data["tip"]), ("reset", &at(0, "main")), "{last}");
    }
}

#[tokio::test]
async fn an_invalid_parameter_is_named() {
    let listeners = listeners(Backend::Sqlite, 1).await;
    for (query, last, code, named) in [
        ("?after=now", None, "invalid_parameter", "after"),
        ("?after=-1", None, "invalid_parameter", "after: expected the id of an event"),
        ("?after=1-9708332BE0E95EFC", None, "invalid_parameter", "after"),
        ("?after=now", Some("1"), "invalid_parameter", "after"),
        ("?after=1&after=1", None, "invalid_parameter", "after"),
        ("?since=1", None, "unknown_parameter", "since"),
        (
            "?topics=chain,tips",
            None,
            "invalid_parameter",
            "topics: \"tips\" is no topic: expected chain, sync or peers",
        ),
        ("?topics=chain&topics=x", None, "invalid_parameter", "topics: \"x\" is no topic"),
        ("?topics=", None, "invalid_parameter", "topics: \"\" is no topic"),
        ("?include=hashes", None, "invalid_parameter", "include: expected blocks"),
        ("?include=blocks&numbers=hex", None, "invalid_parameter", "numbers: expected number or string"),
    ] {
        let mut request = listeners.public(Method::GET, &format!("/events{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let refused = send(request).await;
        assert_eq!(refused.status(), 400, "{query} {last:?}");
        let body: Value = refused.json().await.unwrap();
        assert_eq!(body["errors"]["code"], code, "{query} {last:?}");
        assert!(body["errors"]["detail"].as_str().unwrap().contains(named), "{body}");
    }
}

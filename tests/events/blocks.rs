//! Events with their blocks, and what a reorganisation makes void.

use modal_gateway::{chain::Level, store::MAX_LISTED_HASHES};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    stream::{SentEvent, Stream, append, at, blocks, listeners, reorganise},
    support::{
        gateway::{Backend, TestStore, synthetic},
        listeners::{Listeners, send},
    },
};

/// `data` of a read.
async fn data(listeners: &Listeners, path: &str) -> Value {
    let response = send(listeners.public(Method::GET, path)).await;
    assert_eq!(response.status(), 200, "{path}");
    response.json::<Value>().await.unwrap()["data"].take()
}

/// The blocks with these hashes, as `/data/miner_block/get` has them.
async fn got(listeners: &Listeners, hashes: &[&str], numbers: &str) -> Value {
    let mut blocks = Vec::new();
    for hash in hashes {
        blocks.push(data(listeners, &format!("/data/miner_block/get?hash={hash}&numbers={numbers}")).await);
    }
    json!(blocks)
}

#[rstest]
#[tokio::test]
async fn events_carry_their_blocks(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let listeners = listeners(backend, 3).await;
    let store = &*listeners.store;
    let (mut plain, _) = Stream::open(&listeners.url(), "", None).await;
    let (mut live, _) = Stream::open(&listeners.url(), "?include=blocks", None).await;
    append(store, (2, "main-2"), blocks("main", "main", 3, 4)).await;
    let extended = live.next().await;
    assert_eq!(extended.data["blocks"]["added"], got(&listeners, &["main-3", "main-4"], "number").await);
    assert_eq!((&extended.data["blocks"]["removed"], &extended.data["blocks"]["fetch"]), (&json!([]), &Value::Null));
    assert_eq!(plain.next().await.data.get("blocks"), None);
    reorganise(store, (3, "main"), blocks("side", "main", 4, 5)).await;
    let reorganised = live.next().await.data["blocks"].take();
    assert_eq!(reorganised["added"], got(&listeners, &["side-4", "side-5"], "number").await);
    assert_eq!(reorganised["removed"], got(&listeners, &["main-4"], "number").await);
    assert_eq!(reorganised["removed"][0]["is_orphaned"], true);
    reorganise(store, (2, "main"), vec![]).await;
    let rewound = live.next().await.data;
    assert_eq!((&rewound["adopted"], &rewound["new_tip"], &rewound["depth"]), (&json!(0), &at(2, "main"), &json!(3)));
    assert_eq!(rewound["blocks"]["removed"], got(&listeners, &["main-3", "side-4", "side-5"], "number").await);
    assert_eq!(rewound["blocks"]["added"], json!([]));

    // Who comes later gets the blocks of each event, whatever became of them.
    let (mut later, _) = Stream::open(&listeners.url(), "?after=1&include=blocks&numbers=string", None).await;
    let SentEvent { id, data, .. } = later.next().await;
    assert_eq!(id, extended.id);
    assert_eq!(data["blocks"]["added"], got(&listeners, &["main-3", "main-4"], "string").await);
    assert_eq!(data["blocks"]["added"][0]["miner_number"], "3");
    assert_eq!(later.next().await.data["blocks"]["removed"], got(&listeners, &["main-4"], "string").await);
}

#[rstest]
#[tokio::test]
async fn blocks_that_are_too_many_are_left_out(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let listeners = listeners(backend, 1).await;
    let (mut stream, _) = Stream::open(&listeners.url(), "?include=blocks", None).await;
    let most = MAX_LISTED_HASHES as u64;
    append(&*listeners.store, (0, "main-0"), blocks("main", "main", 1, 100)).await;
    append(&*listeners.store, (100, "main-100"), blocks("main", "main", 101, 900)).await;
    append(&*listeners.store, (900, "main-900"), blocks("main", "main", 901, 901 + most)).await;
    let told = [stream.next().await.data, stream.next().await.data, stream.next().await.data];
    let listed = told.each_ref().map(|event| event["blocks"]["added"].as_array().map(Vec::len));
    assert_eq!(listed, [Some(100), None, None]);
    let truncated = told.each_ref().map(|event| event["truncated"] == true);
    assert_eq!((truncated, told[2]["added"].as_array().unwrap().len()), ([false, false, true], MAX_LISTED_HASHES));
    for (event, first, count) in [(&told[1], 101, 800), (&told[2], 901, 1000)] {
        let fetched = data(&listeners, &format!("/{}", event["blocks"]["fetch"].as_str().unwrap())).await;
        let found = fetched["blocks"].as_array().unwrap();
        assert_eq!((&found[0]["index"], found.len()), (&json!(first), count));
    }
    // The client knows what it is about to read is no longer the chain.
    reorganise(&*listeners.store, (10, "main"), blocks("side", "main", 11, 12)).await;
    let gone = send(listeners.public(Method::GET, &format!("/{}", told[1]["blocks"]["fetch"].as_str().unwrap()))).await;
    assert_eq!(gone.status(), 409);
    let reorganised = stream.next().await.data;
    assert_eq!((&reorganised["truncated"], &reorganised["orphaned"]), (&json!(true), &json!(891 + most)));
    assert_eq!((&reorganised["blocks"]["added"], &reorganised["blocks"]["removed"]), (&Value::Null, &Value::Null));
    let fetched = data(&listeners, &format!("/{}", reorganised["blocks"]["fetch"].as_str().unwrap())).await;
    assert_eq!((&fetched["blocks"][0]["hash"], &fetched["count"]), (&json!("side-11"), &json!(2)));
}

#[tokio::test]
async fn events_of_earlier_releases_have_null_for_what_they_lack() {
    let listeners = listeners(Backend::Sqlite, 3).await;
    append(&*listeners.store, (2, "main-2"), blocks("main", "main", 3, 4)).await;
    reorganise(&*listeners.store, (3, "main"), blocks("side", "main", 4, 5)).await;
    let extended = json!({"from": 3, "to": 4, "tip": at(4, "main")});
    let reorganised = json!({
        "ancestor": at(3, "main"), "old_tip": at(4, "main"), "new_tip": at(5, "side"), "orphaned": 1, "adopted": 2,
        "reason": "heavier",
    });
    for (id, document) in [(2, extended), (3, reorganised)] {
        listeners.test_store.execute(&format!("UPDATE event SET document = '{document}' WHERE id = {id}")).await;
    }
    let (mut stream, _) = Stream::open(&listeners.url(), "?after=1&include=blocks", None).await;
    let old = stream.next().await.data;
    assert_eq!((&old["from"], &old["to"], &old["tip"]), (&json!(3), &json!(4), &at(4, "main")));
    assert_eq!((&old["previous_hash"], &old["added"], &old["truncated"]), (&Value::Null, &Value::Null, &json!(false)));
    assert_eq!(old["blocks"]["added"], Value::Null);
    let old = stream.next().await.data;
    assert_eq!((&old["removed"], &old["added"], &old["depth"]), (&Value::Null, &Value::Null, &json!(1)));
    let fetched = data(&listeners, &format!("/{}", old["blocks"]["fetch"].as_str().unwrap())).await;
    assert_eq!(fetched["blocks"], got(&listeners, &["side-4", "side-5"], "number").await);
}

#[rstest]
#[case::inside_an_epoch(119, 85, None)]
#[case::across_the_end_of_one(122, 119, Some((2, 2)))]
#[case::its_last_block(120, 119, Some((2, 2)))]
#[case::several(125, 30, Some((0, 2)))]
#[case::nothing_complete(39, 5, None)]
#[tokio::test]
async fn a_reorganisation_names_the_epochs_whose_nominees_are_void(
    #[case] tip: u64,
    #[case] ancestor: u64,
    #[case] epochs: Option<(u64, u64)>,
) {
    let test_store = TestStore::create(Backend::Sqlite).await;
    test_store.append(synthetic(tip + 1), Level::None).await;
    let url = test_store.url.clone();
    let listeners = Listeners::open(test_store, &url, true).await;
    let (mut stream, _) = Stream::open(&listeners.url(), "", None).await;
    reorganise(&*listeners.store, (ancestor, "main"), blocks("side", "main", ancestor + 1, tip + 1)).await;
    let expected = epochs.map(|(first, last)| json!({"first": first, "last": last}));
    assert_eq!(stream.next().await.data["epochs"], expected.unwrap_or_default());
}

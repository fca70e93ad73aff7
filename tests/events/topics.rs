//! What streams carry besides the chain.

use std::time::{Duration, Instant};

use modal_gateway::{
    chain::Level,
    source::job::{SyncState, SyncStatus},
};
use serde_json::{Value, json};

use crate::{
    stream::{Stream, append, blocks, id, listeners},
    support::{
        clock::judge,
        gateway::{Backend, TestGateway, TestStore, synthetic},
        hole::Hole,
        listeners::Listeners,
        relay::Relay,
    },
};

#[tokio::test]
async fn the_sync_is_told_as_it_is_and_as_it_changes() {
    let listeners = listeners(Backend::Sqlite, 1).await;
    let store = &*listeners.store;
    let syncing =
        SyncStatus { state: SyncState::Syncing, useful_peers: 2, checked_at: Some(1), ..SyncStatus::default() };
    syncing.write(store).await.unwrap();
    let (mut stream, first) = Stream::begin(&listeners.url(), "?topics=sync", None).await;
    assert_eq!(first, ": following", "no id, with which a browser would come back");
    let mut told = stream.next().await;
    assert!(told.data["at"].take().is_u64());
    let data = json!({"at": null, "state": "syncing", "reason": null, "useful_peers": 2, "job": null, "phase": null});
    assert_eq!((told.id.as_str(), told.event.as_str(), &told.data), ("", "sync", &data));

    let job = store.create_job(r#"{"mode":"delta"}"#).await.unwrap();
    SyncStatus { job: Some(job), ..syncing.clone() }.write(store).await.unwrap();
    let told = stream.next().await.data;
    assert_eq!((&told["job"], &told["phase"]), (&json!(job), &json!("queued")));
    store.update_job(job, "blocks", r#"{"phase":"blocks"}"#).await.unwrap();
    assert_eq!(stream.next().await.data["phase"], "blocks");
    // The time of the last look is no change, and how long it takes neither: the next event is about the state.
    SyncStatus { job: Some(job), checked_at: Some(2), ..syncing.clone() }.write(store).await.unwrap();
    SyncStatus::stalled("nobody answers for 7 s").write(store).await.unwrap();
    let told = stream.next().await.data;
    assert_eq!((&told["state"], &told["reason"]), (&json!("stalled"), &json!("nobody answers for 7 s")));
    SyncStatus::stalled("nobody answers for 8 s").write(store).await.unwrap();

    // Who comes later gets the state first.
    let (mut later, _) = Stream::begin(&listeners.url(), "?topics=sync", None).await;
    assert_eq!(later.next().await.data["state"], "stalled");
    SyncStatus::stalled("no peer").write(store).await.unwrap();
    assert_eq!(stream.next().await.data["reason"], "no peer");
}

#[tokio::test]
async fn one_stream_has_several_topics_and_only_the_chain_has_ids() {
    let listeners = listeners(Backend::Sqlite, 1).await;
    SyncStatus { state: SyncState::Synced, ..SyncStatus::default() }.write(&*listeners.store).await.unwrap();
    for query in
        ["?topics=chain,sync,peers", "?topics=sync&topics=chain&topics=peers", "?topics=peers%2Csync&topics=chain"]
    {
        let (mut stream, begin) = Stream::open(&listeners.url(), &format!("{query}&after=0"), None).await;
        assert_eq!(begin, "0");
        let mut told = [stream.next().await, stream.next().await, stream.next().await];
        told.sort_by(|a, b| a.event.cmp(&b.event));
        let told = told.map(|event| (event.event, event.id));
        let [extended, peers, sync] = ["extended", "peers", "sync"].map(str::to_owned);
        assert_eq!(told, [(extended, id(1, 0, "main")), (peers, String::new()), (sync, String::new())], "{query}");
    }
    // Without the chain nothing is told of it.
    let (mut peers, _) = Stream::begin(&listeners.url(), "?topics=peers", Some("0")).await;
    append(&*listeners.store, (0, "main-0"), blocks("main", "main", 1, 1)).await;
    let event = peers.next().await;
    assert_eq!((event.event.as_str(), &event.data["peers"], &event.data["count"]), ("peers", &json!([]), &json!(0)));
}

#[tokio::test]
async fn peers_that_connect_and_leave_are_told() {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(1), Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    let (mut stream, _) = Stream::begin(&gateway.base, "?topics=peers", None).await;
    assert_eq!(stream.next().await.data["count"], 0);
    gateway.ask(r#"{"path":"/ping","data":1}"#).await;
    let came = stream.next().await;
    assert_eq!((came.id.as_str(), came.event.as_str()), ("", "peer"));
    assert_eq!((&came.data["peer"]["connected"], &came.data["peer"]["chain"]), (&json!(true), &Value::Null));
    let id = came.data["peer"]["peer_id"].as_str().unwrap();
    let (mut later, _) = Stream::begin(&gateway.base, "?topics=peers", None).await;
    let state = later.next().await.data;
    assert_eq!((&state["peers"][0]["peer_id"], &state["count"]), (&json!(id), &json!(1)));
    let removed =
        gateway.request(|client, _| client.delete(format!("{}/peers/{id}?ban_seconds=60", gateway.admin))).await;
    assert_eq!(removed.status, 200);
    let left = stream.next().await.data;
    assert_eq!((&left["peer"]["peer_id"], &left["peer"]["connected"]), (&json!(id), &json!(false)));
    assert_eq!(later.next().await.event, "peer");
}

#[tokio::test]
async fn the_first_bytes_come_within_a_second_while_the_database_hangs() {
    let test_store = TestStore::create(Backend::Postgres).await;
    test_store.append(synthetic(1), Level::None).await;
    let relay = Relay::to(&test_store.url).await;
    let server = relay.url.split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    let hole = Hole::before(server.parse().unwrap()).await;
    let url = relay.url.replace(&server, &hole.address.to_string());
    let listeners = Listeners::open(test_store, &url, true).await;
    hole.open();
    let asked = Instant::now();
    let (mut stream, first) = Stream::begin(&listeners.url(), "", None).await;
    assert_eq!(first, ": the store is unavailable");
    let took = asked.elapsed();
    judge(took < Duration::from_secs(1), format_args!("{took:?} until the first bytes"));
    hole.close();
    // Once it can read the store it says where it begins, and misses nothing from there on.
    assert_eq!(stream.block().await, Some(format!("id: {}\n: following", id(1, 0, "main"))));
    let other = listeners.test_store.open().await;
    append(&*other, (0, "main-0"), blocks("main", "main", 1, 1)).await;
    let event = stream.next().await;
    assert_eq!((event.event.as_str(), &event.data["to"]), ("extended", &json!(1)));
}

//! Events of the chain, recorded in the transactions that caused them.

use serde_json::{Value, json};

use super::*;

async fn recorded(store: &Arc<dyn BlockStore>, after: u64) -> Vec<(u64, EventKind, Value)> {
    let events = store.events(after, 1000).await.unwrap().into_iter();
    events.map(|event| (event.id, event.kind, serde_json::from_str(&event.document).unwrap())).collect()
}

#[rstest]
#[tokio::test]
async fn every_change_of_the_chain_is_recorded_once(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(3)).await;
    let mut writer = store.write().await.unwrap();
    writer.append(verified(branch("block_hash", "block_hash_002", 3, 5))).await.unwrap();
    writer.append(verified(branch("block_hash", "block_hash_004", 5, 10))).await.unwrap();
    writer.commit().await.unwrap();
    let at = |index: u64, hash: &str| json!({"index": index, "hash": hash});
    let extended = |from: u64, to: u64, hash: &str| json!({"from": from, "to": to, "tip": at(to, hash)});
    let first = [
        (1, EventKind::Extended, extended(0, 2, "block_hash_002")),
        (2, EventKind::Extended, extended(3, 9, "block_hash_009")),
    ];
    assert_eq!(recorded(&store, 0).await, first);

    // Not recorded: what readers of the chain don't see, and what is beside it.
    let fork = Position { index: 4, hash: "block_hash_004".into() };
    let mut writer = store.write().await.unwrap();
    writer.stage(Some(&fork), 1, verified(branch("new", "block_hash_004", 5, 12))).await.unwrap();
    writer.commit().await.unwrap();
    let mut writer = store.write().await.unwrap();
    writer.add_orphans(&branch("side", "block_hash_001", 2, 4), Level::None).await.unwrap();
    assert_eq!(writer.commit().await.unwrap().version, 3);
    let mut writer = store.write().await.unwrap();
    writer.adopt_stage("never committed", 1).await.unwrap();
    drop(writer);
    assert_eq!(recorded(&store, 2).await, []);

    let mut writer = store.write().await.unwrap();
    writer.adopt_stage("heavier", 77).await.unwrap();
    writer.append(verified(branch("more", "new_011", 12, 13))).await.unwrap();
    writer.commit().await.unwrap();
    let mut writer = store.write().await.unwrap();
    writer.rewind(Some(11), "first", None, 1).await.unwrap();
    writer.rewind(None, "all of it", None, 1).await.unwrap();
    writer.commit().await.unwrap();
    let switched = json!({
        "ancestor": at(4, "block_hash_004"), "old_tip": at(9, "block_hash_009"), "new_tip": at(12, "more_012"),
        "orphaned": 5, "adopted": 8, "reason": "heavier",
    });
    let emptied = json!({
        "ancestor": null, "old_tip": at(12, "more_012"), "new_tip": null,
        "orphaned": 13, "adopted": 0, "reason": "all of it",
    });
    let last = [(4, EventKind::Reorganised, switched), (5, EventKind::Reorganised, emptied)];
    assert_eq!(recorded(&store, 2).await, last);

    let events = store.events(1, 3).await.unwrap();
    assert_eq!(events.iter().map(|event| event.id).collect::<Vec<_>>(), [2, 4, 5]);
    let tip = |index, hash: &str| Some(Position { index, hash: hash.into() });
    assert_eq!((&events[0].tip, &events[1].tip), (&tip(9, "block_hash_009"), &tip(12, "more_012")));
    assert_eq!(events[2].tip, None);
    assert!(events[2].at > 1_700_000_000, "{}", events[2].at);
    assert_eq!(store.events(0, 1).await.unwrap()[0].id, 1);
    assert_eq!(store.events(u64::MAX, 9).await.unwrap(), []);
}

#[rstest]
#[tokio::test]
async fn the_last_event_up_to_a_version_has_its_tip(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(3)).await;
    assert_eq!(store.event_at(0).await.unwrap(), None);
    let mut states = vec![store.state().await.unwrap()];
    // Three versions without an event: more is verified, an orphan comes, and what was appended is taken back at once.
    let mut writer = store.write().await.unwrap();
    writer.raise(0, 2, Level::Linked).await.unwrap();
    states.push(writer.commit().await.unwrap());
    let mut writer = store.write().await.unwrap();
    writer.add_orphans(&branch("side", "block_hash_001", 2, 3), Level::None).await.unwrap();
    states.push(writer.commit().await.unwrap());
    let mut writer = store.write().await.unwrap();
    writer.append(verified(branch("a", "block_hash_002", 3, 5))).await.unwrap();
    writer.rewind(Some(2), "taken back", None, 1).await.unwrap();
    states.push(writer.commit().await.unwrap());
    states.push(append(&store, branch("b", "block_hash_002", 3, 5)).await);
    let mut writer = store.write().await.unwrap();
    writer.rewind(None, "all of it", None, 1).await.unwrap();
    states.push(writer.commit().await.unwrap());
    for (state, event) in states.iter().zip([1, 1, 1, 1, 5, 6]) {
        let last = store.event_at(state.version).await.unwrap().unwrap();
        assert_eq!((last.id, last.tip), (event, state.tip.as_ref().map(Position::from)), "{state:?}");
    }
    assert_eq!(states.iter().map(|state| state.version).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(store.event_at(u64::MAX).await.unwrap().unwrap().id, 6);
}

#[rstest]
#[tokio::test]
async fn old_events_are_deleted(#[values(Sqlite, Postgres)] kind: Kind) {
    let (test, store) = holding(kind, plain(1)).await;
    // Every other version has none, as where levels were raised.
    let fill = format!(
        "INSERT INTO event (id, at, kind, document) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL \
         SELECT i + 1 FROM n WHERE i < {KEPT_EVENTS}) SELECT 2 * i, 0, 'extended', '{{}}' FROM n"
    );
    test.execute(&fill).await.unwrap();
    let version = 2 * KEPT_EVENTS;
    test.execute(&format!("UPDATE chain SET version = {version}")).await.unwrap();
    // Among so many versions is one with which they are deleted.
    const MORE: u64 = 64;
    for index in 1..=MORE {
        append(&store, branch("block_hash", &format!("block_hash_{:03}", index - 1), index, index + 1)).await;
    }
    let ids: Vec<_> = store.events(0, u64::MAX).await.unwrap().into_iter().map(|event| event.id).collect();
    let all: Vec<_> = (1..=KEPT_EVENTS).map(|i| 2 * i).chain(version + 1..=version + MORE).collect();
    assert!(all.ends_with(&ids), "the oldest are gone, and no others");
    assert!((KEPT_EVENTS..KEPT_EVENTS + MORE).contains(&(ids.len() as u64)), "{} are kept", ids.len());
    assert_eq!(store.event_at(ids[0] - 1).await.unwrap(), None);
}

//! Events of the chain, recorded in the transactions that caused them.

use serde_json::{Value, json};

use super::*;

async fn recorded(store: &Arc<dyn BlockStore>, after: u64) -> Vec<(u64, EventKind, Value)> {
    let events = store.events(after, 1000).await.unwrap().into_iter();
    events.map(|event| (event.id, event.kind, serde_json::from_str(&event.document).unwrap())).collect()
}

/// The hashes that [`branch`] gives blocks.
fn hashes(name: &str, indexes: impl Iterator<Item = u64>) -> Vec<String> {
    indexes.map(|index| format!("{name}_{index:03}")).collect()
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
    let extended = |from: u64, to: u64, hash: &str, previous: Value| {
        let added = hashes("block_hash", from..=to);
        json!({"from": from, "to": to, "tip": at(to, hash), "previous_hash": previous, "added": added})
    };
    let first = [
        (1, EventKind::Extended, extended(0, 2, "block_hash_002", Value::Null)),
        (2, EventKind::Extended, extended(3, 9, "block_hash_009", json!("block_hash_002"))),
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
    let added = [hashes("new", 5..12), hashes("more", 12..13)].concat();
    let switched = json!({
        "ancestor": at(4, "block_hash_004"), "old_tip": at(9, "block_hash_009"), "new_tip": at(12, "more_012"),
        "orphaned": 5, "adopted": 8, "reason": "heavier",
        "removed": hashes("block_hash", 5..10), "added": added,
    });
    let removed = [&hashes("block_hash", 0..5)[..], &added].concat();
    let emptied = json!({
        "ancestor": null, "old_tip": at(12, "more_012"), "new_tip": null,
        "orphaned": 13, "adopted": 0, "reason": "all of it", "removed": removed, "added": [],
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

#[rstest]
#[tokio::test]
async fn an_event_lists_what_its_transaction_changed_in_all(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(5)).await;
    let append = async |writer: &mut Box<dyn store::ChainWriter>, blocks| {
        writer.append(verified(blocks)).await.unwrap();
    };
    // What is taken back before the commit never was on the chain.
    let mut writer = store.write().await.unwrap();
    append(&mut writer, branch("a", "block_hash_004", 5, 8)).await;
    writer.rewind(Some(5), "taken back", None, 1).await.unwrap();
    append(&mut writer, branch("b", "a_005", 6, 7)).await;
    writer.commit().await.unwrap();
    let mut writer = store.write().await.unwrap();
    append(&mut writer, branch("c", "b_006", 7, 9)).await;
    writer.rewind(Some(4), "first", None, 1).await.unwrap();
    append(&mut writer, branch("d", "block_hash_004", 5, 6)).await;
    writer.rewind(Some(3), "second", None, 1).await.unwrap();
    append(&mut writer, branch("e", "block_hash_003", 4, 6)).await;
    writer.rewind(Some(4), "third", None, 1).await.unwrap();
    append(&mut writer, branch("f", "e_004", 5, 7)).await;
    writer.commit().await.unwrap();
    let told = recorded(&store, 1).await;
    let [(_, EventKind::Extended, extended), (_, EventKind::Reorganised, reorganised)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(
        (&extended["added"], &extended["from"], &extended["to"]),
        (&json!(["a_005", "b_006"]), &json!(5), &json!(6))
    );
    assert_eq!(reorganised["removed"], json!(["block_hash_004", "a_005", "b_006"]));
    assert_eq!(reorganised["added"], json!(["e_004", "f_005", "f_006"]));
    let counts = (&reorganised["orphaned"], &reorganised["adopted"], &reorganised["ancestor"]["index"]);
    assert_eq!(counts, (&json!(3), &json!(3), &json!(3)));
}

#[rstest]
#[tokio::test]
async fn the_lists_of_an_event_are_bounded(#[values(Sqlite, Postgres)] kind: Kind) {
    let most = MAX_LISTED_HASHES as u64;
    let (_database, store) = holding(kind, plain(most + 300)).await;
    let mut writer = store.write().await.unwrap();
    writer.rewind(Some(9), "short", None, 1).await.unwrap();
    writer.append(verified(branch("new", "block_hash_009", 10, most + 500))).await.unwrap();
    writer.commit().await.unwrap();
    // Hashes of an unverified chain may be long: at most so many characters are listed.
    let long = "x".repeat(1000);
    let mut writer = store.write().await.unwrap();
    writer.rewind(Some(9), "long", None, 1).await.unwrap();
    writer.append(verified(branch(&long, "block_hash_009", 10, 110))).await.unwrap();
    writer.commit().await.unwrap();
    let mut writer = store.write().await.unwrap();
    writer.rewind(Some(9), "back", None, 1).await.unwrap();
    writer.commit().await.unwrap();

    let told = recorded(&store, 0).await;
    let [(_, _, first), (_, _, short), (_, _, long_added), (_, _, long_removed)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(first["added"], json!(hashes("block_hash", 0..most)));
    assert_eq!((&short["orphaned"], &short["adopted"]), (&json!(most + 290), &json!(most + 490)));
    assert_eq!(short["removed"], json!(hashes("block_hash", 10..most + 10)));
    assert_eq!(short["added"], json!(hashes("new", 10..most + 10)));
    let fits = 64 * most / 1004;
    assert_eq!(long_added["removed"], json!(hashes("new", 10..most + 10)));
    assert_eq!(long_added["added"], json!(hashes(&long, 10..10 + fits)));
    assert_eq!((&long_removed["removed"], &long_removed["added"]), (&long_added["added"], &json!([])));
}

#[rstest]
#[tokio::test]
async fn events_are_read_at_most_so_many_bytes_at_once(#[values(Sqlite, Postgres)] kind: Kind) {
    let (test, store) = holding(kind, plain(1)).await;
    let text = "x".repeat(MAX_EVENTS_LENGTH as usize / 2);
    for id in 2..=6 {
        let values = format!("({id}, 0, 'extended', '[\"{text}\"]')");
        test.execute(&format!("INSERT INTO event (id, at, kind, document) VALUES {values}")).await.unwrap();
    }
    let ids = async |after, limit| -> Vec<u64> {
        store.events(after, limit).await.unwrap().into_iter().map(|event| event.id).collect()
    };
    assert_eq!(ids(1, 100).await, [2, 3], "the second one makes it too long");
    assert_eq!(ids(3, 1).await, [4]);
    assert_eq!(ids(5, 100).await, [6]);
    let long = "x".repeat(2 * MAX_EVENTS_LENGTH as usize);
    test.execute(&format!("UPDATE event SET document = '[\"{long}\"]' WHERE id = 4")).await.unwrap();
    assert_eq!(ids(3, 100).await, [4], "one is always read");
}

#[rstest]
#[tokio::test]
async fn documents_are_read_by_hash_all_or_none(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(5)).await;
    let mut writer = store.write().await.unwrap();
    writer.rewind(Some(3), "back", None, 1).await.unwrap();
    writer.commit().await.unwrap();
    let hashes = |indexes: &[u64]| hashes("block_hash", indexes.iter().copied());
    let found = store.documents(&hashes(&[2, 4]), 10_000).await.unwrap().unwrap();
    for (hash, document) in &found {
        assert_eq!(store.get(hash).await.unwrap().unwrap().json, *document);
    }
    assert_eq!(found.len(), 2);
    let length = found.values().map(String::len).sum::<usize>() as u64;
    assert_eq!(store.documents(&hashes(&[2, 4]), length).await.unwrap(), Some(found));
    assert_eq!(store.documents(&hashes(&[2, 4]), length - 1).await.unwrap(), None, "too long");
    assert_eq!(store.documents(&hashes(&[2, 5]), 10_000).await.unwrap(), None, "one is unknown");
    assert_eq!(store.documents(&["a\0b".into()], 10_000).await.unwrap(), None);
    assert_eq!(store.documents(&[], 10_000).await.unwrap(), Some(HashMap::new()));
}

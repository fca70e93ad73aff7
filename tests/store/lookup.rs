//! Lookups: blocks by nominee, orphans, hashes by their beginning, reorganisations.

use super::*;

fn nominating(nominees: &[&str]) -> Vec<MinerBlock> {
    let blocks = plain(nominees.len() as u64);
    let named = blocks.into_iter().zip(nominees);
    named.map(|(block, nominee)| MinerBlock { nominated_peer_id: nominee.to_string(), ..block }).collect()
}

#[rstest]
#[tokio::test]
async fn blocks_are_found_by_any_nominee(#[values(Sqlite, Postgres)] kind: Kind) {
    let long = "x".repeat(64);
    let longer = format!("{long}, and more");
    let peer = "12D3KooWPBRNZsyrRYEiJAQT4c6eGYvCkDYvVRNPCJEMVhWA7Ctn";
    let nominees = ["", peer, "a\"b", "a\0b", "ä", &long, &longer, peer, "a\"c", "\\", "\"", peer, &longer];
    let (_database, store) = holding(kind, nominating(&nominees)).await;
    for nominee in nominees {
        let expected: Vec<u64> =
            (0..nominees.len()).rev().filter(|at| nominees[*at] == nominee).map(|at| at as u64).collect();
        let run = store.by_nominee(nominee, u64::MAX, 100).await.unwrap();
        let found: Vec<u64> = run.blocks.iter().map(|block| block.index).collect();
        assert_eq!((found.as_slice(), run.more_below), (expected.as_slice(), None), "{nominee:?}");
        assert_eq!(store.nominations(nominee).await.unwrap(), expected.len() as u64, "{nominee:?}");
    }
    for nominee in ["nobody", "12D3KooW", "a", "\0"] {
        assert!(store.by_nominee(nominee, u64::MAX, 100).await.unwrap().blocks.is_empty(), "{nominee:?}");
        assert_eq!(store.nominations(nominee).await.unwrap(), 0);
    }
    let page = store.by_nominee(peer, u64::MAX, 2).await.unwrap();
    assert_eq!((page.blocks[1].index, page.more_below), (7, Some(7)));
    let last = store.by_nominee(peer, 7, 2).await.unwrap();
    assert_eq!((last.blocks.len(), last.blocks[0].index, last.more_below), (1, 1, None));
    // Two nominees share the first 64 characters: a page may be shorter than what was looked at.
    let shared = store.by_nominee(&long, u64::MAX, 2).await.unwrap();
    assert_eq!((shared.blocks.len(), shared.more_below), (0, Some(6)));
}

#[rstest]
#[tokio::test]
async fn orphans_come_in_pages_and_reorganisations_are_listed(#[values(Sqlite, Postgres)] kind: Kind) {
    let (_database, store) = holding(kind, plain(10)).await;
    assert!(store.orphans(u64::MAX, "", 10).await.unwrap().blocks.is_empty());
    assert!(store.reorganisations(u64::MAX, 10).await.unwrap().is_empty());
    for (name, keep) in [("one", 7), ("two", 6)] {
        let mut writer = store.write().await.unwrap();
        let parent = writer.canonical_at(keep).await.unwrap().unwrap().0;
        writer.rewind(Some(keep), "heavier chain", None, 5).await.unwrap();
        writer.append(verified(branch(name, &parent, keep + 1, keep + 4))).await.unwrap();
        writer.commit().await.unwrap();
    }
    // Above all that a chain can have: no page could follow it.
    let beyond = MinerBlock { index: 1 << 63, ..branch("beyond", "nowhere", 1, 2).remove(0) };
    let mut writer = store.write().await.unwrap();
    writer.add_orphans(&[beyond], Level::None).await.unwrap();
    writer.commit().await.unwrap();
    let mut pages = Vec::new();
    let (mut from, mut after) = (u64::MAX, String::new());
    loop {
        let run = store.orphans(from, &after, 2).await.unwrap();
        assert!(run.blocks.iter().all(|block| block.is_orphaned));
        pages.extend(run.blocks.iter().map(|block| block.hash.clone()));
        match run.more_below.zip(run.blocks.last()) {
            Some((_, last)) => (from, after) = (last.index, last.hash.clone()),
            None => break,
        }
    }
    assert_eq!(pages, ["one_010", "block_hash_009", "one_009", "block_hash_008", "one_008", "block_hash_007"]);

    let reorganisations = store.reorganisations(u64::MAX, 10).await.unwrap();
    assert_eq!(reorganisations.iter().map(|event| event.id).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(store.reorganisations(3, 1).await.unwrap()[0].id, 2);
    assert!(store.reorganisations(2, 1).await.unwrap().is_empty());
}

#[rstest]
#[tokio::test]
async fn hashes_are_found_by_their_beginning(#[values(Sqlite, Postgres)] kind: Kind) {
    let chain = fixture();
    let (_database, store) = holding(kind, chain.clone()).await;
    for block in &chain[..5] {
        let found = store.with_prefix(&block.hash[..8], 10).await.unwrap();
        assert_eq!(found.iter().map(|entry| &entry.hash).collect::<Vec<_>>(), [&block.hash]);
        assert_eq!(store.with_prefix(&block.hash, 10).await.unwrap().len(), 1);
    }
    let zeros = store.with_prefix("00", 7).await.unwrap();
    assert!(zeros.len() == 7 && zeros.is_sorted_by_key(|entry| &entry.hash));
    assert!(store.with_prefix("ffffffff", 10).await.unwrap().is_empty());
}

#[rstest]
#[tokio::test]
async fn a_store_of_the_schema_before_gets_the_lookups(#[values(Sqlite, Postgres)] kind: Kind) {
    let (database, store) = holding(kind, fixture()).await;
    store.close().await;
    database.before_migration(4).await;
    let store = database.open().await;
    let nominee = &fixture()[35].nominated_peer_id;
    let expected = fixture().iter().filter(|block| block.nominated_peer_id == *nominee).count();
    assert_eq!(store.by_nominee(nominee, u64::MAX, 100).await.unwrap().blocks.len(), expected);
}

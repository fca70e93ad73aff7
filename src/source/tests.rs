//! Answers from a store that changes under the source: another process writes to it, or a standby that is behind takes
//! over.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::PeerId;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;

use super::{
    events::EventReader,
    local::{CachedRead, LocalQuery, MAX_AGE},
    store_answers, *,
};
use crate::{
    chain::{ChainEnd, Enforcement, Level, MinerBlock, Network, PowOptions, Verifier},
    protocol::{Code, Failure, Query},
    store::{self, BlockStore, ChainState, OpenOptions, Tip},
};

/// A store with the first three blocks of a chain, and its URL.
async fn three_blocks() -> (TempDir, String, Arc<dyn BlockStore>) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/store.db", folder.path().display());
    let store = store::open(&url, &OpenOptions::default()).await.unwrap();
    append(&*store, 0..3).await;
    (folder, url, store)
}

/// Appends the blocks with these indexes.
async fn append(store: &dyn BlockStore, indexes: Range<u64>) -> ChainState {
    let hash = |index: u64| format!("main-{index}");
    let parent = indexes.start.checked_sub(1).map(|index| {
        let parent = MinerBlock { index, hash: hash(index), ..MinerBlock::default() };
        ChainEnd::new(&parent, &parent)
    });
    let block = |index: u64| MinerBlock {
        hash: hash(index),
        index,
        previous_hash: index.checked_sub(1).map_or_else(|| "0".into(), hash),
        target_difficulty: 1,
        actualized_difficulty: 1,
        is_canonical: true,
        ..MinerBlock::default()
    };
    let network = Network { genesis_hash: None, difficulty_schedule: Enforcement::Off, ..Network::devnet() };
    let verifier = Verifier::new(&network, Level::None, PowOptions::default()).unwrap();
    let mut writer = store.write().await.unwrap();
    writer.append(verifier.verify(parent.as_ref(), indexes.map(block).collect()).unwrap()).await.unwrap();
    writer.commit().await.unwrap()
}

/// Runs SQL on the database directly.
async fn execute(url: &str, sql: &'static str) {
    let mut connection = SqliteConnection::connect(url).await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
}

fn tip(index: u64, hash: &str) -> Option<Tip> {
    Some(Tip { index, hash: hash.into(), epoch: 0 })
}

fn source(store: Arc<dyn BlockStore>) -> LocalSource {
    let settings = Settings {
        finality_depth: 40,
        peer_timeout: Duration::from_secs(1),
        cache_bytes: 1 << 20,
        sync: false,
        network: Arc::default(),
    };
    LocalSource::new(store, PeerId::random(), settings)
}

fn all() -> LocalQuery {
    Query::Range { from_index: 0, to_index: 9, chunk_size: 10 }.into()
}

#[tokio::test]
async fn only_an_answer_of_the_keys_chain_is_cached() {
    let (_folder, _, store) = three_blocks().await;
    let source = source(store.clone());
    let before = source.state_now().await.unwrap();
    let last = async |state: &ChainState| source.answer_at(state, all()).await.unwrap().snapshot.tip.clone();
    // Seen on a server that had the next block, requested from one that lacks it.
    let later = ChainState { version: before.version + 1, tip: tip(3, "main-3"), ..before.clone() };
    assert_eq!(last(&later).await, tip(2, "main-2"));
    let other = ChainState { tip: tip(2, "other-2"), ..before.clone() };
    assert_eq!(last(&other).await, tip(2, "main-2"));
    assert!(source.cache.get(&(other.snapshot(None), all())).await.is_none());

    let state = append(&*store, 3..4).await;
    assert_eq!((state.version, &state.tip), (later.version, &later.tip), "the chain comes to what was seen");
    assert_eq!(last(&later).await, tip(3, "main-3"));
    let [first, second] =
        [source.answer_at(&state, all()).await.unwrap(), source.answer_at(&state, all()).await.unwrap()];
    assert!(Arc::ptr_eq(&first, &second), "it is kept");
}

#[tokio::test]
async fn a_store_behind_the_state_seen_does_not_answer_without_events() {
    let (_folder, url, store) = three_blocks().await;
    let events = EventReader::new(store.clone());
    let read = async |after: Cursor, seen: &ChainState| match events.read(after, seen, false).await {
        Ok(batch) => {
            let text = batch.map(|batch| String::from_utf8(batch.text.to_vec()).unwrap()).unwrap_or_default();
            Ok(text.lines().filter_map(|line| line.strip_prefix("event: ")).map(str::to_owned).collect::<Vec<_>>())
        }
        Err(failure) => Err(failure.code),
    };
    let now = store.state().await.unwrap();
    let later = ChainState { version: now.version + 1, tip: tip(3, "main-3"), ..now.clone() };
    let other = ChainState { tip: tip(2, "other-2"), ..now.clone() };
    let (current, unknown) = (Cursor::from(&now), "7".parse::<Cursor>().unwrap());
    for seen in [&later, &other] {
        assert_eq!(read(current, seen).await, Err(Code::StoreUnavailable), "{seen:?}");
        assert_eq!(read(unknown, seen).await, Err(Code::StoreUnavailable), "{seen:?}");
    }
    assert_eq!(read(current, &now).await, Ok(Vec::new()));
    assert_eq!(read(unknown, &now).await, Ok(vec!["reset".to_owned()]));

    let state = append(&*store, 3..4).await;
    assert_eq!(read(current, &later).await, Ok(vec!["extended".to_owned()]));
    assert_eq!(read(Cursor::from(&state), &now).await, Ok(Vec::new()), "a store that is ahead knows all that was seen");

    // The store reached that state between the reads.
    execute(&url, "DELETE FROM event WHERE id = 2").await;
    assert_eq!(read(current, &later).await, Err(Code::StoreUnavailable));
}

#[tokio::test]
async fn an_anchored_answer_is_read_from_the_current_chain() {
    let (_folder, _, store) = three_blocks().await;
    let source = source(store);
    let now = source.state_now().await.unwrap();
    let lost = ChainState { tip: tip(2, "lost-2"), ..now.clone() };
    // The cached state is used while it is not too old.
    let _ = source.state.get(async { Ok(lost) }).await;
    let served = source.answer_anchored(all(), "main-1").await.unwrap();
    assert_eq!(served.snapshot.tip, now.tip);
    assert_eq!(source.answer_anchored(all(), "lost-1").await.unwrap_err().code, Code::BlockNotFound);
}

#[tokio::test]
async fn consistent_reads_start_again_when_the_version_has_another_tip() {
    let (_folder, url, store) = three_blocks().await;
    let mut reads = 0;
    let read = |state: ChainState| {
        reads += 1;
        let (is_first, url) = (reads == 1, url.clone());
        async move {
            if is_first {
                execute(&url, "UPDATE chain SET tip_hash = 'other-2'").await;
            }
            Ok(state.tip)
        }
    };
    let (state, read) = store_answers::read_consistently(&store, read).await.unwrap();
    assert_eq!((&state.tip, read), (&tip(2, "other-2"), tip(2, "other-2")));
    assert_eq!(reads, 2);
}

#[tokio::test]
async fn pages_end_where_the_version_has_another_tip() {
    let (_folder, _, store) = three_blocks().await;
    let state = store.state().await.unwrap();
    let pages = async |tip: Option<Tip>| {
        let pages = store_answers::pages(store.clone(), &ChainState { tip, ..state.clone() });
        pages
            .map(|page| page.map_or_else(|failure| Err(failure.code), |page| Ok(page.list.count)))
            .collect::<Vec<_>>()
            .await
    };
    assert_eq!(pages(state.tip.clone()).await, [Ok(3)]);
    assert_eq!(pages(tip(2, "lost-2")).await, [Err(Code::AnchorNotCanonical)]);
}

#[tokio::test]
async fn concurrent_callers_share_a_read_and_later_ones_do_not() {
    let (cached, reads) = (CachedRead::new(), AtomicU32::new(0));
    let ask = || {
        cached.get(async {
            tokio::task::yield_now().await;
            Ok(reads.fetch_add(1, Ordering::Relaxed))
        })
    };
    let began = Instant::now();
    let (first, second) = tokio::join!(ask(), ask());
    assert_eq!((*first.unwrap(), *second.unwrap()), (0, 0));
    let third = *ask().await.unwrap();
    assert!(third == 0 || began.elapsed() >= MAX_AGE);
    let mut ticks = tokio::time::interval(MAX_AGE / 5);
    while *ask().await.unwrap() == third {
        ticks.tick().await;
        assert!(began.elapsed() < 100 * MAX_AGE);
    }
}

#[tokio::test]
async fn a_failed_read_is_shared_but_not_kept() {
    let (cached, reads) = (CachedRead::new(), AtomicU32::new(0));
    let ask = |outcome: Result<u32, Failure>| {
        let reads = &reads;
        cached.get(async move {
            reads.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            outcome
        })
    };
    let failed = || ask(Err(Failure::new(Code::StoreUnavailable)));
    let (first, second) = tokio::join!(failed(), failed());
    assert_eq!([first, second].map(|outcome| outcome.unwrap_err().code), [Code::StoreUnavailable; 2]);
    assert_eq!(reads.load(Ordering::Relaxed), 1, "one read for both");
    assert_eq!(*ask(Ok(7)).await.unwrap(), 7);
}

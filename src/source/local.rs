//! The local store as a source. Answers are encoded once and kept in a bounded cache.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use libp2p::PeerId;
use moka::future::Cache;
use tokio::sync::watch;

use super::{
    answer::EncodedAnswer,
    cost::{estimate, parse},
    store_answers::{self, StoreAnswers, store_failure},
    view::{ViewQuery, Views},
    watch::ChainWatch,
};
use crate::{
    chain::Network,
    p2p::{Accepted, Responder},
    protocol::{Code, Failure, Query, query::parse_apart},
    store::{BlockStore, ChainState, Snapshot},
    telemetry::Durations,
};

/// Largest answer that the cache keeps, in bytes.
const MAX_CACHED_BYTES: usize = 1 << 20;
/// Longest text of a query whose answer the cache keeps, in bytes.
const MAX_CACHED_TEXT: usize = 128;
/// Estimated memory of a cache entry beside the answer's bytes.
const ENTRY_OVERHEAD: usize = 512;
/// Longest time for an answer from the store, all its reads together.
const STORE_DEADLINE: Duration = Duration::from_secs(4);
/// How long a [`CachedRead`] is valid. Other processes may write to the same store: a cached answer is behind them by
/// at most this and the time of one read.
pub(super) const MAX_AGE: Duration = Duration::from_millis(50);

/// Settings of a source.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Depth below the tip from which blocks count as final: HTTP caches may keep them.
    pub finality_depth: u64,
    /// Longest time for a peer's answer, retries included.
    pub peer_timeout: Duration,
    /// Bytes of encoded answers kept in memory.
    pub cache_bytes: u64,
    /// Whether this process syncs the store.
    pub sync: bool,
    /// The network that the chain belongs to.
    pub network: Arc<Network>,
}

/// What is asked of the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LocalQuery {
    /// A query of the network's protocol.
    Protocol(Query),
    /// A view of the chain.
    View(ViewQuery),
}

impl From<Query> for LocalQuery {
    fn from(query: Query) -> Self {
        Self::Protocol(query)
    }
}

impl From<ViewQuery> for LocalQuery {
    fn from(query: ViewQuery) -> Self {
        Self::View(query)
    }
}

/// The chain that an answer was read from, and the query.
type Key = (Snapshot, LocalQuery);

/// One value of the store, read again at the first use after [`MAX_AGE`]. Concurrent callers share one read, its
/// failure too; a failure is not kept.
pub(super) struct CachedRead<T>(Cache<(), Arc<T>>);

impl<T: Send + Sync + 'static> CachedRead<T> {
    pub(super) fn new() -> Self {
        Self(Cache::builder().time_to_live(MAX_AGE).build())
    }

    /// The cached value, or the result of `read`.
    pub(super) async fn get(&self, read: impl Future<Output = Result<T, Failure>>) -> Result<Arc<T>, Failure> {
        if let Some(value) = self.0.get(&()).await {
            return Ok(value);
        }
        // Boxed, so that the future of a cached answer is not as large as that of a read.
        let read = Box::pin(async { read.await.map(Arc::new) });
        Box::pin(self.0.try_get_with((), read)).await.map_err(Arc::unwrap_or_clone)
    }

    /// Has the next call read again.
    pub(super) async fn forget(&self) {
        self.0.invalidate(&()).await;
    }
}

/// Answers queries from the store.
pub struct LocalSource {
    pub(super) answers: StoreAnswers,
    pub(super) views: Views,
    pub(super) state: CachedRead<ChainState>,
    /// The latest state that was read, of any age.
    last_state: watch::Sender<Option<Arc<ChainState>>>,
    pub(super) watch: ChainWatch,
    pub(super) cache: Cache<Key, Arc<EncodedAnswer>>,
    pub(super) settings: Settings,
    pub(super) reads: Durations,
}

impl LocalSource {
    /// A source over `store`, for the node `peer_id`.
    pub fn new(store: Arc<dyn BlockStore>, peer_id: PeerId, settings: Settings) -> Self {
        let cache = Cache::builder()
            .max_capacity(settings.cache_bytes)
            .weigher(|_: &Key, encoded: &Arc<EncodedAnswer>| {
                u32::try_from(encoded.body.len() + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
            })
            .build();
        let views = Views::new(store.clone(), settings.finality_depth, settings.network.clone());
        let answers = StoreAnswers::new(store, peer_id.to_string(), settings.finality_depth);
        Self {
            answers,
            views,
            state: CachedRead::new(),
            last_state: watch::Sender::new(None),
            watch: ChainWatch::default(),
            cache,
            settings,
            reads: Durations::default(),
        }
    }

    pub(super) fn store(&self) -> &Arc<dyn BlockStore> {
        &self.answers.store
    }

    /// The state of the chain, at most [`MAX_AGE`] old.
    pub(super) async fn state(&self) -> Result<Arc<ChainState>, Failure> {
        let read = async {
            let state = self.state_now().await?;
            self.see_tip(&state).await;
            self.last_state.send_replace(Some(Arc::new(state.clone())));
            Ok(state)
        };
        self.state.get(read).await
    }

    /// Reads the tip's timestamp, once for each tip. Where that fails, answers don't say how old the tip is.
    async fn see_tip(&self, state: &ChainState) {
        match &state.tip {
            None => self.watch.see_tip(None),
            Some(tip) if self.watch.has_seen(&tip.hash) => {}
            Some(tip) => {
                let block = self.store().block_at(tip.index).await.ok().flatten();
                if let Some((block, _)) = block.filter(|(block, _)| block.hash == tip.hash) {
                    self.watch.see_tip(Some((block.hash, block.timestamp)));
                }
            }
        }
    }

    /// The state of the chain as it is now.
    pub(super) async fn state_now(&self) -> Result<ChainState, Failure> {
        self.store().state().await.map_err(store_failure)
    }

    /// Answers `query` from the chain of [`Self::state`].
    pub(super) async fn answer(&self, query: impl Into<LocalQuery>) -> Result<Arc<EncodedAnswer>, Failure> {
        let query = query.into();
        if let LocalQuery::Protocol(query @ Query::Ping { .. }) = &query {
            return Box::pin(self.answers.answer(query, &ChainState::default())).await.map(Arc::new);
        }
        self.answer_at(&*self.state().await?, query).await
    }

    pub(super) async fn answer_at(&self, state: &ChainState, query: LocalQuery) -> Result<Arc<EncodedAnswer>, Failure> {
        if !cacheable(&query) {
            return Box::pin(self.read(&query, state)).await;
        }
        let key = (state.snapshot(None), query);
        if let Some(encoded) = self.cache.get(&key).await {
            return Ok(encoded);
        }
        // Concurrent callers share one read. An answer that must not be kept is returned as an error: one that is too
        // large, or not of the key's chain. A standby that takes over may be behind that chain and reach it later: the
        // old answer would then be returned for as long as the chain stays there.
        let (chain, query) = key.clone();
        let read = async {
            match self.read(&query, state).await {
                Ok(encoded) if encoded.body.len() <= MAX_CACHED_BYTES && encoded.snapshot.same_chain(&chain) => {
                    Ok(encoded)
                }
                other => Err(other),
            }
        };
        Box::pin(self.cache.try_get_with(key, read)).await.or_else(Arc::unwrap_or_clone)
    }

    async fn read(&self, query: &LocalQuery, state: &ChainState) -> Result<Arc<EncodedAnswer>, Failure> {
        let read = async {
            match query {
                LocalQuery::Protocol(query) => self.answers.answer(query, state).await,
                LocalQuery::View(query) => self.views.answer(query, state).await,
            }
        };
        self.reads.measure(read).await.map(Arc::new)
    }

    /// Answers a list query from a chain that holds the block `anchor`.
    pub(super) async fn answer_anchored(&self, query: LocalQuery, anchor: &str) -> Result<Arc<EncodedAnswer>, Failure> {
        let mut state = self.state().await?;
        for _ in 0..store_answers::MAX_ATTEMPTS {
            if self.answers.check_anchor(anchor).await? == state.version {
                let encoded = self.answer_at(&state, query.clone()).await?;
                if encoded.snapshot.same_chain(&state.snapshot(None)) {
                    return Ok(encoded);
                }
            }
            state = Arc::new(self.state_now().await?);
        }
        Err(store_answers::chain_changed())
    }
}

/// Runs reads of the store with a deadline of 4 s, the longest that a client is expected to wait.
///
/// # Errors
/// [`Code::StoreUnavailable`] after the deadline, and those of `reads`.
pub async fn with_deadline<T, E: From<Failure>>(reads: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let slow = |_| Err(Failure::with_detail(Code::StoreUnavailable, "the store is too slow; try again").into());
    tokio::time::timeout(STORE_DEADLINE, reads).await.unwrap_or_else(slow)
}

/// Whether a query is short, and likely to be repeated.
fn cacheable(query: &LocalQuery) -> bool {
    let query = match query {
        LocalQuery::Protocol(query) => query,
        LocalQuery::View(query) => return query.text().len() <= MAX_CACHED_TEXT,
    };
    match query {
        Query::Get { hash } => hash.len() <= MAX_CACHED_TEXT,
        Query::ChainInfo { local_block_hashes, .. } => local_block_hashes.is_empty(),
        Query::Inspect
        | Query::Canonical
        | Query::Epoch { .. }
        | Query::Range { .. }
        | Query::Headers { .. }
        | Query::DebugIndex { .. } => true,
        Query::Ping { .. } | Query::FindAncestor { .. } => false,
    }
}

/// Answers the requests of libp2p peers.
impl Responder for LocalSource {
    fn accept(self: Arc<Self>, request: Bytes) -> Accepted {
        let (cost, parsed) = estimate(&request, self.last_state.borrow().as_deref());
        let answer = async move {
            let parsed = match parsed {
                Some(parsed) => parsed,
                None => parse_apart(move || parse(&request)).await,
            };
            let answer = match parsed {
                Ok(query) => self.answer(query).await,
                Err(failure) => Err(failure),
            };
            answer.map_or_else(|failure| failure.encode(), |encoded| encoded.body.clone())
        };
        Accepted { cost, answer: Box::pin(answer) }
    }
}

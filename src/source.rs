//! The one place where a question is answered: from the local store, from a peer, or from whichever knows.
//!
//! Both doors, HTTP and libp2p, hand the same typed query in and get the same bytes out. An answer is encoded once
//! and kept in a bounded cache, by the version and the tip of the chain that it is true of.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::Stream;
use libp2p::PeerId;
use moka::future::Cache;

use crate::{
    chain::Level,
    p2p::{P2pClient, P2pError, Responder},
    protocol::{Answer, Code, Failure, Query, Request},
    store::{self, BlockStore, Blocks, ChainState},
};

mod cursor;
mod events;
mod fresh;
pub mod job;
mod local;
mod pinned;
mod remote;
mod served;
mod weight;

pub use cursor::{Cursor, MalformedCursor};
pub use events::News;
pub use remote::parsed;
pub use served::{Answerer, Declined, Origin, Served};

use events::Followers;
use fresh::Fresh;
use job::{Genesis, Stages, SyncStatus};
use local::Local;

/// Largest answer that the cache keeps.
const MAX_CACHED_BYTES: usize = 1 << 20;
/// What a cached answer costs beside its bytes, about.
const ENTRY_OVERHEAD: usize = 512;
/// Longest wait for the store's tip, which a peer's answer is accompanied by.
const TIP_PATIENCE: Duration = Duration::from_millis(250);
/// Longest that an answer from the store may take, of however many reads.
const LOCAL_PATIENCE: Duration = Duration::from_secs(4);
/// What peers' answers take while they arrive, together: 25 of the longest. Peers that stall on purpose must not take all
/// memory; most answers are short.
const ARRIVING_BYTES: usize = 256 << 20;
/// Peers that `any` asks, one after the other, before it gives up.
const MAX_ASKED_PEERS: usize = 3;

/// How to answer.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Blocks this deep below the tip are taken as final: caches may keep them.
    pub finality_depth: u64,
    /// How long a peer may take, all retries included.
    pub peer_timeout: Duration,
    /// Bytes of encoded answers kept in memory.
    pub cache_bytes: u64,
    /// Whether this process keeps the store level with the network.
    pub sync: bool,
}

/// How the store does, and how full what stands before it is.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// The store.
    pub store: store::StoreStats,
    /// Answers that are kept.
    pub cache_entries: u64,
    /// What they take, in bytes; at most [`Settings::cache_bytes`].
    pub cache_bytes: u64,
    /// Answers to followers that are kept.
    pub news_entries: u64,
}

/// A question and the chain that its answer is true of: its version, and the hash of its tip, since versions are used anew
/// by a store that lost its last writes, or was replaced.
type Key = (u64, Option<String>, Query);

/// Answers any query.
pub struct Source {
    local: Local,
    fresh: Fresh<ChainState>,
    status: Fresh<SyncStatus>,
    genesis: Fresh<Option<Genesis>>,
    followers: Followers,
    stages: Arc<Stages>,
    p2p: OnceLock<P2pClient>,
    cache: Cache<Key, Arc<Served>>,
    settings: Settings,
}

impl Source {
    /// Answers from `store`, as the node `peer_id`. Peers can be asked once [`Self::join`] was called.
    pub fn new(store: Arc<dyn BlockStore>, peer_id: PeerId, settings: Settings) -> Self {
        let cache = Cache::builder()
            .max_capacity(settings.cache_bytes)
            .weigher(|_: &Key, served: &Arc<Served>| {
                u32::try_from(served.body.len() + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
            })
            .build();
        let local = Local::new(store.clone(), peer_id.to_string(), settings.finality_depth);
        let (fresh, status, genesis) = (Fresh::new(), Fresh::new(), Fresh::new());
        let (followers, stages) = (Followers::new(store), Arc::default());
        Self { local, fresh, status, genesis, followers, stages, p2p: OnceLock::new(), cache, settings }
    }

    /// Lets peers be asked through this client. Later calls change nothing.
    pub fn join(&self, p2p: P2pClient) {
        let _ = self.p2p.set(p2p.with_answer_memory(ARRIVING_BYTES));
    }

    /// The client for asking peers, if there is one.
    pub fn p2p(&self) -> Option<&P2pClient> {
        self.p2p.get()
    }

    /// What waits for the stages of the sync: for the service that syncs this store to tell.
    pub fn stages(&self) -> &Arc<Stages> {
        &self.stages
    }

    /// The state of the chain, at most [`fresh::MAX_AGE`] old.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn state(&self) -> Result<Arc<ChainState>, Failure> {
        self.fresh.get(self.state_now()).await
    }

    /// The state of the chain as it is now.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn state_now(&self) -> Result<ChainState, Failure> {
        self.local.store().state().await.map_err(local::store_failure)
    }

    /// Who is meant by the `peer` of a request: `any`, `auto`, an alias or a peer id.
    ///
    /// # Errors
    /// [`Code::UnknownPeer`] for whoever is not known: no address comes in this way. [`Code::PeerUnreachable`] for an
    /// alias whose address has not been reached yet.
    pub fn origin(&self, name: &str) -> Result<Origin, Failure> {
        match name {
            "any" => Ok(Origin::Any),
            "auto" => Ok(Origin::Auto),
            _ => {
                let peer = self.p2p().map_or(Err(P2pError::UnknownPeer), |p2p| p2p.find(name));
                Ok(Origin::Peer(peer.map_err(remote::p2p_failure)?))
            }
        }
    }

    /// Answers `query` from where `origin` says, for the client of this key: the clients' requests to a peer take turns.
    ///
    /// # Errors
    /// The failure for the client, and who said so. Faults of the store are logged here.
    pub async fn answer(&self, query: Query, origin: &Origin, asker: u64) -> Result<Arc<Served>, Declined> {
        match origin {
            Origin::Local => Ok(in_time(self.answer_locally(query)).await?),
            Origin::Peer(peer) => {
                let answer =
                    remote::ask(&self.connected()?.on_behalf_of(asker), *peer, &query, self.settings.peer_timeout)
                        .await;
                self.serve_from(*peer, answer).await
            }
            Origin::Any => self.answer_by_any(&query, asker).await,
            Origin::Auto => match in_time(self.answer_locally(query.clone())).await {
                Ok(served) if served.complete => Ok(served),
                local => match (self.answer_by_any(&query, asker).await, local) {
                    (Ok(served), _) => Ok(served),
                    (Err(_), local) => Ok(local?),
                },
            },
        }
    }

    /// The canonical chain up to its tip in pages, for answers without end. If the tip of `state` is reorganised away
    /// meanwhile, the stream ends with [`Code::AnchorNotCanonical`] rather than mix two chains.
    pub fn pages(&self, state: &ChainState) -> impl Stream<Item = Result<Blocks, Failure>> + Send + use<> {
        local::pages(self.local.store(), state)
    }

    /// How the store does, and how full what stands before it is.
    pub async fn figures(&self) -> Figures {
        self.cache.run_pending_tasks().await;
        self.followers.told.run_pending_tasks().await;
        Figures {
            store: self.local.store().stats(),
            cache_entries: self.cache.entry_count(),
            cache_bytes: self.cache.weighted_size(),
            news_entries: self.followers.told.entry_count(),
        }
    }

    fn connected(&self) -> Result<&P2pClient, Failure> {
        self.p2p().ok_or_else(|| Failure::new(Code::NoPeer))
    }

    async fn answer_locally(&self, query: Query) -> Result<Arc<Served>, Failure> {
        if let Query::Ping { .. } = query {
            return self.local.answer(&query, &ChainState::default()).await.map(Arc::new);
        }
        self.answer_at(&*self.state().await?, query).await
    }

    async fn answer_at(&self, state: &ChainState, query: Query) -> Result<Arc<Served>, Failure> {
        if !cacheable(&query) {
            return self.local.answer(&query, state).await.map(Arc::new);
        }
        let key = (state.version, tip_hash(state), query);
        if let Some(served) = self.cache.get(&key).await {
            return Ok(served);
        }
        // Several who ask the same at once wait for one read. What is not to be kept goes out all the same, in the place of
        // an error: what is too large, and what is not of the key's chain. A standby that takes over may be behind it, and
        // come to it later: an older answer would then be told for as long as the chain stays there.
        let query = key.2.clone();
        let read = async {
            match self.local.answer(&query, state).await.map(Arc::new) {
                Ok(served) if served.body.len() <= MAX_CACHED_BYTES && served.is_of(state) => Ok(served),
                other => Err(other),
            }
        };
        self.cache.try_get_with(key, read).await.or_else(Arc::unwrap_or_clone)
    }

    async fn answer_by_any(&self, query: &Query, asker: u64) -> Result<Arc<Served>, Declined> {
        let p2p = &self.connected()?.on_behalf_of(asker);
        let deadline = tokio::time::Instant::now() + self.settings.peer_timeout;
        let mut last = Declined::from(Failure::new(Code::NoPeer));
        for peer in p2p.candidates().into_iter().take(MAX_ASKED_PEERS) {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let answer = remote::ask(p2p, peer, query, left).await;
            match self.serve_from(peer, answer).await {
                Err(declined) if remote::another_may_know_better(declined.failure.code) => last = declined,
                result => return result,
            }
        }
        Err(last)
    }

    async fn serve_from(&self, peer: PeerId, answer: Result<Answer, Failure>) -> Result<Arc<Served>, Declined> {
        let answerer = Answerer::Peer(peer);
        // A store that is down or slow must not keep a peer's answer back: then the tip is just not told.
        let state = tokio::time::timeout(TIP_PATIENCE, self.state()).await;
        let tip = state.ok().and_then(Result::ok).and_then(|state| state.tip.clone());
        let served = answer.and_then(|answer| {
            let level = remote::holds_blocks(&answer).then_some(Level::None);
            Ok(Served { level, ..Served::new(&answer, answerer, tip)? })
        });
        served.map(Arc::new).map_err(|failure| Declined { failure, answerer })
    }
}

/// Reads the store, for as long as a client can be expected to wait: 4 s.
///
/// # Errors
/// [`Code::StoreUnavailable`] afterwards.
pub async fn in_time<T, E: From<Failure>>(reads: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let slow = |_| Err(Failure::with_detail(Code::StoreUnavailable, "the store is too slow; try again").into());
    tokio::time::timeout(LOCAL_PATIENCE, reads).await.unwrap_or_else(slow)
}

fn tip_hash(state: &ChainState) -> Option<String> {
    state.tip.as_ref().map(|tip| tip.hash.clone())
}

/// Queries that are short, and whose answers are likely to be asked for again.
fn cacheable(query: &Query) -> bool {
    match query {
        Query::Get { hash } => hash.len() <= 128,
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

/// The libp2p door: answers from the local store.
#[async_trait]
impl Responder for Source {
    async fn respond(&self, _: PeerId, request: Bytes) -> Bytes {
        let query = Request::parse(&request).and_then(|request| request.query());
        let answer = match query {
            Ok(query) => self.answer_locally(query).await,
            Err(failure) => Err(failure),
        };
        answer.map_or_else(|failure| failure.encode(), |served| served.body.clone())
    }

    fn estimated_bytes(&self, request: &Bytes) -> usize {
        weight::weight(request, self.fresh.last().as_deref())
    }
}

#[cfg(test)]
mod tests;

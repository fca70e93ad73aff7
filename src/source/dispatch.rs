//! Sends a query to the store, to a peer, or to both in turn. The sync's jobs and status are in `jobs`.

mod jobs;

use std::{sync::Arc, time::Duration};

use futures::stream::Stream;
use libp2p::PeerId;

use super::{
    answer::{AnsweredBy, EncodedAnswer, Origin, SourceError},
    events::{Cursor, EventBatch, EventReader, Feeds},
    job::{AssumedBlocks, Genesis, Stages, SyncStatus},
    local::{CachedRead, LocalSource, with_deadline},
    peer,
    seen::{ClientTip, SeenTips},
    store_answers,
    view::{ViewQuery, Views},
};
use crate::{
    chain::Level,
    p2p::{P2pClient, P2pError},
    protocol::{Answer, Code, Failure, Query},
    store::{self, Blocks, ChainState, Snapshot},
    telemetry::Durations,
};

/// Longest wait for the store's tip, which goes out with a peer's answer.
const TIP_TIMEOUT: Duration = Duration::from_millis(250);
/// Memory of all peers' answers that are being received: 25 of the longest. A limit, because peers may stall on
/// purpose; most answers are short.
const INCOMING_BYTES: usize = 256 << 20;
/// Most peers that `any` tries, one after the other.
const MAX_ASKED_PEERS: usize = 3;

/// Numbers of the store and of the caches above it.
#[derive(Debug, Clone, Copy)]
pub struct Stats {
    /// The store.
    pub store: store::StoreStats,
    /// Answers in the cache.
    pub cache_entries: u64,
    /// Bytes in the cache; at most [`Settings::cache_bytes`](super::Settings::cache_bytes).
    pub cache_bytes: u64,
    /// Batches of chain events in the cache.
    pub event_entries: u64,
}

/// Answers any query, from the store or from peers.
pub struct Source {
    pub(super) local: Arc<LocalSource>,
    p2p: Option<P2pClient>,
    status: CachedRead<SyncStatus>,
    genesis: CachedRead<Option<Genesis>>,
    assumed: CachedRead<AssumedBlocks>,
    events: EventReader,
    feeds: Feeds,
    seen: SeenTips,
    stages: Arc<Stages>,
}

impl Source {
    /// A source that answers from the store and from the peers of `p2p`.
    pub fn new(local: Arc<LocalSource>, p2p: P2pClient) -> Self {
        Self { p2p: Some(p2p.with_answer_memory(INCOMING_BYTES)), ..Self::local_only(local) }
    }

    /// A source without peers: every other origin fails with [`Code::NoPeer`] or [`Code::UnknownPeer`].
    pub fn local_only(local: Arc<LocalSource>) -> Self {
        let (events, feeds) = (EventReader::new(local.store().clone()), Feeds::new(local.clone()));
        let (status, genesis, assumed) = (CachedRead::new(), CachedRead::new(), CachedRead::new());
        let (seen, stages) = (SeenTips::new(), Arc::default());
        Self { local, p2p: None, status, genesis, assumed, events, feeds, seen, stages }
    }

    /// The client for requests to peers, if there is one.
    pub fn p2p(&self) -> Option<&P2pClient> {
        self.p2p.as_ref()
    }

    /// Queue lengths of the sync's stages, written by the service that syncs this store.
    pub fn stages(&self) -> &Arc<Stages> {
        &self.stages
    }

    /// Durations of answers that were read from the store.
    pub fn read_durations(&self) -> &Durations {
        &self.local.reads
    }

    /// The state of the chain, at most 50 ms old.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn state(&self) -> Result<Arc<ChainState>, Failure> {
        self.local.state().await
    }

    /// The current state of the chain, read from the store.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn state_now(&self) -> Result<ChainState, Failure> {
        self.local.state_now().await
    }

    /// Has the answers from now on come from a chain that has known the block `tip`, so that a client who has seen this
    /// tip in an answer of another gateway on the same database does not see the chain go back. A block that the
    /// database does not have changes nothing.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`], also where only the primary could say whether it has the block.
    pub async fn reach(&self, tip: &ClientTip) -> Result<(), Failure> {
        with_deadline(self.seen.reach(&self.local, tip)).await
    }

    /// The origin that the `peer` of a request names: `any`, `auto`, an alias or a peer id.
    ///
    /// # Errors
    /// [`Code::UnknownPeer`]; addresses are not accepted here. [`Code::PeerUnreachable`] for an alias whose address was
    /// not reached yet.
    pub fn origin(&self, name: &str) -> Result<Origin, Failure> {
        match name {
            "any" => Ok(Origin::Any),
            "auto" => Ok(Origin::Auto),
            _ => {
                let peer = self.p2p().map_or(Err(P2pError::UnknownPeer), |p2p| p2p.find(name));
                Ok(Origin::Peer(peer.map_err(peer::p2p_failure)?))
            }
        }
    }

    /// Answers `query` from `origin`. Requests to a peer are queued by client, in turn; `client` is the key.
    ///
    /// # Errors
    /// The failure for the client, and where it came from. Faults of the store are logged here.
    pub async fn answer(&self, query: Query, origin: &Origin, client: u64) -> Result<Arc<EncodedAnswer>, SourceError> {
        // The others are boxed, so that an answer from the store, which is there already in most cases, makes and moves
        // no future as large as theirs.
        match origin {
            Origin::Local => Ok(with_deadline(self.local.answer(query)).await?),
            Origin::Peer(peer) => Box::pin(self.answer_by_peer(*peer, &query, client)).await,
            Origin::Any => Box::pin(self.answer_by_any(&query, client)).await,
            Origin::Auto => Box::pin(self.answer_by_store_or_any(query, client)).await,
        }
    }

    /// Answers a view of the chain from the store; with `anchor`, from a chain that holds this block.
    ///
    /// # Errors
    /// Those of the view, and with an anchor those of [`Self::check_anchor_in`].
    pub async fn view(&self, query: ViewQuery, anchor: Option<&str>) -> Result<Arc<EncodedAnswer>, Failure> {
        with_deadline(async {
            match anchor {
                Some(anchor) => Box::pin(self.local.answer_anchored(query.into(), anchor)).await,
                None => self.local.answer(query).await,
            }
        })
        .await
    }

    /// The views of the chain.
    pub fn views(&self) -> &Views {
        &self.local.views
    }

    /// Answers a list query from the store, from a chain that holds the block `anchor`.
    ///
    /// # Errors
    /// Those of [`Self::check_anchor_in`] and [`Self::answer`].
    pub async fn answer_anchored(&self, query: Query, anchor: &str) -> Result<Arc<EncodedAnswer>, SourceError> {
        Ok(Box::pin(with_deadline(self.local.answer_anchored(query.into(), anchor))).await?)
    }

    /// Checks that `anchor` is on the chain of `state`.
    ///
    /// # Errors
    /// [`Code::AnchorNotCanonical`] with the common ancestor, [`Code::BlockNotFound`].
    pub async fn check_anchor_in(&self, state: &ChainState, anchor: &str) -> Result<(), Failure> {
        let version = self.local.answers.check_anchor(anchor).await?;
        match &state.tip {
            Some(tip) if version != state.version && self.local.answers.check_anchor(&tip.hash).await? != version => {
                Err(store_answers::chain_changed())
            }
            _ => Ok(()),
        }
    }

    /// The canonical chain in pages, for streamed answers of any length. If the tip of `state` is reorganised away
    /// meanwhile, the stream ends with [`Code::AnchorNotCanonical`]: two chains are never mixed.
    pub fn pages(&self, state: &ChainState) -> impl Stream<Item = Result<Blocks, Failure>> + Send + use<> {
        store_answers::pages(self.local.store().clone(), state)
    }

    /// The events after `after`, oldest first, where `state` is the chain as [`Feeds::follow_chain`] has it; `None` if
    /// there are none. One `reset` to the current state where events are missing: they are no longer kept, `after` is
    /// of another store, or the store has lost it. With `blocks` the events have their blocks. Followers with the same
    /// `after` share one read.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`], [`Code::Internal`].
    pub async fn chain_events(
        &self,
        after: Cursor,
        state: &ChainState,
        blocks: bool,
    ) -> Result<Option<Arc<EventBatch>>, Failure> {
        self.events.since(after, state, blocks).await
    }

    /// What followers share.
    pub fn feeds(&self) -> &Feeds {
        &self.feeds
    }

    /// Numbers of the store and of the caches above it.
    pub async fn stats(&self) -> Stats {
        self.local.cache.run_pending_tasks().await;
        self.events.cache.run_pending_tasks().await;
        Stats {
            store: self.local.store().stats(),
            cache_entries: self.local.cache.entry_count(),
            cache_bytes: self.local.cache.weighted_size(),
            event_entries: self.events.cache.entry_count(),
        }
    }

    /// Statistics of the store's replicas, if it has some.
    pub fn replica_stats(&self) -> Option<store::ReplicaStats> {
        self.local.store().replica_stats()
    }

    fn connected(&self) -> Result<&P2pClient, Failure> {
        self.p2p().ok_or_else(|| Failure::new(Code::NoPeer))
    }

    async fn answer_by_peer(
        &self,
        peer: PeerId,
        query: &Query,
        client: u64,
    ) -> Result<Arc<EncodedAnswer>, SourceError> {
        let p2p = self.connected()?.on_behalf_of(client);
        let answer = peer::ask(&p2p, peer, query, self.local.settings.peer_timeout).await;
        self.encode_from(peer, answer).await
    }

    async fn answer_by_store_or_any(&self, query: Query, client: u64) -> Result<Arc<EncodedAnswer>, SourceError> {
        match with_deadline(self.local.answer(query.clone())).await {
            Ok(encoded) if encoded.complete => Ok(encoded),
            local => match (self.answer_by_any(&query, client).await, local) {
                (Ok(encoded), _) => Ok(encoded),
                (Err(_), local) => Ok(local?),
            },
        }
    }

    async fn answer_by_any(&self, query: &Query, client: u64) -> Result<Arc<EncodedAnswer>, SourceError> {
        let p2p = &self.connected()?.on_behalf_of(client);
        let deadline = tokio::time::Instant::now() + self.local.settings.peer_timeout;
        let mut last = SourceError::from(Failure::new(Code::NoPeer));
        for peer in p2p.candidates().into_iter().take(MAX_ASKED_PEERS) {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let answer = peer::ask(p2p, peer, query, left).await;
            match self.encode_from(peer, answer).await {
                Err(error) if peer::is_worth_another_peer(error.failure.code) => last = error,
                result => return result,
            }
        }
        Err(last)
    }

    async fn encode_from(
        &self,
        peer: PeerId,
        answer: Result<Answer, Failure>,
    ) -> Result<Arc<EncodedAnswer>, SourceError> {
        let answered_by = AnsweredBy::Peer(peer);
        // A store that is down or slow must not delay a peer's answer: it then goes out without the tip.
        let state = tokio::time::timeout(TIP_TIMEOUT, self.state()).await;
        let tip = state.ok().and_then(Result::ok).and_then(|state| state.tip.clone());
        let encoded = answer.and_then(|answer| {
            let level = peer::holds_blocks(&answer).then_some(Level::None);
            EncodedAnswer::new(&answer, answered_by, Snapshot { version: 0, tip, level })
        });
        encoded.map(Arc::new).map_err(|failure| SourceError { failure, answered_by })
    }
}

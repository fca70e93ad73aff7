//! Who answers a query: the store, a peer, or whichever knows. Also the sync's jobs and notes, which the store keeps.

use std::{sync::Arc, time::Duration};

use futures::stream::Stream;
use libp2p::PeerId;

use super::{
    answer::{Answerer, Declined, Origin, Served},
    events::{Cursor, Followers, News},
    job::{Genesis, JobSpec, Stages, SyncJob, SyncStatus},
    local::{CachedRead, LocalSource, in_time},
    peer,
    store_answers::{self, store_failure},
};
use crate::{
    chain::Level,
    p2p::{P2pClient, P2pError},
    protocol::{Answer, Code, Failure, Query},
    store::{self, Blocks, ChainState, Job},
};

/// Longest wait for the store's tip, which a peer's answer is accompanied by.
const TIP_PATIENCE: Duration = Duration::from_millis(250);
/// What peers' answers take while they arrive, together: 25 of the longest. Peers that stall on purpose must not take all
/// memory; most answers are short.
const ARRIVING_BYTES: usize = 256 << 20;
/// Peers that `any` asks, one after the other, before it gives up.
const MAX_ASKED_PEERS: usize = 3;

/// Jobs that may wait for their turn.
const MAX_WAITING: usize = 100;

/// Jobs that are listed: as many as the store keeps, and those that aren't finished.
const MAX_LISTED: u64 = 200;

/// How the store does, and how full what stands before it is.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// The store.
    pub store: store::Figures,
    /// Answers that are kept.
    pub cache_entries: u64,
    /// What they take, in bytes; at most [`Settings::cache_bytes`].
    pub cache_bytes: u64,
    /// Answers to followers that are kept.
    pub news_entries: u64,
}

/// Answers any query.
pub struct Source {
    local: Arc<LocalSource>,
    p2p: Option<P2pClient>,
    status: CachedRead<SyncStatus>,
    genesis: CachedRead<Option<Genesis>>,
    followers: Followers,
    stages: Arc<Stages>,
}

impl Source {
    /// Answers from the store, and from the peers that `p2p` reaches.
    pub fn new(local: Arc<LocalSource>, p2p: P2pClient) -> Self {
        Self { p2p: Some(p2p.sharing(ARRIVING_BYTES)), ..Self::local_only(local) }
    }

    /// Answers from the store alone: every other origin fails with [`Code::NoPeer`] or [`Code::UnknownPeer`].
    pub fn local_only(local: Arc<LocalSource>) -> Self {
        let followers = Followers::new(local.store());
        Self {
            local,
            p2p: None,
            status: CachedRead::new(),
            genesis: CachedRead::new(),
            followers,
            stages: Arc::default(),
        }
    }

    /// The client for asking peers, if there is one.
    pub fn p2p(&self) -> Option<&P2pClient> {
        self.p2p.as_ref()
    }

    /// What waits for the stages of the sync: for the service that syncs this store to tell.
    pub fn stages(&self) -> &Arc<Stages> {
        &self.stages
    }

    /// The state of the chain, at most 50 ms old.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn state(&self) -> Result<Arc<ChainState>, Failure> {
        self.local.state().await
    }

    /// The state of the chain as it is now.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn state_now(&self) -> Result<ChainState, Failure> {
        self.local.state_now().await
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
                Ok(Origin::Peer(peer.map_err(peer::p2p_failure)?))
            }
        }
    }

    /// Answers `query` from where `origin` says, for the client of this key: the clients' requests to a peer take turns.
    ///
    /// # Errors
    /// The failure for the client, and who said so. Faults of the store are logged here.
    pub async fn answer(&self, query: Query, origin: &Origin, asker: u64) -> Result<Arc<Served>, Declined> {
        match origin {
            Origin::Local => Ok(in_time(self.local.answer(query)).await?),
            Origin::Peer(peer) => {
                let answer =
                    peer::ask(&self.connected()?.on_behalf_of(asker), *peer, &query, self.local.settings.peer_timeout)
                        .await;
                self.serve_from(*peer, answer).await
            }
            Origin::Any => self.answer_by_any(&query, asker).await,
            Origin::Auto => match in_time(self.local.answer(query.clone())).await {
                Ok(served) if served.complete => Ok(served),
                local => match (self.answer_by_any(&query, asker).await, local) {
                    (Ok(served), _) => Ok(served),
                    (Err(_), local) => Ok(local?),
                },
            },
        }
    }

    /// Answers a list from the store, of a chain that holds the block `anchor`.
    ///
    /// # Errors
    /// As [`Self::check_anchor_in`] and [`Self::answer`].
    pub async fn answer_pinned(&self, query: Query, anchor: &str) -> Result<Arc<Served>, Declined> {
        Ok(in_time(self.local.answer_pinned(query, anchor)).await?)
    }

    /// Checks that `anchor` is on the chain that `state` is of.
    ///
    /// # Errors
    /// [`Code::AnchorNotCanonical`] with the common ancestor, [`Code::BlockNotFound`].
    pub async fn check_anchor_in(&self, state: &ChainState, anchor: &str) -> Result<(), Failure> {
        let version = self.local.check_anchor(anchor).await?;
        match &state.tip {
            Some(tip) if version != state.version && self.local.check_anchor(&tip.hash).await? != version => {
                Err(store_answers::unsteady())
            }
            _ => Ok(()),
        }
    }

    /// The canonical chain up to its tip in pages, for answers without end. If the tip of `state` is reorganised away
    /// meanwhile, the stream ends with [`Code::AnchorNotCanonical`] rather than mix two chains.
    pub fn pages(&self, state: &ChainState) -> impl Stream<Item = Result<Blocks, Failure>> + Send + use<> {
        store_answers::pages(self.local.store(), state)
    }

    /// What comes after the event `after`, oldest first, at most 100; empty if nothing does. Where events are
    /// missing in between, because they are too old to be kept, or `after` is of another store or of events that the store
    /// has lost, it is one `reset` to the current state. May be as old as [`Self::state`]; cheap while nothing changes.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`], [`Code::Internal`].
    pub async fn news(&self, after: Cursor) -> Result<Arc<[News]>, Failure> {
        let state = self.state().await?;
        self.followers.news(after, &state).await
    }

    /// How the store does, and how full what stands before it is.
    pub async fn figures(&self) -> Figures {
        self.local.cache.run_pending_tasks().await;
        self.followers.told.run_pending_tasks().await;
        Figures {
            store: self.local.store().figures(),
            cache_entries: self.local.cache.entry_count(),
            cache_bytes: self.local.cache.weighted_size(),
            news_entries: self.followers.told.entry_count(),
        }
    }

    fn connected(&self) -> Result<&P2pClient, Failure> {
        self.p2p().ok_or_else(|| Failure::new(Code::NoPeer))
    }

    async fn answer_by_any(&self, query: &Query, asker: u64) -> Result<Arc<Served>, Declined> {
        let p2p = &self.connected()?.on_behalf_of(asker);
        let deadline = tokio::time::Instant::now() + self.local.settings.peer_timeout;
        let mut last = Declined::from(Failure::new(Code::NoPeer));
        for peer in p2p.candidates().into_iter().take(MAX_ASKED_PEERS) {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let answer = peer::ask(p2p, peer, query, left).await;
            match self.serve_from(peer, answer).await {
                Err(declined) if peer::another_may_know_better(declined.failure.code) => last = declined,
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
            let level = peer::holds_blocks(&answer).then_some(Level::None);
            Ok(Served { level, ..Served::new(&answer, answerer, tip)? })
        });
        served.map(Arc::new).map_err(|failure| Declined { failure, answerer })
    }

    /// The jobs, newest first.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn sync_jobs(&self) -> Result<Vec<SyncJob>, Failure> {
        let store = self.local.store();
        let jobs = in_time(async { store.jobs(MAX_LISTED).await.map_err(store_failure) }).await?;
        let readable = |job: Job| {
            let id = job.id;
            let read = SyncJob::try_from(job);
            read.inspect_err(|error| tracing::warn!(id, %error, "a sync job of another version is left out")).ok()
        };
        Ok(jobs.into_iter().filter_map(readable).collect())
    }

    /// One job.
    ///
    /// # Errors
    /// [`Code::UnknownJob`], [`Code::StoreUnavailable`].
    pub async fn sync_job(&self, id: u64) -> Result<SyncJob, Failure> {
        let store = self.local.store();
        let job = in_time(async { store.job(id).await.map_err(store_failure) }).await?;
        job.ok_or_else(|| Failure::new(Code::UnknownJob))?.try_into().map_err(store_failure)
    }

    /// Asks for a job; whichever process syncs this store will do it. Returns its number.
    ///
    /// # Errors
    /// [`Code::Busy`] with too many jobs waiting, [`Code::StoreUnavailable`], those of [`Self::origin`] for a peer that
    /// isn't known.
    pub async fn request_sync(&self, spec: &JobSpec) -> Result<u64, Failure> {
        if let Some(peer) = &spec.peer {
            self.origin(peer)?;
        }
        if self.local.store().unfinished_jobs().await.map_err(store_failure)?.len() >= MAX_WAITING {
            return Err(Failure::with_detail(Code::Busy, format!("{MAX_WAITING} sync jobs wait already")));
        }
        let text = serde_json::to_string(spec).map_err(|_| Failure::new(Code::Internal))?;
        self.local.store().create_job(&text).await.map_err(store_failure)
    }

    /// Asks for the end of a job.
    ///
    /// # Errors
    /// [`Code::UnknownJob`] also for one that is finished, [`Code::StoreUnavailable`].
    pub async fn cancel_sync(&self, id: u64) -> Result<(), Failure> {
        match self.local.store().cancel_job(id).await.map_err(store_failure)? {
            true => Ok(()),
            false => Err(Failure::new(Code::UnknownJob)),
        }
    }

    /// How the store stands to the network, at most [`MAX_AGE`](super::local::MAX_AGE) old.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn sync_status(&self) -> Result<SyncStatus, Failure> {
        let store = self.local.store();
        let read = async { SyncStatus::read(&*store, self.local.settings.sync).await.map_err(store_failure) };
        in_time(self.status.get(read)).await.map(Arc::unwrap_or_clone)
    }

    /// The genesis that this store has settled for, where the settings name the one that is `pinned`; `None` before the
    /// first sync has ended. At most [`MAX_AGE`](super::local::MAX_AGE) old.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`].
    pub async fn genesis(&self, pinned: Option<&str>) -> Result<Option<Genesis>, Failure> {
        let store = self.local.store();
        let read = async { Genesis::read(&*store, pinned).await.map_err(store_failure) };
        in_time(self.genesis.get(read)).await.map(Arc::unwrap_or_clone)
    }
}

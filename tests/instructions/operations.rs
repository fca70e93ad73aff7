//! The operations: each is prepared once, and run again and again. They need no socket and, as far as that goes, no
//! other thread; SQLite has its own.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{Request, StatusCode, header},
};
use futures::future::{LocalBoxFuture, join_all};
use http_body_util::BodyExt;
use libp2p::PeerId;
use modal_gateway::{
    chain::{Level, MinerBlock, PowOptions, Verifier},
    http::{self, Gateway, PublicRoutes, server::Remote},
    p2p::Responder,
    protocol::{Answer, BlockList, Query, answer::EpochData, encode_request, open_envelope},
    source::{LocalSource, Origin, Settings, Source},
    store::BlockStore,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{BLOCKS, linked};

/// Runs of an operation before any is counted: they fill caches.
pub const WARM_UP: usize = 3;
/// Runs of an operation that are counted.
pub const ROUNDS: usize = 12;

/// The epoch that is asked for.
const EPOCH: u64 = 7;
const EPOCH_TARGET: &str = "/data/miner_block/epoch?epoch=7";

/// Runs an operation once, and checks its result.
pub type Operation = Box<dyn FnMut() -> LocalBoxFuture<'static, ()>>;

/// Makes an operation over a store with [`BLOCKS`] blocks.
pub type Prepare = fn(Arc<dyn BlockStore>) -> LocalBoxFuture<'static, Operation>;

/// A source reads the state of the chain again when it is 50 ms old: under callgrind some runs of an operation would do
/// that and others not, by the speed of the machine.
pub enum State {
    /// The state was read just before. Only for what takes far less time.
    Fresh,
    /// The state is old: the operation reads it.
    Old,
}

/// All of them, by name.
pub const OPERATIONS: [(&str, State, Prepare); 10] = [
    ("cached_epoch", State::Fresh, |store| Box::pin(cached_epoch(store))),
    ("not_modified", State::Fresh, |store| Box::pin(not_modified(store))),
    ("cached_csv", State::Old, |store| Box::pin(cached_csv(store))),
    ("block_page", State::Old, |store| Box::pin(block_page(store))),
    ("rate_limited", State::Fresh, |store| Box::pin(rate_limited(store))),
    ("uncached_get", State::Old, |store| Box::pin(uncached_get(store))),
    ("uncached_range_of_100", State::Old, |store| Box::pin(uncached_range(store))),
    ("peers_cached_epoch", State::Fresh, |store| Box::pin(peers_cached_epoch(store))),
    ("verify_epoch", State::Fresh, |store| Box::pin(verify_epoch(store))),
    ("encode_epoch", State::Fresh, |store| Box::pin(encode_epoch(store))),
];

/// A cached epoch over HTTP.
async fn cached_epoch(store: Arc<dyn BlockStore>) -> Operation {
    let client = Client::of(store, http::Settings::default());
    Box::new(move || client.expect(StatusCode::OK, EPOCH_TARGET, &[]))
}

/// The same, of which the client has a copy that is current.
async fn not_modified(store: Arc<dyn BlockStore>) -> Operation {
    let client = Client::of(store, http::Settings::default());
    let (head, _) = client.ask(EPOCH_TARGET, &[]).await;
    let tag = head.headers[header::ETAG].to_str().expect("an entity tag").to_owned();
    Box::new(move || client.expect(StatusCode::NOT_MODIFIED, EPOCH_TARGET, &[("if-none-match", &tag)]))
}

/// A list as CSV, of which the gateway has a copy.
async fn cached_csv(store: Arc<dyn BlockStore>) -> Operation {
    let client = Client::of(store, http::Settings::default());
    let target = "/data/miner_block/range?from_index=500&to_index=599";
    Box::new(move || client.expect(StatusCode::OK, target, &[("accept", "text/csv")]))
}

/// The explorer's page of a block.
async fn block_page(store: Arc<dyn BlockStore>) -> Operation {
    let client = Client::of(store, http::Settings::default());
    Box::new(move || client.expect(StatusCode::OK, "/block/1000", &[("accept", "text/html")]))
}

/// The refusal of a client that asked for too much.
async fn rate_limited(store: Arc<dyn BlockStore>) -> Operation {
    let client = Client::of(store, http::Settings { rate_limit: 1, rate_burst: 16, ..http::Settings::default() });
    // All are accepted before the first is paid for: they are debts of more than a minute.
    join_all((0..16).map(|_| client.ask("/data/miner_block/range?from_index=0&to_index=999", &[]))).await;
    Box::new(move || client.expect(StatusCode::TOO_MANY_REQUESTS, EPOCH_TARGET, &[]))
}

/// A block by its hash, read from SQLite.
async fn uncached_get(store: Arc<dyn BlockStore>) -> Operation {
    let source = Arc::new(Source::local_only(local(store, 0)));
    let blocks = linked::linked(None, BLOCKS, "instructions");
    let mut hashes =
        blocks.into_iter().map(|block| block.hash).skip(1).step_by(17).collect::<Vec<_>>().into_iter().cycle();
    Box::new(move || {
        let query = Query::Get { hash: hashes.next().unwrap_or_default() };
        answered(source.clone(), query)
    })
}

/// Blocks by index, read from SQLite.
async fn uncached_range(store: Arc<dyn BlockStore>) -> Operation {
    let source = Arc::new(Source::local_only(local(store, 0)));
    let mut starts = (100..BLOCKS - 100).step_by(100).cycle();
    Box::new(move || {
        let from_index = starts.next().unwrap_or_default();
        answered(source.clone(), Query::Range { from_index, to_index: from_index + 99, chunk_size: 1_000 })
    })
}

/// A libp2p peer's request, from its bytes to those of its cached answer.
async fn peers_cached_epoch(store: Arc<dyn BlockStore>) -> Operation {
    let source = local(store, CACHE);
    let request = encode_request(&Query::Epoch { epoch: EPOCH });
    Box::new(move || {
        let accepted = source.clone().accept(request.clone());
        Box::pin(async move { assert!(accepted.answer.await.starts_with(br#"{"ok":true,"#)) })
    })
}

/// A peer's answer with an epoch, read and verified at level `linked`.
async fn verify_epoch(store: Arc<dyn BlockStore>) -> Operation {
    let blocks = linked::linked(None, 81, "instructions");
    let verifier = Verifier::new(&linked::network(), Level::Linked, PowOptions::default()).expect("a verifier");
    let before = verifier.verify(None, blocks[..41].to_vec()).expect("an epoch");
    let answer = Source::local_only(local(store, 0)).answer(Query::Epoch { epoch: 1 }, &Origin::Local, 0).await;
    let body = answer.expect("an epoch").body.clone();
    Box::new(move || {
        let (verifier, before, body) = (verifier.clone(), before.end().cloned(), body.clone());
        Box::pin(async move {
            let data = open_envelope(&body).expect("an envelope").expect("an answer");
            let data: EpochData = serde_json::from_str(data).expect("an epoch");
            assert_eq!(verifier.verify(before.as_ref(), data.blocks).expect("a valid epoch").len(), 40);
        })
    })
}

/// An epoch's blocks, made the bytes of an answer.
async fn encode_epoch(_: Arc<dyn BlockStore>) -> Operation {
    let blocks: Arc<[MinerBlock]> = linked::linked(None, 81, "instructions")[41..].into();
    Box::new(move || {
        let blocks = blocks.clone();
        Box::pin(async move {
            let answer = Answer::Epoch { epoch: 1, blocks: BlockList::of(&blocks) };
            assert!(answer.encode().len() > 10_000);
        })
    })
}

/// Bytes of the answers in memory, as by default.
const CACHE: u64 = 32 << 20;

fn local(store: Arc<dyn BlockStore>, cache_bytes: u64) -> Arc<LocalSource> {
    let settings = Settings {
        finality_depth: 40,
        peer_timeout: Duration::from_secs(10),
        cache_bytes,
        sync: false,
        network: Arc::new(linked::network()),
    };
    Arc::new(LocalSource::new(store, PeerId::random(), settings))
}

fn answered(source: Arc<Source>, query: Query) -> LocalBoxFuture<'static, ()> {
    Box::pin(async move {
        let answer = source.answer(query, &Origin::Local, 0).await.expect("an answer");
        assert!(answer.body.len() > 400);
    })
}

/// A client of the routes, without the connection.
#[derive(Clone)]
struct Client(PublicRoutes);

impl Client {
    fn of(store: Arc<dyn BlockStore>, settings: http::Settings) -> Self {
        let source = Arc::new(Source::local_only(local(store, CACHE)));
        Self(http::public_routes(Gateway::new(source, settings, CancellationToken::new())))
    }

    /// Asks; what comes back, to its end.
    async fn ask(&self, target: &str, headers: &[(&'static str, &str)]) -> (axum::http::response::Parts, Bytes) {
        let remote: IpAddr = [192, 0, 2, 7].into();
        let mut request = Request::get(target).header("host", "gateway.example").extension(Remote(remote));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        let (head, body) = self.0.clone().oneshot(request).await.expect("a response").into_parts();
        (head, body.collect().await.expect("a body").to_bytes())
    }

    /// The same, for a response with this status.
    fn expect(
        &self,
        status: StatusCode,
        target: &'static str,
        headers: &[(&'static str, &str)],
    ) -> LocalBoxFuture<'static, ()> {
        let client = self.clone();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Box::pin(async move {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let (head, body) = client.ask(target, &headers).await;
            assert_eq!(head.status, status, "{target}");
            assert_eq!(body.is_empty(), status == StatusCode::NOT_MODIFIED, "{target}");
        })
    }
}

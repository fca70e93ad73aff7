//! Client handle to the node, and the commands that it sends to the worker.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::gossipsub::{MessageAcceptance, MessageId};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::outbound::Reply;
use super::queue::Origin;
use crate::chain::CumulativeDifficulty;
use crate::p2p::address::PeerAddress;
use crate::p2p::behaviour::gossip::{Gossip, MAX_GOSSIP_BYTES};
use crate::p2p::error::P2pError;
use crate::p2p::peers::claims::PeerChain;
use crate::p2p::peers::info::PeerInfo;
use crate::p2p::peers::score::Offence;
use crate::p2p::shared::{GossipStats, InboundStats, Shared};
use crate::protocol::MAX_RESPONSE_BYTES;
use crate::protocol::codec::WireRequest;
use crate::telemetry::Durations;

mod operator;

/// Timeout of [`P2pClient::dial`]: two attempts of the transport, of 10 s each.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// Command of a client to the worker.
pub(super) enum Command {
    Request {
        peer: PeerId,
        request: WireRequest,
        origin: Origin,
        reply: Reply,
    },
    Dial {
        address: Multiaddr,
        reply: oneshot::Sender<Result<PeerId, P2pError>>,
    },
    /// Configures a peer; replies whether it is new.
    Add {
        peer: PeerAddress,
        reply: oneshot::Sender<Result<bool, P2pError>>,
    },
    /// Removes a peer; replies with its id, if known.
    Remove {
        name: String,
        reply: oneshot::Sender<Result<Option<PeerId>, P2pError>>,
    },
    /// Disconnects peers that are no longer admitted.
    EnforceAdmission,
    Publish {
        data: Bytes,
    },
    ReportVerdict {
        id: MessageId,
        from: PeerId,
        verdict: MessageAcceptance,
    },
}

/// A handle to the node: cheap to clone, usable from any task. Reads are answered from memory at once.
#[derive(Clone)]
pub struct P2pClient {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    /// Memory in bytes that answers share while they arrive; `None`: no limit.
    answer_memory: Option<Arc<Semaphore>>,
    /// Origin of the requests that this handle sends.
    origin: Origin,
}

impl P2pClient {
    /// A handle for this node's own requests.
    pub(super) fn new(commands: mpsc::Sender<Command>, shared: Arc<Shared>) -> Self {
        Self { commands, shared, answer_memory: None, origin: Origin::Own }
    }

    /// Returns a handle that forwards clients' requests: answers longer than 4 KiB share `bytes` of memory while they
    /// arrive, and a request over that limit fails with [`P2pError::Busy`]. A quarter of the requests in flight to a
    /// peer is reserved for other handles. [`on_behalf_of`](Self::on_behalf_of) tells the clients apart.
    pub fn with_answer_memory(self, bytes: usize) -> Self {
        Self { answer_memory: Some(Arc::new(Semaphore::new(bytes))), origin: Origin::Client(0), ..self }
    }

    /// Returns a handle for one client, by `key`. Queued requests of one key are sent in order; different keys take
    /// turns.
    pub fn on_behalf_of(&self, key: u64) -> Self {
        Self { origin: Origin::Client(key), ..self.clone() }
    }

    /// Id of this node.
    pub fn local_peer_id(&self) -> PeerId {
        self.shared.local
    }

    /// Bound addresses: port 0 resolved, `0.0.0.0` replaced by the interfaces' addresses.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.shared.listen.borrow().clone()
    }

    /// [`listen_addresses`](Self::listen_addresses) with this node's id (`/p2p/ID`), for other nodes to dial.
    pub fn dial_addresses(&self) -> Vec<Multiaddr> {
        self.listen_addresses().into_iter().map(|address| address.with(Protocol::P2p(self.shared.local))).collect()
    }

    /// Finds a peer by `name`: a configured alias, or the base58 id of a peer that is configured, connected, or was
    /// connected lately.
    ///
    /// # Errors
    /// [`P2pError::UnknownPeer`]; [`P2pError::Unreachable`] for an alias whose address was given without an id and
    /// has not been reached yet.
    pub fn find(&self, name: &str) -> Result<PeerId, P2pError> {
        self.shared.book().find(name)
    }

    /// Sends an encoded request and waits for the encoded answer, for `timeout` at most (and never longer than the
    /// configured request timeout). A configured peer that is not connected is dialled first.
    ///
    /// To a peer that does not speak this program's own dialect, at most
    /// [`node_requests`](crate::p2p::P2pConfig::node_requests) are in flight; the others are queued. When the future is
    /// dropped or times out, a sent request stays in flight until it is answered or 60 s old.
    ///
    /// # Errors
    /// Any [`P2pError`] but those of starting. [`P2pError::Busy`]: the request was not sent, since it would wait, or
    /// waited, in the queue for longer than `timeout`.
    pub async fn request(&self, peer: PeerId, request: Bytes, timeout: Duration) -> Result<Bytes, P2pError> {
        self.request_within(peer, request, MAX_RESPONSE_BYTES, timeout).await.map(|(body, _)| body)
    }

    /// Like [`request`](Self::request), for an answer of at most `max_bytes`, rounded up to a power of two. A longer
    /// one fails with [`P2pError::TooLarge`], or [`P2pError::BadAnswer`] where it is compressed. Also returns the bytes
    /// of the answer on the wire, which are fewer where the peer compresses.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn request_within(
        &self,
        peer: PeerId,
        request: Bytes,
        max_bytes: usize,
        timeout: Duration,
    ) -> Result<(Bytes, usize), P2pError> {
        let (reply, answer) = oneshot::channel();
        let request = WireRequest::with_deadline(Instant::now() + timeout, request)
            .with_answer_limit(max_bytes)
            .with_answer_memory(self.answer_memory.clone());
        self.send(Command::Request { peer, request, origin: self.origin, reply })?;
        let answer = self.shared.request_durations.measure(answer).await.unwrap_or(Err(P2pError::Stopped));
        answer.map(|answer| (answer.body, answer.wire_bytes))
    }

    /// Publishes a new block by gossip. There is no confirmation, and no error where no peer is subscribed.
    ///
    /// # Errors
    /// [`P2pError::TooLarge`] over [`MAX_GOSSIP_BYTES`], [`P2pError::Busy`], [`P2pError::Stopped`].
    pub fn publish(&self, data: Bytes) -> Result<(), P2pError> {
        if data.len() > MAX_GOSSIP_BYTES {
            return Err(P2pError::TooLarge);
        }
        self.send(Command::Publish { data })
    }

    /// Takes the receiver of gossip messages, each delivered once and forwarded only after
    /// [`report_verdict`](Self::report_verdict) accepts it. It holds 256 messages; further ones are dropped and
    /// counted. `None` after the first call, and where gossip is off.
    pub fn gossip(&self) -> Option<mpsc::Receiver<Gossip>> {
        self.shared.gossip.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reports the verdict on a message. Without one for a few seconds, or where the command queue is full, the message
    /// is forgotten as with [`MessageAcceptance::Ignore`].
    pub fn report_verdict(&self, gossip: &Gossip, verdict: MessageAcceptance) {
        let command = Command::ReportVerdict { id: gossip.id.clone(), from: gossip.from, verdict };
        if let Err(error) = self.send(command) {
            tracing::debug!(%error, "a verdict on gossip is lost");
        }
    }

    /// Waits until a gossip message is dropped: its sender is shunned or over its rate limit, or the queue is full.
    /// Gossipsub does not deliver the message again, so that its block must be requested. Returns at once if one was
    /// dropped since the last call; for one caller at a time.
    pub async fn missed_gossip(&self) {
        self.shared.gossip_missed.notified().await;
    }

    /// Durations of requests to peers, failed ones too.
    pub fn request_durations(&self) -> &Durations {
        &self.shared.request_durations
    }

    /// Counters of gossip.
    pub fn gossip_stats(&self) -> GossipStats {
        self.shared.stats().gossip
    }

    /// Records an offence. A peer with a high score is shunned: it is no [candidate](Self::candidates) and its gossip
    /// is dropped until the score has decayed; see [`Offence`]. It may still be asked by name.
    pub fn penalise(&self, peer: PeerId, offence: Offence) {
        tracing::debug!(%peer, offence = offence.as_str(), "a peer is penalised");
        if self.shared.book_mut().penalise(peer, offence, Instant::now()) {
            tracing::info!(%peer, offence = offence.as_str(), "a peer is banned");
            self.enforce_admission();
        }
    }

    /// Records the verified work of the peer's chain.
    pub fn note_work(&self, peer: PeerId, work: CumulativeDifficulty) {
        self.shared.book_mut().note_work(peer, work);
    }

    /// Records the peer's claims about its chain for [`peers`](Self::peers); nothing else depends on them. Unknown
    /// peers are ignored.
    pub fn note_chain(&self, peer: PeerId, chain: PeerChain) {
        self.shared.book_mut().note_chain(&peer, chain);
    }

    /// Verified work of the peer's chain.
    pub fn verified_work(&self, peer: &PeerId) -> CumulativeDifficulty {
        self.shared.book().verified_work(peer)
    }

    /// Whether the operator trusts the peer: configured, on the allow-list, or dialled by a command.
    pub fn is_trusted(&self, peer: &PeerId) -> bool {
        self.shared.book().is_trusted(peer)
    }

    fn send(&self, command: Command) -> Result<(), P2pError> {
        self.reserve().map(|slot| slot.send(command))
    }

    /// Reserves a slot in the command queue.
    fn reserve(&self) -> Result<mpsc::Permit<'_, Command>, P2pError> {
        self.commands.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => P2pError::Busy,
            mpsc::error::TrySendError::Closed(()) => P2pError::Stopped,
        })
    }

    /// Peers to send requests to, best first. Peers that speak the protocol, as identify says, and are not shunned:
    /// connected ones first, then configured ones that may be dialled; each by recent failures, then by latency. Where
    /// none is left, trusted peers even if shunned.
    pub fn candidates(&self) -> Vec<PeerId> {
        self.shared.book().candidates(Instant::now())
    }

    /// Dials an address and returns the id of the peer there. For the operator's commands: never pass an address that a
    /// client or a peer sent. Returns at once where the address names a connected peer.
    ///
    /// # Errors
    /// [`P2pError::Unreachable`] with the reason, [`P2pError::Timeout`] after 20 s, [`P2pError::Busy`],
    /// [`P2pError::Stopped`].
    pub async fn dial(&self, address: Multiaddr) -> Result<PeerId, P2pError> {
        let (reply, connected) = oneshot::channel();
        self.send(Command::Dial { address, reply })?;
        match timeout(DIAL_TIMEOUT, connected).await {
            Ok(connected) => connected.unwrap_or(Err(P2pError::Stopped)),
            Err(_) => Err(P2pError::Timeout),
        }
    }

    /// Information on all known peers: configured ones first, in the operator's order.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.shared.book().infos(Instant::now())
    }

    /// Counters of inbound requests.
    pub fn inbound_stats(&self) -> InboundStats {
        self.shared.stats().inbound
    }

    /// Changes whenever a peer connects, disconnects or identifies itself.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changes.subscribe()
    }

    /// Waits until the peer of this alias or id is connected and has identified itself.
    ///
    /// # Errors
    /// [`P2pError::Timeout`], [`P2pError::Stopped`].
    pub async fn wait_connected(&self, name: &str, limit: Duration) -> Result<PeerId, P2pError> {
        let mut changes = self.changes();
        let ready = async {
            loop {
                {
                    let book = self.shared.book();
                    if let Some(peer) = book.find(name).ok().filter(|peer| book.is_ready(peer)) {
                        return Ok(peer);
                    }
                }
                tokio::select! {
                    _ = changes.changed() => {}
                    () = self.commands.closed() => return Err(P2pError::Stopped),
                }
            }
        };
        timeout(limit, ready).await.unwrap_or(Err(P2pError::Timeout))
    }
}

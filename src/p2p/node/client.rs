//! The handle through which everybody else uses the node.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::gossipsub::MessageId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::outbound::Reply;
use super::queue::OnBehalf;
use crate::chain::CumulativeDifficulty;
use crate::p2p::address::PeerAddress;
use crate::p2p::behaviour::gossip::{Gossip, MAX_GOSSIP_BYTES, Verdict};
use crate::p2p::error::P2pError;
use crate::p2p::peers::claims::PeerChain;
use crate::p2p::peers::info::PeerInfo;
use crate::p2p::peers::score::Offence;
use crate::p2p::shared::{GossipStats, InboundStats, Shared};
use crate::protocol::MAX_RESPONSE_BYTES;
use crate::protocol::codec::Request;

mod operator;

/// How long [`P2pClient::dial`] waits: two attempts of the transport, which gives up after 10 s each.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// What a client asks of the worker.
pub(super) enum Command {
    Request {
        peer: PeerId,
        request: Request,
        asker: OnBehalf,
        reply: Reply,
    },
    Dial {
        address: Multiaddr,
        reply: oneshot::Sender<Result<PeerId, P2pError>>,
    },
    /// To stay connected with this peer; tells whether it is new.
    Add {
        peer: PeerAddress,
        reply: oneshot::Sender<Result<bool, P2pError>>,
    },
    /// No longer to; tells who it is, where that is known.
    Forget {
        name: String,
        reply: oneshot::Sender<Result<Option<PeerId>, P2pError>>,
    },
    /// To look after whom we should not be connected with.
    Enforce,
    Publish {
        data: Bytes,
    },
    Judge {
        id: MessageId,
        from: PeerId,
        verdict: Verdict,
    },
}

/// A handle to the node: cheap to clone, usable from any task. Reads are answered from memory at once.
#[derive(Clone)]
pub struct P2pClient {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    /// What answers take while they arrive; `None`: as much as there is.
    room: Option<Arc<Semaphore>>,
    /// For whom it asks.
    asker: OnBehalf,
}

impl P2pClient {
    /// A handle for this node's own requests.
    pub(super) fn new(commands: mpsc::Sender<Command>, shared: Arc<Shared>) -> Self {
        Self { commands, shared, room: None, asker: OnBehalf::Own }
    }

    /// The same handle, for many who ask through us at once: answers longer than 4 KiB share `bytes` while they arrive. One
    /// for which there is no room left is given up with [`P2pError::Busy`]. Of the requests in flight to a peer, a quarter
    /// is left to other handles. To be told apart, those who ask need [`on_behalf_of`](Self::on_behalf_of).
    pub fn sharing(self, bytes: usize) -> Self {
        Self { room: Some(Arc::new(Semaphore::new(bytes))), asker: OnBehalf::Client(0), ..self }
    }

    /// The same handle, for one of many who ask through this node: requests of the same key wait for their turn one after
    /// the other, those of different keys side by side. The node's own requests have no key.
    pub fn on_behalf_of(&self, key: u64) -> Self {
        Self { asker: OnBehalf::Client(key), ..self.clone() }
    }

    /// Our own id.
    pub fn local_peer_id(&self) -> PeerId {
        self.shared.local
    }

    /// The addresses really bound: port 0 resolved, `0.0.0.0` replaced by the interfaces' addresses.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.shared.listen.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// [`listen_addresses`](Self::listen_addresses) with our id (`/p2p/ID`): what another node is given to reach us.
    pub fn dial_addresses(&self) -> Vec<Multiaddr> {
        self.listen_addresses().into_iter().map(|address| address.with(Protocol::P2p(self.shared.local))).collect()
    }

    /// The id behind `name`: a configured alias whose id is known, or the base58 id of a peer that is configured,
    /// connected, or was connected lately. Never ourselves.
    pub fn resolve(&self, name: &str) -> Option<PeerId> {
        self.shared.book().resolve(name)
    }

    /// Like [`resolve`](Self::resolve), with the reason.
    ///
    /// # Errors
    /// [`P2pError::UnknownPeer`]; [`P2pError::Unreachable`] for an alias whose address was given without an id and
    /// has not been reached yet.
    pub fn find(&self, name: &str) -> Result<PeerId, P2pError> {
        self.shared.book().find(name)
    }

    /// Sends an encoded request and waits for the encoded answer, for `timeout` at most (and never longer than the
    /// configured request timeout). A peer of the operator's that is not connected is dialled first.
    ///
    /// To a peer that does not speak this program's own dialect few requests are in flight
    /// ([`node_requests`](crate::p2p::P2pConfig::node_requests)); the others wait for their turn here. Whoever drops the future,
    /// or whose time is over, leaves a request that was sent in flight until it is answered, or 60 s old.
    ///
    /// # Errors
    /// Any [`P2pError`] but the ones of starting. [`P2pError::Busy`] at once where the turn would come too late, and at the
    /// end of the time where it has not come: the request was not sent then.
    pub async fn request(&self, peer: PeerId, request: Bytes, timeout: Duration) -> Result<Bytes, P2pError> {
        self.request_counted(peer, request, timeout).await.map(|(body, _)| body)
    }

    /// Like [`request`](Self::request); also tells how many bytes of the answer came over the wire, which are fewer than
    /// it has where the peer compresses.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn request_counted(
        &self,
        peer: PeerId,
        request: Bytes,
        timeout: Duration,
    ) -> Result<(Bytes, usize), P2pError> {
        self.request_within(peer, request, MAX_RESPONSE_BYTES, timeout).await
    }

    /// Like [`request_counted`](Self::request_counted), of a question whose answer has `most_bytes` at most, rounded up to
    /// a power of two; a longer one is given up with [`P2pError::TooLarge`], or [`P2pError::BadAnswer`] where it came
    /// compressed.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn request_within(
        &self,
        peer: PeerId,
        request: Bytes,
        most_bytes: usize,
        timeout: Duration,
    ) -> Result<(Bytes, usize), P2pError> {
        let (reply, awaited) = Reply::new();
        let deadline = Instant::now() + timeout;
        let request = Request::until(deadline, request).answered_in(most_bytes).answered_within(self.room.clone());
        self.send(Command::Request { peer, request, asker: self.asker, reply })?;
        awaited.until(deadline).await.map(|answer| (answer.body, answer.wire_bytes))
    }

    /// Tells a new block to the peers that listen for them; that there are none is no error. They may refuse it, and
    /// whether it arrived is not told.
    ///
    /// # Errors
    /// [`P2pError::TooLarge`] over [`MAX_GOSSIP_BYTES`], [`P2pError::Busy`], [`P2pError::Stopped`].
    pub fn publish(&self, data: Bytes) -> Result<(), P2pError> {
        if data.len() > MAX_GOSSIP_BYTES {
            return Err(P2pError::TooLarge);
        }
        self.send(Command::Publish { data })
    }

    /// The blocks that others tell of, each once, and not passed on before [`judge`](Self::judge) accepts it. Holds 256;
    /// what exceeds that is dropped and counted. Given out once; `None` after that, and where gossip is off.
    pub fn gossip(&self) -> Option<mpsc::Receiver<Gossip>> {
        self.shared.gossip.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Says what becomes of a message. One that is not judged within a few seconds is forgotten, as with
    /// [`Verdict::Ignore`]; so is one whose verdict finds the command queue full.
    pub fn judge(&self, gossip: &Gossip, verdict: Verdict) {
        let command = Command::Judge { id: gossip.id.clone(), from: gossip.from, verdict };
        if let Err(error) = self.send(command) {
            tracing::debug!(%error, "a verdict on gossip is lost");
        }
    }

    /// Waits until a message is dropped: its sender is not listened to, or not so often, or there is no room. The same
    /// message from somebody else is not told again, so that what it was about must be asked for. At once if one was
    /// dropped since the last call; for one caller at a time.
    pub async fn missed_gossip(&self) {
        self.shared.missed.notified().await;
    }

    /// What happened to gossip.
    pub fn gossip_stats(&self) -> GossipStats {
        self.shared.counters.gossip()
    }

    /// Notes an offence. A peer with too many of late is shunned: no [candidate](Self::candidates), and its gossip is
    /// dropped, until they are forgotten; see [`Offence`]. It may still be asked by name.
    pub fn penalise(&self, peer: PeerId, offence: Offence) {
        tracing::debug!(%peer, offence = offence.as_str(), "a peer is penalised");
        if self.shared.book_mut().penalise(peer, offence, Instant::now()) {
            tracing::info!(%peer, offence = offence.as_str(), "a peer is banned");
            self.enforce();
        }
    }

    /// Notes the work of the peer's chain as far as we have verified it.
    pub fn note_work(&self, peer: PeerId, work: CumulativeDifficulty) {
        self.shared.book_mut().note_work(peer, work);
    }

    /// Notes what the peer says of its chain, and how that stands to ours, for [`peers`](Self::peers) to tell. Nothing else
    /// follows from it; a peer that is not known is left out.
    pub fn note_chain(&self, peer: PeerId, chain: PeerChain) {
        self.shared.book_mut().note_chain(&peer, chain);
    }

    /// The work of the peer's chain as far as we have verified it.
    pub fn verified_work(&self, peer: &PeerId) -> CumulativeDifficulty {
        self.shared.book().verified_work(peer)
    }

    /// Whether the operator trusts the peer: configured, on the allow-list, or dialled by a command.
    pub fn is_trusted(&self, peer: &PeerId) -> bool {
        self.shared.book().is_trusted(peer)
    }

    fn send(&self, command: Command) -> Result<(), P2pError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => P2pError::Busy,
            mpsc::error::TrySendError::Closed(_) => P2pError::Stopped,
        })
    }

    /// Peers worth asking, best first, without the shunned ones: those that speak the protocol (identify said so) and are connected, then
    /// configured ones that hung up and may be dialled; among them fewest recent failures, then lowest latency. Where nobody
    /// is left, those that the operator trusts, whatever they did.
    pub fn candidates(&self) -> Vec<PeerId> {
        self.shared.book().candidates(Instant::now())
    }

    /// Connects to an address, and returns who is there. For the operator's own commands: never hand it an address
    /// that a client or a peer sent. At once when the address names a peer that is connected, and well if it connects
    /// otherwise meanwhile.
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

    /// Everybody we know: configured peers first, in the operator's order.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.shared.book().infos(Instant::now())
    }

    /// What happened to the requests of others.
    pub fn inbound(&self) -> InboundStats {
        self.shared.counters.inbound()
    }

    /// Changes whenever a peer connects, leaves, or identifies itself: [`peers`](Self::peers) is worth another look.
    pub fn changes(&self) -> watch::Receiver<u64> {
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
                    if let Some(peer) = book.resolve(name).filter(|peer| book.is_ready(peer)) {
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

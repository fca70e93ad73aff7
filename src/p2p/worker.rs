//! The task that owns the swarm.
//!
//! Written as one `poll` function rather than a `select!` loop: at several thousand requests a second the task takes
//! whatever is ready (events, commands, finished answers) in one go, and goes to sleep once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use libp2p::gossipsub::MessageId;
use libp2p::request_response::{self, Message, OutboundFailure, OutboundRequestId};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, Sleep};
use tokio_util::sync::CancellationToken;

use super::address::PeerAddress;
use super::behaviour::BehaviourEvent;
use super::connections::reason;
use super::dialer::{Dialer, to_peer};
use super::discovery::Discovery;
use super::gossip::{self, Gossip, Verdict};
use super::guard::Guard;
use super::inbound::Inbound;
use super::rate::Shares;
use super::serving::Answered;
use super::{P2pConfig, P2pError, Responder, Shared, memory, swarm};
use crate::protocol::codec::{Request, Response, TooLarge};

/// Rounds of events before other tasks of the same thread get their turn.
const ROUNDS_PER_POLL: usize = 64;

/// A timer can't be set to less.
const MIN_DISCOVERY_INTERVAL: Duration = Duration::from_millis(1);

/// What a client asks of the worker.
pub(super) enum Command {
    Request {
        peer: PeerId,
        request: Request,
        /// Somebody asks through us.
        forwarded: bool,
        reply: oneshot::Sender<Result<Response, P2pError>>,
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

/// A request of ours that has no answer yet.
struct Pending {
    peer: PeerId,
    sent: Instant,
    reply: oneshot::Sender<Result<Response, P2pError>>,
}

pub(super) struct Worker {
    pub(super) swarm: Swarm<Guard>,
    pub(super) shared: Arc<Shared>,
    pub(super) responder: Arc<dyn Responder>,
    commands: mpsc::Receiver<Command>,
    pub(super) inbound: Inbound,
    /// At most `max_inbound`: `inbound` gives a place back when the work is done, not when its asker hangs up.
    pub(super) answering: JoinSet<Answered>,
    pub(super) request_timeout: Duration,
    /// At most `max_outbound_per_peer` per peer, forwarded ones included; the codec's deadline, or the behaviour's
    /// timeout, ends each.
    pending: HashMap<OutboundRequestId, Pending>,
    in_flight: HashMap<PeerId, usize>,
    max_outbound_per_peer: usize,
    /// Dials that an operator waits for.
    pub(super) dials: HashMap<ConnectionId, (Multiaddr, oneshot::Sender<Result<PeerId, P2pError>>)>,
    pub(super) dialer: Dialer,
    pub(super) redial: Pin<Box<Sleep>>,
    pub(super) discovery: Discovery,
    search: Interval,
    /// From how many bytes of this process on strangers go.
    pub(super) memory_limit: usize,
    relief: Interval,
    /// Who has been sent away since there was enough.
    pub(super) relieved_of: HashSet<PeerId>,
    /// To whoever takes gossip.
    pub(super) heard: mpsc::Sender<Gossip>,
    pub(super) gossip_rate: Shares,
}

impl Worker {
    pub fn new(
        config: &P2pConfig,
        shared: Arc<Shared>,
        responder: Arc<dyn Responder>,
        commands: mpsc::Receiver<Command>,
        heard: mpsc::Sender<Gossip>,
    ) -> Result<Self, P2pError> {
        let now = Instant::now();
        let mut search = tokio::time::interval(config.discovery_interval.max(MIN_DISCOVERY_INTERVAL));
        let mut relief = tokio::time::interval(memory::LOOK_EVERY);
        for interval in [&mut search, &mut relief] {
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        Ok(Self {
            swarm: swarm::build(config, Arc::clone(&shared))?,
            shared,
            responder,
            commands,
            inbound: Inbound::new(config),
            answering: JoinSet::new(),
            request_timeout: config.request_timeout,
            pending: HashMap::new(),
            in_flight: HashMap::new(),
            max_outbound_per_peer: config.max_outbound_per_peer,
            dials: HashMap::new(),
            dialer: Dialer::new(&config.peers, config.redial_min, config.redial_max, now),
            redial: Box::pin(tokio::time::sleep_until(now.into())),
            discovery: Discovery::new(config),
            search,
            memory_limit: memory::limit(config.memory_limit),
            relief,
            relieved_of: HashSet::new(),
            heard,
            gossip_rate: Shares::new(gossip::PER_SECOND, gossip::BURST),
        })
    }

    /// Runs until `shutdown`; then connections close and whoever waits is told [`P2pError::Stopped`].
    pub async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(poll_fn(|context| self.poll(context))).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS_PER_POLL {
            let mut idle = true;
            if let Poll::Ready(event) = self.swarm.poll_next_unpin(context) {
                let Some(event) = event else { return Poll::Ready(()) };
                self.on_event(event);
                idle = false;
            }
            while let Poll::Ready(Some(command)) = self.commands.poll_recv(context) {
                self.on_command(command);
                idle = false;
            }
            while let Poll::Ready(Some(answered)) = self.answering.poll_join_next(context) {
                if let Ok((id, channel, answer)) = answered {
                    self.answer(id, channel, answer);
                }
                idle = false;
            }
            if self.redial.as_mut().poll(context).is_ready() {
                self.dial_due();
                idle = false;
            }
            if self.search.poll_tick(context).is_ready() {
                self.discover();
                idle = false;
            }
            if self.relief.poll_tick(context).is_ready() {
                self.relieve();
                idle = false;
            }
            if idle {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    pub(super) fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Requests(event)) => self.on_request_event(event),
            SwarmEvent::Behaviour(BehaviourEvent::Inbound(event)) => self.on_inbound_event(event),
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            event => self.on_swarm_event(event),
        }
    }
}

impl Worker {
    fn on_command(&mut self, command: Command) {
        match command {
            // Whoever asked may have given up while the command waited.
            Command::Request { reply, .. } if reply.is_closed() => {}
            Command::Request { peer, request, forwarded, reply } => match self.reach(peer, forwarded) {
                Ok(()) => self.send(peer, request, reply),
                Err(error) => _ = reply.send(Err(error)),
            },
            Command::Dial { address, reply } => self.dial(address, reply),
            Command::Add { peer, reply } => _ = reply.send(self.add(&peer)),
            Command::Forget { name, reply } => _ = reply.send(self.forget(&name)),
            Command::Enforce => self.enforce(),
            Command::Publish { data } => self.publish(data),
            Command::Judge { id, from, verdict } => self.judge(&id, &from, verdict),
        }
    }

    /// Checks that a request may go to `peer`, and starts a dial where there is no connection.
    fn reach(&mut self, peer: PeerId, forwarded: bool) -> Result<(), P2pError> {
        if !self.shared.book().may_be_asked(&peer) {
            return Err(P2pError::UnknownPeer);
        }
        // What is forwarded leaves a quarter of the places to what we ask ourselves: the sync must go on.
        let most = self.max_outbound_per_peer;
        let most = if forwarded { most - most / 4 } else { most };
        if self.in_flight.get(&peer).is_some_and(|count| *count >= most) {
            return Err(P2pError::Busy);
        }
        if self.swarm.behaviour().parts.requests.is_connected(&peer) {
            return Ok(());
        }
        let addresses = self.shared.book().addresses(&peer).ok_or(P2pError::UnknownPeer)?.to_vec();
        if addresses.is_empty() {
            return Err(P2pError::Unreachable("it is not connected, and no address is configured".into()));
        }
        match self.dial_for_operator(to_peer(peer, addresses)) {
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => Ok(()),
            Err(error) => Err(P2pError::Unreachable(reason(&error))),
        }
    }

    /// Hands the request to the behaviour, which keeps it until the dial is done.
    fn send(&mut self, peer: PeerId, request: Request, reply: oneshot::Sender<Result<Response, P2pError>>) {
        let id = self.swarm.behaviour_mut().parts.requests.send_request(&peer, request);
        self.pending.insert(id, Pending { peer, sent: Instant::now(), reply });
        *self.in_flight.entry(peer).or_default() += 1;
    }

    fn on_request_event(&mut self, event: request_response::Event<Request, Response>) {
        use request_response::Event;
        match event {
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.finish(request_id, Ok(response));
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                let error = self.failure(&peer, error);
                self.finish(request_id, Err(error));
            }
            // This behaviour only asks.
            Event::Message { .. } | Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    fn failure(&self, peer: &PeerId, error: OutboundFailure) -> P2pError {
        match error {
            OutboundFailure::DialFailure => {
                P2pError::Unreachable(self.shared.book().dial_error(peer).unwrap_or("no connection").into())
            }
            OutboundFailure::ConnectionClosed => {
                P2pError::Unreachable("the connection closed before the answer".into())
            }
            OutboundFailure::Timeout => P2pError::Timeout,
            OutboundFailure::UnsupportedProtocols => P2pError::Unsupported,
            OutboundFailure::Io(error) if error.kind() == io::ErrorKind::TimedOut => P2pError::Timeout,
            OutboundFailure::Io(error) if error.kind() == io::ErrorKind::OutOfMemory => P2pError::Busy,
            OutboundFailure::Io(error) if TooLarge::is(&error) => P2pError::TooLarge,
            OutboundFailure::Io(error) => P2pError::BadAnswer(error.to_string()),
        }
    }

    fn finish(&mut self, id: OutboundRequestId, result: Result<Response, P2pError>) {
        let Some(Pending { peer, sent, reply }) = self.pending.remove(&id) else { return };
        if let Entry::Occupied(mut count) = self.in_flight.entry(peer) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        let now = Instant::now();
        match &result {
            Ok(_) => self.shared.book_mut().answered(peer, now - sent),
            // We have no room for the answer, which is not the peer's fault.
            Err(P2pError::Busy) => {}
            Err(error) => self.shared.book_mut().failed(peer, error, now),
        }
        let _ = reply.send(result);
    }
}

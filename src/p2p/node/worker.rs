//! Worker: the task that owns the swarm.
//!
//! One `poll` function rather than a `select!` loop: at several thousand requests a second the task takes everything
//! that is ready (events, commands, finished answers) in one go, and sleeps once.
//!
//! The handlers of events and commands are in the child modules.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use libp2p::request_response::{InboundRequestId, ResponseChannel};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, Sleep};
use tokio_util::sync::CancellationToken;

use super::client::Command;
use super::dialer::Dialer;
use super::discovery::Discovery;
use super::outbound::OutboundRequests;
use super::queue::Queue;
use crate::p2p::admission::Admission;
use crate::p2p::admission::inbound::{DelayedRequests, InboundLimits, PeerRateLimit};
use crate::p2p::admission::memory::{CHECK_INTERVAL, MemoryPressure};
use crate::p2p::behaviour::BehaviourEvent;
use crate::p2p::behaviour::gossip::{Gossip, RATE};
use crate::p2p::config::P2pConfig;
use crate::p2p::error::P2pError;
use crate::p2p::shared::Shared;
use crate::protocol::codec::WireResponse;

mod closing;
mod connections;
mod discovery;
mod requests;
mod serving;

/// Rounds before the task yields to others of its thread.
const ROUNDS_PER_POLL: usize = 8;

/// Events of the swarm in a round, before commands and timers have their turn.
const EVENTS_PER_ROUND: usize = 16;

/// Shortest interval of a timer.
const MIN_DISCOVERY_INTERVAL: Duration = Duration::from_millis(1);

/// Distance of a timer without work.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest request that is parsed on the swarm's task: parsing longer ones takes long, and they are rare.
pub const MAX_INLINE_BYTES: usize = 32 << 10;

/// Service that answers inbound requests.
pub trait Responder: Send + Sync + 'static {
    /// Accepts an encoded request. Called on the swarm's task: it must be quick for a request of 1 MiB.
    fn accept(self: Arc<Self>, request: Bytes) -> Accepted;
}

/// A request that a [`Responder`] has accepted.
pub struct Accepted {
    /// Estimated bytes of the answer, which count for the memory limit before any work is done. A longer answer is sent
    /// if it is within the limit then.
    pub cost: usize,
    /// The encoded answer, at most [`MAX_RESPONSE_BYTES`](crate::protocol::MAX_RESPONSE_BYTES) long: a longer one is
    /// not sent, and the stream ends.
    ///
    /// For a request of at most [`MAX_INLINE_BYTES`] the future is first polled on the swarm's task, so that an answer
    /// which is ready (from a cache) costs no task. Long work belongs behind the first `await`.
    pub answer: BoxFuture<'static, Bytes>,
}

impl Accepted {
    /// A request whose answer is short: it costs nothing.
    pub fn short(answer: impl Future<Output = Bytes> + Send + 'static) -> Self {
        Self { cost: 0, answer: answer.boxed() }
    }
}

/// An inbound request with its answer; `None` when the responder panicked or timed out.
type Answered = (InboundRequestId, ResponseChannel<WireResponse>, Option<Bytes>);

/// Reason for which a peer is disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloseReason {
    /// The operator removed it.
    Removed,
    /// The peer book does not admit it any more.
    NotAdmitted,
    /// The process is over its memory limit, and the peer is not trusted.
    Memory,
}

/// A connection that closes once nothing is in flight to its peer.
#[derive(Debug, Clone, Copy)]
struct Closing {
    reason: CloseReason,
    /// Time at which it closes in any case.
    until: Instant,
}

/// State of the task that owns the swarm.
pub(super) struct Worker {
    swarm: Swarm<Admission>,
    shared: Arc<Shared>,
    responder: Arc<dyn Responder>,
    commands: mpsc::Receiver<Command>,
    inbound: InboundLimits,
    /// Inbound requests that wait for a limit.
    delayed: DelayedRequests,
    /// Running responders; at most `max_inbound`, since `inbound` counts a request until its work is done.
    responding: JoinSet<Answered>,
    request_timeout: Duration,
    outbound: OutboundRequests,
    /// Timer of the next deadline of `outbound`, `delayed` or `closing`.
    deadline_timer: Pin<Box<Sleep>>,
    /// Peers to disconnect once nothing is in flight to them.
    closing: HashMap<PeerId, Closing>,
    closing_timeout: Duration,
    /// Whether the node shuts down: nothing new is begun.
    stopping: bool,
    /// Dials that a command waits for.
    dial_commands: HashMap<ConnectionId, (Multiaddr, oneshot::Sender<Result<PeerId, P2pError>>)>,
    dialer: Dialer,
    redial_timer: Pin<Box<Sleep>>,
    discovery: Discovery,
    discovery_timer: Interval,
    memory: MemoryPressure,
    memory_timer: Interval,
    /// Connected peers that are being disconnected for want of memory.
    shed: HashSet<PeerId>,
    /// Sender to the client that takes gossip.
    gossip_sender: mpsc::Sender<Gossip>,
    gossip_rate: PeerRateLimit,
}

impl Worker {
    pub fn new(
        config: &P2pConfig,
        swarm: Swarm<Admission>,
        shared: Arc<Shared>,
        responder: Arc<dyn Responder>,
        commands: mpsc::Receiver<Command>,
        gossip_sender: mpsc::Sender<Gossip>,
    ) -> Self {
        let now = Instant::now();
        let mut discovery_timer = tokio::time::interval(config.discovery_interval.max(MIN_DISCOVERY_INTERVAL));
        let mut memory_timer = tokio::time::interval(CHECK_INTERVAL);
        for interval in [&mut discovery_timer, &mut memory_timer] {
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let memory_limit = swarm.behaviour().inner.memory.max_allowed_bytes();
        Self {
            swarm,
            shared,
            responder,
            commands,
            inbound: InboundLimits::new(config),
            delayed: DelayedRequests::new(config),
            responding: JoinSet::new(),
            request_timeout: config.request_timeout,
            outbound: OutboundRequests::new(config),
            deadline_timer: Box::pin(tokio::time::sleep_until((now + NEVER).into())),
            closing: HashMap::new(),
            closing_timeout: config.closing_timeout,
            stopping: false,
            dial_commands: HashMap::new(),
            dialer: Dialer::new(&config.peers, config.redial_min, config.redial_max, now),
            redial_timer: Box::pin(tokio::time::sleep_until(now.into())),
            discovery: Discovery::new(config),
            discovery_timer,
            memory: MemoryPressure::new(memory_limit),
            memory_timer,
            shed: HashSet::new(),
            gossip_sender,
            gossip_rate: PeerRateLimit::new(RATE),
        }
    }

    /// Runs until `shutdown`. Then all commands fail with [`P2pError::Stopped`], and the connections close once
    /// everything in flight is answered, or after `closing_timeout`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        if shutdown.run_until_cancelled(poll_fn(|context| self.poll(context))).await.is_some() {
            return;
        }
        self.stop();
        let limit = self.closing_timeout;
        let answered = poll_fn(|context| {
            if self.outbound.pending.is_empty() || self.poll(context).is_ready() || self.outbound.pending.is_empty() {
                return Poll::Ready(());
            }
            Poll::Pending
        });
        if tokio::time::timeout(limit, answered).await.is_err() {
            tracing::warn!(requests = self.outbound.pending.len(), "the node stops with unanswered requests");
        }
    }

    /// Stops accepting commands and connections, and drops requests that were not sent.
    fn stop(&mut self) {
        self.stopping = true;
        self.swarm.behaviour_mut().close();
        self.commands.close();
        // Dropping a command fails it.
        while self.commands.try_recv().is_ok() {}
        self.dial_commands.clear();
        self.drop_unsent();
    }

    /// Polls everything, and publishes the gauges once rather than at each change.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let poll = self.poll_rounds(context);
        self.update_gauges();
        poll
    }

    fn poll_rounds(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS_PER_POLL {
            let mut idle = true;
            for _ in 0..EVENTS_PER_ROUND {
                let Poll::Ready(event) = self.swarm.poll_next_unpin(context) else { break };
                let Some(event) = event else { return Poll::Ready(()) };
                self.on_event(event);
                idle = false;
            }
            while let Poll::Ready(Some(command)) = self.commands.poll_recv(context) {
                self.on_command(command);
                idle = false;
            }
            while let Poll::Ready(Some(answered)) = self.responding.poll_join_next(context) {
                if let Ok((id, channel, answer)) = answered {
                    self.answer(id, channel, answer);
                }
                self.serve_delayed();
                idle = false;
            }
            if self.deadline_timer.as_mut().poll(context).is_ready() {
                self.on_deadline();
                idle = false;
            }
            if self.stopping {
                if idle {
                    return Poll::Pending;
                }
                continue;
            }
            if self.redial_timer.as_mut().poll(context).is_ready() {
                self.dial_due();
                idle = false;
            }
            if self.discovery_timer.poll_tick(context).is_ready() {
                self.discover();
                idle = false;
            }
            if self.memory_timer.poll_tick(context).is_ready() {
                self.shed_untrusted();
                idle = false;
            }
            if idle {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn update_gauges(&self) {
        let swarm = self.swarm.network_info();
        let (connections, outbound) = (swarm.connection_counters(), &self.outbound);
        let mut stats = self.shared.stats();
        let gauges = &mut stats.endpoint;
        gauges.connections_in = connections.num_established_incoming().into();
        gauges.connections_out = connections.num_established_outgoing().into();
        gauges.pending_in = connections.num_pending_incoming().into();
        gauges.dials = connections.num_pending_outgoing().into();
        gauges.inbound = self.inbound.len() as u64;
        gauges.inbound_waiting = self.delayed.len() as u64;
        gauges.answer_bytes = self.inbound.bytes() as u64;
        gauges.outbound = outbound.pending.len() as u64;
        gauges.outbound_given_up = outbound.pending.values().filter(|pending| pending.is_abandoned()).count() as u64;
        gauges.outbound_waiting = outbound.queues.values().map(Queue::len).sum::<usize>() as u64;
        gauges.gossip_queue = (self.gossip_sender.max_capacity() - self.gossip_sender.capacity()) as u64;
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Requests(event)) => self.on_request_event(event),
            SwarmEvent::Behaviour(BehaviourEvent::Inbound(event)) => self.on_inbound_event(event),
            SwarmEvent::Behaviour(BehaviourEvent::Background(event)) => self.on_background_event(event),
            // These have no events.
            SwarmEvent::Behaviour(BehaviourEvent::Memory(event) | BehaviourEvent::KeepAlive(event)) => match event {},
            event => self.on_swarm_event(event),
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            // The caller has given up while the command was queued.
            Command::Request { reply, .. } if reply.is_closed() => {}
            Command::Request { peer, request, origin, reply } => self.send_or_queue(peer, origin, request, reply),
            Command::Dial { address, reply } => self.dial(address, reply),
            Command::Add { peer, reply } => _ = reply.send(self.add(&peer)),
            Command::Remove { name, reply } => _ = reply.send(self.remove(&name)),
            Command::EnforceAdmission => self.enforce_admission(),
            Command::Publish { data } => self.publish(data),
            Command::ReportVerdict { id, from, verdict } => self.report_verdict(&id, &from, verdict),
        }
    }
}

#[cfg(test)]
pub(super) mod test {
    use libp2p::identity::Keypair;

    use super::*;

    /// Longer than anything here takes.
    pub const PATIENCE: Duration = Duration::from_secs(20);

    /// Settings of a new node.
    pub fn config() -> P2pConfig {
        P2pConfig::new(Keypair::generate_ed25519())
    }

    /// Settings of a new node that listens on loopback.
    pub fn listening() -> P2pConfig {
        P2pConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()], ..config() }
    }

    /// Responder with empty answers.
    pub struct Silent;

    impl Responder for Silent {
        fn accept(self: Arc<Self>, _: Bytes) -> Accepted {
            Accepted::short(async { Bytes::new() })
        }
    }
}

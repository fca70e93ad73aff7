//! The task that owns the swarm.
//!
//! Written as one `poll` function rather than a `select!` loop: at several thousand requests a second the task takes
//! whatever is ready (events, commands, finished answers) in one go, and goes to sleep once.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use libp2p::gossipsub::{self, IdentTopic, MessageId, PublishError};
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
use super::outbound::Outbound;
use crate::p2p::admission::inbound::{Delayed, Inbound};
use crate::p2p::admission::{Guard, memory};
use crate::p2p::behaviour::BehaviourEvent;
use crate::p2p::behaviour::gossip::{BURST, Gossip, PER_SECOND, Verdict};
use crate::p2p::config::P2pConfig;
use crate::p2p::error::P2pError;
use crate::p2p::rate::Shares;
use crate::p2p::shared::Shared;
use crate::protocol::codec::Response;
use crate::protocol::gossip::BLOCK_TOPIC;

mod closing;
mod connections;
mod discovery;
mod requests;
mod serving;

/// Rounds of events before other tasks of the same thread get their turn.
const ROUNDS_PER_POLL: usize = 64;

/// A timer can't be set to less.
const MIN_DISCOVERY_INTERVAL: Duration = Duration::from_millis(1);

/// How far away a timer without work is set.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Answers the requests of others.
#[async_trait::async_trait]
pub trait Responder: Send + Sync + 'static {
    /// The answer to an encoded request, at most [`MAX_RESPONSE_BYTES`](crate::protocol::MAX_RESPONSE_BYTES) long: a
    /// longer one is not sent, and the peer sees the stream end.
    ///
    /// For a request of at most 32 KiB the future is polled once on the swarm's own task, so that an answer which is
    /// ready (from a cache) costs no task; it goes on elsewhere. Work that takes long belongs behind its first `await`.
    async fn respond(&self, peer: PeerId, request: Bytes) -> Bytes;

    /// Bytes that the answer to a request may have, about: they are set aside before any work is done. An answer that turns
    /// out longer is sent where there is room for it then. Called on the swarm's own task, so it must not take long over a
    /// request of 1 MiB. Default 0: short answers.
    fn weight(&self, _request: &Bytes) -> usize {
        0
    }
}

/// A request of others with its answer; `None` when the responder panicked or took too long.
type Answered = (InboundRequestId, ResponseChannel<Response>, Option<Bytes>);

/// Why a peer is disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The operator removed it.
    Removed,
    /// It is banned, on the deny-list, or a stranger where those are not admitted.
    NotAdmitted,
    /// There is too little memory for strangers.
    Memory,
}

/// A peer that is to be disconnected.
#[derive(Debug, Clone, Copy)]
struct Parting {
    why: Why,
    /// When it goes at the latest.
    until: Instant,
}

/// The task that owns the swarm.
pub(super) struct Worker {
    swarm: Swarm<Guard>,
    shared: Arc<Shared>,
    responder: Arc<dyn Responder>,
    commands: mpsc::Receiver<Command>,
    inbound: Inbound,
    /// Requests of others that wait for room.
    delayed: Delayed,
    /// At most `max_inbound`: `inbound` gives a place back when the work is done, not when its asker hangs up.
    answering: JoinSet<Answered>,
    request_timeout: Duration,
    outbound: Outbound,
    /// When the next deadline of `outbound` or `parting` may have passed.
    alarm: Pin<Box<Sleep>>,
    /// Who is disconnected once nothing is in flight to it.
    parting: HashMap<PeerId, Parting>,
    closing_timeout: Duration,
    /// The node ends: nothing new is begun.
    stopping: bool,
    /// Dials that an operator waits for.
    dials: HashMap<ConnectionId, (Multiaddr, oneshot::Sender<Result<PeerId, P2pError>>)>,
    dialer: Dialer,
    redial: Pin<Box<Sleep>>,
    discovery: Discovery,
    search: Interval,
    /// From how many bytes of this process on strangers go.
    memory_limit: usize,
    relief: Interval,
    /// Who has been sent away since there was enough.
    relieved_of: HashSet<PeerId>,
    /// To whoever takes gossip.
    heard: mpsc::Sender<Gossip>,
    gossip_rate: Shares,
}

impl Worker {
    pub fn new(
        config: &P2pConfig,
        swarm: Swarm<Guard>,
        memory_limit: usize,
        shared: Arc<Shared>,
        responder: Arc<dyn Responder>,
        commands: mpsc::Receiver<Command>,
        heard: mpsc::Sender<Gossip>,
    ) -> Self {
        let now = Instant::now();
        let mut search = tokio::time::interval(config.discovery_interval.max(MIN_DISCOVERY_INTERVAL));
        let mut relief = tokio::time::interval(memory::LOOK_EVERY);
        for interval in [&mut search, &mut relief] {
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        Self {
            swarm,
            shared,
            responder,
            commands,
            inbound: Inbound::new(config),
            delayed: Delayed::new(config),
            answering: JoinSet::new(),
            request_timeout: config.request_timeout,
            outbound: Outbound::new(config),
            alarm: Box::pin(tokio::time::sleep_until((now + NEVER).into())),
            parting: HashMap::new(),
            closing_timeout: config.closing_timeout,
            stopping: false,
            dials: HashMap::new(),
            dialer: Dialer::new(&config.peers, config.redial_min, config.redial_max, now),
            redial: Box::pin(tokio::time::sleep_until(now.into())),
            discovery: Discovery::new(config),
            search,
            memory_limit,
            relief,
            relieved_of: HashSet::new(),
            heard,
            gossip_rate: Shares::new(PER_SECOND, BURST),
        }
    }

    /// Runs until `shutdown`. Then whoever wants something is told [`P2pError::Stopped`], and the connections close once
    /// everything in flight is answered, or when `closing_timeout` is over.
    pub async fn run(mut self, shutdown: CancellationToken) {
        if shutdown.run_until_cancelled(poll_fn(|context| self.poll(context))).await.is_some() {
            return;
        }
        self.stop();
        let limit = self.closing_timeout;
        let answered = poll_fn(|context| match self.outbound.in_flight() {
            0 => Poll::Ready(()),
            _ => match self.poll(context) {
                Poll::Pending if self.outbound.in_flight() > 0 => Poll::Pending,
                _ => Poll::Ready(()),
            },
        });
        if tokio::time::timeout(limit, answered).await.is_err() {
            tracing::warn!(requests = self.outbound.in_flight(), "the node stops before all its requests are answered");
        }
    }

    /// Begins nothing new from now on, and drops what was not sent.
    fn stop(&mut self) {
        self.stopping = true;
        self.swarm.behaviour_mut().close();
        self.commands.close();
        // Their askers are told as the commands are dropped.
        while self.commands.try_recv().is_ok() {}
        self.dials.clear();
        self.drop_unsent();
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
                self.serve_delayed();
                idle = false;
            }
            if self.alarm.as_mut().poll(context).is_ready() {
                self.on_alarm();
                idle = false;
            }
            if self.stopping {
                if idle {
                    return Poll::Pending;
                }
                continue;
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

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
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
            Command::Request { peer, request, asker, reply } => self.ask(peer, asker, request, reply),
            Command::Dial { address, reply } => self.dial(address, reply),
            Command::Add { peer, reply } => _ = reply.send(self.add(&peer)),
            Command::Forget { name, reply } => _ = reply.send(self.forget(&name)),
            Command::Enforce => self.enforce(),
            Command::Publish { data } => self.publish(data),
            Command::Judge { id, from, verdict } => self.judge(&id, &from, verdict),
        }
    }

    /// A message arrived for the first time: it goes to whoever took the receiver, or nowhere.
    pub fn heard(&mut self, from: PeerId, id: MessageId, message: gossipsub::Message) {
        let counters = &self.shared.counters;
        counters.gossip_received.add();
        let gossip = Gossip { from, author: message.source, data: message.data.into(), id: id.clone() };
        let (asker, now) = (self.asker(from), Instant::now());
        let is_heard = self.shared.book().is_heard(&from, now);
        if !is_heard || !self.gossip_rate.take(&asker, now) || self.heard.try_send(gossip).is_err() {
            counters.gossip_dropped.add();
            self.shared.missed.notify_one();
            self.judge(&id, &from, Verdict::Ignore);
        }
    }

    pub fn publish(&mut self, data: Bytes) {
        let Some(gossip) = self.swarm.behaviour_mut().parts.gossip.as_mut() else { return };
        match gossip.publish(IdentTopic::new(BLOCK_TOPIC), data) {
            Ok(_) => self.shared.counters.gossip_published.add(),
            Err(PublishError::NoPeersSubscribedToTopic) => tracing::debug!("nobody listens to our gossip"),
            Err(error) => tracing::warn!(%error, "our gossip did not get out"),
        }
    }

    pub fn judge(&mut self, id: &MessageId, from: &PeerId, verdict: Verdict) {
        if let Some(gossip) = self.swarm.behaviour_mut().parts.gossip.as_mut() {
            gossip.report_message_validation_result(id, from, verdict.into());
        }
    }
}

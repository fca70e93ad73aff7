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
use libp2p::gossipsub::MessageId;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, Sleep};
use tokio_util::sync::CancellationToken;

use super::address::PeerAddress;
use super::behaviour::BehaviourEvent;
use super::connections::NEVER;
use super::delayed::Delayed;
use super::dialer::Dialer;
use super::discovery::Discovery;
use super::gossip::{self, Gossip, Verdict};
use super::guard::Guard;
use super::inbound::Inbound;
use super::outbound::{Outbound, Reply};
use super::parting::Parting;
use super::queue::OnBehalf;
use super::rate::Shares;
use super::serving::Answered;
use super::{P2pConfig, P2pError, Responder, Shared, memory, swarm};
use crate::protocol::codec::Request;

/// Rounds of events before other tasks of the same thread get their turn.
const ROUNDS_PER_POLL: usize = 64;

/// A timer can't be set to less.
const MIN_DISCOVERY_INTERVAL: Duration = Duration::from_millis(1);

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

pub(super) struct Worker {
    pub(super) swarm: Swarm<Guard>,
    pub(super) shared: Arc<Shared>,
    pub(super) responder: Arc<dyn Responder>,
    commands: mpsc::Receiver<Command>,
    pub(super) inbound: Inbound,
    /// Requests of others that wait for room.
    pub(super) delayed: Delayed,
    /// At most `max_inbound`: `inbound` gives a place back when the work is done, not when its asker hangs up.
    pub(super) answering: JoinSet<Answered>,
    pub(super) request_timeout: Duration,
    pub(super) outbound: Outbound,
    /// When the next deadline of `outbound` or `parting` may have passed.
    pub(super) alarm: Pin<Box<Sleep>>,
    /// Who is disconnected once nothing is in flight to it.
    pub(super) parting: HashMap<PeerId, Parting>,
    pub(super) closing_timeout: Duration,
    /// The node ends: nothing new is begun.
    stopping: bool,
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
            memory_limit: memory::limit(config.memory_limit),
            relief,
            relieved_of: HashSet::new(),
            heard,
            gossip_rate: Shares::new(gossip::PER_SECOND, gossip::BURST),
        })
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
            Command::Request { peer, request, asker, reply } => self.ask(peer, asker, request, reply),
            Command::Dial { address, reply } => self.dial(address, reply),
            Command::Add { peer, reply } => _ = reply.send(self.add(&peer)),
            Command::Forget { name, reply } => _ = reply.send(self.forget(&name)),
            Command::Enforce => self.enforce(),
            Command::Publish { data } => self.publish(data),
            Command::Judge { id, from, verdict } => self.judge(&id, &from, verdict),
        }
    }
}

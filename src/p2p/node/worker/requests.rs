//! The worker's part that asks: requests of ours, in flight and waiting for a place.
//!
//! A node of the network works at one request at a time, and goes deaf for good when the connection of a request in its
//! queue closes, or when that request gets too old. So few requests are in flight to a peer that does not speak this
//! program's own dialect, the others wait here, and a request that its asker has given up is in flight until it is
//! answered.

use std::io;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::request_response::{self, Message, OutboundFailure, OutboundRequestId};
use libp2p::swarm::DialError;

use super::{NEVER, Worker};
use crate::p2p::error::P2pError;
use crate::p2p::node::dialer::{reason, to_peer};
use crate::p2p::node::outbound::{Outbound, Pending, Reply, Waiting};
use crate::p2p::node::queue::OnBehalf;
use crate::protocol::codec::{Request, Response, TooLarge};

/// Bytes of the requests that wait for one peer.
const MAX_WAITING_BYTES: usize = 4 << 20;

impl Worker {
    /// Sends a request, now or when there is a place.
    pub fn ask(&mut self, peer: PeerId, asker: OnBehalf, request: Request, reply: Reply) {
        let now = Instant::now();
        let (own_dialect, latency, known) = {
            let book = self.shared.book();
            (book.speaks_own_dialect(&peer), book.latency(&peer), book.may_be_asked(&peer))
        };
        if !known {
            return reply.send(Err(P2pError::UnknownPeer));
        }
        if self.is_parting(&peer) {
            return reply.send(Err(P2pError::Unreachable("it is being disconnected".into())));
        }
        let deadline = request.deadline.unwrap_or(now + self.request_timeout);
        let most = self.most_in_flight(own_dialect, asker);
        let outbound = &mut self.outbound;
        let line = outbound.lines.entry(peer).or_default();
        let full = line.in_flight >= most;
        let gone = line.queue.take_unless(|waiting| waiting.is_wanted(now));
        outbound.waiting -= gone.len();
        gone.into_iter().for_each(|waiting| waiting.reply.send(Err(P2pError::Busy)));
        let bytes = || line.queue.iter().map(|waiting| waiting.request.body.len()).sum::<usize>();
        // What a turn takes is told by the mean latency, with so many in flight.
        let wait = latency.filter(|_| full).unwrap_or_default();
        let turn = wait.mul_f64((line.queue.ahead(asker) + 1) as f64 / most.max(1) as f64);
        let refused =
            full && own_dialect || deadline <= now + turn || full && bytes() + request.body.len() > MAX_WAITING_BYTES;
        let waiting = Waiting { request, deadline, reply };
        let too_much = match refused {
            true => Some(waiting),
            false => {
                outbound.waiting += 1;
                // Either the request itself, or one that gives way to it.
                line.queue.push(asker, waiting).unwrap_or_else(Some).inspect(|_| outbound.waiting -= 1)
            }
        };
        if let Some(Waiting { reply, .. }) = too_much {
            reply.send(Err(P2pError::Busy));
        }
        self.send_waiting(peer);
    }

    /// Requests that may be in flight to a peer for this asker's sake.
    fn most_in_flight(&self, own_dialect: bool, asker: OnBehalf) -> usize {
        let Outbound { per_peer, per_node, .. } = self.outbound;
        match (own_dialect, asker) {
            (false, _) => per_node,
            (true, OnBehalf::Own) => per_peer,
            // What is forwarded leaves a quarter of the places to what we ask ourselves: the sync must go on.
            (true, OnBehalf::Client(_)) => per_peer - per_peer / 4,
        }
    }

    /// Sends what waits for the peer, as far as there are places.
    pub fn send_waiting(&mut self, peer: PeerId) {
        let own_dialect = self.shared.book().speaks_own_dialect(&peer);
        let all = self.most_in_flight(own_dialect, OnBehalf::Own);
        let clients = self.most_in_flight(own_dialect, OnBehalf::Client(0));
        loop {
            let now = Instant::now();
            let Some(line) = self.outbound.lines.get_mut(&peer) else { break };
            if line.in_flight >= all {
                break;
            }
            let Some(Waiting { request, deadline, reply }) = line.queue.pop(line.in_flight >= clients) else {
                if line.in_flight == 0 && line.queue.len() == 0 {
                    self.outbound.lines.remove(&peer);
                }
                break;
            };
            self.outbound.waiting -= 1;
            if deadline <= now {
                reply.send(Err(P2pError::Busy));
            } else if !reply.is_closed() {
                match self.reach(peer) {
                    Ok(()) => self.send_request(peer, own_dialect, request, deadline, reply),
                    Err(error) => reply.send(Err(error)),
                }
            }
        }
        // The first deadline of those that wait, or one before it.
        let line = self.outbound.lines.get(&peer);
        if let Some(first) = line.and_then(|line| line.queue.iter().map(|waiting| waiting.deadline).min()) {
            self.wake_at(first);
        }
        self.measure_outbound();
    }

    /// Starts a dial where there is no connection.
    fn reach(&mut self, peer: PeerId) -> Result<(), P2pError> {
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
    fn send_request(&mut self, peer: PeerId, own_dialect: bool, mut request: Request, deadline: Instant, reply: Reply) {
        let sent = Instant::now();
        // A node of the network answers in any case: its stream stays open for that.
        request.deadline = Some(if own_dialect { deadline } else { deadline.max(sent + self.outbound.hold) });
        let id = self.swarm.behaviour_mut().parts.requests.send_request(&peer, request);
        reply.note_sent();
        self.outbound.pending.insert(id, Pending { peer, sent, deadline, given_up: false, reply });
        self.outbound.lines.entry(peer).or_default().in_flight += 1;
        self.wake_at(deadline);
    }

    pub fn on_request_event(&mut self, event: request_response::Event<Request, Response>) {
        use request_response::Event;
        match event {
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.finish(request_id, Ok(response));
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                let dial_failed = matches!(error, OutboundFailure::DialFailure);
                let error = self.failure(&peer, error);
                if dial_failed && !self.swarm.is_connected(&peer) {
                    // The others that wait for it would only dial anew, one after the other.
                    for waiting in self.outbound.take_queue(&peer) {
                        waiting.reply.send(Err(error.clone()));
                    }
                }
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

    /// A request is in flight no longer.
    fn finish(&mut self, id: OutboundRequestId, result: Result<Response, P2pError>) {
        let Some(Pending { peer, sent, given_up, reply, .. }) = self.outbound.pending.remove(&id) else { return };
        self.outbound.given_up -= usize::from(given_up);
        if let Some(line) = self.outbound.lines.get_mut(&peer) {
            line.in_flight -= 1;
        }
        let now = Instant::now();
        match &result {
            Ok(_) if given_up => self.shared.book_mut().answered_late(peer, now - sent),
            Ok(_) => self.shared.book_mut().answered(peer, now - sent),
            // We have no room for the answer, which is not the peer's fault; and what was given up has failed already.
            Err(P2pError::Busy) => {}
            Err(_) if given_up => {}
            Err(error) => self.shared.book_mut().failed(peer, error, now),
        }
        reply.send(result);
        self.send_waiting(peer);
        self.part_if_done(&peer);
    }

    /// Sets the timer to this moment, unless it is set to an earlier one.
    pub fn wake_at(&mut self, at: Instant) {
        if self.outbound.alarm_at.is_none_or(|set| at < set) {
            self.outbound.alarm_at = Some(at);
            self.alarm.as_mut().reset(at.into());
        }
    }

    /// Looks after everything whose time may be over.
    pub fn on_alarm(&mut self) {
        let now = Instant::now();
        self.outbound.alarm_at = None;
        self.alarm.as_mut().reset((now + NEVER).into());
        let mut next: Option<Instant> = None;
        let mut soon = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        let outbound = &mut self.outbound;
        for pending in outbound.pending.values_mut().filter(|pending| !pending.given_up) {
            if pending.deadline > now {
                soon(pending.deadline);
                continue;
            }
            pending.given_up = true;
            outbound.given_up += 1;
            self.shared.book_mut().failed(pending.peer, &P2pError::Timeout, now);
        }
        for line in outbound.lines.values_mut() {
            let late = line.queue.take_unless(|waiting| waiting.is_wanted(now));
            outbound.waiting -= late.len();
            late.into_iter().for_each(|waiting| waiting.reply.send(Err(P2pError::Busy)));
            line.queue.iter().for_each(|waiting| soon(waiting.deadline));
        }
        outbound.lines.retain(|_, line| line.in_flight > 0 || line.queue.len() > 0);
        if let Some(next) = next {
            self.wake_at(next);
        }
        self.part_overdue(now);
        self.serve_delayed();
        self.measure_outbound();
    }

    /// Nothing that waits for the peer is sent any more.
    pub fn drop_waiting(&mut self, peer: &PeerId) {
        for waiting in self.outbound.take_queue(peer) {
            waiting.reply.send(Err(P2pError::Unreachable("it is being disconnected".into())));
        }
        self.measure_outbound();
    }

    /// Drops what was not sent: what waits for a place, and what waits for a connection. Its askers are told
    /// [`P2pError::Stopped`].
    pub fn drop_unsent(&mut self) {
        let requests = &self.swarm.behaviour().parts.requests;
        self.outbound.pending.retain(|_, pending| requests.is_connected(&pending.peer));
        self.outbound.lines.clear();
        (self.outbound.waiting, self.outbound.given_up) = (0, 0);
        for pending in self.outbound.pending.values() {
            self.outbound.lines.entry(pending.peer).or_default().in_flight += 1;
            self.outbound.given_up += usize::from(pending.given_up);
        }
        self.measure_outbound();
    }

    fn measure_outbound(&self) {
        let (outbound, counters) = (&self.outbound, &self.shared.counters);
        counters.outbound.set(outbound.pending.len());
        counters.outbound_given_up.set(outbound.given_up);
        counters.outbound_waiting.set(outbound.waiting);
    }
}

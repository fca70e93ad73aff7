//! Outbound requests in the worker.
//!
//! A node of the network handles one request at a time, and may stop responding for good when the connection of a
//! queued request closes, or when that request gets too old. So few requests are in flight to a peer that does not
//! speak this program's own dialect, the others are queued here, and an abandoned request stays in flight until it is
//! answered.

use std::io;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::request_response::{self, Message, OutboundFailure, OutboundRequestId};
use libp2p::swarm::DialError;

use super::{NEVER, Worker};
use crate::p2p::error::P2pError;
use crate::p2p::node::dialer::{dial_error_text, dial_peer};
use crate::p2p::node::outbound::{OutboundRequests, PendingRequest, QueuedRequest, ReplySender};
use crate::p2p::node::queue::Origin;
use crate::protocol::codec::{TooLarge, WireRequest, WireResponse};

/// Bytes of the queued requests to one peer.
const MAX_QUEUED_BYTES: usize = 4 << 20;

impl Worker {
    /// Sends a request, or queues it where the limit on requests in flight is reached.
    pub fn send_or_queue(&mut self, peer: PeerId, origin: Origin, request: WireRequest, reply: ReplySender) {
        let now = Instant::now();
        let (own_dialect, latency, known) = {
            let book = self.shared.book();
            (book.speaks_own_dialect(&peer), book.latency(&peer), book.may_be_asked(&peer))
        };
        if !known {
            return reply.send(Err(P2pError::UnknownPeer));
        }
        if self.is_closing(&peer) {
            return reply.send(Err(P2pError::Unreachable("it is being disconnected".into())));
        }
        let deadline = request.deadline.unwrap_or(now + self.request_timeout);
        let limit = self.in_flight_limit(own_dialect, origin);
        let outbound = &mut self.outbound;
        let requests = outbound.by_peer.entry(peer).or_default();
        let full = requests.in_flight >= limit;
        let unwanted = requests.queue.take_unless(|queued| queued.is_wanted(now));
        outbound.queued -= unwanted.len();
        unwanted.into_iter().for_each(|queued| queued.reply.send(Err(P2pError::Busy)));
        let bytes = || requests.queue.iter().map(|queued| queued.request.body.len()).sum::<usize>();
        // Expected wait in the queue: mean latency for each round of `limit` requests.
        let latency = latency.filter(|_| full).unwrap_or_default();
        let wait = latency.mul_f64((requests.queue.ahead(origin) + 1) as f64 / limit.max(1) as f64);
        let refused =
            full && own_dialect || deadline <= now + wait || full && bytes() + request.body.len() > MAX_QUEUED_BYTES;
        let queued = QueuedRequest { request, deadline, reply };
        let dropped = match refused {
            true => Some(queued),
            false => {
                outbound.queued += 1;
                // Either the request itself, or the one that it displaces.
                requests.queue.push(origin, queued).unwrap_or_else(Some).inspect(|_| outbound.queued -= 1)
            }
        };
        if let Some(QueuedRequest { reply, .. }) = dropped {
            reply.send(Err(P2pError::Busy));
        }
        self.send_queued(peer);
    }

    /// Limit on requests in flight to a peer for requests of this origin.
    fn in_flight_limit(&self, own_dialect: bool, origin: Origin) -> usize {
        let OutboundRequests { per_peer, per_node, .. } = self.outbound;
        match (own_dialect, origin) {
            (false, _) => per_node,
            (true, Origin::Own) => per_peer,
            // A quarter is reserved for the node's own requests: the sync must go on.
            (true, Origin::Client(_)) => per_peer - per_peer / 4,
        }
    }

    /// Sends queued requests to the peer, up to the limit.
    pub fn send_queued(&mut self, peer: PeerId) {
        let own_dialect = self.shared.book().speaks_own_dialect(&peer);
        let all = self.in_flight_limit(own_dialect, Origin::Own);
        let clients = self.in_flight_limit(own_dialect, Origin::Client(0));
        loop {
            let now = Instant::now();
            let Some(requests) = self.outbound.by_peer.get_mut(&peer) else { break };
            if requests.in_flight >= all {
                break;
            }
            let Some(QueuedRequest { request, deadline, reply }) = requests.queue.pop(requests.in_flight >= clients)
            else {
                if requests.in_flight == 0 && requests.queue.len() == 0 {
                    self.outbound.by_peer.remove(&peer);
                }
                break;
            };
            self.outbound.queued -= 1;
            if deadline <= now {
                reply.send(Err(P2pError::Busy));
            } else if !reply.is_closed() {
                match self.ensure_connected(peer) {
                    Ok(()) => self.send_request(peer, own_dialect, request, deadline, reply),
                    Err(error) => reply.send(Err(error)),
                }
            }
        }
        let requests = self.outbound.by_peer.get(&peer);
        if let Some(first) = requests.and_then(|requests| requests.queue.iter().map(|queued| queued.deadline).min()) {
            self.wake_at(first);
        }
        self.update_outbound_gauges();
    }

    /// Starts a dial where there is no connection.
    fn ensure_connected(&mut self, peer: PeerId) -> Result<(), P2pError> {
        if self.swarm.behaviour().inner.requests.is_connected(&peer) {
            return Ok(());
        }
        let addresses = self.shared.book().addresses(&peer).ok_or(P2pError::UnknownPeer)?.to_vec();
        if addresses.is_empty() {
            return Err(P2pError::Unreachable("it is not connected, and no address is configured".into()));
        }
        match self.dial_for_operator(dial_peer(peer, addresses)) {
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => Ok(()),
            Err(error) => Err(P2pError::Unreachable(dial_error_text(&error))),
        }
    }

    /// Hands the request to the behaviour, which keeps it until the dial is done.
    fn send_request(
        &mut self,
        peer: PeerId,
        own_dialect: bool,
        mut request: WireRequest,
        deadline: Instant,
        reply: ReplySender,
    ) {
        let sent = Instant::now();
        // A node of the network answers even late: the stream stays open for that.
        request.deadline = Some(if own_dialect { deadline } else { deadline.max(sent + self.outbound.hold) });
        let id = self.swarm.behaviour_mut().inner.requests.send_request(&peer, request);
        reply.note_sent();
        self.outbound.pending.insert(id, PendingRequest { peer, sent, deadline, abandoned: false, reply });
        self.outbound.by_peer.entry(peer).or_default().in_flight += 1;
        self.wake_at(deadline);
    }

    pub fn on_request_event(&mut self, event: request_response::Event<WireRequest, WireResponse>) {
        use request_response::Event;
        match event {
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.complete(request_id, Ok(response));
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                let dial_failed = matches!(error, OutboundFailure::DialFailure);
                let error = self.failure(&peer, error);
                if dial_failed && !self.swarm.is_connected(&peer) {
                    // Each queued request would only dial again.
                    for queued in self.outbound.take_queue(&peer) {
                        queued.reply.send(Err(error.clone()));
                    }
                }
                self.complete(request_id, Err(error));
            }
            // This behaviour has outbound requests only.
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

    /// Ends a request in flight with its result.
    fn complete(&mut self, id: OutboundRequestId, result: Result<WireResponse, P2pError>) {
        let Some(PendingRequest { peer, sent, abandoned, reply, .. }) = self.outbound.pending.remove(&id) else {
            return;
        };
        self.outbound.abandoned -= usize::from(abandoned);
        if let Some(requests) = self.outbound.by_peer.get_mut(&peer) {
            requests.in_flight -= 1;
        }
        let now = Instant::now();
        match &result {
            Ok(_) if abandoned => self.shared.book_mut().record_late_answer(peer, now - sent),
            Ok(_) => self.shared.book_mut().record_answer(peer, now - sent),
            // No memory for the answer is not the peer's fault, and an abandoned request was recorded as failed before.
            Err(P2pError::Busy) => {}
            Err(_) if abandoned => {}
            Err(error) => self.shared.book_mut().record_failure(peer, error, now),
        }
        reply.send(result);
        self.send_queued(peer);
        self.close_if_idle(&peer);
    }

    /// Sets the deadline timer to `at`, unless it is set to an earlier time.
    pub fn wake_at(&mut self, at: Instant) {
        if self.outbound.timer_at.is_none_or(|set| at < set) {
            self.outbound.timer_at = Some(at);
            self.deadline_timer.as_mut().reset(at.into());
        }
    }

    /// Handles all deadlines that have passed.
    pub fn on_deadline(&mut self) {
        let now = Instant::now();
        self.outbound.timer_at = None;
        self.deadline_timer.as_mut().reset((now + NEVER).into());
        let mut next: Option<Instant> = None;
        let mut soon = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        let outbound = &mut self.outbound;
        for pending in outbound.pending.values_mut().filter(|pending| !pending.abandoned) {
            if pending.deadline > now {
                soon(pending.deadline);
                continue;
            }
            pending.abandoned = true;
            outbound.abandoned += 1;
            self.shared.book_mut().record_failure(pending.peer, &P2pError::Timeout, now);
        }
        for requests in outbound.by_peer.values_mut() {
            let late = requests.queue.take_unless(|queued| queued.is_wanted(now));
            outbound.queued -= late.len();
            late.into_iter().for_each(|queued| queued.reply.send(Err(P2pError::Busy)));
            requests.queue.iter().for_each(|queued| soon(queued.deadline));
        }
        outbound.by_peer.retain(|_, requests| requests.in_flight > 0 || requests.queue.len() > 0);
        if let Some(next) = next {
            self.wake_at(next);
        }
        self.close_overdue(now);
        self.serve_delayed();
        self.update_outbound_gauges();
    }

    /// Fails all queued requests to the peer.
    pub fn drop_queued(&mut self, peer: &PeerId) {
        for queued in self.outbound.take_queue(peer) {
            queued.reply.send(Err(P2pError::Unreachable("it is being disconnected".into())));
        }
        self.update_outbound_gauges();
    }

    /// Drops all requests that are queued or wait for a dial; they fail with [`P2pError::Stopped`].
    pub fn drop_unsent(&mut self) {
        let requests = &self.swarm.behaviour().inner.requests;
        self.outbound.pending.retain(|_, pending| requests.is_connected(&pending.peer));
        self.outbound.by_peer.clear();
        (self.outbound.queued, self.outbound.abandoned) = (0, 0);
        for pending in self.outbound.pending.values() {
            self.outbound.by_peer.entry(pending.peer).or_default().in_flight += 1;
            self.outbound.abandoned += usize::from(pending.abandoned);
        }
        self.update_outbound_gauges();
    }

    fn update_outbound_gauges(&self) {
        let (outbound, counters) = (&self.outbound, &self.shared.counters);
        counters.outbound.set(outbound.pending.len());
        counters.outbound_given_up.set(outbound.abandoned);
        counters.outbound_waiting.set(outbound.queued);
    }
}

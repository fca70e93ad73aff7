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
use crate::p2p::node::outbound::{OutboundRequests, PendingRequest, QueuedRequest, Reply};
use crate::p2p::node::queue::Origin;
use crate::protocol::codec::{TooLarge, WireRequest, WireResponse};

/// Bytes of the queued requests to one peer.
const MAX_QUEUED_BYTES: usize = 4 << 20;

impl Worker {
    /// Sends a request, or queues it where the limit on requests in flight is reached.
    pub fn send_or_queue(&mut self, peer: PeerId, origin: Origin, request: WireRequest, reply: Reply) {
        let now = Instant::now();
        let (own_dialect, latency, known) = {
            let book = self.shared.book();
            (book.speaks_own_dialect(&peer), book.latency(&peer), book.may_be_asked(&peer))
        };
        let queued = QueuedRequest { deadline: request.deadline.unwrap_or(now + self.request_timeout), request, reply };
        if !known {
            return queued.fail(P2pError::UnknownPeer);
        }
        if self.is_closing(&peer) {
            return queued.fail(disconnecting());
        }
        let limit = self.in_flight_limit(own_dialect, origin);
        let full = self.outbound.in_flight_to(&peer) >= limit;
        let queue = self.outbound.queues.entry(peer).or_default();
        let unwanted = queue.take_unless(|queued| queued.is_wanted(now));
        unwanted.into_iter().for_each(|queued| queued.fail(P2pError::Busy));
        let bytes = || queue.iter().chain([&queued]).map(|queued| queued.request.body.len()).sum::<usize>();
        // Expected wait in the queue: mean latency for each round of `limit` requests.
        let latency = latency.filter(|_| full).unwrap_or_default();
        let wait = latency.mul_f64((queue.ahead(origin) + 1) as f64 / limit.max(1) as f64);
        let refused = full && (own_dialect || bytes() > MAX_QUEUED_BYTES) || queued.deadline <= now + wait;
        // The request itself, or the one that it displaces.
        let dropped = if refused { Some(queued) } else { queue.push(origin, queued).unwrap_or_else(Some) };
        if let Some(dropped) = dropped {
            dropped.fail(P2pError::Busy);
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
            let in_flight = self.outbound.in_flight_to(&peer);
            let queue = self.outbound.queues.get_mut(&peer).filter(|_| in_flight < all);
            let Some(queued) = queue.and_then(|queue| queue.pop(in_flight >= clients)) else { break };
            if queued.deadline <= Instant::now() {
                queued.fail(P2pError::Busy);
            } else if !queued.reply.is_closed() {
                match self.ensure_connected(peer) {
                    Ok(()) => self.send_request(peer, own_dialect, queued),
                    Err(error) => queued.fail(error),
                }
            }
        }
        let queue = self.outbound.queues.get(&peer);
        match queue.and_then(|queue| queue.iter().map(|queued| queued.deadline).min()) {
            Some(first) => self.wake_at(first),
            None => _ = self.outbound.queues.remove(&peer),
        }
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
    fn send_request(&mut self, peer: PeerId, own_dialect: bool, queued: QueuedRequest) {
        let QueuedRequest { mut request, deadline, reply } = queued;
        let sent = Instant::now();
        // A node of the network answers even late: the stream stays open for that.
        request.deadline = Some(if own_dialect { deadline } else { deadline.max(sent + self.outbound.hold) });
        let id = self.swarm.behaviour_mut().inner.requests.send_request(&peer, request);
        self.outbound.pending.insert(id, PendingRequest { peer, sent, deadline, reply: Some(reply) });
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
                    self.outbound.fail_queued(&peer, &error);
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
                let error = self.shared.book().dial_error(peer);
                error.unwrap_or_else(|| P2pError::Unreachable("no connection".into()))
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
        let Some(PendingRequest { peer, sent, reply, .. }) = self.outbound.pending.remove(&id) else { return };
        let (abandoned, now) = (reply.is_none(), Instant::now());
        match &result {
            Ok(_) if abandoned => self.shared.book_mut().record_late_answer(peer, now - sent),
            Ok(_) => self.shared.book_mut().record_answer(peer, now - sent),
            // No memory for the answer is not the peer's fault, and an abandoned request was recorded as failed before.
            Err(P2pError::Busy) => {}
            Err(_) if abandoned => {}
            Err(error) => self.shared.book_mut().record_failure(peer, error, now),
        }
        if let Some(reply) = reply {
            let _ = reply.send(result);
        }
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
        for pending in outbound.pending.values_mut() {
            if pending.deadline > now {
                soon(pending.deadline);
            } else if let Some(reply) = pending.reply.take() {
                let _ = reply.send(Err(P2pError::Timeout));
                self.shared.book_mut().record_failure(pending.peer, &P2pError::Timeout, now);
            }
        }
        for queue in outbound.queues.values_mut() {
            let late = queue.take_unless(|queued| queued.is_wanted(now));
            late.into_iter().for_each(|queued| queued.fail(P2pError::Busy));
            queue.iter().for_each(|queued| soon(queued.deadline));
        }
        outbound.queues.retain(|_, queue| queue.len() > 0);
        if let Some(next) = next {
            self.wake_at(next);
        }
        self.close_overdue(now);
        self.serve_delayed();
    }

    /// Fails all queued requests to a peer that is being disconnected.
    pub fn drop_queued(&mut self, peer: &PeerId) {
        self.outbound.fail_queued(peer, &disconnecting());
    }

    /// Drops all requests that are queued or wait for a dial; they fail with [`P2pError::Stopped`].
    pub fn drop_unsent(&mut self) {
        let requests = &self.swarm.behaviour().inner.requests;
        self.outbound.pending.retain(|_, pending| requests.is_connected(&pending.peer));
        self.outbound.queues.clear();
    }
}

fn disconnecting() -> P2pError {
    P2pError::Unreachable("it is being disconnected".into())
}

//! Inbound requests and gossip in the worker.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use libp2p::PeerId;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, MessageId, PublishError};
use libp2p::request_response::{Event, InboundRequestId, Message, ResponseChannel};

use super::{Accepted, MAX_INLINE_BYTES, Worker};
use crate::p2p::address::scope::{Subnet, ip};
use crate::p2p::admission::inbound::{DelayedRequest, InboundRequest, Requester};
use crate::p2p::behaviour::gossip::Gossip;
use crate::protocol::codec::{WireRequest, WireResponse};
use crate::protocol::gossip::BLOCK_TOPIC;
use crate::protocol::{Code, Failure, MAX_RESPONSE_BYTES};

/// Interval of retries of delayed requests, beside the retries after each answer.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

impl Worker {
    pub fn on_inbound_event(&mut self, event: Event<WireRequest, WireResponse>) {
        match event {
            Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                self.serve(peer, request_id, request.body, channel);
            }
            Event::InboundFailure { peer, request_id, error, .. } => {
                tracing::debug!(%peer, %error, "an answer was not sent");
                self.shared.stats().inbound.failed += 1;
                self.inbound.stream_closed(&request_id);
                self.serve_delayed();
            }
            Event::ResponseSent { request_id, .. } => {
                self.inbound.stream_closed(&request_id);
                self.serve_delayed();
            }
            // This behaviour has inbound requests only.
            Event::Message { .. } | Event::OutboundFailure { .. } => {}
        }
    }

    /// Returns the peer as limits see it.
    pub fn requester(&self, peer: PeerId) -> Requester {
        let book = self.shared.book();
        let subnet = book.remote(&peer).and_then(ip).and_then(Subnet::of);
        Requester { peer, subnet, trusted: book.is_trusted(&peer) }
    }

    fn serve(&mut self, peer: PeerId, id: InboundRequestId, body: Bytes, channel: ResponseChannel<WireResponse>) {
        self.shared.stats().inbound.requests += 1;
        let request = InboundRequest { id, requester: self.requester(peer), body, channel, cost: None };
        let now = Instant::now();
        // Requests of one peer stay in order.
        let refused = match self.delayed.reason(&peer) {
            Some(reason) => Some((request, reason)),
            None => self.try_serve(request, now),
        };
        if let Some((request, reason)) = refused {
            self.delay(request, reason);
        }
    }

    /// Starts the responder on a request, or returns the request with the limit that it exceeds.
    pub fn try_serve(&mut self, mut request: InboundRequest, now: Instant) -> Option<(InboundRequest, Code)> {
        let length = request.body.len();
        let (cost, accepted) = match request.cost {
            Some(cost) => (cost, None),
            None => {
                if let Err(reason) = self.inbound.charge_request(&request.requester, length, now) {
                    return Some((request, reason));
                }
                let Accepted { cost, answer } = self.accept(&request.body);
                // Capped, so that with the least memory limit one answer still fits.
                (length.saturating_add(cost).min(MAX_RESPONSE_BYTES), Some(answer))
            }
        };
        if let Err(reason) = self.inbound.admit(request.id, request.requester, cost) {
            // A parsed request may take more memory than its bytes, for which the limit of delayed ones is: it is
            // dropped.
            request.cost = Some(cost);
            return Some((request, reason));
        }
        let InboundRequest { id, body, channel, .. } = request;
        let answer = accepted.unwrap_or_else(|| self.accept(&body).answer);
        let (mut work, long) = (AssertUnwindSafe(answer).catch_unwind(), length > MAX_INLINE_BYTES);
        // Most answers are ready at once. The waker does nothing: a pending future is polled again by its own task.
        let first = match long {
            true => Poll::Pending,
            false => work.poll_unpin(&mut Context::from_waker(Waker::noop())),
        };
        match first {
            Poll::Ready(answer) => self.answer(id, channel, answer.ok()),
            Poll::Pending => {
                let limit = self.request_timeout;
                self.responding.spawn(async move {
                    let answer = tokio::time::timeout(limit, work).await;
                    (id, channel, answer.ok().and_then(Result::ok))
                });
            }
        }
        None
    }

    fn accept(&self, request: &Bytes) -> Accepted {
        Arc::clone(&self.responder).accept(request.clone())
    }

    pub fn answer(&mut self, id: InboundRequestId, channel: ResponseChannel<WireResponse>, answer: Option<Bytes>) {
        match answer {
            Some(answer) if self.inbound.answer_ready(&id, answer.len(), Instant::now()) => {
                // Fails when the stream has closed or timed out; an `InboundFailure` event counts that.
                match self.swarm.behaviour_mut().inner.inbound.send_response(channel, answer.into()) {
                    Ok(()) => self.shared.stats().inbound.answered += 1,
                    Err(_) => self.inbound.stream_closed(&id),
                }
            }
            Some(_) => self.refuse(channel, Code::Busy),
            // Dropping the channel ends the stream, and an `InboundFailure` event counts it.
            None => {
                tracing::error!("a request got no answer: the responder panicked or took too long");
                self.inbound.work_done(&id);
            }
        }
    }

    /// Answers with a failure, which is too short to count for the memory limit.
    pub fn refuse(&mut self, channel: ResponseChannel<WireResponse>, code: Code) {
        match code {
            Code::RateLimited => self.shared.stats().inbound.rate_limited += 1,
            _ => self.shared.stats().inbound.dropped += 1,
        }
        // As in `answer`.
        let _ = self.swarm.behaviour_mut().inner.inbound.send_response(channel, Failure::new(code).encode().into());
    }

    /// Delays a request over a limit, or refuses it where too many wait.
    pub fn delay(&mut self, request: InboundRequest, reason: Code) {
        let limit = self.delayed.limit;
        if limit.is_zero() || !self.delayed.fits(&request.requester, request.body.len()) {
            return self.refuse(request.channel, reason);
        }
        let now = Instant::now();
        self.delayed.waiting.push_back(DelayedRequest { request, until: now + limit, reason });
        self.shared.stats().endpoint.delayed += 1;
        self.wake_at(now + RETRY_INTERVAL.min(limit));
    }

    /// Serves delayed requests up to the limits: one of each peer, in rounds.
    pub fn serve_delayed(&mut self) {
        let now = Instant::now();
        while self.serve_round(now) {}
        if self.delayed.len() > 0 {
            self.wake_at(now + RETRY_INTERVAL);
        }
    }

    /// Tries the first delayed request of each peer. Returns whether one was served.
    fn serve_round(&mut self, now: Instant) -> bool {
        let (mut tried, mut served) = (HashSet::new(), false);
        // Each request goes to the end once, so that the order stays.
        for _ in 0..self.delayed.len() {
            let Some(DelayedRequest { request, until, reason }) = self.delayed.waiting.pop_front() else { break };
            if !request.channel.is_open() {
                continue;
            }
            if until <= now {
                self.refuse(request.channel, reason);
                continue;
            }
            let refused = match tried.insert(request.requester.peer) {
                true => self.try_serve(request, now),
                false => Some((request, reason)),
            };
            match refused {
                None => served = true,
                Some((request, reason)) => self.delayed.waiting.push_back(DelayedRequest { request, until, reason }),
            }
        }
        served
    }

    /// Delivers a gossip message to the client that took the receiver, or drops it.
    pub fn on_gossip(&mut self, from: PeerId, id: MessageId, message: gossipsub::Message) {
        self.shared.stats().gossip.received += 1;
        let gossip = Gossip { from, author: message.source, data: message.data.into(), id: id.clone() };
        let (requester, now) = (self.requester(from), Instant::now());
        let is_eligible = self.shared.book().is_eligible(&from, now);
        if !is_eligible || !self.gossip_rate.take(&requester, now) || self.gossip_sender.try_send(gossip).is_err() {
            self.shared.stats().gossip.dropped += 1;
            self.shared.gossip_missed.notify_one();
            self.report_verdict(&id, &from, MessageAcceptance::Ignore);
        }
    }

    pub fn publish(&mut self, data: Bytes) {
        let Some(gossip) = self.swarm.behaviour_mut().inner.background.gossip.as_mut() else { return };
        match gossip.publish(IdentTopic::new(BLOCK_TOPIC), data) {
            Ok(_) => self.shared.stats().gossip.published += 1,
            Err(PublishError::NoPeersSubscribedToTopic) => tracing::debug!("no peer is subscribed to gossip"),
            Err(error) => tracing::warn!(%error, "a block was not published by gossip"),
        }
    }

    pub fn report_verdict(&mut self, id: &MessageId, from: &PeerId, verdict: MessageAcceptance) {
        if let Some(gossip) = self.swarm.behaviour_mut().inner.background.gossip.as_mut() {
            gossip.report_message_validation_result(id, from, verdict);
        }
    }
}

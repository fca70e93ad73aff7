//! The worker's third part: requests of others.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use libp2p::PeerId;
use libp2p::request_response::{Event, InboundRequestId, Message, ResponseChannel};

use super::Worker;
use crate::p2p::address::scope::{Subnet, ip};
use crate::p2p::admission::inbound::{Asked, Waiting};
use crate::p2p::rate::Asker;
use crate::protocol::codec::{Request, Response};
use crate::protocol::{Code, Failure, MAX_RESPONSE_BYTES};

/// Longer requests are not begun on the swarm's own task: reading them takes long. Of the network's own hardly one is.
const MAX_INLINE_BYTES: usize = 32 << 10;

/// How often to see whether those that wait can be answered, where nothing else tells.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Worker {
    pub fn on_inbound_event(&mut self, event: Event<Request, Response>) {
        match event {
            Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                self.serve(peer, request_id, request.body, channel);
            }
            Event::InboundFailure { peer, request_id, error, .. } => {
                tracing::debug!(%peer, %error, "an answer did not get out");
                self.shared.counters.failed.add();
                self.ended(&request_id);
                self.serve_delayed();
            }
            Event::ResponseSent { request_id, .. } => {
                self.ended(&request_id);
                self.serve_delayed();
            }
            // This behaviour never asks.
            Event::Message { .. } | Event::OutboundFailure { .. } => {}
        }
    }

    /// Who this is, as far as limits go.
    pub fn asker(&self, peer: PeerId) -> Asker {
        let book = self.shared.book();
        let subnet = book.remote(&peer).and_then(ip).and_then(Subnet::of);
        Asker { peer, subnet, trusted: book.is_trusted(&peer) }
    }

    fn serve(&mut self, peer: PeerId, id: InboundRequestId, request: Bytes, channel: ResponseChannel<Response>) {
        self.shared.counters.requests.add();
        let asked = Asked { id, asker: self.asker(peer), request, channel, bytes: None };
        let now = Instant::now();
        // Nobody overtakes itself.
        let left = match self.delayed.why(&peer) {
            Some(why) => Some((asked, why)),
            None => self.try_serve(asked, now),
        };
        if let Some((asked, why)) = left {
            self.delay(asked, why);
        }
    }

    /// Begins to work at a request, or gives it back and says why not.
    pub fn try_serve(&mut self, mut asked: Asked, now: Instant) -> Option<(Asked, Code)> {
        let bytes = match asked.bytes {
            Some(bytes) => bytes,
            None => {
                if let Err(why) = self.inbound.ask(&asked.asker, asked.request.len(), now) {
                    return Some((asked, why));
                }
                // No more than that, so that where there is least memory one answer still fits.
                let bytes = asked.request.len().saturating_add(self.responder.weight(&asked.request));
                *asked.bytes.insert(bytes.min(MAX_RESPONSE_BYTES))
            }
        };
        if let Err(why) = self.inbound.admit(asked.id, asked.asker, bytes) {
            return Some((asked, why));
        }
        self.measure();
        let Asked { id, asker, request, channel, .. } = asked;
        let (responder, long) = (Arc::clone(&self.responder), request.len() > MAX_INLINE_BYTES);
        let work = AssertUnwindSafe(async move { responder.respond(asker.peer, request).await }).catch_unwind();
        let mut work = Box::pin(work);
        // Most answers are ready at once. The waker does nothing: a future that isn't ready is polled again by its
        // task, and tells that one's waker.
        let first = match long {
            true => Poll::Pending,
            false => work.as_mut().poll(&mut Context::from_waker(Waker::noop())),
        };
        match first {
            Poll::Ready(answer) => self.answer(id, channel, answer.ok()),
            Poll::Pending => {
                let limit = self.request_timeout;
                self.answering.spawn(async move {
                    let answer = tokio::time::timeout(limit, work).await;
                    (id, channel, answer.ok().and_then(Result::ok))
                });
            }
        }
        None
    }

    pub fn answer(&mut self, id: InboundRequestId, channel: ResponseChannel<Response>, answer: Option<Bytes>) {
        match answer {
            Some(answer) if self.inbound.answered(&id, answer.len(), Instant::now()) => {
                // Fails when the peer is gone or its stream timed out: an `InboundFailure` tells, and is counted.
                match self.swarm.behaviour_mut().parts.inbound.send_response(channel, answer.into()) {
                    Ok(()) => self.shared.counters.answered.add(),
                    Err(_) => self.ended(&id),
                }
            }
            Some(_) => self.refuse(channel, Code::Busy),
            // Dropping the channel ends the stream, and an `InboundFailure` counts it.
            None => {
                tracing::error!("a request got no answer: the responder panicked or took too long");
                self.inbound.finished(&id);
            }
        }
        self.measure();
    }

    /// Answers that there is no answer, which is short enough to be held by nobody.
    pub fn refuse(&mut self, channel: ResponseChannel<Response>, code: Code) {
        let counters = &self.shared.counters;
        if code == Code::RateLimited {
            counters.rate_limited.add()
        } else {
            counters.dropped.add()
        }
        // As in `answer`.
        let _ = self.swarm.behaviour_mut().parts.inbound.send_response(channel, Failure::new(code).encode().into());
    }

    fn ended(&mut self, id: &InboundRequestId) {
        self.inbound.ended(id);
        self.measure();
    }

    pub fn measure(&self) {
        self.shared.counters.inbound.set(self.inbound.len());
        self.shared.counters.inbound_waiting.set(self.delayed.len());
        self.shared.counters.answer_bytes.set(self.inbound.bytes());
    }

    /// Keeps a request for which there is no room until there is, or says that there is none.
    pub fn delay(&mut self, asked: Asked, why: Code) {
        let limit = self.delayed.limit;
        if limit.is_zero() || !self.delayed.has_room(&asked.asker, asked.request.len()) {
            return self.refuse(asked.channel, why);
        }
        let now = Instant::now();
        self.delayed.waiting.push_back(Waiting { asked, until: now + limit, why });
        self.shared.counters.delayed.add();
        self.wake_at(now + LOOK_AGAIN.min(limit));
        self.measure();
    }

    /// Answers those that wait, as far as there is room: one of each peer, and again as long as there is more.
    pub fn serve_delayed(&mut self) {
        let now = Instant::now();
        while self.serve_one_of_each(now) {}
        if self.delayed.len() > 0 {
            self.wake_at(now + LOOK_AGAIN);
        }
        self.measure();
    }

    /// Whether one was taken.
    fn serve_one_of_each(&mut self, now: Instant) -> bool {
        let (mut tried, mut taken) = (HashSet::new(), false);
        // Each goes to the end once, so that their order stays.
        for _ in 0..self.delayed.len() {
            let Some(Waiting { asked, until, why }) = self.delayed.waiting.pop_front() else { break };
            if !asked.channel.is_open() {
                // Its asker is gone.
                continue;
            }
            if until <= now {
                self.refuse(asked.channel, why);
                continue;
            }
            let left = match tried.insert(asked.asker.peer) {
                true => self.try_serve(asked, now),
                false => Some((asked, why)),
            };
            match left {
                None => taken = true,
                Some((asked, why)) => self.delayed.waiting.push_back(Waiting { asked, until, why }),
            }
        }
        taken
    }
}

//! A request under its client's limits.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::Route,
};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep, timeout_at},
};
use tracing::Instrument;

use super::handler::{late, run};
use crate::{
    http::{
        envelope::Rejection,
        extract,
        gateway::Gateway,
        limits::{
            Permit, Permits, SHORT_BODY,
            client::Client,
            rate::{Cost, RateExceeded, RateLimit},
        },
        respond::Details,
    },
    protocol::{Code, Failure},
};

/// Of what a client has used its share.
const OVER_RATE: &str = "requests cost units, of which this client has none left: see `ratelimit-policy`";

/// Bytes of a stream that are charged at once.
const CHARGED_BYTES: u64 = 1 << 20;

/// The kind of a request, as far as limits differ.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// The answer comes from a peer.
    pub(super) forwarded: bool,
    /// The answer is made while it is sent.
    streamed: bool,
    /// The answer may be a stream of events, which has a limit of its own.
    events: bool,
}

impl Kind {
    pub(super) fn of(request: &Request) -> Self {
        let (path, forwarded) = (request.uri().path(), extract::is_forwarded(request.uri()));
        let streamed =
            !forwarded && path == "/data/miner_block/canonical" && extract::supports_chunks(request.version());
        Self { forwarded, streamed, events: path == "/events" }
    }
}

/// A request under its client's limits.
pub(super) struct LimitedRequest {
    gateway: Arc<Gateway>,
    client: Client,
    deadline: Instant,
    kind: Kind,
    cost: Cost,
    /// Units that the client has left.
    left: u32,
}

impl LimitedRequest {
    pub(super) fn new(gateway: &Arc<Gateway>, client: Client, deadline: Instant, kind: Kind) -> Self {
        Self { gateway: gateway.clone(), client, deadline, kind, cost: Cost::of(kind.forwarded), left: 0 }
    }

    /// Answers within the limits.
    pub(super) async fn enforce(mut self, request: Request, route: Route) -> Response {
        let (gateway, client) = (self.gateway.clone(), self.client);
        let response = match self.take_cost() {
            Err(exceeded) => self.refuse(&exceeded),
            Ok(()) => match self.answer(request, route).await {
                Ok((response, permits)) => self.metered(response, permits),
                Err(failure) => self.add_headers(Rejection::from(failure).into_response()),
            },
        };
        if client.unnamed && response.status() == StatusCode::TOO_MANY_REQUESTS {
            gateway.report_unnamed(client);
        }
        response
    }

    /// The rate limit, which unlimited clients don't have.
    fn rate(&self) -> Option<&RateLimit> {
        self.gateway.rate.as_ref().filter(|_| !self.client.unlimited)
    }

    /// Takes the request's cost.
    fn take_cost(&mut self) -> Result<(), RateExceeded> {
        if let Some(rate) = self.rate() {
            self.left = rate.take(self.client.key, self.cost)?;
        }
        Ok(())
    }

    fn refuse(&self, exceeded: &RateExceeded) -> Response {
        self.gateway.counters.rate_limited.add();
        let mut refused = Rejection::from(Failure::with_detail(Code::RateLimited, OVER_RATE)).into_response();
        let seconds = exceeded.wait.as_secs_f64().ceil().max(1.0) as u64;
        refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        self.add_headers(refused)
    }

    /// Takes what `bytes` of an answer cost.
    fn charge(&mut self, bytes: u64) {
        let left = self.rate().and_then(|rate| rate.charge_answer(self.client.key, self.cost, bytes));
        self.left = left.unwrap_or(self.left);
    }

    fn add_headers(&self, mut response: Response) -> Response {
        if let Some(rate) = self.rate() {
            rate.add_headers(response.headers_mut(), self.left);
        }
        response
    }

    /// Answers within all limits but the rate; the permits are for as long as the answer is sent.
    async fn answer(&mut self, request: Request, route: Route) -> Result<(Response, Option<Permits>), Failure> {
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let (request, body) = match request.method() == Method::POST && !request.body().is_end_stream() {
            true => Box::pin(self.buffer_body(request)).await?,
            false => (request, None),
        };
        if let Some(rate) = self.rate() {
            let asked = target + body.as_ref().map_or(0, |body| body.bytes);
            self.left = rate.charge_request(self.client.key, self.cost, asked as u64).unwrap_or(self.left);
        }
        let (gateway, Kind { forwarded, streamed, events }) = (self.gateway.clone(), self.kind);
        let refuse = |exceeded| gateway.refuse(exceeded);
        let permits = gateway.limits.admit(self.client, forwarded, streamed).map_err(refuse)?;
        let (response, permits) = self.handle(request, body, permits, route).await?;
        let size = response.body().size_hint().exact();
        // A peer's answer is charged whole, also where the client's copy is current.
        let Details { fetched, uncompressed, .. } = response.extensions().get().copied().unwrap_or_default();
        if fetched > 0 {
            self.charge(fetched);
        }
        let permits = match size {
            _ if streamed => Some(permits),
            None if events => None,
            size => gateway.limits.send(self.client, size).map_err(refuse)?,
        };
        // What is sent is less work for the network, and more for the gateway.
        self.charge(uncompressed.or(size).unwrap_or(0).saturating_sub(fetched));
        Ok((response, permits))
    }

    /// Runs the handler. One that waits for a peer keeps its permits when the client hangs up: the peer goes on.
    async fn handle(
        &self,
        request: Request,
        body: Option<BufferedBody>,
        permits: Permits,
        route: Route,
    ) -> Result<(Response, Permits), Failure> {
        if !self.kind.forwarded {
            return Ok((run(&self.gateway, self.deadline, request, route).await, permits));
        }
        let (gateway, deadline) = (self.gateway.clone(), self.deadline);
        let work = async move { (run(&gateway, deadline, request, route).await, permits, body) };
        let task = tokio::spawn(work.in_current_span());
        // Handlers that panic are contained below: this one was cut off by the program's end.
        let (response, permits, _) = task.await.map_err(|_| Failure::new(Code::Internal))?;
        Ok((response, permits))
    }

    /// Receives the body of a `POST`; no other method's is looked at. The request is not in flight yet: slow senders
    /// must not block others.
    async fn buffer_body(&self, request: Request) -> Result<(Request, Option<BufferedBody>), Failure> {
        let Gateway { limits, counters, .. } = &*self.gateway;
        let permit = limits.bodies.take(self.client, 1).map_err(|exceeded| self.gateway.refuse(exceeded))?;
        let (parts, body) = request.into_parts();
        let received = timeout_at(self.deadline, extract::receive(&parts.headers, body, &limits.body_bytes)).await;
        let received = received.unwrap_or_else(|_| Err(late(Code::RequestTimeout, &self.gateway)));
        let (body, memory) = received.inspect_err(|failure| match failure.code {
            Code::Busy => counters.shed.add(),
            Code::RequestTimeout => counters.timed_out.add(),
            _ => {}
        })?;
        let bytes = body.len();
        let buffered = BufferedBody { bytes, _permit: (bytes > SHORT_BODY).then_some(permit), _memory: memory };
        Ok((Request::from_parts(parts, Body::from(body)), Some(buffered)))
    }

    /// The response, which keeps its permits until it is sent. One of unknown size is charged as it is sent.
    fn metered(self, response: Response, permits: Option<Permits>) -> Response {
        let response = self.add_headers(response);
        let meter = (self.rate().is_some() && response.body().size_hint().exact().is_none()).then_some(self);
        if permits.is_none() && meter.is_none() {
            return response;
        }
        response.map(|body| Body::new(MeteredBody { body, meter, uncharged: 0, pause: None, _permits: permits }))
    }
}

/// What a request's body holds until the request is answered.
struct BufferedBody {
    bytes: usize,
    /// One of the client's, unless the body is short.
    _permit: Option<Permit>,
    _memory: OwnedSemaphorePermit,
}

/// An answer's body, which keeps its permits until it is sent, and pauses while its client is in debt.
struct MeteredBody {
    body: Body,
    meter: Option<LimitedRequest>,
    uncharged: u64,
    pause: Option<Pin<Box<Sleep>>>,
    _permits: Option<Permits>,
}

impl hyper::body::Body for MeteredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let (Poll::Ready(Some(Ok(frame))), Some(_)) = (&frame, &self.meter) {
            self.uncharged += frame.data_ref().map_or(0, |data| data.len() as u64);
            if self.uncharged >= CHARGED_BYTES {
                let debt = self.charge();
                self.pause = (debt > Duration::ZERO).then(|| Box::pin(sleep(debt)));
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl MeteredBody {
    /// Charges what was sent since the last time; returns how long the client is in debt.
    fn charge(&mut self) -> Duration {
        let bytes = std::mem::take(&mut self.uncharged);
        let Some(meter) = &mut self.meter else { return Duration::ZERO };
        meter.charge(bytes);
        meter.rate().map_or(Duration::ZERO, |rate| rate.debt(meter.client.key))
    }
}

impl Drop for MeteredBody {
    fn drop(&mut self) {
        self.charge();
    }
}

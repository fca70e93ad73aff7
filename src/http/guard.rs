//! What each request at the public door passes before and after it is answered: its client's share, room, and time.

use std::{
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{
    Gateway, Settings,
    client::{Client, ClientKey},
    error::Rejection,
    extract, pages,
    rate::{Price, RateLimit},
    server::Remote,
    shares::{Share, Shares},
};
use crate::protocol::{Code, Failure};

/// Answers of at most so many bytes leave without a place of their own.
const SMALL: u64 = 64 << 10;

/// Larger answers to one client that are on their way at once. Programs on this machine may have any number.
const MAX_CLIENT_ANSWERS: usize = 16;

/// Bytes of all requests' bodies that are in memory at once.
const MAX_BODY_BYTES: usize = 64 << 20;

/// Bodies that are received from one client at once: it must not have all of [`MAX_BODY_BYTES`]. Programs on this machine
/// may send any number.
const MAX_CLIENT_BODIES: usize = 16;

/// The path whose answer is made while it is sent.
const STREAMED: &str = "/data/miner_block/canonical";

/// Room for requests.
pub(super) struct Room {
    /// For those that are worked at.
    all: Arc<Semaphore>,
    /// For those of them that wait for a peer: its slowness must not stand in the way of answers from the store.
    forwarded: Arc<Semaphore>,
    /// For large answers on their way: who reads slowly must keep nobody from being answered.
    leaving: Arc<Semaphore>,
    most: usize,
    clients: Arc<Shares>,
    /// Bytes of bodies.
    bodies: Arc<Semaphore>,
    client_bodies: Arc<Shares>,
}

/// A place in it.
struct Place {
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
    _share: Option<Share>,
}

impl Room {
    pub(super) fn new(settings: &Settings) -> Self {
        let most = settings.max_requests;
        let [all, forwarded, leaving, bodies] =
            [most, (most / 2).max(1), most, MAX_BODY_BYTES].map(|size| Arc::new(Semaphore::new(size)));
        let [clients, client_bodies] = [MAX_CLIENT_ANSWERS, MAX_CLIENT_BODIES].map(Shares::new);
        Self { all, forwarded, leaving, most, clients, bodies, client_bodies }
    }

    /// Requests that are worked at, how many of them are forwarded, and large answers on their way.
    pub(super) fn taken(&self) -> [usize; 3] {
        [
            self.most - self.all.available_permits(),
            (self.most / 2).max(1) - self.forwarded.available_permits(),
            self.most - self.leaving.available_permits(),
        ]
    }

    /// Bytes of bodies in memory.
    pub(super) fn body_bytes(&self) -> usize {
        MAX_BODY_BYTES - self.bodies.available_permits()
    }

    fn enter(&self, forwarded: bool) -> Option<Place> {
        let second = if forwarded { Some(self.forwarded.clone().try_acquire_owned().ok()?) } else { None };
        Some(Place { _permits: (self.all.clone().try_acquire_owned().ok()?, second), _share: None })
    }

    fn leave(&self, client: Client) -> Option<Place> {
        let share = if client.local { None } else { Some(self.clients.take(client.key)?) };
        Some(Place { _permits: (self.leaving.clone().try_acquire_owned().ok()?, None), _share: share })
    }
}

/// Lets a request through, if its client may and there is room.
pub(super) async fn guard(State(gateway): State<Gateway>, mut request: Request, next: Next) -> Response {
    // Whoever calls the router without a listener is on this machine.
    let remote = request.extensions().get().map_or(IpAddr::from(Ipv4Addr::LOCALHOST), |Remote(ip)| *ip);
    let client = gateway.settings.proxies.client(remote, request.headers());
    request.extensions_mut().insert(client);
    let mut response = pass(&gateway, client, request, next).await;
    gateway.counters.answered(response.status());
    pages::secure(response.headers_mut(), gateway.settings.tls);
    response
}

async fn pass(gateway: &Gateway, client: Client, request: Request, next: Next) -> Response {
    let deadline = Instant::now() + gateway.settings.request_timeout;
    // Whether it runs and can answer is told whatever else goes on.
    if request.uri().path().starts_with("/health/") {
        return answer(gateway, deadline, request, next).await;
    }
    let forwarded = extract::is_forwarded(request.uri());
    let price = Price::of(forwarded);
    let limit = gateway.rate.as_deref().filter(|_| !client.local);
    let left = match limit.map(|limit| limit.take(client.key, price)) {
        Some(Err(empty)) => {
            gateway.counters.rate_limited.add();
            return refuse(limit, empty.wait.as_secs_f64().ceil() as u64);
        }
        Some(Ok(left)) => left,
        None => 0,
    };
    let tell = |mut response: Response| {
        if let Some(limit) = limit {
            limit.tell(response.headers_mut(), left);
        }
        response
    };
    let request = match received(gateway, client, deadline, request).await {
        Ok(request) => request,
        Err(rejection) => return tell(rejection.into_response()),
    };
    let shed = || {
        gateway.counters.shed.add();
        tell(Rejection::from(Failure::new(Code::Busy)).into_response())
    };
    let streamed = !forwarded && request.uri().path() == STREAMED;
    let place = if streamed { gateway.room.leave(client) } else { gateway.room.enter(forwarded) };
    let Some(mut place) = place else { return shed() };
    // A stream of events has room of its own.
    let endless = request.uri().path() == "/events";
    let mut response = answer(gateway, deadline, request, next).await;
    let size = response.body().size_hint().exact();
    if let Some(limit) = limit {
        let left = limit.take_bytes(client.key, price, size.unwrap_or(0));
        limit.tell(response.headers_mut(), left);
    }
    if endless || size.is_some_and(|size| size <= SMALL) {
        return response;
    }
    if !streamed {
        match gateway.room.leave(client) {
            Some(leaving) => place = leaving,
            None => return shed(),
        }
    }
    let charge =
        limit.filter(|_| size.is_none()).map(|_| Charge { gateway: gateway.clone(), client: client.key, price });
    response.map(|body| Body::new(Held { body, charge, uncharged: 0, _place: place }))
}

/// Answers a request in time, or says that there was none.
async fn answer(gateway: &Gateway, deadline: Instant, request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = timeout_at(deadline, next.run(request)).await.unwrap_or_else(|_| {
        gateway.counters.timed_out.add();
        late(Code::Busy, gateway.settings.request_timeout).into_response()
    });
    // What went wrong on our side is logged once, where it is handled. Strangers must not fill the log.
    if response.status().is_server_error() {
        tracing::debug!(%method, path = uri.path(), status = response.status().as_u16(), "request failed");
    }
    response
}

fn late(code: Code, limit: Duration) -> Rejection {
    Failure::with_detail(code, format!("not within {} s", limit.as_secs_f64())).into()
}

/// A request whose body is all there. It takes no place while it comes: who sends slowly must not keep others out.
async fn received(
    gateway: &Gateway,
    client: Client,
    deadline: Instant,
    request: Request,
) -> Result<Request, Rejection> {
    // No other method's body is looked at.
    if request.method() != Method::POST || request.body().is_end_stream() {
        return Ok(request);
    }
    let _share = match client.local {
        true => None,
        false => Some(gateway.room.client_bodies.take(client.key).ok_or_else(|| {
            Failure::with_detail(Code::RateLimited, format!("{MAX_CLIENT_BODIES} bodies are being received"))
        })?),
    };
    let (parts, body) = request.into_parts();
    let Ok(bytes) = timeout_at(deadline, extract::receive(&parts.headers, body, &gateway.room.bodies)).await else {
        gateway.counters.timed_out.add();
        return Err(late(Code::RequestTimeout, gateway.settings.request_timeout));
    };
    let (bytes, weight) = bytes?;
    let mut request = Request::from_parts(parts, Body::from(bytes));
    // Given back with the request, once it is answered.
    request.extensions_mut().insert(Arc::new(weight));
    Ok(request)
}

fn refuse(limit: Option<&RateLimit>, seconds: u64) -> Response {
    let mut response = Rejection::from(Failure::new(Code::RateLimited)).into_response();
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    if let Some(limit) = limit {
        limit.tell(headers, 0);
    }
    response
}

/// Who pays for a stream.
struct Charge {
    gateway: Gateway,
    client: ClientKey,
    price: Price,
}

/// An answer that keeps its place until it is sent, and is paid for as it goes if nobody knew its size.
struct Held {
    body: Body,
    charge: Option<Charge>,
    uncharged: u64,
    _place: Place,
}

/// Bytes of a stream that are paid for at once.
const INSTALMENT: u64 = 1 << 20;

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let (Poll::Ready(Some(Ok(frame))), Some(_)) = (&frame, &self.charge) {
            self.uncharged += frame.data_ref().map_or(0, |data| data.len() as u64);
            if self.uncharged >= INSTALMENT {
                self.pay();
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

impl Held {
    fn pay(&mut self) {
        let bytes = std::mem::take(&mut self.uncharged);
        if let Some(Charge { gateway, client, price }) = &self.charge
            && let Some(limit) = &gateway.rate
        {
            limit.take_bytes(*client, *price, bytes);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pay();
    }
}

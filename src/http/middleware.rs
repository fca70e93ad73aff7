//! What each request at the public door passes before and after it is answered: its client's share, room, and time.

use std::{
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
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
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep, timeout_at},
};

use super::{
    envelope::Rejection,
    extract,
    gateway::Gateway,
    limits::{
        Part, Place, SHORT_BODY, Taken,
        client::{Client, ClientKey},
        rate::{Price, RateLimit},
    },
    respond::Fetched,
    server::Remote,
};
use crate::protocol::{Code, Failure};

pub mod access;
pub(super) mod browser;

/// The path whose answer is made while it is sent.
const STREAMED: &str = "/data/miner_block/canonical";

/// Lets a request through, if its client may and there is room.
pub(super) async fn guard(State(gateway): State<Arc<Gateway>>, mut request: Request, next: Next) -> Response {
    // Whoever calls the router without a listener is on this machine.
    let remote = request.extensions().get().map_or(IpAddr::from(Ipv4Addr::LOCALHOST), |Remote(ip)| *ip);
    let client = gateway.settings.proxies.client(remote, request.headers());
    request.extensions_mut().insert(client);
    let mut response = pass(&gateway, client, request, next).await;
    gateway.counters.answered(response.status());
    browser::secure(response.headers_mut(), gateway.settings.tls);
    response
}

async fn pass(gateway: &Arc<Gateway>, client: Client, request: Request, next: Next) -> Response {
    let deadline = Instant::now() + gateway.settings.request_timeout;
    // Whether it runs and can answer is told whatever else goes on.
    if request.uri().path().starts_with("/health/") {
        return answer(gateway, deadline, request, next).await;
    }
    let forwarded = extract::is_forwarded(request.uri());
    let price = Price::of(forwarded);
    let limit = gateway.rate.as_ref().filter(|_| !client.local);
    let left = match limit.map(|limit| limit.take(client.key, price)) {
        Some(Err(empty)) => {
            gateway.counters.rate_limited.add();
            return refuse(limit, empty.wait.as_secs_f64().ceil() as u64);
        }
        Some(Ok(left)) => left,
        None => 0,
    };
    let tell = |mut response: Response, left: u32| {
        if let Some(limit) = limit {
            limit.tell(response.headers_mut(), left);
        }
        response
    };
    let path_and_query = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    let (request, body) = match received(gateway, client, deadline, request).await {
        Ok(received) => received,
        Err(rejection) => return tell(rejection.into_response(), left),
    };
    if let Some(limit) = limit {
        let asked = path_and_query + body.as_ref().map_or(0, |body| body.bytes);
        limit.take_question(client.key, price, asked as u64);
    }
    let shed = |taken: Taken, left: u32| {
        let counters = &gateway.counters;
        if let Taken::All(_) = taken {
            counters.shed.add()
        } else {
            counters.rate_limited.add()
        }
        tell(Rejection::from(taken.failure()).into_response(), left)
    };
    let streamed = !forwarded && request.uri().path() == STREAMED && extract::takes_chunks(request.version());
    let endless = request.uri().path() == "/events";
    let place = match gateway.room.enter(client, forwarded, streamed) {
        Ok(place) => place,
        Err(taken) => return shed(taken, left),
    };
    let (response, place) = match forwarded {
        false => (answer(gateway, deadline, request, next).await, place),
        // Who hangs up keeps its place until the peer is done: that one goes on.
        true => {
            let gateway = gateway.clone();
            let work = tokio::spawn(async move { (answer(&gateway, deadline, request, next).await, place, body) });
            match work.await {
                Ok((response, place, _)) => (response, place),
                // The program ends: handlers that panic are contained before.
                Err(_) => return Rejection::from(Failure::new(Code::Internal)).into_response(),
            }
        }
    };
    let size = response.body().size_hint().exact();
    let pay = |bytes: u64, left: u32| limit.map_or(left, |limit| limit.take_bytes(client.key, price, bytes));
    // What a peer gave is paid for, whether or not it leaves, or the client's own copy does as well.
    let fetched = response.extensions().get().map_or(0, |Fetched(bytes)| *bytes);
    let left = if fetched > 0 { pay(fetched, left) } else { left };
    let leaving = match streamed || endless && size.is_none() {
        // A stream of the chain keeps its place, and a stream of events has room of its own.
        true => Ok(streamed.then_some(place)),
        false => gateway.room.leave(client, size),
    };
    let leaving = match leaving {
        Ok(leaving) => leaving,
        Err(taken) => return shed(taken, left),
    };
    let response = tell(response, pay(size.unwrap_or(0).saturating_sub(fetched), left));
    let charge =
        limit.filter(|_| size.is_none()).map(|_| Charge { gateway: gateway.clone(), client: client.key, price });
    if leaving.is_none() && charge.is_none() {
        return response;
    }
    response.map(|body| Body::new(Held { body, charge, uncharged: 0, pause: None, _place: leaving }))
}

/// Answers a request in time, or says that there was none.
async fn answer(gateway: &Arc<Gateway>, deadline: Instant, request: Request, next: Next) -> Response {
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

/// What a request's body takes until it is answered.
struct Weight {
    bytes: usize,
    /// One of its client's, unless it is short.
    _place: Option<Part>,
    /// What it has of the room for all bodies.
    _room: OwnedSemaphorePermit,
}

/// A request whose body is all there. It takes no place while it comes: who sends slowly must not keep others out.
async fn received(
    gateway: &Arc<Gateway>,
    client: Client,
    deadline: Instant,
    request: Request,
) -> Result<(Request, Option<Weight>), Rejection> {
    // No other method's body is looked at.
    if request.method() != Method::POST || request.body().is_end_stream() {
        return Ok((request, None));
    }
    let place = gateway.room.bodies.take(client, 1).map_err(Taken::failure)?;
    let (parts, body) = request.into_parts();
    let bytes = timeout_at(deadline, extract::receive(&parts.headers, body, &gateway.room.body_bytes)).await;
    let Ok(bytes) = bytes else {
        gateway.counters.timed_out.add();
        return Err(late(Code::RequestTimeout, gateway.settings.request_timeout));
    };
    let (body, room) = bytes?;
    let bytes = body.len();
    let weight = Weight { bytes, _place: (bytes > SHORT_BODY).then_some(place), _room: room };
    Ok((Request::from_parts(parts, Body::from(body)), Some(weight)))
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
    gateway: Arc<Gateway>,
    client: ClientKey,
    price: Price,
}

/// An answer that keeps its place until it is sent, and is paid for as it goes if nobody knew its size: what its client
/// can't pay yet waits.
struct Held {
    body: Body,
    charge: Option<Charge>,
    uncharged: u64,
    /// Until the client is out of debt.
    pause: Option<Pin<Box<Sleep>>>,
    _place: Option<Place>,
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
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let (Poll::Ready(Some(Ok(frame))), Some(_)) = (&frame, &self.charge) {
            self.uncharged += frame.data_ref().map_or(0, |data| data.len() as u64);
            if self.uncharged >= INSTALMENT {
                let debt = self.pay();
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

impl Held {
    /// Returns how long its client is in debt then.
    fn pay(&mut self) -> Duration {
        let bytes = std::mem::take(&mut self.uncharged);
        match &self.charge {
            Some(Charge { gateway, client, price }) => gateway.rate.as_ref().map_or(Duration::ZERO, |limit| {
                limit.take_bytes(*client, *price, bytes);
                limit.debt(*client)
            }),
            None => Duration::ZERO,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pay();
    }
}

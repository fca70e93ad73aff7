//! One connection, from its handshake to its end.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, http::Version};
use hyper::{Request, Response, body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::sleep_until,
};
use tokio_util::either::Either;

use super::{
    admission::Ticket,
    body::{Offered, Paced},
    state::{Limits, Order, Pulse},
    tls::Tls,
};
use crate::http::counters::{Connections, Ending};

/// Most bytes of a request's head over HTTP/1, and of an answer that is buffered besides the piece at hand: eight times the
/// longest query string, so that those which are too long are told so.
const MAX_BUFFER: usize = 128 << 10;

/// Requests in progress on one connection over HTTP/2; RFC 9113 asks for at least 100.
const MAX_STREAMS: u32 = 100;
/// Bytes of all headers of a request over HTTP/2: the longest query string and as much again.
const MAX_HEADER_LIST: u32 = 32 << 10;
/// How often a silent HTTP/2 client is asked for a sign of life, and how long it has.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The other end of the connection that a request came by.
#[derive(Debug, Clone, Copy)]
pub struct Remote(pub IpAddr);

/// What serves each connection of a listener.
pub(super) struct Server {
    http: Builder<TokioExecutor>,
    router: Router,
    limits: Limits,
    tls: Option<Arc<Tls>>,
    counters: Arc<Connections>,
}

impl Server {
    pub(super) fn new(router: Router, limits: &Limits, tls: Option<Arc<Tls>>, counters: Arc<Connections>) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        // The pulse has the deadline of a head: hyper's would also end connections that wait for a request.
        http.http1().header_read_timeout(None).max_buf_size(MAX_BUFFER);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_send_buf_size(MAX_BUFFER);
        Self { http, router, limits: limits.clone(), tls, counters }
    }

    /// The pulse of a connection that begins now.
    pub(super) fn pulse(&self) -> Arc<Pulse> {
        Pulse::new(&self.limits)
    }

    /// Serves a connection to its end; says how it ended.
    pub(super) async fn run(&self, stream: TcpStream, remote: SocketAddr, ticket: Ticket) -> Ending {
        let pulse = &ticket.pulse;
        // A small answer must not wait for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let wire = Wire::new(stream, pulse.clone());
        let wire = match &self.tls {
            None => Either::Left(wire),
            Some(tls) => tokio::select! {
                accepted = tls.acceptor().accept(wire) => match accepted {
                    Ok(stream) => Either::Right(stream),
                    Err(_) => return Ending::TlsFailed,
                },
                order = pulse.told() => return if order == Order::Close { Ending::Evicted } else { Ending::Shutdown },
                ending = expiry(pulse) => return ending,
            },
        };
        self.serve(wire, remote.ip().to_canonical(), pulse).await
    }

    async fn serve<I>(&self, wire: I, remote: IpAddr, pulse: &Arc<Pulse>) -> Ending
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let service = Requests {
            router: self.router.clone(),
            remote,
            pulse: pulse.clone(),
            body_timeout: self.limits.header_timeout,
            counters: self.counters.clone(),
        };
        let connection = self.http.serve_connection(TokioIo::new(wire), service);
        tokio::pin!(connection);
        let mut ended_for = None;
        loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => {
                    return ended_for.unwrap_or(if result.is_ok() { Ending::Closed } else { Ending::Failed });
                }
                order = pulse.told() => match order {
                    Order::Close => return Ending::Evicted,
                    Order::Finish => {
                        ended_for.get_or_insert(Ending::Shutdown);
                        connection.as_mut().graceful_shutdown();
                    }
                },
                ending = expiry(pulse) => match ending {
                    // The client learns that no request of its was lost.
                    Ending::Idle => {
                        ended_for = Some(Ending::Idle);
                        pulse.finish();
                        connection.as_mut().graceful_shutdown();
                    }
                    Ending::Shutdown => return ended_for.unwrap_or(Ending::Shutdown),
                    ending => return ending,
                },
            }
        }
    }
}

/// Waits until something has taken too long.
async fn expiry(pulse: &Pulse) -> Ending {
    loop {
        match pulse.expired(Instant::now()) {
            Ok(ending) => return ending,
            Err(next) => sleep_until(next.into()).await,
        }
    }
}

/// The requests of one connection.
struct Requests {
    router: Router,
    remote: IpAddr,
    pulse: Arc<Pulse>,
    body_timeout: Duration,
    counters: Arc<Connections>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Offered<Body>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let h2 = request.version() == Version::HTTP_2;
        let turn = self.pulse.begin(h2);
        self.counters.count_request();
        let body_timeout = self.body_timeout;
        let mut request = request.map(|body| match hyper::body::Body::is_end_stream(&body) {
            true => Body::empty(),
            false => Body::new(Paced::new(body, body_timeout)),
        });
        request.extensions_mut().insert(Remote(self.remote));
        let mut router = self.router.clone();
        Box::pin(async move {
            let response = tower::Service::call(&mut router, request).await?;
            Ok(response.map(|body| Offered::new(body, turn, h2)))
        })
    }
}

/// A TCP connection whose reads and writes are noted.
struct Wire {
    stream: TcpStream,
    pulse: Arc<Pulse>,
}

impl Wire {
    fn new(stream: TcpStream, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse }
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => self.pulse.write_waits(),
            Poll::Ready(Ok(bytes)) => self.pulse.wrote(bytes),
            Poll::Ready(Err(_)) => {}
        }
        written
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.pulse.read();
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

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

use axum::{body::Body, http::Version};
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
    admission::ConnectionPermit,
    body::{TimedRequestBody, TrackedResponseBody},
    state::{ConnectionState, Shutdown},
    tls::Tls,
};
use crate::http::counters::{CloseReason, ConnectionCounters};

/// Most bytes of a request's head over HTTP/1, and of an answer that hyper buffers besides the current chunk. It is
/// eight times the longest query string, so that a longer one gets its error.
const MAX_BUFFER: usize = 128 << 10;

/// Requests in flight on one HTTP/2 connection; RFC 9113 asks for at least 100.
const MAX_STREAMS: u32 = 100;
/// Bytes of all headers of an HTTP/2 request: twice the longest query string.
const MAX_HEADER_LIST: u32 = 32 << 10;
/// How often a silent HTTP/2 client is pinged.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Longest wait for its answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The address of a connection's other end, in each request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Remote(pub IpAddr);

/// What answers the requests of a listener: a router, or a service around one.
pub trait Routes:
    tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Routes for S where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Serves the connections of a listener.
pub(super) struct Server<S> {
    http: Builder<TokioExecutor>,
    routes: S,
    /// See [`ConnectionLimits::header_timeout`](super::ConnectionLimits).
    body_timeout: Duration,
    tls: Option<Arc<Tls>>,
    counters: Arc<ConnectionCounters>,
}

impl<S: Routes> Server<S> {
    pub(super) fn new(
        routes: S,
        body_timeout: Duration,
        tls: Option<Arc<Tls>>,
        counters: Arc<ConnectionCounters>,
    ) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        // `ConnectionState` has the deadline of a head: hyper's would also close connections that wait for a request.
        http.http1().header_read_timeout(None).max_buf_size(MAX_BUFFER);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_send_buf_size(MAX_BUFFER);
        Self { http, routes, body_timeout, tls, counters }
    }

    /// Serves a connection to its end; returns why it ended.
    pub(super) async fn run(
        self: Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        permit: ConnectionPermit,
    ) -> CloseReason {
        let state = &permit.state;
        // A small answer must not wait for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let stream = TrackedStream { stream, state: state.clone() };
        let stream = match &self.tls {
            None => Either::Left(stream),
            Some(tls) => tokio::select! {
                accepted = tls.acceptor().accept(stream) => match accepted {
                    Ok(stream) => Either::Right(stream),
                    Err(_) => return CloseReason::TlsFailed,
                },
                shutdown = state.shutdown() => return match shutdown {
                    Shutdown::Evict => CloseReason::Evicted,
                    Shutdown::Graceful => CloseReason::Shutdown,
                },
                reason = expiry(state) => return reason,
            },
        };
        self.serve(stream, remote.ip().to_canonical(), state).await
    }

    async fn serve<I>(self: &Arc<Self>, stream: I, remote: IpAddr, state: &Arc<ConnectionState>) -> CloseReason
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let service = Requests { server: self.clone(), remote, state: state.clone() };
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let mut reason_to_close = None;
        loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => {
                    return reason_to_close.unwrap_or(if result.is_ok() { CloseReason::Closed } else { CloseReason::Failed });
                }
                shutdown = state.shutdown() => match shutdown {
                    Shutdown::Evict => return CloseReason::Evicted,
                    Shutdown::Graceful => {
                        reason_to_close.get_or_insert(CloseReason::Shutdown);
                        connection.as_mut().graceful_shutdown();
                    }
                },
                reason = expiry(state) => match reason {
                    // Gracefully, so that the client knows that no request was lost.
                    CloseReason::Idle => {
                        reason_to_close = Some(CloseReason::Idle);
                        state.close();
                        connection.as_mut().graceful_shutdown();
                    }
                    CloseReason::Shutdown => return reason_to_close.unwrap_or(CloseReason::Shutdown),
                    reason => return reason,
                },
            }
        }
    }
}

/// Waits until something times out.
async fn expiry(state: &ConnectionState) -> CloseReason {
    loop {
        match state.expired(Instant::now()) {
            Ok(reason) => return reason,
            Err(next) => sleep_until(next.into()).await,
        }
    }
}

/// The requests of one connection.
struct Requests<S> {
    server: Arc<Server<S>>,
    remote: IpAddr,
    state: Arc<ConnectionState>,
}

impl<S: Routes> Service<Request<Incoming>> for Requests<S> {
    type Response = Response<TrackedResponseBody<Body>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let h2 = request.version() == Version::HTTP_2;
        let in_flight = self.state.begin(h2);
        self.server.counters.count_request();
        let mut request = request.map(|body| match hyper::body::Body::is_end_stream(&body) {
            true => Body::empty(),
            false => Body::new(TimedRequestBody::new(body, self.server.body_timeout)),
        });
        request.extensions_mut().insert(Remote(self.remote));
        let answer = self.server.routes.clone().call(request);
        Box::pin(async move {
            let response = answer.await?;
            Ok(response.map(|body| TrackedResponseBody::new(body, in_flight, h2)))
        })
    }
}

/// A TCP stream whose reads and writes are recorded in the connection's state.
struct TrackedStream {
    stream: TcpStream,
    state: Arc<ConnectionState>,
}

impl TrackedStream {
    fn record(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => self.state.write_blocked(),
            Poll::Ready(Ok(bytes)) => self.state.wrote(bytes),
            Poll::Ready(Err(_)) => {}
        }
        written
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.state.read();
        }
        read
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.record(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.record(written)
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

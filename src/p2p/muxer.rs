//! Yamux: the streams of a connection.
//!
//! libp2p's own upgrade can't be told three things: how much a peer may send that nobody reads (1 GiB a connection),
//! how much we write for one that does not read ([`parked`]), and how long to wait for it to take our farewell (for
//! ever, and until then it counts as connected).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{self, Ready};
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use tokio::time::Sleep;
use yamux::{Config, Connection, ConnectionError, DEFAULT_CREDIT, Mode, Stream};

mod parked;

use parked::{Outlet, Parked, Substream};

/// Protocol id of Yamux in libp2p: <https://github.com/libp2p/specs/blob/master/yamux/README.md>.
const PROTOCOL: &str = "/yamux/1.0.0";

/// Streams of one connection, all protocols together; more are not taken.
const MAX_STREAMS: usize = 256;

/// What others may send on the streams of a connection and nobody reads: the 256 KiB of each stream, and 16 MiB by which
/// those can grow that carry much over a long way. Bytes of content: Yamux keeps each frame in memory of its own, of 64
/// bytes at least, so that frames of one byte take a multiple.
const MAX_UNREAD_BYTES: usize = MAX_STREAMS * DEFAULT_CREDIT as usize + (16 << 20);

/// How long the end of a connection may take to be sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the streams of a connection.
#[derive(Debug, Clone)]
pub(super) struct Yamux {
    close_within: Duration,
}

impl Default for Yamux {
    fn default() -> Self {
        Self { close_within: CLOSE_TIMEOUT }
    }
}

impl Yamux {
    fn over<C: AsyncRead + AsyncWrite + Unpin>(&self, io: C, mode: Mode) -> Muxer<C> {
        let mut config = Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        config.set_max_connection_receive_window(Some(MAX_UNREAD_BYTES));
        let parked = Parked::default();
        Muxer {
            connection: Connection::new(Outlet::new(io, &parked), config, mode),
            parked,
            arrived: VecDeque::new(),
            waiting: None,
            close_within: self.close_within,
            closing: None,
        }
    }
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(PROTOCOL)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_inbound(self, io: C, _: &'static str) -> Self::Future {
        future::ready(Ok(self.over(io, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_outbound(self, io: C, _: &'static str) -> Self::Future {
        future::ready(Ok(self.over(io, Mode::Client)))
    }
}

/// The streams of a connection.
pub(super) struct Muxer<C> {
    connection: Connection<Outlet<C>>,
    parked: Parked,
    /// Streams that arrived while nobody asked for one: Yamux gives nothing on without them. At most [`MAX_STREAMS`].
    arrived: VecDeque<Stream>,
    /// Whoever asked for one when there was none.
    waiting: Option<Waker>,
    close_within: Duration,
    closing: Option<Pin<Box<Sleep>>>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn next(&mut self, context: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let next = self.connection.poll_next_inbound(context);
        let next = next.map(|stream| stream.unwrap_or(Err(ConnectionError::Closed)));
        if !matches!(next, Poll::Ready(Ok(_))) {
            self.parked.settle(next.is_ready());
        }
        next
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Substream;
    type Error = ConnectionError;

    fn poll_inbound(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Substream, ConnectionError>> {
        let this = self.get_mut();
        if let Some(stream) = this.arrived.pop_front() {
            return Poll::Ready(Ok(Substream::new(stream, &this.parked)));
        }
        let next = this.next(context);
        if next.is_pending() {
            this.waiting = Some(context.waker().clone());
        }
        next.map_ok(|stream| Substream::new(stream, &this.parked))
    }

    fn poll_outbound(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Substream, ConnectionError>> {
        let this = self.get_mut();
        this.connection.poll_new_outbound(context).map_ok(|stream| Substream::new(stream, &this.parked))
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        let this = self.get_mut();
        if let Poll::Ready(closed) = this.connection.poll_close(context) {
            return Poll::Ready(closed);
        }
        let within = this.close_within;
        let limit = this.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        // Whoever holds the connection drops it then, and with it the socket.
        limit.as_mut().poll(context).map(Ok)
    }

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let this = self.get_mut();
        let stream = ready!(this.next(context))?;
        this.arrived.push_back(stream);
        if let Some(waker) = this.waiting.take() {
            waker.wake();
        }
        // More may have arrived; others get their turn before.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;

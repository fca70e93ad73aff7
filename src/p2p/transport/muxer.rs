//! Yamux: the streams of a connection.
//!
//! libp2p's own upgrade can't be told three things: how much a peer may send that nobody reads (1 GiB a connection),
//! how much we write for one that does not read ([`write_budget`](super::write_budget)), and how long to wait for it to take our farewell (for
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

use super::write_budget::{Outlet, Parked, Substream};

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
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use futures::executor::block_on;
    use futures::{AsyncReadExt, AsyncWriteExt};
    use libp2p::core::muxing::StreamMuxerExt;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::super::socket::Socket;
    use super::super::write_budget::MAX_PARKED_BYTES;
    use super::*;

    /// Longer than anything here takes, so that a connection which stays fails the test rather than hang it.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A frame of Yamux without content, of a type (1 is a window update, 3 the end) and with flags (1 opens the stream).
    fn frame(kind: u8, flags: u8, stream: u32) -> [u8; 12] {
        let mut frame = [0, kind, 0, flags, 0, 0, 0, 0, 0, 0, 0, 0];
        frame[4..8].copy_from_slice(&stream.to_be_bytes());
        frame
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn who_does_not_read_cannot_keep_its_connection() {
        let yamux = Yamux { close_within: Duration::from_millis(10) };
        for mode in [Mode::Server, Mode::Client] {
            // The other end neither reads nor goes away.
            let (io, _other) = tokio::io::duplex(1);
            let muxer = yamux.over(io.compat(), mode);
            let closed = tokio::time::timeout(PATIENCE, muxer.close()).await;
            closed.expect("it ends").unwrap();
        }
    }

    #[tokio::test]
    async fn who_takes_nothing_loses_its_connection_whatever_it_says() {
        let tick = Duration::from_millis(50);
        let (io, other) = tokio::io::duplex(64);
        let mut muxer = Yamux::default().over(Socket::new(io.compat(), tick), Mode::Client);
        let mut stream = future::poll_fn(|context| muxer.poll_outbound_unpin(context)).await.unwrap();
        stream.write_all(&[0; 1 << 10]).await.unwrap();
        let mut other = other.compat();
        let talks = async {
            let mut times = tokio::time::interval(tick / 5);
            for _ in 0..1000 {
                times.tick().await;
                // Of a stream that is no more, as it happens.
                other.write_all(&frame(1, 0, 2)).await.unwrap();
            }
        };
        tokio::select! {
            ended = future::poll_fn(|context| muxer.poll_unpin(context)) => assert!(ended.is_err()),
            () = talks => panic!("it stays"),
        }
        stream.write_all(b"more").await.unwrap_err();
    }

    #[test]
    fn streams_write_so_much_together_that_nobody_takes() {
        const FRAME: usize = 16 << 10;
        let (io, other) = tokio::io::duplex(1 << 10);
        let (mut muxer, mut other) = (Yamux::default().over(io.compat(), Mode::Client), other.compat());
        let context = &mut Context::from_waker(Waker::noop());
        let mut open = || match muxer.poll_outbound_unpin(context) {
            Poll::Ready(Ok(stream)) => stream,
            _ => panic!("there is room for a stream"),
        };
        let mut streams: Vec<_> = (0..64).map(|_| open()).collect();
        let mut written = 0;
        for _ in 0..20 {
            for stream in &mut streams {
                while let Poll::Ready(count) = Pin::new(&mut *stream).poll_write(context, &[0; FRAME]) {
                    written += count.unwrap();
                }
            }
            assert!(muxer.poll_unpin(context).is_pending());
        }
        assert!((64 * FRAME..=MAX_PARKED_BYTES + 64 * FRAME).contains(&written), "each has its frame: {written}");

        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let last = Pin::new(&mut streams[63]).poll_write(&mut Context::from_waker(&waker), b"x");
        assert!(last.is_pending(), "it has had that, and waits for the others");
        let (mut read, mut bytes) = (0, [0; 1 << 10]);
        for _ in 0..10_000 {
            if let Poll::Ready(count) = Pin::new(&mut other).poll_read(context, &mut bytes) {
                read += count.unwrap();
            }
            assert!(muxer.poll_unpin(context).is_pending());
        }
        assert!(read >= written, "{read} of {written}");
        assert!(woken.0.load(Ordering::Relaxed));
        for stream in &mut streams {
            assert!(Pin::new(stream).poll_write(context, b"x").is_ready(), "there is room again");
        }
    }

    #[test]
    fn streams_beyond_the_most_are_not_taken() {
        let (io, other) = tokio::io::duplex(1 << 16);
        let (mut muxer, mut other) = (Yamux::default().over(io.compat(), Mode::Server), other.compat());
        let context = &mut Context::from_waker(Waker::noop());
        for number in 0..=MAX_STREAMS as u32 {
            block_on(other.write_all(&frame(1, 1, 2 * number + 1))).unwrap();
        }
        let mut taken = Vec::new();
        while let Poll::Ready(stream) = muxer.poll_inbound_unpin(context) {
            taken.push(stream.unwrap());
        }
        assert_eq!(taken.len(), MAX_STREAMS);
        let mut said = [0; 1 << 10];
        let length = block_on(other.read(&mut said)).unwrap();
        assert_eq!(said[..length].chunks(12).next_back().map(|frame| frame[1]), Some(3), "the connection is to end");
    }
}

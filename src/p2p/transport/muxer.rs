//! Yamux stream multiplexer with limits.
//!
//! libp2p's own upgrade lacks three limits: on unread bytes from the peer (1 GiB a connection there), on bytes written
//! to a peer that does not read ([`write_budget`](super::write_budget)), and on the time of closing (without one, a
//! peer that reads nothing stays connected).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{self, Ready};
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use tokio::time::Sleep;
use yamux::{Config, Connection, ConnectionError, DEFAULT_CREDIT, Mode, Stream};

use super::write_budget::{Substream, TrackedWriter, WriteBudget};

/// Protocol id of Yamux in libp2p: <https://github.com/libp2p/specs/blob/master/yamux/README.md>.
const PROTOCOL: &str = "/yamux/1.0.0";

/// Streams of one connection over all protocols; an excess stream ends the connection.
const MAX_STREAMS: usize = 256;

/// Unread bytes of one connection: the window of 256 KiB of each stream, and 16 MiB for windows to grow on fast
/// long-distance links. Yamux allocates at least 64 bytes per frame, so that frames of one byte take a multiple.
const MAX_UNREAD_BYTES: usize = MAX_STREAMS * DEFAULT_CREDIT as usize + (16 << 20);

/// Timeout of closing a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connection upgrade to Yamux.
#[derive(Debug, Clone)]
pub(super) struct Yamux {
    close_timeout: Duration,
}

impl Default for Yamux {
    fn default() -> Self {
        Self { close_timeout: CLOSE_TIMEOUT }
    }
}

impl Yamux {
    fn muxer<C: AsyncRead + AsyncWrite + Unpin>(&self, io: C, mode: Mode) -> Muxer<C> {
        let mut config = Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        config.set_max_connection_receive_window(Some(MAX_UNREAD_BYTES));
        let budget = WriteBudget::default();
        Muxer {
            connection: Connection::new(TrackedWriter::new(io, &budget), config, mode),
            budget,
            inbound: VecDeque::new(),
            close_timeout: self.close_timeout,
            close_timer: None,
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
        future::ready(Ok(self.muxer(io, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_outbound(self, io: C, _: &'static str) -> Self::Future {
        future::ready(Ok(self.muxer(io, Mode::Client)))
    }
}

/// Yamux connection.
pub(super) struct Muxer<C> {
    connection: Connection<TrackedWriter<C>>,
    budget: WriteBudget,
    /// Inbound streams that were not taken yet. At most [`MAX_STREAMS`].
    inbound: VecDeque<Stream>,
    close_timeout: Duration,
    close_timer: Option<Pin<Box<Sleep>>>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn next(&mut self, context: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let next = self.connection.poll_next_inbound(context);
        let next = next.map(|stream| stream.unwrap_or(Err(ConnectionError::Closed)));
        if !matches!(next, Poll::Ready(Ok(_))) {
            self.budget.reset(next.is_ready());
        }
        next
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Substream;
    type Error = ConnectionError;

    /// Takes a stream that [`poll`](Self::poll) has found: the swarm polls that before, in the same task.
    fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Substream, ConnectionError>> {
        let this = self.get_mut();
        match this.inbound.pop_front() {
            Some(stream) => Poll::Ready(Ok(Substream::new(stream, &this.budget))),
            None => Poll::Pending,
        }
    }

    fn poll_outbound(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Substream, ConnectionError>> {
        let this = self.get_mut();
        this.connection.poll_new_outbound(context).map_ok(|stream| Substream::new(stream, &this.budget))
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        let this = self.get_mut();
        if let Poll::Ready(closed) = this.connection.poll_close(context) {
            return Poll::Ready(closed);
        }
        let timeout = this.close_timeout;
        let limit = this.close_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        // Once closed, the connection is dropped by the swarm, and its socket with it.
        limit.as_mut().poll(context).map(Ok)
    }

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let this = self.get_mut();
        loop {
            let stream = ready!(this.next(context))?;
            this.inbound.push_back(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use futures::executor::block_on;
    use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
    use libp2p::core::muxing::StreamMuxerExt;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::super::socket::Socket;
    use super::super::write_budget::MAX_UNSENT_BYTES;
    use super::*;

    /// Longer than anything here takes, so that a connection which stays fails the test rather than hang it.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A frame of Yamux without content, of a type (1 is a window update, 3 the end) and with flags (1 opens the
    /// stream).
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
    async fn a_peer_that_does_not_read_cannot_delay_closing() {
        let yamux = Yamux { close_timeout: Duration::from_millis(10) };
        for mode in [Mode::Server, Mode::Client] {
            // The other end neither reads nor goes away.
            let (io, _other) = tokio::io::duplex(1);
            let muxer = yamux.muxer(io.compat(), mode);
            let closed = tokio::time::timeout(PATIENCE, muxer.close()).await;
            closed.expect("it ends").unwrap();
        }
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_disconnected_though_it_writes() {
        let tick = Duration::from_millis(50);
        let (io, other) = tokio::io::duplex(64);
        let mut muxer = Yamux::default().muxer(Socket::new(io.compat(), tick), Mode::Client);
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

    /// Socket that takes every byte, gives none, and counts its flushes.
    #[derive(Clone, Default)]
    struct Sink(Arc<AtomicUsize>);

    impl AsyncRead for Sink {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Sink {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn frames_that_are_ready_together_are_flushed_together() {
        let (sink, context) = (Sink::default(), &mut Context::from_waker(Waker::noop()));
        let mut muxer = Yamux::default().muxer(sink.clone(), Mode::Client);
        assert!(muxer.poll_unpin(context).is_pending());
        let before = sink.0.load(Ordering::Relaxed);
        for _ in 0..3 {
            let Poll::Ready(Ok(mut stream)) = muxer.poll_outbound_unpin(context) else { panic!("a stream is opened") };
            block_on(stream.write_all(b"request")).unwrap();
            assert!(stream.close().now_or_never().is_some());
        }
        for _ in 0..3 {
            assert!(muxer.poll_unpin(context).is_pending());
            assert_eq!(sink.0.load(Ordering::Relaxed), before + 1, "and not again");
        }
    }

    #[test]
    fn streams_share_a_write_budget() {
        const FRAME: usize = 16 << 10;
        let (io, other) = tokio::io::duplex(1 << 10);
        let (mut muxer, mut other) = (Yamux::default().muxer(io.compat(), Mode::Client), other.compat());
        let context = &mut Context::from_waker(Waker::noop());
        let mut open = || match muxer.poll_outbound_unpin(context) {
            Poll::Ready(Ok(stream)) => stream,
            _ => panic!("a stream is opened"),
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
        assert!((64 * FRAME..=MAX_UNSENT_BYTES + 64 * FRAME).contains(&written), "each has its frame: {written}");

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
            assert!(Pin::new(stream).poll_write(context, b"x").is_ready(), "the budget is free again");
        }
    }

    #[test]
    fn streams_over_the_limit_end_the_connection() {
        let (io, other) = tokio::io::duplex(1 << 16);
        let (mut muxer, mut other) = (Yamux::default().muxer(io.compat(), Mode::Server), other.compat());
        let context = &mut Context::from_waker(Waker::noop());
        for number in 0..=MAX_STREAMS as u32 {
            block_on(other.write_all(&frame(1, 1, 2 * number + 1))).unwrap();
        }
        assert!(muxer.poll_unpin(context).is_pending());
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

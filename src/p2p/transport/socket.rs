//! Socket that fails when its peer is silent or reads nothing.
//!
//! TCP notices a vanished host after a quarter of an hour if something was to be sent, and never if nothing was.
//! libp2p's ping notices but closes nothing, and is late behind 10 MiB on a slow line. So any byte counts as a sign of
//! life here. Each tick wakes the connection, so that Yamux pings and every live peer answers, even without libp2p's
//! ping.
//!
//! The socket also fails when the peer reads nothing of what is written. It stands below Noise, which buffers up to 256
//! KiB and hides from the layers above how much of them is sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Ticks without a sign of life, or without progress of a pending write, until the socket fails. The first tick comes
/// at any moment: with ticks of 15 s that is after 45 to 60 s.
///
/// Linux reports progress in thirds of its send buffer, 30 KiB at first and up to 1.3 MiB on a fast line: a line that
/// was fast and is slower than 30 KB/s now times out.
const MAX_IDLE_TICKS: u32 = 4;

/// A timer can't be set to less.
const MIN_TICK: Duration = Duration::from_millis(1);

/// Socket with timeouts on reading and on pending writes. Once timed out, it fails for good.
pub(super) struct Socket<T> {
    io: T,
    ticks: Interval,
    /// Ticks since the last sign of life: bytes arrived, or a pending write made progress.
    idle_ticks: u32,
    /// Ticks since a write is pending; `None` where none is.
    write_ticks: Option<u32>,
    timed_out: bool,
}

impl<T> Socket<T> {
    /// Wraps `io`, which must not need flushing.
    pub fn new(io: T, tick: Duration) -> Self {
        let tick = tick.max(MIN_TICK);
        let mut ticks = interval_at(Instant::now() + tick, tick);
        // A pause of this process is not the peer's fault.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { io, ticks, idle_ticks: 0, write_ticks: None, timed_out: false }
    }

    /// Polls the timeouts. Called after a read or write was pending, so that available bytes count before a tick does.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while !self.timed_out && self.ticks.poll_tick(context).is_ready() {
            self.idle_ticks += 1;
            self.write_ticks = self.write_ticks.map(|ticks| ticks + 1);
            self.timed_out = self.idle_ticks.max(self.write_ticks.unwrap_or(0)) >= MAX_IDLE_TICKS;
        }
        // For good: Yamux swallows the first error and would go on in the middle of a frame.
        if self.timed_out { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Socket<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.timed_out
            && let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(context, bytes)
        {
            this.idle_ticks = 0;
            return Poll::Ready(read);
        }
        this.poll_timeout(context)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Socket<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.timed_out
            && let Poll::Ready(written) = Pin::new(&mut this.io).poll_write(context, bytes)
        {
            // Only progress after a wait is a sign of life: otherwise the system's buffer took the bytes.
            if this.write_ticks.take().is_some() {
                this.idle_ticks = 0;
            }
            return Poll::Ready(written);
        }
        this.write_ticks.get_or_insert(0);
        this.poll_timeout(context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

    use super::*;

    const TICK: Duration = Duration::from_millis(50);
    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A socket with a short buffer, and its other end.
    fn pair() -> (Socket<Compat<DuplexStream>>, DuplexStream) {
        let (io, other) = tokio::io::duplex(64);
        (Socket::new(io.compat(), TICK), other)
    }

    /// Reads what comes, and writes without end if it is to, as Yamux would; until it fails.
    async fn used(socket: &mut Socket<Compat<DuplexStream>>, writes: bool) -> io::ErrorKind {
        let failed = poll_fn(|context| {
            while writes && let Poll::Ready(written) = Pin::new(&mut *socket).poll_write(context, &[0; 16]) {
                if let Err(error) = written {
                    return Poll::Ready(error.kind());
                }
            }
            while let Poll::Ready(read) = Pin::new(&mut *socket).poll_read(context, &mut [0; 16]) {
                match read {
                    Ok(0) => return Poll::Ready(io::ErrorKind::UnexpectedEof),
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(error.kind()),
                }
            }
            Poll::Pending
        });
        tokio::time::timeout(PATIENCE, failed).await.expect("it fails in time")
    }

    /// Does something fifty times, five times in a tick.
    async fn fifty_times(mut what: impl AsyncFnMut()) {
        let mut times = tokio::time::interval(TICK / 5);
        for _ in 0..50 {
            times.tick().await;
            what().await;
        }
    }

    #[tokio::test]
    async fn a_silent_peer_times_out_for_good() {
        let (mut socket, mut other) = pair();
        assert_eq!(used(&mut socket, false).await, io::ErrorKind::TimedOut);
        other.write_all(b"late").await.unwrap();
        assert_eq!(used(&mut socket, false).await, io::ErrorKind::TimedOut);
        assert_eq!(used(&mut socket, true).await, io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_times_out_though_it_writes() {
        let (mut socket, mut other) = pair();
        let failed = tokio::select! {
            failed = used(&mut socket, true) => failed,
            () = fifty_times(async || other.write_all(b".").await.unwrap()) => panic!("it stays"),
        };
        assert_eq!(failed, io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_silent_peer_that_reads_slowly_stays() {
        let (mut socket, mut other) = pair();
        tokio::select! {
            failed = used(&mut socket, true) => panic!("{failed}"),
            () = fifty_times(async || {
                other.read_exact(&mut [0; 8]).await.unwrap();
            }) => {}
        }
    }

    #[tokio::test]
    async fn a_peer_that_writes_now_and_then_stays_while_nothing_is_pending() {
        let (mut socket, mut other) = pair();
        tokio::select! {
            failed = used(&mut socket, false) => panic!("{failed}"),
            () = fifty_times(async || other.write_all(b".").await.unwrap()) => {}
        }
    }
}

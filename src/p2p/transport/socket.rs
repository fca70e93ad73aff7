//! The socket under a connection, and whether anybody is at its other end.
//!
//! A host that vanishes takes no leave: TCP notices after a quarter of an hour if something was to be sent, and never
//! if nothing was. libp2p's ping notices, but closes nothing, and where its answer stands behind 10 MiB on a slow line
//! it is late without anybody being gone. So it is bytes that count here, whatever they carry. A socket wakes its
//! connection with each tick, so that Yamux pings: whoever lives answers that, even one that does not speak libp2p's
//! ping.
//!
//! It also ends a connection whose other end takes nothing of what we write. It stands below Noise, which gathers up to
//! 256 KiB and tells nobody above it how much of them has been taken.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// So many ticks after its last sign of life, or after it last took some of what waits for it, the other end is given
/// up. The first comes at any moment: with ticks of 15 s that is after 45 to 60 s.
///
/// Linux tells of a third of its buffer at once, 30 KiB at first, up to 1.3 MiB where much has gone out fast: a line
/// that was fast and is slower than 30 KB/s now counts as gone.
const PATIENCE_TICKS: u32 = 4;

/// A timer can't be set to less.
const MIN_TICK: Duration = Duration::from_millis(1);

/// Fails for good when its other end says nothing, or takes nothing, for too long.
pub(super) struct Socket<T> {
    io: T,
    ticks: Interval,
    /// Ticks since the last sign of life: bytes arrived, or some of ours were taken that had had to wait.
    silent: u32,
    /// Ticks since bytes of ours wait to be taken; `None` where none do.
    untaken: Option<u32>,
    given_up: bool,
}

impl<T> Socket<T> {
    /// Over `io`, which has nothing to flush.
    pub fn new(io: T, tick: Duration) -> Self {
        let tick = tick.max(MIN_TICK);
        let mut ticks = interval_at(Instant::now() + tick, tick);
        // Where this process was stopped for long, that is not the other end's fault.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { io, ticks, silent: 0, untaken: None, given_up: false }
    }

    /// Waits for the other end. Called by whoever could not read, or not write, a moment ago: what is there already
    /// counts before a tick does.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while !self.given_up && self.ticks.poll_tick(context).is_ready() {
            self.silent += 1;
            self.untaken = self.untaken.map(|ticks| ticks + 1);
            self.given_up = self.silent.max(self.untaken.unwrap_or(0)) >= PATIENCE_TICKS;
        }
        // From then on always: Yamux swallows the first error, and would go on in the middle of a frame.
        if self.given_up { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Socket<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.given_up
            && let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(context, bytes)
        {
            this.silent = 0;
            return Poll::Ready(read);
        }
        this.wait(context)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Socket<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.given_up
            && let Poll::Ready(written) = Pin::new(&mut this.io).poll_write(context, bytes)
        {
            // Without a wait it says nothing of the other end: the system takes what its buffer holds.
            if this.untaken.take().is_some() {
                this.silent = 0;
            }
            return Poll::Ready(written);
        }
        this.untaken.get_or_insert(0);
        this.wait(context)
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

    /// A socket with so little room on its way that it soon waits, and its other end.
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
    async fn who_says_nothing_is_given_up_for_good() {
        let (mut socket, mut other) = pair();
        assert_eq!(used(&mut socket, false).await, io::ErrorKind::TimedOut);
        other.write_all(b"late").await.unwrap();
        assert_eq!(used(&mut socket, false).await, io::ErrorKind::TimedOut);
        assert_eq!(used(&mut socket, true).await, io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_takes_nothing_is_given_up_whatever_it_says() {
        let (mut socket, mut other) = pair();
        let failed = tokio::select! {
            failed = used(&mut socket, true) => failed,
            () = fifty_times(async || other.write_all(b".").await.unwrap()) => panic!("it stays"),
        };
        assert_eq!(failed, io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_takes_slowly_stays_though_it_says_nothing() {
        let (mut socket, mut other) = pair();
        tokio::select! {
            failed = used(&mut socket, true) => panic!("{failed}"),
            () = fifty_times(async || {
                other.read_exact(&mut [0; 8]).await.unwrap();
            }) => {}
        }
    }

    #[tokio::test]
    async fn who_says_something_now_and_then_stays_while_there_is_nothing_to_take() {
        let (mut socket, mut other) = pair();
        tokio::select! {
            failed = used(&mut socket, false) => panic!("{failed}"),
            () = fifty_times(async || other.write_all(b".").await.unwrap()) => {}
        }
    }
}

//! What the streams of a connection have written and its socket has not taken.
//!
//! Yamux takes eleven frames of 16 KiB of each stream, whatever became of those before. An answer that it has taken
//! counts as sent and its memory as free, so that a peer that reads nothing would have us hold 176 KiB for each of its
//! streams. Here all streams of a connection have room for so much together, and each has a frame besides: those that
//! write much must not keep others from a word.
//!
//! Shorter frames would be less memory, too. But Yamux flushes after each: frames of 4 KiB take four times the system
//! calls.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures::{AsyncRead, AsyncWrite};
use yamux::Stream;

/// Bytes that the streams of a connection may write until all that they wrote is out, beside a frame of each. With the
/// most streams there are that makes 4.25 MiB.
///
/// No more, since an answer must go on within the codec's 10 s: a stream waits for all of this, not for its part.
pub(super) const MAX_PARKED_BYTES: usize = 256 << 10;

/// Counts them, for all streams of a connection.
#[derive(Clone, Default)]
pub(super) struct Parked(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Bytes written by streams since all were out: what is parked is no more.
    bytes: usize,
    /// How often all were out.
    rounds: u64,
    /// What the socket was given last, it took.
    flushed: bool,
    /// Streams that wait for room.
    waiting: Vec<Waker>,
}

impl Parked {
    // The state stays consistent whatever panics: no change leaves it half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Yamux has nothing more to give to the socket, or has ended, so that streams are to see it.
    pub fn settle(&self, ended: bool) {
        let waiting = {
            let mut state = self.state();
            if !state.flushed && !ended {
                return;
            }
            state.bytes = 0;
            state.rounds += 1;
            mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A stream that writes while there is room.
pub(crate) struct Substream {
    stream: Stream,
    parked: Parked,
    /// The round in which it last wrote.
    wrote: Option<u64>,
}

impl Substream {
    pub fn new(stream: Stream, parked: &Parked) -> Self {
        Self { stream, parked: parked.clone(), wrote: None }
    }
}

impl AsyncRead for Substream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, bytes)
    }
}

impl AsyncWrite for Substream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        {
            let mut state = this.parked.state();
            if state.bytes >= MAX_PARKED_BYTES && this.wrote == Some(state.rounds) {
                if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    state.waiting.push(context.waker().clone());
                }
                return Poll::Pending;
            }
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        let mut state = this.parked.state();
        state.bytes += written;
        this.wrote = Some(state.rounds);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(context)
    }
}

/// What Yamux writes to; it notes whether all of it was taken.
pub(super) struct Outlet<C> {
    io: C,
    parked: Parked,
}

impl<C> Outlet<C> {
    pub fn new(io: C, parked: &Parked) -> Self {
        Self { io, parked: parked.clone() }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Outlet<C> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_read(context, bytes)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Outlet<C> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Yamux flushes only after whole frames.
        this.parked.state().flushed = false;
        Pin::new(&mut this.io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(context);
        this.parked.state().flushed = flushed.is_ready();
        flushed
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_close(context)
    }
}

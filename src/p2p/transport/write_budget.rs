//! Write budget of a connection: limit on bytes that its streams have written and its socket has not sent.
//!
//! Yamux buffers eleven frames of 16 KiB per stream, and an answer in its buffer counts as sent: a peer that reads
//! nothing would cost 176 KiB for each of its streams. Here all streams of a connection share one budget, and each may
//! write one frame besides, so that long answers don't block short ones.
//!
//! Shorter frames would need less memory, too, but Yamux flushes after each: frames of 4 KiB take four times the system
//! calls.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures::{AsyncRead, AsyncWrite};
use yamux::Stream;

/// Bytes that the streams of a connection may write until all of them are sent, beside one frame of each stream: 4.25
/// MiB with the maximum of 256 streams.
///
/// A stream waits until the whole budget is sent, and must go on within the codec's write timeout of 10 s.
pub(super) const MAX_UNSENT_BYTES: usize = 256 << 10;

/// Budget of a connection, shared by its streams and its socket.
#[derive(Clone, Default)]
pub(super) struct WriteBudget(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Bytes written by streams since the latest reset: an upper bound of the unsent bytes.
    bytes: usize,
    /// Number of resets.
    rounds: u64,
    /// Whether the latest flush of the socket completed.
    flushed: bool,
    /// Streams that wait for the next reset.
    waiting: Vec<Waker>,
}

impl WriteBudget {
    // A poisoned lock is used on: no change leaves the state half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a new round if everything is sent. Called when Yamux has nothing to write; `ended`: the connection is
    /// over, and waiting streams must notice.
    pub fn reset(&self, ended: bool) {
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

/// Yamux stream that writes within the budget.
pub(crate) struct Substream {
    stream: Stream,
    budget: WriteBudget,
    /// Round of the latest write.
    wrote_in: Option<u64>,
}

impl Substream {
    pub fn new(stream: Stream, budget: &WriteBudget) -> Self {
        Self { stream, budget: budget.clone(), wrote_in: None }
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
            let mut state = this.budget.state();
            if state.bytes >= MAX_UNSENT_BYTES && this.wrote_in == Some(state.rounds) {
                if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    state.waiting.push(context.waker().clone());
                }
                return Poll::Pending;
            }
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        let mut state = this.budget.state();
        state.bytes += written;
        this.wrote_in = Some(state.rounds);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(context)
    }
}

/// Socket below Yamux that records whether everything is flushed.
pub(super) struct TrackedWriter<C> {
    io: C,
    budget: WriteBudget,
}

impl<C> TrackedWriter<C> {
    pub fn new(io: C, budget: &WriteBudget) -> Self {
        Self { io, budget: budget.clone() }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for TrackedWriter<C> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_read(context, bytes)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for TrackedWriter<C> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Yamux flushes only after whole frames.
        this.budget.state().flushed = false;
        Pin::new(&mut this.io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(context);
        this.budget.state().flushed = flushed.is_ready();
        flushed
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_close(context)
    }
}

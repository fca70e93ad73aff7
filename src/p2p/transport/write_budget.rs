//! Write budget of a connection: limit on bytes that its streams have written and its socket has not sent.
//!
//! Yamux buffers eleven frames of 16 KiB per stream, and an answer in its buffer counts as sent: a peer that reads
//! nothing would cost 176 KiB for each of its streams. Here all streams of a connection share one budget, and each may
//! write one frame besides, so that long answers don't block short ones.
//!
//! Yamux flushes after each frame, which would be a system call for each. The socket below it ([`TrackedWriter`])
//! flushes once for all frames that are ready.

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
    /// Whether the latest flush of the socket completed, and nothing was written since.
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

/// Socket below Yamux that flushes when Yamux has nothing more to write, and records whether everything is flushed.
pub(super) struct TrackedWriter<C> {
    io: C,
    budget: WriteBudget,
    unflushed: Unflushed,
}

/// What was written since the latest flush.
#[derive(PartialEq)]
enum Unflushed {
    Nothing,
    WholeFrames,
    /// The last frame may be incomplete.
    Frames,
}

impl<C> TrackedWriter<C> {
    pub fn new(io: C, budget: &WriteBudget) -> Self {
        // The negotiation of Yamux may be unflushed.
        Self { io, budget: budget.clone(), unflushed: Unflushed::WholeFrames }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for TrackedWriter<C> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Yamux reads when it has written all frames that are ready.
        if this.unflushed == Unflushed::WholeFrames
            && let Poll::Ready(flushed) = Pin::new(&mut this.io).poll_flush(context)
        {
            flushed?;
            this.unflushed = Unflushed::Nothing;
            this.budget.state().flushed = true;
        }
        Pin::new(&mut this.io).poll_read(context, bytes)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for TrackedWriter<C> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.unflushed == Unflushed::Nothing {
            this.budget.state().flushed = false;
        }
        this.unflushed = Unflushed::Frames;
        Pin::new(&mut this.io).poll_write(context, bytes)
    }

    /// Leaves it to the next read. Yamux flushes only after whole frames.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unflushed == Unflushed::Frames {
            this.unflushed = Unflushed::WholeFrames;
        }
        Poll::Ready(Ok(()))
    }

    /// Flushes and closes.
    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_close(context)
    }
}

//! Request bodies with a timeout, and response bodies that clients must take.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{BoxError, body::Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};

use super::state::{InFlight, StallTimer};

/// The client sends its request's body too slowly, or no longer.
#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly")]
pub struct BodyTimeout;

/// A request's body with a timeout.
pub(super) struct TimedRequestBody<B> {
    body: B,
    timer: StallTimer,
    timeout: Option<Pin<Box<Sleep>>>,
}

impl<B> TimedRequestBody<B> {
    pub(super) fn new(body: B, most: Duration) -> Self {
        Self { body, timer: StallTimer::new(most), timeout: None }
    }
}

impl<B> Body for TimedRequestBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => {
                this.timeout = None;
                let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
                this.timer.moved(Instant::now(), bytes);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let until = this.timer.wait(Instant::now());
                let timeout = this.timeout.get_or_insert_with(|| Box::pin(sleep_until(until.into())));
                timeout.as_mut().poll(context).map(|()| Some(Err(BodyTimeout.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Largest chunk of an answer over HTTP/2, in bytes.
const H2_CHUNK: usize = 16 << 10;
/// The same over HTTP/1. There the body is dropped with its last chunk: a longer answer is in flight until it is nearly
/// sent.
const H1_CHUNK: usize = 64 << 10;

/// A chunk handed to HTTP/2, dropped when it is sent or never will be. Until then the client's window may hold it back,
/// also after the body's end.
struct Chunk {
    data: Bytes,
    in_flight: Arc<InFlight>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Its bytes count when the next chunk is polled.
        self.in_flight.taken(0);
    }
}

/// An answer's body, whose chunks are recorded in the connection's state until the client has taken them.
pub(super) struct TrackedResponseBody<B> {
    body: B,
    in_flight: Arc<InFlight>,
    /// Size of the last chunk, until the next is polled: it counts as taken once, however often that is polled.
    last: Option<usize>,
    /// What is left of a frame that is larger than a chunk.
    rest: Bytes,
    h2: bool,
}

impl<B: Body> TrackedResponseBody<B> {
    pub(super) fn new(body: B, in_flight: InFlight, h2: bool) -> Self {
        // The head, before anything of the body.
        let last = (!body.is_end_stream()).then(|| {
            in_flight.offer();
            0
        });
        Self { body, in_flight: Arc::new(in_flight), last, rest: Bytes::new(), h2 }
    }

    /// Hands over `data`, or its first chunk.
    fn hand_over(&mut self, mut data: Bytes) -> Frame<Bytes> {
        let most = if self.h2 { H2_CHUNK } else { H1_CHUNK };
        if data.len() > most {
            self.rest = data.split_off(most);
        }
        self.last = Some(data.len());
        self.in_flight.offer();
        if self.h2 {
            self.in_flight.offer();
            data = Bytes::from_owner(Chunk { data, in_flight: self.in_flight.clone() });
        }
        Frame::data(data)
    }
}

impl<B> Body for TrackedResponseBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if let Some(last) = this.last.take() {
            this.in_flight.taken(last);
        }
        if !this.rest.is_empty() {
            let rest = std::mem::take(&mut this.rest);
            return Poll::Ready(Some(Ok(this.hand_over(rest))));
        }
        let frame = Pin::new(&mut this.body).poll_frame(context);
        frame.map(|frame| {
            frame.map(|frame| {
                Ok(match frame?.into_data() {
                    Ok(data) => this.hand_over(data),
                    Err(trailers) => trailers,
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (own, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(own.lower() + rest);
        if let Some(upper) = own.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures::channel::mpsc;
    use http_body_util::StreamBody;

    use super::{
        super::state::{ConnectionLimits, ConnectionState},
        *,
    };
    use crate::http::counters::CloseReason;

    #[test]
    fn a_chunk_that_is_not_taken_stalls_however_often_the_next_one_is_polled() {
        let limits = ConnectionLimits::default();
        let connection = ConnectionState::new(&limits);
        let (mut pages, body) = mpsc::channel::<Result<Frame<Bytes>, BodyTimeout>>(8);
        let mut tracked = TrackedResponseBody::new(StreamBody::new(body), connection.begin(true), true);
        let mut context = Context::from_waker(Waker::noop());
        let mut poll = || Pin::new(&mut tracked).poll_frame(&mut context);
        let expired = || connection.expired(Instant::now() + 2 * limits.stall_timeout).ok();
        assert!(poll().is_pending());
        assert_eq!(expired(), None, "the client waits for us");
        for page in ["one", "two"] {
            pages.try_send(Ok(Frame::data(page.into()))).unwrap();
            let Poll::Ready(Some(Ok(chunk))) = poll() else { panic!("no chunk") };
            for _ in 0..3 {
                assert!(poll().is_pending());
            }
            assert_eq!(expired(), Some(CloseReason::Stalled), "the client's window keeps it");
            drop(chunk);
            assert_eq!(expired(), None);
        }
        pages.try_send(Ok(Frame::data("the last".into()))).unwrap();
        drop(pages);
        let Poll::Ready(Some(Ok(last))) = poll() else { panic!("no chunk") };
        assert!(matches!(poll(), Poll::Ready(None)));
        drop(tracked);
        assert_eq!(expired(), Some(CloseReason::Stalled), "also after the end of the body");
        drop(last);
        assert!(expired().is_none() && connection.waiting_since().is_some());
    }
}

//! Bodies that are late, or that nobody takes.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{BoxError, body::Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};

use super::state::{Pace, Turn};

/// A client has stopped sending its request's body, or sends it too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body is late")]
pub struct Late;

/// A request's body, which must keep coming.
pub(super) struct Paced<B> {
    body: B,
    pace: Pace,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B, most: Duration) -> Self {
        Self { body, pace: Pace::new(most), alarm: None }
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => {
                this.alarm = None;
                let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
                this.pace.moved(Instant::now(), bytes);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let until = this.pace.wait(Instant::now());
                let alarm = this.alarm.get_or_insert_with(|| Box::pin(sleep_until(until.into())));
                alarm.as_mut().poll(context).map(|()| Some(Err(Late.into())))
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

/// Most of an answer that is handed over at once over HTTP/2, in bytes.
const PIECE: usize = 16 << 10;
/// The same over HTTP/1, where a body is let go of as soon as its last piece is handed over: what is longer than this is in
/// progress until it is nearly sent.
const LONG_PIECE: usize = 64 << 10;

/// What was handed over over HTTP/2, until that lets go of it: it is sent, or will never be. Meanwhile the client's window
/// may keep it, also when the body has ended.
struct Piece {
    data: Bytes,
    turn: Arc<Turn>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // What it earns, it has when the next one is asked for.
        self.turn.taken(0);
    }
}

/// An answer's body, which the client must keep taking.
pub(super) struct Offered<B> {
    body: B,
    turn: Arc<Turn>,
    /// Size of the piece that was handed over last, until it is asked for the next one: that it was taken counts once, however
    /// often it is asked.
    last: Option<usize>,
    /// What comes next, where the body's own pieces are cut up.
    rest: Bytes,
    h2: bool,
}

impl<B: Body> Offered<B> {
    pub(super) fn new(body: B, turn: Turn, h2: bool) -> Self {
        // The head, before anything of the body.
        let last = (!body.is_end_stream()).then(|| {
            turn.offer();
            0
        });
        Self { body, turn: Arc::new(turn), last, rest: Bytes::new(), h2 }
    }

    /// Hands over what remains of a piece, or all of it.
    fn hand_over(&mut self, mut data: Bytes) -> Frame<Bytes> {
        let most = if self.h2 { PIECE } else { LONG_PIECE };
        if data.len() > most {
            self.rest = data.split_off(most);
        }
        self.last = Some(data.len());
        self.turn.offer();
        if self.h2 {
            self.turn.offer();
            data = Bytes::from_owner(Piece { data, turn: self.turn.clone() });
        }
        Frame::data(data)
    }
}

impl<B> Body for Offered<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if let Some(last) = this.last.take() {
            this.turn.taken(last);
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
        super::state::{Limits, Pulse},
        *,
    };
    use crate::http::counters::Ending;

    #[test]
    fn who_holds_a_piece_is_waited_for_however_often_the_next_one_is_asked_for() {
        let limits = Limits::default();
        let pulse = Pulse::new(&limits);
        let (mut pages, body) = mpsc::channel::<Result<Frame<Bytes>, Late>>(8);
        let mut offered = Offered::new(StreamBody::new(body), pulse.begin(true), true);
        let mut context = Context::from_waker(Waker::noop());
        let mut poll = || Pin::new(&mut offered).poll_frame(&mut context);
        let expired = || pulse.expired(Instant::now() + 2 * limits.stall_timeout).ok();
        assert!(poll().is_pending());
        assert_eq!(expired(), None, "the answer waits for us");
        for page in ["one", "two"] {
            pages.try_send(Ok(Frame::data(page.into()))).unwrap();
            let Poll::Ready(Some(Ok(piece))) = poll() else { panic!("no piece") };
            for _ in 0..3 {
                assert!(poll().is_pending());
            }
            assert_eq!(expired(), Some(Ending::Stalled), "the client's window keeps it");
            drop(piece);
            assert_eq!(expired(), None);
        }
        pages.try_send(Ok(Frame::data("the last".into()))).unwrap();
        drop(pages);
        let Poll::Ready(Some(Ok(last))) = poll() else { panic!("no piece") };
        assert!(matches!(poll(), Poll::Ready(None)));
        drop(offered);
        assert_eq!(expired(), Some(Ending::Stalled), "nor does the end of the body let go of it");
        drop(last);
        assert!(expired().is_none() && pulse.waiting_since().is_some());
    }
}

//! Bodies that are late, or that nobody takes.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{BoxError, body::Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};

use super::pulse::{Pace, Turn};

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

/// Most of an answer that is handed over at once over HTTP/2, in bytes: what is handed over is out of our sight, whether or
/// not the client's window lets it go.
const PIECE: usize = 16 << 10;

/// An answer's body, which the client must keep taking.
pub(super) struct Offered<B> {
    body: B,
    turn: Turn,
    /// Size of the piece that was handed over last.
    last: usize,
    /// What comes next, where the body's own pieces are cut up.
    rest: Bytes,
    cut: bool,
}

impl<B: Body> Offered<B> {
    pub(super) fn new(body: B, mut turn: Turn, h2: bool) -> Self {
        if !body.is_end_stream() {
            turn.offer();
        }
        Self { body, turn, last: 0, rest: Bytes::new(), cut: h2 }
    }

    /// Hands over what remains of a piece, or all of it.
    fn hand_over(&mut self, mut data: Bytes) -> Frame<Bytes> {
        if self.cut && data.len() > PIECE {
            self.rest = data.split_off(PIECE);
        }
        self.last = data.len();
        self.turn.offer();
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
        this.turn.taken(std::mem::take(&mut this.last));
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

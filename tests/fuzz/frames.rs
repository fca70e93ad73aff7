//! The codec on streams.

use std::{
    io,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
};

use futures::io::AsyncRead;
use libp2p::{StreamProtocol, request_response::Codec};
use modal_gateway::protocol::{
    COMPRESSED_PROTOCOL, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, PROTOCOL,
    codec::{JsonCodec, TooLarge},
};

/// A stream that gives the bytes in pieces of at most `piece`, over and over if it is `endless`, and counts them.
struct ByteStream<'a> {
    bytes: &'a [u8],
    piece: usize,
    endless: bool,
    taken: usize,
}

impl AsyncRead for ByteStream<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let at = if self.endless && !self.bytes.is_empty() { self.taken % self.bytes.len() } else { self.taken };
        let left = &self.bytes[at.min(self.bytes.len())..];
        let count = left.len().min(buffer.len()).min(self.piece);
        buffer[..count].copy_from_slice(&left[..count]);
        self.taken += count;
        Poll::Ready(Ok(count))
    }
}

/// Runs to its end what never waits; the codec has deadlines, and with them wants a clock.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    static CLOCK: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap());
    CLOCK.block_on(work)
}

/// The first byte chooses protocol, direction and stream, the second how large its pieces are, and the rest is what it
/// carries. No more is read, or handed on, than the limit; what is handed on can be sent on.
pub fn frames(data: &[u8]) {
    let [choice, piece, bytes @ ..] = data else { return };
    let compressed = choice & 1 == 1;
    let id = StreamProtocol::new(if compressed { COMPRESSED_PROTOCOL } else { PROTOCOL });
    let inbound = choice & 2 == 0;
    let limit = if inbound { MAX_REQUEST_BYTES } else { MAX_RESPONSE_BYTES };
    // Without an end only where the limit is near: ten times as much takes a fuzzer ten times as long.
    let mut wire =
        ByteStream { bytes, piece: 1 + usize::from(*piece) * 64, endless: choice & 12 == 12 && inbound, taken: 0 };
    let mut codec = JsonCodec::default();
    let read = block_on(async {
        match inbound {
            true => codec.read_request(&id, &mut wire).await.map(|request| request.body),
            false => codec.read_response(&id, &mut wire).await.map(|response| response.body),
        }
    });
    // Noise grows by a 256th when it is compressed, and one byte more tells that there is more.
    assert!(wire.taken <= limit + limit / 255 + 64, "{} bytes were read", wire.taken);
    let document = match read {
        Ok(document) => document,
        Err(error) => {
            assert!(!TooLarge::is(&error) || bytes.len() > limit || compressed || wire.endless);
            return;
        }
    };
    assert!(!wire.endless || bytes.is_empty(), "it has no end");
    assert!((1..=limit).contains(&document.len()));
    if !compressed {
        assert_eq!(&document[..], bytes);
    }
    // Nothing that is JSON begins like a compressed frame, and nothing else is ever sent.
    if document.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return;
    }
    let (sent, received) = block_on(async {
        let mut sent = Vec::new();
        let received = match inbound {
            true => {
                codec.write_request(&id, &mut sent, document.clone().into()).await.unwrap();
                codec.read_request(&id, &mut &sent[..]).await.unwrap().body
            }
            false => {
                codec.write_response(&id, &mut sent, document.clone().into()).await.unwrap();
                codec.read_response(&id, &mut &sent[..]).await.unwrap().body
            }
        };
        (sent, received)
    });
    assert!(received == document && sent.len() <= limit + limit / 255 + 64);
}

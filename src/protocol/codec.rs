//! Carries encoded JSON documents over a libp2p stream: the network's codec, without the JSON.
//!
//! On the wire it is libp2p's own `json` codec: one document per half of a stream, ended by closing that half. Here
//! the documents stay bytes, so an answer is encoded once (elsewhere), shared and written as it is, and nothing is
//! parsed in the tasks that drive connections.

use std::io;
use std::time::Instant;

use bytes::Bytes;
use futures::prelude::*;
use libp2p::StreamProtocol;
use libp2p::request_response;

use super::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES};

/// First allocation for a document that arrives; it then doubles with what really comes, so that a peer which opens
/// streams and sends nothing costs us this much and no more.
const INITIAL_BUFFER_BYTES: usize = 4096;

/// A request on its way to, or from, a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The encoded document `{"path": …, "data": …}`.
    pub body: Bytes,
    /// When the stream of an outbound request is given up. The behaviour's own timeout is one for all requests; this
    /// one frees the stream as soon as nobody waits any more. `None` on inbound requests.
    pub deadline: Option<Instant>,
}

impl From<Bytes> for Request {
    fn from(body: Bytes) -> Self {
        Self { body, deadline: None }
    }
}

/// A document that is longer than the protocol allows, found inside the [`io::Error`] that the codec returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("longer than the protocol's limit of {limit} bytes")]
pub struct TooLarge {
    /// The limit, in bytes.
    pub limit: usize,
}

impl TooLarge {
    /// Whether `error` is this one.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<TooLarge>())
    }
}

/// The codec of [`PROTOCOL`](super::PROTOCOL). A request over 1 MiB and an answer over 10 MiB are errors
/// ([`TooLarge`]), read or written; so is a stream that ends before the first byte (`UnexpectedEof`).
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonCodec {
    /// Of the request that this clone wrote: libp2p clones the codec for each stream.
    deadline: Option<Instant>,
}

impl request_response::Codec for JsonCodec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Bytes;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        Ok(read(io, MAX_REQUEST_BYTES).await?.into())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Bytes>
    where
        T: AsyncRead + Unpin + Send,
    {
        before(self.deadline, read(io, MAX_RESPONSE_BYTES)).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.deadline = request.deadline;
        before(self.deadline, write(io, &request.body, MAX_REQUEST_BYTES)).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: Bytes) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &response, MAX_RESPONSE_BYTES).await
    }
}

async fn before<T>(deadline: Option<Instant>, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match deadline {
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), work).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        },
        None => work.await,
    }
}

async fn read<T: AsyncRead + Unpin + Send>(io: &mut T, limit: usize) -> io::Result<Bytes> {
    let mut document = Vec::with_capacity(INITIAL_BUFFER_BYTES);
    // One byte more than allowed tells a document of exactly `limit` bytes from one that goes on.
    io.take(limit as u64 + 1).read_to_end(&mut document).await?;
    match document.len() {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended without a document")),
        n if n > limit => Err(too_large(limit)),
        _ => Ok(document.into()),
    }
}

async fn write<T: AsyncWrite + Unpin + Send>(io: &mut T, document: &Bytes, limit: usize) -> io::Result<()> {
    if document.len() > limit {
        return Err(too_large(limit));
    }
    io.write_all(document).await
}

fn too_large(limit: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, TooLarge { limit })
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use libp2p::request_response::Codec;

    use super::*;

    const ID: StreamProtocol = StreamProtocol::new(crate::protocol::PROTOCOL);

    /// A peer that neither reads nor writes.
    struct Silent;

    impl AsyncRead for Silent {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Silent {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn speaks_the_bytes_of_libp2ps_json_codec() {
        type Theirs = request_response::json::codec::Codec<serde_json::Value, serde_json::Value>;
        let value = serde_json::json!({"path": "/ping", "data": {"n": u64::MAX, "s": "ü\n"}});
        let body = Bytes::from(serde_json::to_vec(&value).unwrap());
        let (mut ours, mut theirs) = (JsonCodec::default(), Theirs::default());

        let mut wire = Vec::new();
        ours.write_request(&ID, &mut wire, body.clone().into()).await.unwrap();
        assert_eq!(theirs.read_request(&ID, &mut &wire[..]).await.unwrap(), value);
        let mut wire = Vec::new();
        theirs.write_request(&ID, &mut wire, value.clone()).await.unwrap();
        assert_eq!(ours.read_request(&ID, &mut &wire[..]).await.unwrap(), Request::from(body.clone()));

        let mut wire = Vec::new();
        ours.write_response(&ID, &mut wire, body.clone()).await.unwrap();
        assert_eq!(theirs.read_response(&ID, &mut &wire[..]).await.unwrap(), value);
        let mut wire = Vec::new();
        theirs.write_response(&ID, &mut wire, value).await.unwrap();
        assert_eq!(ours.read_response(&ID, &mut &wire[..]).await.unwrap(), body);
    }

    #[tokio::test]
    async fn limits_are_exact_on_both_halves() {
        let mut codec = JsonCodec::default();
        let wire = vec![b'x'; MAX_RESPONSE_BYTES + 1];
        let mut request = &wire[..MAX_REQUEST_BYTES];
        assert_eq!(codec.read_request(&ID, &mut request).await.unwrap().body.len(), MAX_REQUEST_BYTES);
        let mut request = &wire[..MAX_REQUEST_BYTES + 1];
        assert!(TooLarge::is(&codec.read_request(&ID, &mut request).await.unwrap_err()));
        let mut response = &wire[..MAX_RESPONSE_BYTES];
        assert_eq!(codec.read_response(&ID, &mut response).await.unwrap().len(), MAX_RESPONSE_BYTES);
        let error = codec.read_response(&ID, &mut &wire[..]).await.unwrap_err();
        assert!(TooLarge::is(&error));
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn nothing_of_a_document_over_the_limit_is_written() {
        let mut wire = Vec::new();
        let long = Bytes::from(vec![b'x'; MAX_REQUEST_BYTES + 1]);
        assert!(TooLarge::is(&JsonCodec::default().write_request(&ID, &mut wire, long.into()).await.unwrap_err()));
        let long = Bytes::from(vec![b'x'; MAX_RESPONSE_BYTES + 1]);
        assert!(TooLarge::is(&JsonCodec::default().write_response(&ID, &mut wire, long).await.unwrap_err()));
        assert!(wire.is_empty());
    }

    #[tokio::test]
    async fn a_stream_without_a_document_is_an_error() {
        let mut codec = JsonCodec::default();
        let error = codec.read_request(&ID, &mut futures::io::empty()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let error = codec.read_response(&ID, &mut futures::io::empty()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(!TooLarge::is(&error));
    }

    #[tokio::test]
    async fn the_deadline_of_a_request_ends_its_stream() {
        // Far more than the deadlines, so that a stream without one fails the test rather than hang it.
        let patience = Duration::from_secs(10);
        let deadline = Instant::now() + Duration::from_millis(20);
        let request = Request { body: Bytes::from_static(b"{}"), deadline: Some(deadline) };
        let write = async { JsonCodec::default().write_request(&ID, &mut Silent, request.clone()).await };
        let error = tokio::time::timeout(patience, write).await.expect("the deadline holds").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "the peer does not read");

        let deadline = Instant::now() + Duration::from_millis(20);
        let request = Request { deadline: Some(deadline), ..request };
        let mut codec = JsonCodec::default();
        codec.write_request(&ID, &mut Vec::new(), request).await.unwrap();
        let read = async { codec.read_response(&ID, &mut Silent).await };
        let error = tokio::time::timeout(patience, read).await.expect("the deadline holds").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "the peer does not write");
        assert!(Instant::now() >= deadline);
    }
}

use std::io::Write as _;
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
async fn the_bytes_are_those_of_libp2ps_json_codec() {
    type Theirs = request_response::json::codec::Codec<serde_json::Value, serde_json::Value>;
    let value = serde_json::json!({"path": "/ping", "data": {"n": u64::MAX, "s": "ü\n"}});
    let body = Bytes::from(serde_json::to_vec(&value).unwrap());
    let (mut ours, mut theirs) = (JsonCodec::default(), Theirs::default());

    let mut wire = Vec::new();
    ours.write_request(&ID, &mut wire, body.clone().into()).await.unwrap();
    assert_eq!(theirs.read_request(&ID, &mut &wire[..]).await.unwrap(), value);
    let mut wire = Vec::new();
    theirs.write_request(&ID, &mut wire, value.clone()).await.unwrap();
    assert_eq!(ours.read_request(&ID, &mut &wire[..]).await.unwrap(), WireRequest::from(body.clone()));

    let mut wire = Vec::new();
    ours.write_response(&ID, &mut wire, body.clone().into()).await.unwrap();
    assert_eq!(theirs.read_response(&ID, &mut &wire[..]).await.unwrap(), value);
    let mut wire = Vec::new();
    theirs.write_response(&ID, &mut wire, value).await.unwrap();
    let wire_bytes = wire.len();
    assert_eq!(ours.read_response(&ID, &mut &wire[..]).await.unwrap(), WireResponse { wire_bytes, ..body.into() });
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
    assert_eq!(codec.read_response(&ID, &mut response).await.unwrap().body.len(), MAX_RESPONSE_BYTES);
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
    assert!(TooLarge::is(&JsonCodec::default().write_response(&ID, &mut wire, long.into()).await.unwrap_err()));
    assert!(wire.is_empty());
}

const COMPRESSED: StreamProtocol = StreamProtocol::new(COMPRESSED_PROTOCOL);

#[tokio::test]
async fn documents_of_any_length_come_back_from_the_compressed_protocol() {
    let mut noise = vec![0; MAX_RESPONSE_BYTES];
    fastrand::Rng::with_seed(7).fill(&mut noise);
    let noise = Bytes::from(noise);
    let blocks = Bytes::from(r#"{"hash":"00af","index":7},"#.repeat(10_000));
    let mut codec = JsonCodec::default();
    for (document, shrinks) in
        [(Bytes::from_static(b"0"), false), (blocks, true), (noise.slice(..MAX_REQUEST_BYTES), false)]
    {
        let mut wire = Vec::new();
        codec.write_request(&COMPRESSED, &mut wire, document.clone().into()).await.unwrap();
        assert_eq!(wire.len() < document.len() / 10, shrinks);
        assert_eq!(codec.read_request(&COMPRESSED, &mut &wire[..]).await.unwrap().body, document);
        let mut wire = Vec::new();
        codec.write_response(&COMPRESSED, &mut wire, document.clone().into()).await.unwrap();
        let response = codec.read_response(&COMPRESSED, &mut &wire[..]).await.unwrap();
        assert_eq!(response, WireResponse { wire_bytes: wire.len(), ..document.into() });
    }
    let mut wire = Vec::new();
    codec.write_response(&COMPRESSED, &mut wire, noise.clone().into()).await.unwrap();
    assert!(codec.read_response(&COMPRESSED, &mut &wire[..]).await.unwrap().body == noise, "10 MiB of noise");
}

#[tokio::test]
async fn a_document_that_decompresses_past_the_limit_is_refused() {
    let mut codec = JsonCodec::default();
    let zeros = |count| zstd::bulk::compress(&vec![0; count], 1).unwrap();
    assert_eq!(codec.read_request(&COMPRESSED, &mut &zeros(MAX_REQUEST_BYTES)[..]).await.unwrap().body.len(), 1 << 20);
    for bomb in [zeros(MAX_REQUEST_BYTES + 1), zeros(1 << 20).repeat(1000), zeros(64 << 20)] {
        let error = codec.read_request(&COMPRESSED, &mut &bomb[..]).await.unwrap_err();
        assert!(TooLarge::is(&error), "{error}");
    }
    let error = codec.read_response(&COMPRESSED, &mut &zeros(MAX_RESPONSE_BYTES + 1)[..]).await.unwrap_err();
    assert!(TooLarge::is(&error), "{error}");
    let long = vec![0; compressed::most_bytes(MAX_REQUEST_BYTES) + 1];
    assert!(TooLarge::is(&codec.read_request(&COMPRESSED, &mut &long[..]).await.unwrap_err()));
}

#[tokio::test]
async fn an_incomplete_frame_is_refused() {
    let mut codec = JsonCodec::default();
    let frame = zstd::bulk::compress(b"{\"path\":\"/ping\"}", 1).unwrap();
    assert!(codec.read_request(&COMPRESSED, &mut &frame[..]).await.is_ok());
    // Less than its first four bytes are not known for a frame.
    for length in 4..frame.len() {
        let error = codec.read_request(&COMPRESSED, &mut &frame[..length]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length}: {error}");
    }
    let empty = zstd::bulk::compress(b"", 1).unwrap();
    for nothing in [&b""[..], &empty] {
        let error = codec.read_request(&COMPRESSED, &mut &nothing[..]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    assert!(codec.read_request(&COMPRESSED, &mut &b"{\"path\":\"/ping\"}"[..]).await.is_ok(), "a short one is plain");
    for (window, taken) in [(20, true), (21, false)] {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window).unwrap();
        encoder.write_all(b"{}").unwrap();
        // What is written before the end has the window in its head.
        encoder.flush().unwrap();
        let frame = encoder.finish().unwrap();
        assert_eq!(codec.read_request(&COMPRESSED, &mut &frame[..]).await.is_ok(), taken, "2^{window}");
    }
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
    let request = WireRequest::with_deadline(deadline, Bytes::from_static(b"{}"));
    let write = async { JsonCodec::default().write_request(&ID, &mut Silent, request.clone()).await };
    let error = tokio::time::timeout(patience, write).await.expect("the deadline holds").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "the peer does not read");

    let deadline = Instant::now() + Duration::from_millis(20);
    let request = WireRequest { deadline: Some(deadline), ..request };
    let mut codec = JsonCodec::default();
    codec.write_request(&ID, &mut Vec::new(), request).await.unwrap();
    let read = async { codec.read_response(&ID, &mut Silent).await };
    let error = tokio::time::timeout(patience, read).await.expect("the deadline holds").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "the peer does not write");
    assert!(Instant::now() >= deadline);
}

/// A peer that sends so many bytes, and then nothing.
struct Stalling(usize);

impl AsyncRead for Stalling {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = buffer.len().min(self.0);
        self.0 -= count;
        buffer[..count].fill(b' ');
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }
}

#[tokio::test]
async fn stalled_long_requests_share_memory_and_short_ones_need_none() {
    let codec = JsonCodec::serving();
    let read = async |mut io: Stalling| codec.clone().read_request(&ID, &mut io).await;
    let mut stalled: Vec<_> = (0..100).map(|_| Box::pin(read(Stalling(MAX_REQUEST_BYTES - 1)))).collect();
    let refused = |read: Option<io::Result<WireRequest>>| {
        read.map(|result| result.unwrap_err().kind()) == Some(io::ErrorKind::OutOfMemory)
    };
    let outcomes: Vec<_> = stalled.iter_mut().map(|read| refused(read.now_or_never())).collect();
    assert_eq!(outcomes.iter().filter(|refused| !**refused).count(), SHARED_BYTES / MAX_REQUEST_BYTES);
    let frame = zstd::bulk::compress(&vec![0; MAX_REQUEST_BYTES], 1).unwrap();
    let decode = async || codec.clone().read_request(&COMPRESSED, &mut &frame[..]).await;
    assert_eq!(decode().await.unwrap_err().kind(), io::ErrorKind::OutOfMemory, "it would become long");
    assert!(codec.clone().read_request(&ID, &mut &b"{}"[..]).await.is_ok(), "a short one");
    assert!(read(Stalling(FREE_BYTES - 1)).now_or_never().is_none(), "it waits for the rest");
    drop(stalled);
    let whole = decode().await.unwrap();
    assert_eq!(whole.body.len(), MAX_REQUEST_BYTES);
    let held: Vec<_> = futures::future::join_all((1..SHARED_BYTES / MAX_REQUEST_BYTES).map(|_| decode())).await;
    assert!(held.iter().all(Result::is_ok));
    assert!(decode().await.is_err(), "those that are read and not dropped count too");
    drop(whole);
    assert!(decode().await.is_ok());
}

#[tokio::test]
async fn stalled_requests_of_one_connection_block_no_other() {
    let codec = JsonCodec::serving();
    let connection = codec.clone();
    // As short as costs anything.
    let read = async |mut io: Stalling| connection.clone().read_request(&ID, &mut io).await;
    let mut stalled: Vec<_> = (0..200).map(|_| Box::pin(read(Stalling(FREE_BYTES)))).collect();
    let standing: Vec<_> = stalled.iter_mut().map(|read| read.now_or_never().is_none()).collect();
    let most = (CONNECTION_BYTES + SHARED_BYTES) / ((GROWTH - 1) * FREE_BYTES);
    assert_eq!(standing.iter().filter(|stands| **stands).count(), most, "the others are cut off");
    let document = vec![b' '; MAX_REQUEST_BYTES];
    for length in [FREE_BYTES + 1, GROWTH * FREE_BYTES - 1] {
        let read = codec.clone().read_request(&ID, &mut &document[..length]).await;
        assert_eq!(read.unwrap().body.len(), length, "of another one");
    }
    drop(stalled);
    for _ in 0..10 {
        let read = connection.clone().read_request(&ID, &mut &document[..2 * FREE_BYTES]).await;
        assert_eq!(read.unwrap().body.len(), 2 * FREE_BYTES, "those before are gone");
    }
}

#[tokio::test]
async fn stalled_answers_share_the_memory_of_their_requests() {
    let permits = Arc::new(Semaphore::new(MAX_RESPONSE_BYTES + FREE_BYTES));
    let asked = async |permits: Option<&Arc<Semaphore>>| {
        let (mut codec, deadline) = (JsonCodec::default(), Instant::now() + Duration::from_secs(60));
        let request =
            WireRequest::with_deadline(deadline, Bytes::from_static(b"{}")).with_answer_memory(permits.cloned());
        codec.write_request(&ID, &mut Vec::new(), request).await.unwrap();
        codec
    };
    let mut codec = asked(Some(&permits)).await;
    let (id, mut long) = (ID, Stalling(MAX_RESPONSE_BYTES - 1));
    let mut first = Box::pin(codec.read_response(&id, &mut long));
    assert!((&mut first).now_or_never().is_none(), "it waits for the last byte");
    let answer = vec![b' '; MAX_RESPONSE_BYTES];
    let mut second = asked(Some(&permits)).await;
    assert_eq!(second.read_response(&ID, &mut &answer[..]).await.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    assert!(second.read_response(&ID, &mut &answer[..FREE_BYTES - 1]).await.is_ok(), "a short one");
    assert!(asked(None).await.read_response(&ID, &mut &answer[..]).await.is_ok(), "who shares nothing");
    drop(first);
    let whole = second.read_response(&ID, &mut &answer[..]).await.unwrap();
    assert!(permits.available_permits() < 2 * FREE_BYTES, "it counts while it is kept");
    drop(whole);
    assert_eq!(permits.available_permits(), MAX_RESPONSE_BYTES + FREE_BYTES);
}

#[tokio::test]
async fn an_answer_over_the_limit_of_its_request_is_refused() {
    let answer = vec![b' '; MAX_RESPONSE_BYTES];
    for (asked, most) in [(0, FREE_BYTES), (70_000, 1 << 17), (1 << 17, 1 << 17), (usize::MAX, MAX_RESPONSE_BYTES)] {
        let deadline = Instant::now() + Duration::from_secs(60);
        let request = WireRequest::with_deadline(deadline, Bytes::from_static(b"{}")).with_answer_limit(asked);
        let mut codec = JsonCodec::default();
        codec.write_request(&ID, &mut Vec::new(), request).await.unwrap();
        assert_eq!(codec.read_response(&ID, &mut &answer[..most]).await.unwrap().body.len(), most);
        let longer = [&answer[..most], b"x"].concat();
        assert!(TooLarge::is(&codec.read_response(&ID, &mut &longer[..]).await.unwrap_err()), "{asked}");
        // In whatever way it is packed: up to the limit it is taken.
        let frame = |document: &[u8]| zstd::bulk::compress(document, 1).unwrap();
        let packed = codec.read_response(&COMPRESSED, &mut &frame(&answer[..most])[..]).await.unwrap();
        assert_eq!(packed.body.len(), most);
        assert!(codec.read_response(&COMPRESSED, &mut &frame(&longer)[..]).await.is_err(), "{asked}");
    }
}

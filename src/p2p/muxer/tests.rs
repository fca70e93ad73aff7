use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use futures::executor::block_on;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::StreamMuxerExt;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::parked::MAX_PARKED_BYTES;
use super::*;
use crate::p2p::socket::Socket;

/// Longer than anything here takes, so that a connection which stays fails the test rather than hang it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A frame of Yamux without content, of a type (1 is a window update, 3 the end) and with flags (1 opens the stream).
fn frame(kind: u8, flags: u8, stream: u32) -> [u8; 12] {
    let mut frame = [0, kind, 0, flags, 0, 0, 0, 0, 0, 0, 0, 0];
    frame[4..8].copy_from_slice(&stream.to_be_bytes());
    frame
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn who_does_not_read_cannot_keep_its_connection() {
    let yamux = Yamux { close_within: Duration::from_millis(10) };
    for mode in [Mode::Server, Mode::Client] {
        // The other end neither reads nor goes away.
        let (io, _other) = tokio::io::duplex(1);
        let muxer = yamux.over(io.compat(), mode);
        let closed = tokio::time::timeout(PATIENCE, muxer.close()).await;
        closed.expect("it ends").unwrap();
    }
}

#[tokio::test]
async fn who_takes_nothing_loses_its_connection_whatever_it_says() {
    let tick = Duration::from_millis(50);
    let (io, other) = tokio::io::duplex(64);
    let mut muxer = Yamux::default().over(Socket::new(io.compat(), tick), Mode::Client);
    let mut stream = future::poll_fn(|context| muxer.poll_outbound_unpin(context)).await.unwrap();
    stream.write_all(&[0; 1 << 10]).await.unwrap();
    let mut other = other.compat();
    let talks = async {
        let mut times = tokio::time::interval(tick / 5);
        for _ in 0..1000 {
            times.tick().await;
            // Of a stream that is no more, as it happens.
            other.write_all(&frame(1, 0, 2)).await.unwrap();
        }
    };
    tokio::select! {
        ended = future::poll_fn(|context| muxer.poll_unpin(context)) => assert!(ended.is_err()),
        () = talks => panic!("it stays"),
    }
    stream.write_all(b"more").await.unwrap_err();
}

#[test]
fn streams_write_so_much_together_that_nobody_takes() {
    const FRAME: usize = 16 << 10;
    let (io, other) = tokio::io::duplex(1 << 10);
    let (mut muxer, mut other) = (Yamux::default().over(io.compat(), Mode::Client), other.compat());
    let context = &mut Context::from_waker(Waker::noop());
    let mut open = || match muxer.poll_outbound_unpin(context) {
        Poll::Ready(Ok(stream)) => stream,
        _ => panic!("there is room for a stream"),
    };
    let mut streams: Vec<_> = (0..64).map(|_| open()).collect();
    let mut written = 0;
    for _ in 0..20 {
        for stream in &mut streams {
            while let Poll::Ready(count) = Pin::new(&mut *stream).poll_write(context, &[0; FRAME]) {
                written += count.unwrap();
            }
        }
        assert!(muxer.poll_unpin(context).is_pending());
    }
    assert!((64 * FRAME..=MAX_PARKED_BYTES + 64 * FRAME).contains(&written), "each has its frame: {written}");

    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let last = Pin::new(&mut streams[63]).poll_write(&mut Context::from_waker(&waker), b"x");
    assert!(last.is_pending(), "it has had that, and waits for the others");
    let (mut read, mut bytes) = (0, [0; 1 << 10]);
    for _ in 0..10_000 {
        if let Poll::Ready(count) = Pin::new(&mut other).poll_read(context, &mut bytes) {
            read += count.unwrap();
        }
        assert!(muxer.poll_unpin(context).is_pending());
    }
    assert!(read >= written, "{read} of {written}");
    assert!(woken.0.load(Ordering::Relaxed));
    for stream in &mut streams {
        assert!(Pin::new(stream).poll_write(context, b"x").is_ready(), "there is room again");
    }
}

#[test]
fn streams_beyond_the_most_are_not_taken() {
    let (io, other) = tokio::io::duplex(1 << 16);
    let (mut muxer, mut other) = (Yamux::default().over(io.compat(), Mode::Server), other.compat());
    let context = &mut Context::from_waker(Waker::noop());
    for number in 0..=MAX_STREAMS as u32 {
        block_on(other.write_all(&frame(1, 1, 2 * number + 1))).unwrap();
    }
    let mut taken = Vec::new();
    while let Poll::Ready(stream) = muxer.poll_inbound_unpin(context) {
        taken.push(stream.unwrap());
    }
    assert_eq!(taken.len(), MAX_STREAMS);
    let mut said = [0; 1 << 10];
    let length = block_on(other.read(&mut said)).unwrap();
    assert_eq!(said[..length].chunks(12).next_back().map(|frame| frame[1]), Some(3), "the connection is to end");
}

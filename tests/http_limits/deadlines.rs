//! Timeouts of slow clients.

use std::time::{Duration, Instant};

use modal_gateway::http::{Settings, counters::CloseReason, server::ConnectionLimits};
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{interval, timeout},
};

use crate::support::clock::judge;
use crate::{
    open, open_long,
    raw_client::{RawClient, h2_frame, h2_get, h2_preface},
    support::{
        gateway::PATIENCE,
        listeners::{ListenerOptions, unlimited},
    },
};

const HEADER: Duration = Duration::from_millis(600);
const IDLE: Duration = Duration::from_millis(1500);
const STALL: Duration = Duration::from_millis(800);
/// What a machine at work may add.
const SLACK: Duration = Duration::from_secs(3);

fn options() -> ListenerOptions {
    let limits = ConnectionLimits {
        header_timeout: HEADER,
        idle_timeout: IDLE,
        stall_timeout: STALL,
        ..ConnectionLimits::default()
    };
    ListenerOptions { limits, ..ListenerOptions::default() }
}

/// Sends `first`, then the rest a byte at a time, until the other end closes; returns how long after `start`.
async fn drip(start: Instant, wire: &mut RawClient, first: &[u8], rest: &[u8]) -> (Vec<u8>, Duration) {
    wire.send(first).await;
    let (mut from, mut to) = wire.0.split();
    let mut bytes = Vec::new();
    let dripping = async {
        let mut ticks = interval(Duration::from_millis(50));
        for byte in rest.iter().cycle() {
            ticks.tick().await;
            if to.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        closed = timeout(PATIENCE, from.read_to_end(&mut bytes)) => drop(closed.expect("it is closed in time")),
        () = dripping => {}
    }
    (bytes, start.elapsed())
}

#[rstest]
#[case::nothing(b"", b"", HEADER)]
#[case::one_byte(b"G", b"", HEADER)]
#[case::half_a_head(b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-", b"", HEADER)]
#[case::a_head_byte_by_byte(b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-", b"a", HEADER)]
#[case::half_a_preface(b"PRI * HTTP/2.0\r\n\r\nSM", b"", HEADER)]
#[case::settings_and_no_more(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", b"", HEADER)]
#[tokio::test]
async fn a_slow_request_times_out(#[case] first: &[u8], #[case] rest: &[u8], #[case] limit: Duration) {
    let listeners = open(options()).await;
    let start = Instant::now();
    let (_, after) = drip(start, &mut RawClient::connect(listeners.public).await, first, rest).await;
    assert!(after > limit.mul_f64(0.9), "{after:?}");
    judge(after < limit + SLACK, format_args!("{after:?}"));
    assert_eq!(listeners.counters.public.closed(CloseReason::HeaderTimeout), 1);
    // One that comes is answered, on a connection that is as old.
    let mut good = RawClient::connect(listeners.public).await;
    assert!(good.get("/health/live").await.0.starts_with("http/1.1 200"));
}

#[rstest]
#[case::stopped(b"")]
#[case::byte_by_byte(b" ")]
#[tokio::test]
async fn a_body_that_stops_coming_is_answered_408_and_cut_off(#[case] rest: &[u8]) {
    let listeners = open(options()).await;
    let first = b"POST /ping HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
    let start = Instant::now();
    let (bytes, after) = drip(start, &mut RawClient::connect(listeners.public).await, first, rest).await;
    let answer = String::from_utf8_lossy(&bytes);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains(r#""code":"request_timeout""#), "{answer}");
    assert!(after > HEADER.mul_f64(0.9), "{after:?}");
    judge(after < HEADER + SLACK, format_args!("{after:?}"));
}

#[tokio::test]
async fn a_body_over_the_time_for_all_of_it_is_answered_408() {
    let settings = Settings { request_timeout: Duration::from_secs(1), ..unlimited() };
    let listeners = open(ListenerOptions { settings, ..options() }).await;
    let mut wire = RawClient::connect(listeners.public).await;
    wire.send("POST /ping HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n[")
        .await;
    // Fast enough to go on for ever, were it not for the time in all.
    let mut ticks = interval(Duration::from_millis(50));
    let (start, mut answer) = (Instant::now(), [0; 12]);
    loop {
        tokio::select! {
            biased;
            read = wire.0.read_exact(&mut answer) => break assert!(read.is_ok()),
            // It may be closed already.
            _ = ticks.tick() => drop(wire.0.write_all(&[b' '; 512]).await),
        }
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert_eq!(listeners.counters.timed_out.get(), 1);
}

#[tokio::test]
async fn idle_connections_are_closed_but_not_at_once() {
    let listeners = open(options()).await;
    let (mut wire, mut start) = (RawClient::connect(listeners.public).await, Instant::now());
    for _ in 0..3 {
        start = Instant::now();
        assert!(wire.get("/health/live").await.0.starts_with("http/1.1 200"));
    }
    let (bytes, _) = wire.closed().await;
    let after = start.elapsed();
    assert!(bytes.is_empty() && after > IDLE.mul_f64(0.9), "{after:?} {bytes:?}");
    judge(after < IDLE + SLACK, format_args!("{after:?}"));
    assert_eq!(listeners.counters.public.closed(CloseReason::Idle), 1);
    // Over HTTP/2 it is told, though it answers and sends pings.
    let mut wire = RawClient::connect(listeners.public).await;
    wire.send(h2_preface(65_535)).await;
    let start = Instant::now();
    wire.send(h2_get(1, "/health/live")).await;
    let ping = h2_frame(6, 0, 0, b"01234567");
    let (bytes, after) = drip(start, &mut wire, &[], &ping).await;
    assert!(after > IDLE.mul_f64(0.9), "{after:?}");
    judge(after < IDLE + SLACK, format_args!("{after:?}"));
    // GOAWAY: a frame of type 7 on stream 0.
    assert!(bytes.windows(9).any(|frame| frame[3] == 7 && frame[5..9] == [0; 4]), "{bytes:?}");
    assert_eq!(listeners.counters.public.closed(CloseReason::Idle), 2);
}

#[tokio::test]
async fn a_head_that_stops_on_a_connection_in_use_times_out() {
    let listeners = open(options()).await;
    let mut wire = RawClient::connect(listeners.public).await;
    assert!(wire.get("/health/live").await.0.starts_with("http/1.1 200"));
    wire.send("GET /hea").await;
    let (_, after) = wire.closed().await;
    assert!(after > HEADER.mul_f64(0.9), "{after:?}");
    judge(after < HEADER + SLACK, format_args!("{after:?}"));
    assert_eq!(listeners.counters.public.closed(CloseReason::HeaderTimeout), 1);
}

#[rstest]
#[case::http1(None, "/data/miner_block/canonical")]
#[case::http2(Some(0), "/data/miner_block/canonical")]
#[case::http2_all_but_a_byte(Some(1), "/data/miner_block/epoch?epoch=0")]
#[tokio::test]
async fn an_answer_that_is_not_read_times_out(#[case] window: Option<u32>, #[case] path: &str) {
    let listeners = open_long(options()).await;
    let mut wire = RawClient::connect(listeners.public).await;
    match window {
        None => wire.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await,
        Some(window) => {
            wire.send(h2_preface(window)).await;
            wire.send(h2_get(1, path)).await;
        }
    }
    // Nothing is read until the gateway has given up.
    let start = Instant::now();
    let mut ticks = interval(Duration::from_millis(20));
    while listeners.counters.public.closed(CloseReason::Stalled) == 0 {
        ticks.tick().await;
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(start.elapsed() > STALL.mul_f64(0.9), "{:?}", start.elapsed());
    judge(start.elapsed() < STALL + SLACK, format_args!("{:?}", start.elapsed()));
    // Who reads gets all of it.
    let whole = listeners.public(reqwest::Method::GET, "/data/miner_block/canonical").send().await.unwrap();
    assert!(whole.bytes().await.unwrap().ends_with(b"\"errors\":null}"));
}

#[tokio::test]
async fn an_event_stream_without_events_stays_open() {
    let listeners = open(options()).await;
    let mut wire = RawClient::connect(listeners.public).await;
    wire.send("GET /events HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // Another connection shows that the time for everything else is over.
    let mut other = RawClient::connect(listeners.public).await;
    assert!(other.get("/health/live").await.0.starts_with("http/1.1 200"));
    let (_, after) = other.closed().await;
    assert!(after > STALL);
    let mut buffer = vec![0; 4096];
    let read = wire.0.read(&mut buffer).await.unwrap();
    assert!(String::from_utf8_lossy(&buffer[..read]).contains("following"));
    let more = wire.0.try_read(&mut buffer);
    assert!(matches!(&more, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "still open: {more:?}");
}

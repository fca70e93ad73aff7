//! Shutdown: requests in flight finish, up to a timeout.

use std::time::{Duration, Instant};

use modal_gateway::http::{counters::CloseReason, server::ConnectionLimits};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::support::clock::judge;
use crate::{
    open,
    raw_client::{RawClient, h2_get, h2_preface},
    support::{
        gateway::PATIENCE,
        listeners::{ListenerOptions, Listeners},
        until::eventually,
    },
};

async fn begun(listeners: &Listeners, requests: u64) {
    eventually(async || (listeners.counters.public.requests() >= requests).then_some(())).await;
}

const HALF: &str = "POST /ping HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\nnu";

#[tokio::test]
async fn requests_in_flight_finish_and_event_streams_end_with_a_comment() {
    let listeners = open(ListenerOptions::default()).await;
    let (mut half, mut idle) = (RawClient::connect(listeners.public).await, RawClient::connect(listeners.public).await);
    let (mut events, mut h2) = (RawClient::connect(listeners.public).await, RawClient::connect(listeners.public).await);
    half.send(HALF).await;
    idle.get("/health/live").await;
    events.send("GET /events HTTP/1.1\r\nhost: x\r\n\r\n").await;
    h2.send(h2_preface(65_535)).await;
    h2.send(h2_get(1, "/health/live")).await;
    begun(&listeners, 4).await;
    let (address, counters) = (listeners.public, listeners.counters.clone());
    let closing = tokio::spawn(listeners.close());
    let (told, _) = events.closed().await;
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("the gateway is shutting down") && told.ends_with("0\r\n\r\n"), "{told}");
    assert!(idle.closed().await.0.is_empty());
    let (bytes, _) = h2.closed().await;
    assert!(bytes.windows(9).any(|frame| frame[3] == 7 && frame[5..9] == [0; 4]), "GOAWAY: {bytes:?}");
    assert!(TcpStream::connect(address).await.is_err(), "nobody is let in any more");
    half.send("ll").await;
    let (head, _) = half.answer().await;
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    closing.await.unwrap();
    assert_eq!(counters.public.open(), 0);
    assert_eq!(counters.public.closed(CloseReason::Shutdown), 4);
}

#[tokio::test]
async fn requests_that_do_not_finish_in_time_are_cut_off() {
    let drain = Duration::from_millis(700);
    let limits = ConnectionLimits { drain, header_timeout: PATIENCE, ..ConnectionLimits::default() };
    let listeners = open(ListenerOptions { limits, ..ListenerOptions::default() }).await;
    let mut half = RawClient::connect(listeners.public).await;
    half.send(HALF).await;
    begun(&listeners, 1).await;
    let start = Instant::now();
    listeners.close().await;
    assert!(start.elapsed() >= drain, "{:?}", start.elapsed());
    judge(start.elapsed() < drain + Duration::from_secs(5), format_args!("{:?}", start.elapsed()));
    let mut rest = Vec::new();
    let _ = half.0.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

//! A client that reads too slowly.

use modal_gateway::{chain::Level, http::server::ConnectionLimits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::timeout,
};

use crate::{
    stream::{append, blocks},
    support::{
        gateway::{Backend, PATIENCE, TestStore, synthetic},
        listeners::{ListenerOptions, Listeners},
    },
};

/// Blocks of one event: not so many that they are left out.
const BLOCKS: u64 = 300;
/// Events: more bytes than the system takes for a client that does not read.
const EVENTS: u64 = 60;

#[tokio::test]
async fn a_slow_reader_is_told_how_much_it_missed() {
    let test_store = TestStore::create(Backend::Sqlite).await;
    test_store.append(synthetic(1), Level::None).await;
    let url = test_store.url.clone();
    // Who does not read at all is cut off; here that is no matter of how fast this machine writes blocks.
    let limits = ConnectionLimits { stall_timeout: 10 * PATIENCE, ..ConnectionLimits::default() };
    let listeners = Listeners::with(test_store, &url, true, ListenerOptions { limits, ..Default::default() }).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut client = socket.connect(listeners.public).await.unwrap();
    // Without chunks the stream is the rest of what comes.
    client.write_all(b"GET /events?after=1&include=blocks HTTP/1.0\r\nhost: x\r\n\r\n").await.unwrap();
    let mut bytes = vec![0; 1000];
    let mut came = String::new();
    while !came.contains(": following\n\n") {
        let read = timeout(PATIENCE, client.read(&mut bytes)).await.unwrap().unwrap();
        came += std::str::from_utf8(&bytes[..read]).unwrap();
    }
    for number in 0..EVENTS {
        let (after, first) = (number * BLOCKS, number * BLOCKS + 1);
        let added = blocks("main", "main", first, after + BLOCKS);
        append(&*listeners.store, (after, &format!("main-{after}")), added).await;
    }
    // As if so much had happened that they are too old.
    listeners.test_store.execute(&format!("DELETE FROM event WHERE id <= {EVENTS}")).await;
    let mut bytes = vec![0; 64 << 10];
    // The last event is short.
    while !came[came.len().saturating_sub(1000)..].contains("event: reset\ndata: ") || !came.ends_with("\n\n") {
        let read = timeout(PATIENCE, client.read(&mut bytes)).await.unwrap().unwrap();
        assert_ne!(read, 0, "it is told before it is let go");
        // Blocks and names here are ASCII.
        came += std::str::from_utf8(&bytes[..read]).unwrap();
    }
    let field = |event: &str, name: &str| event.lines().find_map(|line| Some(line.strip_prefix(name)?.to_owned()));
    let events: Vec<&str> = came.split("\n\n").filter(|event| event.contains("event: ")).collect();
    let reset = events.iter().position(|event| event.contains("event: reset")).unwrap();
    let ids = events.iter().map(|event| field(event, "id: ").unwrap());
    let versions: Vec<u64> = ids.map(|id| id.split('-').next().unwrap().parse().unwrap()).collect();
    assert_eq!(versions[..reset], (2..2 + reset as u64).collect::<Vec<_>>()[..], "no gap before it");
    assert!(reset < EVENTS as usize - 1, "all of it was sent");
    let data: serde_json::Value = serde_json::from_str(&field(events[reset], "data: ").unwrap()).unwrap();
    assert_eq!((&data["reason"], versions[reset]), (&"too_old".into(), EVENTS + 1));
    assert_eq!(data["missed"], EVENTS + 1 - versions[..reset].last().unwrap_or(&1));
    assert_eq!(listeners.counters.resets()[0], ("too_old", 1));
}

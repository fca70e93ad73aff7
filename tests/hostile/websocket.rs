//! WebSocket below libp2p: its upgrade, and frames made by hand.

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{Multiaddr, multiaddr::Protocol};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::{
    before_noise::AT_ONCE,
    dialer::{MULTISTREAM, line, shove, strike},
    program::{Program, Transport},
};

/// The port of an address, without anything said there yet.
pub async fn tcp(address: &Multiaddr) -> Compat<TcpStream> {
    let port = address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None });
    TcpStream::connect(("127.0.0.1", port.unwrap())).await.unwrap().compat()
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A frame: its first byte, whether it is masked, the length that it claims, and what follows.
fn frame(first: u8, masked: bool, length: u64, payload: &[u8]) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut frame = vec![first];
    match length {
        0..126 => frame.push(mask | length as u8),
        126..0x1_0000 => {
            frame.push(mask | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        _ => {
            frame.push(mask | 127);
            frame.extend(length.to_be_bytes());
        }
    }
    if masked {
        // A mask that changes nothing.
        frame.extend([0; 4]);
    }
    frame.extend(payload);
    frame
}

/// The whole of a payload, masked as a client's must be.
fn whole(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, true, payload.len() as u64, payload)
}

/// A stream on which frames may follow.
async fn upgraded(address: &Multiaddr) -> Compat<TcpStream> {
    let mut stream = tcp(address).await;
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream
}

#[tokio::test]
async fn upgrades_that_are_none() {
    let mut program = Program::start().await;
    let address = program.address(Transport::WebSocket).clone();
    let many: String = (0..1000).map(|number| format!("x-{number}: y\r\n")).collect();
    let with = |lines: &str| UPGRADE.replace("host: x\r\n", &format!("host: x\r\n{lines}"));
    let blows = [
        UPGRADE.replace("13", "12"),
        UPGRADE.replace("websocket\r\n", "h2c\r\n"),
        UPGRADE.replace("HTTP/1.1", "HTTP/1.0"),
        UPGRADE.replace("GET", "POST"),
        UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        UPGRADE.replace("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        UPGRADE.replace("connection: upgrade\r\n", ""),
        UPGRADE.replace("\r\n", "\n"),
        UPGRADE[..60].to_owned(),
        with(&many),
        with(&format!("x: {}\r\n", "y".repeat(1 << 20))),
        with(&format!("sec-websocket-protocol: {}\r\n", "y,".repeat(3000))),
        with("sec-websocket-extensions: permessage-deflate; server_max_window_bits=99\r\n"),
        with("\0: \x01\r\n"),
        format!("GET /{} HTTP/1.1\r\n", "x".repeat(1 << 20)),
        "\r\n".repeat(100_000),
        "\0".repeat(100_000),
    ];
    let attack = async {
        drop(upgraded(&address).await);
        let strikes = blows.iter().map(async |bytes| {
            let answer = strike(&mut tcp(&address).await, bytes.as_bytes()).await;
            shove(&mut tcp(&address).await, bytes.as_bytes()).await;
            answer.starts_with(b"HTTP/1.1 101")
        });
        let upgraded: Vec<_> = futures::stream::iter(strikes).buffered(AT_ONCE).collect().await;
        assert!(!upgraded[0], "an older version is not spoken");
    };
    program.survives("upgrades", attack).await;
}

#[tokio::test]
async fn frames_of_websocket() {
    const BINARY: u8 = 0x82;
    const CONTINUED: u8 = 0x00;
    let mut program = Program::start().await;
    let address = program.address(Transport::WebSocket).clone();
    let hello = [MULTISTREAM, &line("/noise")].concat();
    let large = vec![0; 1 << 20];
    let mut blows = vec![
        // As servers send them, not clients.
        frame(BINARY, false, hello.len() as u64, &hello),
        whole(0x81, &hello),
        whole(0x81, b"\xff\xfe"),
        whole(BINARY, b"").repeat(50_000),
        // What is claimed and never comes.
        frame(BINARY, true, 64 << 10, b"x"),
        frame(BINARY, true, 16 << 20, b"x"),
        frame(BINARY, true, 200 << 20, b"x"),
        frame(BINARY, true, 256 << 20, b"x"),
        frame(BINARY, true, (256 << 20) + 1, b"x"),
        frame(BINARY, true, u32::MAX.into(), b"x"),
        frame(BINARY, true, i64::MAX as u64, b"x"),
        frame(BINARY, true, u64::MAX, b"x"),
        // Messages without an end, in pieces of all sizes.
        [whole(0x02, b"x"), whole(CONTINUED, &large).repeat(64)].concat(),
        [whole(0x02, b"x"), whole(CONTINUED, b"y").repeat(50_000)].concat(),
        [whole(0x02, b"x"), whole(CONTINUED, b"").repeat(50_000)].concat(),
        whole(BINARY, &large).repeat(64),
        whole(0x80, b"goes on with nothing"),
        [whole(0x02, b"x"), whole(0x02, b"begins twice")].concat(),
        // Control frames.
        whole(0x89, &[7; 125]).repeat(20_000),
        whole(0x8a, &[7; 125]).repeat(20_000),
        whole(0x89, &[7; 126]),
        whole(0x09, b"in pieces"),
        [whole(0x88, &[3, 232]), whole(BINARY, &hello)].concat(),
        whole(0x88, &[3]),
        whole(0x88, &[0xff; 125]),
        whole(0x88, b"").repeat(1000),
    ];
    // Bits and kinds that nobody defined.
    blows.extend([0xc2, 0xa2, 0x92, 0x83, 0x87, 0x8b, 0x8f].map(|first| whole(first, &hello)));
    let attack = async {
        let strikes = blows.iter().map(async |frames| {
            strike(&mut upgraded(&address).await, frames).await;
            shove(&mut upgraded(&address).await, frames).await;
        });
        futures::stream::iter(strikes).buffer_unordered(AT_ONCE).collect::<()>().await;
    };
    program.survives("frames of WebSocket", attack).await;
}

//! Behind the handshake: frames of Yamux, made by hand.

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use rstest::rstest;

use crate::{
    before_noise::AT_ONCE,
    dialer::{MULTISTREAM, connect, line, negotiate, secure, shove, strike, varint, yamux},
    program::{Program, Transport},
    support::gateway::PATIENCE,
};

const DATA: u8 = 0;
const WINDOW: u8 = 1;
const PING: u8 = 2;
const GO_AWAY: u8 = 3;

const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RST: u16 = 8;

/// A frame's head: version, kind, flags, stream, length.
fn head(version: u8, kind: u8, flags: u16, stream: u32, length: u32) -> [u8; 12] {
    let mut head = [0; 12];
    (head[0], head[1]) = (version, kind);
    head[2..4].copy_from_slice(&flags.to_be_bytes());
    head[4..8].copy_from_slice(&stream.to_be_bytes());
    head[8..].copy_from_slice(&length.to_be_bytes());
    head
}

fn frame(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    head(0, kind, flags, stream, length).to_vec()
}

fn data(flags: u16, stream: u32, body: &[u8]) -> Vec<u8> {
    [&frame(DATA, flags, stream, body.len() as u32)[..], body].concat()
}

/// The same for many streams of ours, whose numbers are odd.
fn each(count: u32, frames: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(|number| frames(2 * number + 1)).collect()
}

/// Everything that a frame may be besides what it ought to be.
fn blows() -> Vec<Vec<u8>> {
    let open = frame(WINDOW, SYN, 1, 0);
    let after = |frames: Vec<u8>| [open.clone(), frames].concat();
    let most = u32::MAX;
    let hello = [MULTISTREAM, &line("/modality-network/reqres/0.0.1")].concat();
    let mut blows = vec![
        // Windows that overflow, at the start and later.
        frame(WINDOW, SYN, 1, most),
        after(frame(WINDOW, 0, 1, most).repeat(1000)),
        each(200, |id| [frame(WINDOW, SYN, id, most), frame(WINDOW, 0, id, most)].concat()),
        // Bodies with the frame that opens a stream: small, of the whole window, more than that, and none of those
        // claimed.
        data(SYN, 1, &hello),
        each(32, |id| data(SYN, id, &vec![b'x'; 200 << 10])),
        data(SYN, 1, &vec![0; 300 << 10]),
        data(SYN, 1, &vec![0; 2 << 20]),
        frame(DATA, SYN, 1, most),
        frame(DATA, SYN, 1, 1 << 20),
        frame(DATA, SYN, 1, (1 << 20) + 1),
        after(frame(DATA, 0, 1, most)),
        after(data(0, 1, &vec![7; 256 << 10]).repeat(3)),
        // More streams than may be; streams that open and close at once.
        each(2000, |id| frame(WINDOW, SYN, id, 0)),
        each(2000, |id| data(SYN, id, MULTISTREAM)),
        each(5_000, |id| [frame(WINDOW, SYN, id, 0), frame(WINDOW, RST, id, 0)].concat()),
        each(5_000, |id| [data(SYN, id, &hello), frame(DATA, RST, id, 0)].concat()),
        each(5_000, |id| data(SYN | FIN, id, b"")),
        each(5_000, |id| frame(WINDOW, SYN | FIN | RST | ACK, id, 0)),
        // Streams that are not there, or not the sender's to open.
        data(0, 99, b"x").repeat(20_000),
        frame(WINDOW, ACK, 99, 0),
        frame(DATA, RST, 99, 0).repeat(20_000),
        frame(WINDOW, SYN, 2, 0),
        frame(WINDOW, SYN, 0, 0),
        frame(WINDOW, SYN, most, 0),
        data(0, 0, b"x"),
        open.repeat(2),
        after([data(FIN, 1, b""), data(0, 1, b"x").repeat(100)].concat()),
        after(frame(DATA, FIN, 1, 0).repeat(1000)),
        after(frame(DATA, 0, 1, 0).repeat(50_000)),
        // Farewells, and what comes behind them.
        [frame(GO_AWAY, 0, 0, 0), each(100, |id| data(SYN, id, &hello))].concat(),
        frame(GO_AWAY, 0, 0, 77),
        frame(GO_AWAY, SYN, 1, most),
        frame(GO_AWAY, 0, 0, 0).repeat(1000),
        // Pings whose answers nobody reads, and answers that nobody asked for.
        frame(PING, SYN, 0, 7).repeat(100_000),
        frame(PING, ACK, 0, 7).repeat(20_000),
        frame(PING, SYN, 5, most),
        // Heads cut off.
        head(0, DATA, SYN, 1, 0)[..7].to_vec(),
    ];
    blows.extend((1..=255).step_by(23).map(|version| head(version, DATA, SYN, 1, 5).repeat(3)));
    blows.extend((4..=255).step_by(23).map(|kind| head(0, kind, SYN, 1, 5).repeat(3)));
    blows.extend((0..16).map(|bit| after(frame(DATA, 1 << bit, 1, 0))));
    let mut random = fastrand::Rng::with_seed(7);
    blows.extend((0..60).map(|_| {
        let mut frames = Vec::new();
        for _ in 0..50 {
            let length = *random.choice(&[0, 1, 12, 500, 70_000, most]).unwrap_or(&0);
            frames.extend(head(0, random.u8(..5), random.u16(..16), random.u32(..6), length));
            frames.extend(vec![random.u8(..); length.min(70_000) as usize]);
        }
        frames
    }));
    blows
}

#[rstest]
#[tokio::test]
async fn frames_of_yamux(#[values(Transport::Tcp, Transport::WebSocket)] transport: Transport) {
    let mut program = Program::start().await;
    let address = program.address(transport).clone();
    let blows = blows();
    let attack = async {
        let strikes = blows.iter().map(|frames| async {
            strike(&mut *yamux(&address).await, frames).await;
            shove(&mut *yamux(&address).await, frames).await;
        });
        futures::stream::iter(strikes).buffer_unordered(AT_ONCE).collect::<()>().await;
    };
    program.survives(&format!("yamux, {transport:?}"), attack).await;
}

#[rstest]
#[tokio::test]
async fn frames_are_understood_as_they_are_meant(#[values(Transport::Tcp, Transport::WebSocket)] transport: Transport) {
    let program = Program::start().await;
    let address = program.address(transport);
    let wire = &mut *yamux(address).await;
    let pong = frame(PING, ACK, 0, 0xabcd);
    let asked = async {
        wire.write_all(&frame(PING, SYN, 0, 0xabcd)).await.unwrap();
        wire.flush().await.unwrap();
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(&pong) {
            wire.read_exact(&mut byte).await.unwrap();
            answer.push(byte[0]);
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("a ping is answered");
    let wire = &mut *yamux(address).await;
    let answer = strike(wire, &head(1, DATA, SYN, 1, 0)).await;
    // It may have spoken first, on streams of its own.
    assert!(!answer.windows(12).any(|bytes| bytes == pong));
}

#[rstest]
#[tokio::test]
async fn garbage_where_yamux_belongs(#[values(Transport::Tcp, Transport::WebSocket)] transport: Transport) {
    let mut program = Program::start().await;
    let address = program.address(transport).clone();
    let blows = [
        vec![0xff; 1 << 20],
        [MULTISTREAM, &line("/mplex/6.7.0").repeat(10_000)].concat(),
        [MULTISTREAM, &line("ls").repeat(10_000)].concat(),
        [MULTISTREAM, &varint(u64::MAX)].concat(),
        [MULTISTREAM, &line(&format!("/{}", "x".repeat(16_000))).repeat(100)].concat(),
    ];
    let attack = async {
        for bytes in &blows {
            strike(&mut *secure(connect(&address).await).await.unwrap(), bytes).await;
            let mut wire = secure(connect(&address).await).await.unwrap();
            assert!(negotiate(&mut *wire, "/not/a/muxer").await.is_err());
            shove(&mut *wire, bytes).await;
        }
    };
    program.survives(&format!("muxers, {transport:?}"), attack).await;
}

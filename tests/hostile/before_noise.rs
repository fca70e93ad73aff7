//! Before anybody is known to anybody: the negotiation of protocols, and the handshake.

use std::time::Duration;

use futures::StreamExt;
use rstest::rstest;

use crate::{
    dialer::{MULTISTREAM, Spoiled, Tamper, Wire, connect, line, negotiate, prefixed, secure, shove, strike, varint},
    program::{Program, Transport},
};

/// Connections at once: far fewer than may knock at the same time.
pub const AT_ONCE: usize = 8;

/// A refusal takes no longer, also on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// Bytes of the whole handshake that a client sends: 27 to agree on Noise, 34 with its key, and its identity.
const HANDSHAKE: usize = 300;

#[rstest]
#[tokio::test]
async fn garbage_instead_of_a_negotiation(#[values(Transport::Tcp, Transport::WebSocket)] transport: Transport) {
    let mut program = Program::start().await;
    let address = program.address(transport).clone();
    let header = |rest: &[u8]| [MULTISTREAM, rest].concat();
    let long = "x".repeat(16_000);
    let blows: Vec<Vec<u8>> = vec![
        vec![],
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![0; 100_000],
        vec![0xff; 100_000],
        line("/multistream/9.0.0"),
        b"\x12/multistream/1.0.0".to_vec(),
        header(&[0xff; 10]),
        header(&varint(u64::MAX)),
        header(&varint(1 << 14)),
        header(&prefixed(b"")),
        header(&prefixed(b"\n")),
        header(&prefixed(b"/noise")),
        header(&prefixed(b"noise\n")),
        header(&prefixed(b"\xff\xfe\n")),
        header(&line(&format!("/{long}"))),
        header(&line(&format!("/{long}")).repeat(500)),
        header(&line("/not/spoken").repeat(50_000)),
        header(&line("ls").repeat(50_000)),
        header(&line("na").repeat(50_000)),
        MULTISTREAM.repeat(50_000),
        header(&varint(16_000)),
    ];
    let attack = async {
        let strikes = blows.iter().map(|bytes| async {
            strike(&mut *connect(&address).await, bytes).await;
            shove(&mut *connect(&address).await, bytes).await;
        });
        futures::stream::iter(strikes).buffer_unordered(AT_ONCE).collect::<()>().await;
    };
    program.survives(&format!("negotiation, {transport:?}"), attack).await;
}

#[rstest]
#[tokio::test]
async fn handshakes_that_break_off_or_are_forged(#[values(Transport::Tcp, Transport::WebSocket)] transport: Transport) {
    let mut program = Program::start().await;
    let address = program.address(transport).clone();
    let spoiled = async |tamper| {
        let wire: Wire = Box::new(Spoiled::new(connect(&address).await, tamper));
        // The client has the last word of the handshake: only what is said after it shows whether it was taken.
        negotiate(&mut *secure(wire).await?, "/yamux/1.0.0").await
    };
    assert!(spoiled(Tamper::Cut(1000)).await.is_ok(), "nothing is spoiled so far back");
    let attack = async {
        let tampers = (0..HANDSHAKE).map(Tamper::Cut).chain((0..HANDSHAKE).step_by(3).map(Tamper::Change));
        let tampered = tampers.map(async |tamper| (tamper, tokio::time::timeout(SOON, spoiled(tamper)).await));
        let outcomes: Vec<_> = futures::stream::iter(tampered).buffer_unordered(AT_ONCE).collect().await;
        // What is cut off fails on our side; what is changed, on theirs, or it has them wait for more.
        let changed: Vec<_> = outcomes.iter().filter(|(tamper, _)| matches!(tamper, Tamper::Change(_))).collect();
        let refused = changed.iter().filter(|(_, outcome)| matches!(outcome, Ok(Err(_)))).count();
        let waiting = changed.iter().filter(|(_, outcome)| outcome.is_err()).count();
        eprintln!("{} changed handshakes: {refused} refused, {waiting} waited for", changed.len());
        assert!(refused > 80, "only {refused} handshakes were refused");
    };
    program.survives(&format!("handshakes, {transport:?}"), attack).await;
}

#[rstest]
#[tokio::test]
async fn noise_that_is_none(#[values(Transport::Tcp, Transport::WebSocket)] transport: Transport) {
    let mut program = Program::start().await;
    let address = program.address(transport).clone();
    let mut random = fastrand::Rng::with_seed(7);
    let frame = |length: u16, byte: u8, count: usize| {
        [&length.to_be_bytes()[..], &vec![byte; usize::from(length)]].concat().repeat(count)
    };
    let mut blows = vec![
        frame(0, 0, 50_000),
        frame(1, 0, 1000),
        frame(32, 0, 1),
        frame(32, 0xff, 3),
        frame(31, 1, 1),
        frame(33, 1, 2),
        frame(u16::MAX, 7, 32),
        frame(u16::MAX, 0, 1)[..40_000].to_vec(),
        u16::MAX.to_be_bytes().to_vec(),
    ];
    blows.extend((0..50).map(|_| std::iter::repeat_with(|| random.u8(..)).take(2000).collect()));
    let attack = async {
        let strikes = blows.iter().map(|bytes| async {
            let noise = [MULTISTREAM, &line("/noise"), bytes].concat();
            strike(&mut *connect(&address).await, &noise).await;
        });
        futures::stream::iter(strikes).buffer_unordered(AT_ONCE).collect::<()>().await;
    };
    program.survives(&format!("noise, {transport:?}"), attack).await;
}

//! HTTP: the same depths and sizes, and requests made by hand.

use futures::StreamExt;
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::{
    before_noise::AT_ONCE,
    dialer::{BLOW, shove, strike_within},
    program::Program,
    support::gateway::PATIENCE,
};

const LIMIT: usize = 1 << 20;

/// A member with as many small objects as a body can have: as values they would take a hundred times its bytes.
fn objects(name: &str) -> String {
    format!("{{\"{name}\":[{}]}}", vec!["{\"\":0}"; LIMIT / 8].join(","))
}

/// A `POST` with these headers and this body.
fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let always = "host: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    format!("POST {path} HTTP/1.1\r\n{always}{headers}\r\n{body}").into_bytes()
}

fn declared(path: &str, body: &str) -> Vec<u8> {
    post(path, &format!("content-length: {}\r\n", body.len()), body)
}

/// The body in chunks of this size.
fn chunked(path: &str, body: &str, size: usize) -> Vec<u8> {
    let mut chunks = String::new();
    for at in (0..body.len()).step_by(size) {
        let chunk = &body[at..body.len().min(at + size)];
        chunks.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    post(path, "transfer-encoding: chunked\r\n", &(chunks + "0\r\n\r\n"))
}

#[tokio::test]
async fn bodies_and_heads() {
    let mut program = Program::start().await;
    let http = program.http.clone();
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let epoch = "/data/miner_block/epoch";
    let spaces = |count: usize| format!("{{\"epoch\":1}}{}", " ".repeat(count - 11));
    let many: String = (0..5000).map(|number| format!("x-{number}: y\r\n")).collect();
    // With the status that each must get; 0 where any will do, and the connection may just close.
    let blows: Vec<(u16, Vec<u8>)> = vec![
        (400, declared("/ping", &nested(10_000))),
        (400, declared("/ping", &nested(100_000))),
        (400, declared("/ping", &"[".repeat(100_000))),
        (400, declared("/ping", &"{\"a\":".repeat(100_000))),
        (400, declared(epoch, &nested(10_000))),
        (400, declared(epoch, &format!("{{\"epoch\":{}}}", nested(100_000)))),
        (400, chunked(epoch, &format!("{{\"epoch\":{}}}", nested(10_000)), 1000)),
        (400, declared("/data/miner_block/find_ancestor", &format!("{{\"check_points\":{}}}", nested(10_000)))),
        (400, declared("/data/miner_block/chain_info", &format!("{{\"local_block_hashes\":[{}]}}", nested(10_000)))),
        (0, declared("/data/miner_block/find_ancestor", &objects("check_points"))),
        (0, declared("/data/miner_block/chain_info", &objects("local_block_hashes"))),
        (200, declared(epoch, &spaces(LIMIT))),
        (413, declared(epoch, &spaces(LIMIT + 1))),
        (200, chunked(epoch, &spaces(LIMIT), 50_000)),
        (413, chunked(epoch, &spaces(LIMIT + 1), 50_000)),
        (413, chunked(epoch, &spaces(16 * LIMIT), 50_000)),
        (0, post(epoch, &format!("content-length: {}\r\n", u64::MAX), "{")),
        (413, post(epoch, &format!("content-length: {}\r\n", LIMIT + 1), "{")),
        (0, post(epoch, "content-length: 18446744073709551616\r\n", "{}")),
        (0, post(epoch, "content-length: -1\r\n", "{}")),
        (0, post(epoch, "content-length: 2\r\ncontent-length: 3\r\n", "{}")),
        (0, post(epoch, "content-length: 2\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n")),
        (0, post(epoch, "transfer-encoding: chunked\r\n", "ffffffffffffffff\r\nx")),
        (0, post(epoch, "transfer-encoding: chunked\r\n", "-1\r\nx")),
        (0, post(epoch, "transfer-encoding: chunked\r\n", &format!("1;{}\r\nx\r\n", "e".repeat(100_000)))),
        (0, post(epoch, "transfer-encoding: chunked\r\n", &format!("0\r\n{many}\r\n"))),
        (0, post(epoch, &many, "")),
        (0, post(epoch, &format!("x: {}\r\n", "y".repeat(8 * LIMIT)), "")),
        (0, post(&format!("/{}", "x".repeat(LIMIT)), "", "")),
        (0, post(epoch, "\0: x\r\n", "")),
        (0, b"GET / HTTP/9.9\r\n\r\n".to_vec()),
        (0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        (0, [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0xff; 100_000]].concat()),
        // Settings, then a window that overflows, again and again; and pings that nobody reads the answers of.
        (
            0,
            [
                &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
                &b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff".repeat(1000),
            ]
            .concat(),
        ),
        (
            0,
            [
                &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
                &b"\0\0\x08\x06\0\0\0\0\0pingpong".repeat(20_000),
            ]
            .concat(),
        ),
        (
            0,
            [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], &b"\0\0\0\x04\0\0\0\0\0".repeat(20_000)]
                .concat(),
        ),
        (0, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        (0, vec![0; LIMIT]),
        (0, b"\r\n".repeat(100_000)),
    ];
    let connect = async || TcpStream::connect(&http).await.unwrap().compat();
    let attack = async {
        let strikes = blows.iter().map(async |(expected, bytes)| {
            shove(&mut connect().await, bytes).await;
            let limit = if *expected == 0 { BLOW } else { PATIENCE };
            (*expected, strike_within(limit, &mut connect().await, bytes).await, bytes)
        });
        let answers: Vec<_> = futures::stream::iter(strikes).buffered(AT_ONCE).collect().await;
        for (expected, answer, bytes) in answers {
            let status =
                answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0);
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
            // Who still sends when long refused may lose the answer with the connection.
            let lost = expected == 413 && status == 0 && bytes.len() > 8 * LIMIT;
            assert!(expected == 0 || status == expected || lost, "{status} instead of {expected}: {shown}");
            assert!(!(500..=599).contains(&status), "{status}: {shown}");
        }
    };
    program.survives("HTTP", attack).await;
}

//! Requests of the sync protocol, on streams that are what they should be.

use futures::{AsyncWriteExt, StreamExt};
use modal_gateway::protocol::{COMPRESSED_PROTOCOL, MAX_REQUEST_BYTES, PROTOCOL};
use rstest::rstest;

use crate::{
    program::{Program, Transport},
    session::Session,
};

/// Requests at once on one connection.
const AT_ONCE: usize = 16;

/// A request with data of this depth; without its end if it is `open`.
pub fn deep(path: &str, depth: usize, open: bool) -> String {
    let data = if open { "[".repeat(depth) } else { "[".repeat(depth) + &"]".repeat(depth) };
    format!(r#"{{"path":"{path}","data":{{"epoch":{data}}}}}"#)
}

/// A ping that is so long.
fn ping(length: usize) -> Vec<u8> {
    let (before, behind) = (r#"{"path":"/ping","data":""#, "\"}");
    format!("{before}{}{behind}", "x".repeat(length - before.len() - behind.len())).into_bytes()
}

#[rstest]
#[tokio::test]
async fn deep_and_long_ones(#[values(Transport::Tcp, Transport::WebSocket)] transport: Transport) {
    let mut program = Program::start().await;
    let session = Session::start(program.address(transport)).await;
    let attack = async {
        let mut requests = Vec::new();
        for depth in [100, 10_000, 100_000] {
            for path in ["/ping", "/data/miner_block/epoch", "/data/miner_block/find_ancestor", "/nope"] {
                requests.extend([(deep(path, depth, false), path), (deep(path, depth, true), "open")]);
            }
        }
        let asked = requests.iter().map(async |(request, kind)| {
            let answer = session.ask(PROTOCOL, request.as_bytes()).await.unwrap();
            let answer = String::from_utf8(answer).unwrap();
            let expected = match *kind {
                "open" => "\"malformed_body\"",
                "/ping" => "{\"ok\":true,\"data\":{\"epoch\":[[[",
                "/nope" => "\"unknown_path\"",
                _ => "\"missing_parameter\"",
            };
            assert!(answer.contains(expected), "{kind}: {}", &answer[..answer.len().min(300)]);
        });
        futures::stream::iter(asked).buffer_unordered(AT_ONCE).collect::<()>().await;

        // As values these would take a hundred times their bytes.
        let objects = vec!["{\"\":0}"; MAX_REQUEST_BYTES / 8].join(",");
        let many = format!(r#"{{"path":"/data/miner_block/find_ancestor","data":{{"check_points":[{objects}]}}}}"#);
        let refused = (0..8).map(async |_| session.ask(PROTOCOL, many.as_bytes()).await.unwrap());
        let refused: Vec<_> = futures::stream::iter(refused).buffer_unordered(2).collect().await;
        assert!(refused.iter().all(|answer| String::from_utf8_lossy(answer).contains("\"invalid_parameter\"")));

        // As long as may be, and a byte longer.
        let (longest, longer) = (ping(MAX_REQUEST_BYTES), ping(MAX_REQUEST_BYTES + 1));
        assert!(session.ask(PROTOCOL, &longest).await.unwrap().starts_with(b"{\"ok\":true"));
        let refused = (0..40).map(async |_| session.ask(PROTOCOL, &longer).await.unwrap_or_default());
        let refused: Vec<_> = futures::stream::iter(refused).buffer_unordered(4).collect().await;
        assert!(refused.iter().all(Vec::is_empty), "too long, and answered");
    };
    program.survives(&format!("requests, {transport:?}"), attack).await;
}

#[rstest]
#[tokio::test]
async fn compressed_ones(#[values(Transport::Tcp, Transport::WebSocket)] transport: Transport) {
    let mut program = Program::start().await;
    let session = Session::start(program.address(transport)).await;
    let packed = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
    let good = packed(&ping(100_000));
    let spaces = |count: usize| packed(&vec![b' '; count]);
    let mut claimed = spaces(1000);
    claimed[5..7].copy_from_slice(&[0xff, 0xff]);
    let bad = [
        spaces(MAX_REQUEST_BYTES + 1),
        spaces(256 << 20),
        spaces(MAX_REQUEST_BYTES).repeat(2000),
        packed(b"").repeat(100_000),
        good[..good.len() - 1].to_vec(),
        good[..5].to_vec(),
        claimed,
        [&good[..4], &[0, 0xff, 1, 2, 3]].concat(),
        [&good[..4], &vec![0xff; 1000]].concat(),
    ];
    let attack = async {
        for _ in 0..4 {
            let answer = session.ask(COMPRESSED_PROTOCOL, &good).await.unwrap();
            assert!(answer.starts_with(&good[..4]), "as it came: compressed");
            let refused =
                bad.iter().map(async |bytes| session.ask(COMPRESSED_PROTOCOL, bytes).await.unwrap_or_default());
            let refused: Vec<_> = futures::stream::iter(refused).buffer_unordered(AT_ONCE).collect().await;
            assert_eq!(refused, vec![Vec::<u8>::new(); bad.len()]);
        }
    };
    program.survives(&format!("compressed requests, {transport:?}"), attack).await;
}

#[rstest]
#[tokio::test]
async fn streams_that_end_early(#[values(Transport::Tcp, Transport::WebSocket)] transport: Transport) {
    let mut program = Program::start().await;
    let session = Session::start(program.address(transport)).await;
    let body = ping(100_000);
    let attack = async {
        let mut held = Vec::new();
        for round in 0..20 {
            for protocol in [PROTOCOL, COMPRESSED_PROTOCOL] {
                // Nothing at all, properly ended.
                assert_eq!(session.ask(protocol, b"").await.unwrap_or_default(), b"");
                // Half of it, and then gone.
                let mut stream = session.stream(protocol).await.unwrap();
                stream.write_all(&body[..body.len() / 2]).await.unwrap();
                drop(stream);
                // All of it, and nobody waits for the answer.
                let mut stream = session.stream(protocol).await.unwrap();
                stream.write_all(&body).await.unwrap();
                stream.close().await.unwrap();
                drop(stream);
                // Half of it, and then nothing more.
                let mut stream = session.stream(protocol).await.unwrap();
                stream.write_all(&body[..round * 10]).await.unwrap();
                held.push(stream);
            }
        }
        let answer = session.ask(PROTOCOL, br#"{"path":"/ping","data":7}"#).await.unwrap();
        assert_eq!(answer, br#"{"ok":true,"data":7,"errors":null}"#);
    };
    program.survives(&format!("streams, {transport:?}"), attack).await;
}

//! The program with the feature `otlp`, and a collector of traces on loopback.

#[path = "otlp/collector.rs"]
mod collector;
#[path = "support/ports.rs"]
mod ports;
#[path = "support/process.rs"]
#[allow(dead_code, reason = "each test program uses its own part of this")]
mod process;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use collector::{Collector, SERVER, Span};
use ports::free_port;
use process::{Process, SERVE, program};
use rstest::rstest;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// A gateway without peers that logs nothing but errors, which is no matter for traces.
fn gateway(folder: &Path, endpoint: &str) -> Command {
    let mut command = program(folder, SERVE);
    command.args(["--sync", "false"]).env("RUST_LOG", "error").env(ENDPOINT, endpoint);
    command.env("OTEL_BSP_SCHEDULE_DELAY", "20");
    command
}

/// Sends a `GET`; the status, the headers with the body.
fn get(process: &Process, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(process.http.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

/// The header of a request that is part of the client's trace.
fn traceparent(trace: u128, flags: u8) -> String {
    format!("traceparent: 00-{trace:032x}-00f067aa0ba902b7-{flags:02x}\r\ntracestate: a=b\r\n")
}

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const PARENT: [u8; 8] = [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];

#[test]
fn requests_are_exported_as_part_of_their_clients_traces() {
    let (folder, collector) = (tempfile::tempdir().unwrap(), Collector::start());
    let mut command = gateway(folder.path(), &collector.url);
    command.env("OTEL_SERVICE_NAME", "the-gateway").env("OTEL_RESOURCE_ATTRIBUTES", "deployment=test");
    let free = free_port();
    let id = libp2p::identity::Keypair::generate_ed25519().public().to_peer_id();
    command.args(["--peer", &format!("down=/ip4/127.0.0.1/tcp/{free}/p2p/{id}")]);
    let gateway = Process::start(command);

    assert_eq!(get(&gateway, "/status", &format!("{}x-request-id: mine\r\n", traceparent(TRACE, 1))).0, 200);
    let batch = collector.next();
    assert_eq!((batch.head.method.as_str(), batch.head.path.as_str()), ("POST", "/v1/traces"));
    assert_eq!(batch.head.content_type, "application/x-protobuf");
    let of = |name: &str| batch.resource.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!((of("service.name"), of("service.version")), (Some("the-gateway"), Some(env!("CARGO_PKG_VERSION"))));
    assert_eq!(of("deployment"), Some("test"));
    let [span] = &batch.spans[..] else { panic!("{batch:?}") };
    let Span { trace, parent, state, name, kind, error, .. } = span;
    assert_eq!((&trace[..], &parent[..]), (&TRACE.to_be_bytes()[..], &PARENT[..]));
    assert_eq!((name.as_str(), state.as_str(), *kind, *error), ("GET /status", "a=b", SERVER, false));
    assert_eq!(span.attribute("http.request.method"), Some("GET"));
    assert_eq!((span.attribute("http.route"), span.attribute("id")), (Some("/status"), Some("mine")));
    assert!(span.began <= span.ended && span.began > 1_000_000_000_000_000_000, "{span:?}");

    // The client decides; one that has no trace begins one.
    assert_eq!(get(&gateway, "/status", &traceparent(2, 0)).0, 200);
    assert_eq!(get(&gateway, "/nowhere", "traceparent: 00-0-0-0\r\n").0, 404);
    let [span] = &collector.next().spans[..] else { panic!("one of them is sampled") };
    assert_eq!((span.name.as_str(), span.parent.len(), span.error), ("GET", 0, false));
    assert!(span.trace.len() == 16 && span.attribute("http.route").is_none(), "{span:?}");

    // A request that waits for a peer runs in a task of its own.
    assert_eq!(get(&gateway, "/data/miner_block/epoch?epoch=0&peer=down", &traceparent(3, 1)).0, 503);
    let [span] = &collector.next().spans[..] else { panic!("one request") };
    assert_eq!((span.trace[15], span.name.as_str()), (3, "GET /data/miner_block/epoch"));
    assert!(span.error, "{span:?}");
    assert_eq!(gateway.stop(), Some(0));
    assert!(collector.rest().is_empty());
}

#[test]
fn what_is_left_is_exported_at_the_end_and_the_variables_of_the_sampler_count() {
    for (sampler, exported) in [("parentbased_always_on", 1), ("always_off", 0), ("traceidratio", 0)] {
        let (folder, collector) = (tempfile::tempdir().unwrap(), Collector::start());
        let mut command = gateway(folder.path(), &collector.url);
        command.env("OTEL_BSP_SCHEDULE_DELAY", "3600000").env("OTEL_TRACES_SAMPLER", sampler);
        command.env("OTEL_TRACES_SAMPLER_ARG", "0.0");
        let gateway = Process::start(command);
        assert_eq!(get(&gateway, "/status", &traceparent(TRACE, 1)).0, 200);
        assert_eq!(gateway.stop(), Some(0));
        let batches = collector.rest();
        assert_eq!(batches.iter().map(|batch| batch.spans.len()).sum::<usize>(), exported, "{sampler}: {batches:?}");
        for batch in batches {
            let name = batch.resource.iter().find(|(key, _)| key == "service.name").unwrap();
            assert_eq!(name.1, "modal-gateway");
        }
    }
}

#[test]
fn a_collector_that_fails_is_logged_once_until_it_works_again() {
    let (folder, collector) = (tempfile::tempdir().unwrap(), Collector::start());
    let mut command = gateway(folder.path(), &collector.url);
    command.env("RUST_LOG", "info").env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
    let gateway = Process::start(command);
    for status in [400, 401, 500, 200, 200] {
        collector.answer(status);
        assert_eq!(get(&gateway, "/status", &traceparent(TRACE, 1)).0, 200);
        assert_eq!(collector.next().head.encoding, "gzip");
    }
    let log = gateway.log.clone();
    assert_eq!(gateway.stop(), Some(0));
    let log = log.lock().unwrap();
    let about: Vec<_> = log.iter().filter(|line| line.contains("traces ")).collect();
    assert_eq!(about.len(), 2, "{about:?}");
    assert!(about[0].contains("WARN") && about[0].contains("can't be exported"), "{about:?}");
    assert!(about[1].contains("INFO") && about[1].contains("exported again"), "{about:?}");
}

/// A port that refuses, and one that never answers.
#[rstest]
#[case::refuses(false)]
#[case::is_silent(true)]
fn a_collector_that_is_down_changes_no_answer(#[case] silent: bool) {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let _listener = silent.then_some(listener);
    let paths = ["/ping?data=1", "/data/miner_block/epoch?epoch=0", "/nowhere", "/health/ready"];
    let ask = |endpoint| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = gateway(folder.path(), endpoint);
        command.env("RUST_LOG", "warn").env("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000");
        command.env("OTEL_BSP_MAX_QUEUE_SIZE", "16");
        let gateway = Process::start(command);
        // More than the queue holds.
        let answers = (0..200).map(|at| get(&gateway, paths[at % paths.len()], &traceparent(TRACE, 1)));
        let body = |text: String| text.split_once("\r\n\r\n").unwrap().1.to_owned();
        let answers: Vec<_> = answers.map(|(status, text)| (status, body(text))).collect();
        let (log, started) = (gateway.log.clone(), Instant::now());
        assert_eq!(gateway.stop(), Some(0));
        let lines = log.lock().unwrap().iter().filter(|line| line.contains("traces ")).count();
        (answers, lines, started.elapsed())
    };
    let (without, none, _) = ask("");
    let (with, lines, stopped) = ask(&endpoint);
    assert_eq!(with, without);
    assert_eq!((none, lines), (0, 1), "lines about traces");
    // The end waits 5 s for the last spans, not an hour.
    assert!(stopped < Duration::from_secs(60), "{stopped:?}");
}

#[rstest]
#[case::tls(ENDPOINT, "https://collector:4318", "expected http://HOST:PORT of a collector; TLS is not supported")]
#[case::no_url("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector", "expected http://HOST:PORT")]
#[case::protocol("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "expected http/protobuf")]
fn a_variable_that_cannot_be_used_is_named(#[case] variable: &str, #[case] value: &str, #[case] text: &str) {
    let folder = tempfile::tempdir().unwrap();
    // An address that no machine has ends the program where the variable is taken.
    let mut command = program(folder.path(), ["serve", "--http", "192.0.2.1:1", "--sync", "false"]);
    let output = command.env(ENDPOINT, "http://127.0.0.1:1").env(variable, value).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(&format!("error: environment variable {variable}: {text}")), "{stderr}");
}

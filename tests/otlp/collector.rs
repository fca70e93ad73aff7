//! A collector of traces: takes batches over OTLP/HTTP, and reads what the tests ask of them.
//!
//! The numbers of fields are those of <https://github.com/open-telemetry/opentelemetry-proto>.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

/// Kind of a span: a request that was answered.
pub const SERVER: u64 = 2;

/// Longest wait for a batch.
const LIMIT: Duration = Duration::from_secs(60);

/// The head of a request.
#[derive(Debug, Default)]
pub struct Head {
    pub method: String,
    pub path: String,
    pub content_type: String,
    pub encoding: String,
}

/// What was exported at once.
#[derive(Debug)]
pub struct Batch {
    pub head: Head,
    /// What the program says of itself.
    pub resource: Vec<(String, String)>,
    pub spans: Vec<Span>,
}

/// A span.
#[derive(Debug, Default)]
pub struct Span {
    pub trace: Vec<u8>,
    /// Empty without one.
    pub parent: Vec<u8>,
    pub state: String,
    pub name: String,
    pub kind: u64,
    /// Unix nanoseconds.
    pub began: u64,
    pub ended: u64,
    pub attributes: Vec<(String, String)>,
    pub error: bool,
}

impl Span {
    /// The value of an attribute, if that is a text.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A collector that runs until the test ends.
pub struct Collector {
    /// `http://ADDRESS:PORT`.
    pub url: String,
    status: Arc<AtomicU16>,
    batches: Receiver<Batch>,
}

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, batches) = channel();
        let status = Arc::new(AtomicU16::new(200));
        let answer = status.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = BufReader::new(stream);
                // Before the answer, so that nothing is under way once the program has ended.
                if sender.send(take(&mut stream)).is_err() {
                    return;
                }
                let status = answer.load(Ordering::SeqCst);
                let end = "content-length: 0\r\nconnection: close\r\n\r\n";
                write!(stream.get_mut(), "HTTP/1.1 {status} x\r\n{end}").unwrap();
            }
        });
        Self { url, status, batches }
    }

    /// Sets the status of the answers to come.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Waits for a batch.
    pub fn next(&self) -> Batch {
        self.batches.recv_timeout(LIMIT).expect("a batch")
    }

    /// The batches that nobody waited for. All of those that a program has sent which has ended.
    pub fn rest(&self) -> Vec<Batch> {
        self.batches.try_iter().collect()
    }
}

/// Takes the request of a connection.
fn take(stream: &mut BufReader<TcpStream>) -> Batch {
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let first = line();
    let mut words = first.split(' ').map(str::to_owned);
    let mut head = Head { method: words.next().unwrap(), path: words.next().unwrap(), ..Head::default() };
    let mut length = 0;
    while let Some((name, value)) = line().split_once(": ") {
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "content-type" => head.content_type = value.to_owned(),
            "content-encoding" => head.encoding = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    if head.encoding == "gzip" {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
        body = plain;
    }
    let (mut resource, mut spans) = (Vec::new(), Vec::new());
    for of_resource in messages(&body, 1) {
        resource.extend(messages(of_resource, 1).flat_map(attributes(1)));
        let scopes = messages(of_resource, 2);
        spans.extend(scopes.flat_map(|scope| messages(scope, 2)).map(span));
    }
    Batch { head, resource, spans }
}

fn span(message: &[u8]) -> Span {
    let bytes = |field| messages(message, field).next().unwrap_or_default();
    let text = |field| String::from_utf8(bytes(field).to_vec()).unwrap();
    Span {
        trace: bytes(1).to_vec(),
        state: text(3),
        parent: bytes(4).to_vec(),
        name: text(5),
        kind: number(message, 6),
        began: number(message, 7),
        ended: number(message, 8),
        attributes: attributes(9)(message),
        error: number(bytes(15), 3) == 2,
    }
}

/// The pairs in a field of a message whose values are texts.
fn attributes(field: u64) -> impl Fn(&[u8]) -> Vec<(String, String)> {
    move |message| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let pair = |pair| {
            let value = messages(pair, 2).next()?;
            Some((text(messages(pair, 1).next()?), text(messages(value, 1).next()?)))
        };
        messages(message, field).filter_map(pair).collect()
    }
}

/// The value of a field of Protocol Buffers (<https://protobuf.dev/programming-guides/encoding/>).
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The values of a field that have a length: texts, bytes, messages.
fn messages(message: &[u8], field: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).into_iter().filter(move |(number, _)| *number == field).filter_map(|(_, value)| match value {
        Value::Bytes(bytes) => Some(bytes),
        Value::Number(_) => None,
    })
}

/// The number in a field; 0, the default, if it is not there.
fn number(message: &[u8], field: u64) -> u64 {
    let values = fields(message).into_iter().filter(|(number, _)| *number == field);
    values.map(|(_, value)| if let Value::Number(number) = value { number } else { 0 }).next().unwrap_or_default()
}

fn fields(mut rest: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest);
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut rest)),
            1 => Value::Number(u64::from_le_bytes(split(&mut rest, 8).try_into().unwrap())),
            2 => {
                let length = varint(&mut rest) as usize;
                Value::Bytes(split(&mut rest, length))
            }
            5 => Value::Number(u32::from_le_bytes(split(&mut rest, 4).try_into().unwrap()).into()),
            kind => panic!("wire type {kind}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = split(rest, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn split<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (first, others) = rest.split_at(length);
    *rest = others;
    first
}

//! A gateway in a process of its own, and clients that cost little, so that it is the gateway that is measured.

use std::{fmt, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    gateway::{PATIENCE, TestStore},
    process::{Process, SERVE, program},
};

/// A gateway over `store` with default settings but these.
pub fn serve(store: &TestStore, settings: &[(&str, &str)]) -> Process {
    let mut command = program(store.folder.path(), SERVE);
    command.args(["--database-url", &store.url, "--sync", "false"]).env("RUST_LOG", "warn");
    for (name, value) in settings {
        command.env(format!("MODAL_GATEWAY_{name}"), value);
    }
    Process::start(command)
}

/// `ADDRESS:PORT` of its public listener.
pub fn address(program: &Process) -> &str {
    program.http.strip_prefix("http://").unwrap()
}

/// A connection over HTTP/1.1 that is kept open.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: vec![0; 64 << 10] }
    }

    /// Asks for something, reads all of the answer, and returns its status.
    pub async fn get(&mut self, path: &str) -> u16 {
        timeout(PATIENCE, self.exchange(path)).await.expect("an answer in time").unwrap()
    }

    async fn exchange(&mut self, path: &str) -> std::io::Result<u16> {
        self.stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await?;
        let mut filled = 0;
        let head = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            assert!(read > 0, "closed without an answer");
            filled += read;
            if let Some(end) = self.buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = std::str::from_utf8(&self.buffer[..head]).unwrap();
        let status = text[9..12].parse().unwrap();
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|own| own.parse().unwrap());
        match length {
            Some(length) => self.skip(length, filled - head).await?,
            None => self.skip_chunks(filled).await?,
        }
        Ok(status)
    }

    async fn skip(&mut self, length: usize, mut read: usize) -> std::io::Result<()> {
        while read < length {
            read += self.read().await?;
        }
        Ok(())
    }

    /// To the end of an answer that comes in chunks, whose first bytes are there. No other line of JSON is empty.
    async fn skip_chunks(&mut self, filled: usize) -> std::io::Result<()> {
        let mut last = self.buffer[..filled].to_vec();
        while !last.ends_with(b"\r\n0\r\n\r\n") {
            let read = self.read().await?;
            last.drain(..last.len().saturating_sub(7));
            last.extend_from_slice(&self.buffer[read.saturating_sub(7)..read]);
        }
        Ok(())
    }

    async fn read(&mut self) -> std::io::Result<usize> {
        let read = self.stream.read(&mut self.buffer).await?;
        assert!(read > 0, "closed within an answer");
        Ok(read)
    }
}

/// How long each of many things took.
#[derive(Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    pub fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn rate(&self, time: Duration) -> f64 {
        self.0.len() as f64 / time.as_secs_f64()
    }

    pub fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)]
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let [half, most, longest] = [0.5, 0.99, 1.0].map(|share| self.percentile(share));
        write!(f, "{} requests, p50 {half:.2?}, p99 {most:.2?}, max {longest:.2?}", self.0.len())
    }
}

/// Answers by kind.
#[derive(Default)]
pub struct Tally {
    pub good: Samples,
    pub shed: Samples,
}

impl Tally {
    pub fn add(&mut self, status: u16, took: Duration) {
        match status {
            200 => self.good.add(took),
            503 => self.shed.add(took),
            other => panic!("answered {other}"),
        }
    }

    pub fn with(self, other: Self) -> Self {
        Self { good: self.good.with(other.good), shed: self.shed.with(other.shed) }
    }

    pub fn count(&self) -> u64 {
        (self.good.0.len() + self.shed.0.len()) as u64
    }
}

/// The middle one.
pub fn median<T: PartialOrd + Copy>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values[values.len() / 2]
}

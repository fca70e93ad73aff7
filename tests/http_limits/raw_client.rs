//! A client that sends and reads raw bytes.

use std::{net::SocketAddr, time::Instant};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Duration, timeout},
};

use crate::support::gateway::PATIENCE;

/// A connection.
pub struct RawClient<S = TcpStream>(pub S);

impl RawClient {
    pub async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// One whose system takes little of what it does not read.
    pub async fn narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        Self(socket.connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawClient<S> {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads an answer over HTTP/1.1 that has a length: its head and its body.
    pub async fn answer(&mut self) -> (String, Vec<u8>) {
        let head = self.head().await;
        let length =
            head.split("content-length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        timeout(PATIENCE, self.0.read_exact(&mut body)).await.expect("a body in time").unwrap();
        (head, body)
    }

    /// Reads the head of an answer.
    pub async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.byte().await);
        }
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    }

    pub async fn get(&mut self, path: &str) -> (String, Vec<u8>) {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        self.answer().await
    }

    async fn byte(&mut self) -> u8 {
        timeout(PATIENCE, self.0.read_u8()).await.expect("an answer in time").unwrap()
    }

    /// Reads until the other end closes; returns what came and after which time.
    pub async fn closed(&mut self) -> (Vec<u8>, Duration) {
        let (start, mut bytes) = (Instant::now(), Vec::new());
        // A reset is an end too.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("it is closed in time");
        (bytes, start.elapsed())
    }
}

/// What a client over HTTP/2 begins with; `window`: how much of an answer it takes before it says so.
pub fn h2_preface(window: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE, RFC 9113, 6.5.2.
    let setting = [&[0, 4], &window.to_be_bytes()[..]].concat();
    bytes.extend(h2_frame(4, 0, 0, &setting));
    bytes
}

/// A `GET` on a stream, whose head and with it whose request ends here.
pub fn h2_get(stream: u32, path: &str) -> Vec<u8> {
    // RFC 7541: indexed `:method: GET` and `:scheme: http`; literal `:path` and `:authority` without indexing.
    let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    block.extend([0x01, 1, b'x']);
    h2_frame(1, 0x05, stream, &block)
}

pub fn h2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

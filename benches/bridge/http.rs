//! HTTP against a bare axum handler that answers with the same bytes; the servers and the client of this and of
//! [`compressed`](super::compressed), [`rivals`](super::rivals) and others.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{Router, http::header, routing};
use modal_gateway::{
    chain::BLOCKS_PER_EPOCH,
    http::{
        self, AddressRules, Gateway, PublicRoutes, Settings,
        server::{ConnectionLimits, Endpoint, Routes},
    },
    protocol::Query,
    source::{Origin, Source},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    chain::Kind,
    measure::{Contender, Outcome, Pace, Rates, Table, Target, thousands},
    wire::{Cache, Nodes},
};

/// Blocks in the chain.
pub const LENGTH: usize = 10_000;
/// Full epochs in the chain.
pub const EPOCHS: u64 = (LENGTH as u64 - 1) / BLOCKS_PER_EPOCH;
/// Connections that are kept open, with one request on each at a time.
const CONNECTIONS: [usize; 2] = [16, 64];
/// An epoch that all ask for again and again.
pub const EPOCH: u64 = 7;
/// Its path, and the request.
pub const PATH: &str = "/data/miner_block/epoch";
pub const REQUEST: &str = "GET /data/miner_block/epoch?epoch=7 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";

/// Requests for each full epoch: concurrent requests for the same one share a read of the store.
pub fn requests_for_all() -> Arc<[String]> {
    (0..EPOCHS).map(|epoch| format!("GET {PATH}?epoch={epoch} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")).collect()
}

/// Requests per second, ours and the bare handler's.
pub async fn run(nodes: &Nodes, pace: Pace) -> Outcome<String> {
    let source = nodes.get(Kind::Sqlite, LENGTH, Cache::Default)?.source.clone();
    let answer = source.answer(Query::Epoch { epoch: EPOCH }, &Origin::Local, 0).await;
    let body = answer.map_err(|declined| declined.failure.to_string())?.body.clone();
    let length = body.len();
    let handler = async move || ([(header::CONTENT_TYPE, "application/json")], body.clone());
    let bare = Server::start(Router::new().route(PATH, routing::get(handler))).await?;
    let ours = Server::start(gateway(source)?).await?;

    let columns = ["request", "bytes", "connections", "bare handler", "gateway", "gateway : bare"];
    let mut table = Table::new(1, &columns);
    let mut target = Target::at_least(0.9);
    for connections in CONNECTIONS {
        let contenders = [bare.contender(connections, REQUEST), ours.contender(connections, REQUEST)];
        let rates = Rates::measure(&contenders, pace).await?;
        table.row(vec![
            "`epoch`".to_owned(),
            thousands(length as f64),
            connections.to_string(),
            thousands(rates.of(0)),
            thousands(rates.of(1)),
            target.check(rates.ratio(1, 0)),
        ]);
    }
    Ok(format!(
        "#### Over HTTP against a bare axum handler of the same bytes: requests a second\n\n{table}\n\
         One epoch, read again and again over connections that are kept open. {target}\n"
    ))
}

/// The routes of a gateway without limits for the client of the measurement.
pub fn gateway(source: Arc<Source>) -> Outcome<PublicRoutes> {
    let addresses = AddressRules { unlimited: vec!["127.0.0.0/8".parse()?], ..AddressRules::default() };
    let settings = Settings { addresses, ..Settings::default() };
    Ok(http::public_routes(Gateway::new(source, settings, CancellationToken::new())))
}

/// A server on a free port of loopback, gone when dropped.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    _stop: DropGuard,
}

impl Server {
    /// Serves these routes.
    pub async fn start(routes: impl Routes) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let endpoint = Endpoint {
            routes,
            limits: ConnectionLimits::default(),
            addresses: AddressRules::default(),
            tls: None,
            counters: Arc::default(),
        };
        tokio::spawn(http::serve(listener, endpoint, stop.clone()));
        Ok(Self { address, _stop: stop.drop_guard() })
    }

    /// The first response to a request.
    pub async fn response(&self, request: &str) -> Outcome<Vec<u8>> {
        let mut client = Client::connect(self.address, [request.to_owned()].into()).await?;
        client.response.truncate(client.length);
        Ok(client.response)
    }

    /// Asks the same on every connection.
    pub fn contender(&self, connections: usize, request: &str) -> Contender {
        load(self.address, connections, [request.to_owned()].into())
    }
}

/// Asks the server at `address` one of these on every connection, at random.
pub fn load(address: SocketAddr, connections: usize, requests: Arc<[String]>) -> Contender {
    Box::new(move |round| {
        let requests = requests.clone();
        Box::pin(async move {
            let mut clients = Vec::with_capacity(connections);
            for _ in 0..connections {
                clients.push(Client::connect(address, requests.clone()).await?);
            }
            let start = Instant::now();
            let mut tasks = JoinSet::new();
            for mut client in clients {
                tasks.spawn(async move {
                    let mut answered = 0u64;
                    while start.elapsed() < round {
                        client.ask().await?;
                        answered += 1;
                    }
                    Outcome::Ok(answered)
                });
            }
            let mut answered = 0;
            while let Some(task) = tasks.join_next().await {
                answered += task??;
            }
            Ok(answered as f64 / start.elapsed().as_secs_f64())
        })
    })
}

/// A client that does as little as can be done.
struct Client {
    stream: TcpStream,
    requests: Arc<[String]>,
    /// The last response, head and body, and after it the unused rest of the buffer.
    response: Vec<u8>,
    /// How long it is.
    length: usize,
}

impl Client {
    /// Connects, and asks once.
    async fn connect(address: SocketAddr, requests: Arc<[String]>) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, requests, response: vec![0; 64 << 10], length: 0 };
        client.ask().await?;
        Ok(client)
    }

    async fn ask(&mut self) -> Outcome<()> {
        let request = &self.requests[fastrand::usize(..self.requests.len())];
        self.stream.write_all(request.as_bytes()).await?;
        let (mut filled, mut whole) = (0, None);
        while whole.is_none_or(|whole| filled < whole) {
            if filled == self.response.len() {
                self.response.resize(2 * filled, 0);
            }
            filled += match self.stream.read(&mut self.response[filled..]).await? {
                0 => return Err("the connection closed".into()),
                read => read,
            };
            if whole.is_none() {
                whole = whole_length(&self.response[..filled])?;
            }
        }
        self.length = filled;
        let is_good = self.response.starts_with(b"HTTP/1.1 200 ") || self.response.starts_with(b"HTTP/1.1 304 ");
        if is_good { Ok(()) } else { Err(String::from_utf8_lossy(&self.response[..filled.min(500)]).into()) }
    }
}

/// Bytes of the response that begins here, head and body; `None` while the length is unknown.
pub fn whole_length(response: &[u8]) -> Outcome<Option<usize>> {
    let Some(head) = head_length(response) else { return Ok(None) };
    if response.starts_with(b"HTTP/1.1 304 ") {
        return Ok(Some(head));
    }
    for line in response[..head].split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            return Ok(Some(head + std::str::from_utf8(value)?.parse::<usize>()?));
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Ok(response.ends_with(b"\r\n0\r\n\r\n").then_some(response.len()));
        }
    }
    Err("a response without a length".into())
}

/// Bytes of a response's head, the empty line included.
pub fn head_length(response: &[u8]) -> Option<usize> {
    response.windows(4).position(|window| window == b"\r\n\r\n").map(|head| head + 4)
}

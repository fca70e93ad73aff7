//! The program under attack: a process of its own, watched.

use std::{sync::Arc, time::Duration};

use libp2p::{Multiaddr, PeerId, identity::Keypair};
use modal_gateway::{
    p2p::{self, P2pClient, P2pConfig},
    protocol::{Query, encode_request},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{
    gateway::{EmptyResponder, PATIENCE},
    process::{CHAIN, Process, SERVE, program},
    python::run,
};

/// How much more memory an attack may leave, or take while it lasts, MiB: the values of two requests that are parsed at
/// a time (13 each), and eight bodies of 1 MiB that are received at a time, in buffers that double.
pub const MOST_GROWTH: u64 = 2 * 13 + 8 * 2;

/// Time between two proper requests during an attack.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(20);

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    WebSocket,
}

/// A gateway with the bundled chain.
pub struct Program {
    process: Process,
    /// `ADDRESS:PORT` of the public listener.
    pub http: String,
    tcp: Multiaddr,
    websocket: Multiaddr,
    peer: PeerId,
    client: P2pClient,
    web: reqwest::Client,
    _running: DropGuard,
    _folder: tempfile::TempDir,
}

impl Program {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let network = ["--network", "devnet", "--verify", "linked"];
        run(program(folder.path(), ["import", CHAIN]).args(network), "the chain is imported");
        let mut serve = program(folder.path(), SERVE);
        serve.args(["--listen", "/ip4/127.0.0.1/tcp/0/ws", "--sync", "false", "--target-peers", "0"]).args(network);
        let process = Process::start(serve);
        let addresses = process.libp2p.iter().map(|address| address.parse::<Multiaddr>().unwrap());
        let (websocket, tcp): (Vec<_>, Vec<_>) = addresses.partition(|a| a.to_string().contains("/ws"));
        let running = CancellationToken::new();
        let config = P2pConfig { target_peers: 0, gossip: false, ..P2pConfig::new(Keypair::generate_ed25519()) };
        let (client, _) = p2p::start(config, Arc::new(EmptyResponder), running.clone()).await.unwrap();
        let peer = client.dial(tcp[0].clone()).await.unwrap();
        Self {
            http: process.http.strip_prefix("http://").unwrap().to_owned(),
            process,
            tcp: tcp[0].clone(),
            websocket: websocket[0].clone(),
            peer,
            client,
            web: reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap(),
            _running: running.drop_guard(),
            _folder: folder,
        }
    }

    /// Where it listens, its peer id included.
    pub fn address(&self, transport: Transport) -> &Multiaddr {
        match transport {
            Transport::Tcp => &self.tcp,
            Transport::WebSocket => &self.websocket,
        }
    }

    /// One proper request to each listener.
    async fn answers(&self) {
        let url = format!("http://{}/data/miner_block/epoch?epoch=1", self.http);
        let reply = self.web.get(url).send().await.expect("an answer over HTTP");
        assert_eq!(reply.status(), 200);
        assert!(reply.text().await.unwrap().contains("\"count\":20"));
        let request = encode_request(&Query::Epoch { epoch: 1 });
        let answer = self.client.request(self.peer, request, PATIENCE).await.expect("an answer over libp2p");
        assert!(answer.starts_with(b"{\"ok\":true,"), "{answer:?}");
    }

    /// A figure of its memory, MiB.
    fn memory(&self, figure: &str) -> u64 {
        self.process.memory_kib(figure) >> 10
    }

    /// Runs an attack to its end, and checks what is promised.
    pub async fn survives(&mut self, name: &str, attack: impl Future<Output = ()>) {
        // Warm: both listeners, and a stranger who connects with either transport.
        for _ in 0..20 {
            self.answers().await;
        }
        let before = self.memory("VmRSS");
        let mut pace = tokio::time::interval(BETWEEN_REQUESTS);
        let mut answered = 0;
        let ask = async {
            loop {
                pace.tick().await;
                self.answers().await;
                answered += 1;
            }
        };
        let start = std::time::Instant::now();
        tokio::select! {
            () = attack => {}
            () = ask => {}
        }
        self.answers().await;
        // A stranger gets in as before.
        let stranger = P2pConfig { target_peers: 0, gossip: false, ..P2pConfig::new(Keypair::generate_ed25519()) };
        let running = CancellationToken::new();
        let _guard = running.clone().drop_guard();
        let (stranger, _) = p2p::start(stranger, Arc::new(EmptyResponder), running).await.unwrap();
        for address in [&self.tcp, &self.websocket] {
            let peer = stranger.dial(address.clone()).await.unwrap();
            stranger.request(peer, encode_request(&Query::Canonical), PATIENCE).await.unwrap();
        }
        let (after, most) = (self.memory("VmRSS"), self.memory("VmHWM"));
        eprintln!(
            "{name}: {:?}, {answered} proper requests meanwhile; memory {before} MiB before, {after} after, {most} at most",
            start.elapsed()
        );
        assert!(self.process.runs(), "it has ended");
        self.process.kill();
        let log = self.process.log.lock().unwrap();
        assert!(!log.iter().any(|line| line.contains("panicked")), "{log:?}");
        assert!(after.max(most) <= before + MOST_GROWTH, "{before} MiB before, {after} after, {most} at most");
        assert!(answered > 0, "nobody asked meanwhile");
    }
}

//! The program under attack: a process of its own, watched.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, identity::Keypair};
use modal_gateway::{
    app::BUNDLED_CHAIN,
    p2p::{self, P2pClient, P2pConfig},
    protocol::{Query, encode_request},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::gateway::{Mute, PATIENCE};

/// How much more memory an attack may leave, or take while it lasts, MiB.
pub const MOST_GROWTH: u64 = 32;

/// Time between two proper requests during an attack.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(20);

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    WebSocket,
}

/// A gateway with the bundled chain. Killed with this value.
pub struct Program {
    child: Child,
    stderr: Arc<Mutex<String>>,
    pub http: String,
    tcp: Multiaddr,
    websocket: Multiaddr,
    peer: PeerId,
    client: P2pClient,
    web: reqwest::Client,
    _running: DropGuard,
    _folder: tempfile::TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let command = |args: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_modal-gateway"));
            command
                .env_clear()
                .current_dir(folder.path())
                .args(["--network", "devnet", "--verify", "linked"])
                .args(args);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            command
        };
        fs::write(folder.path().join("chain"), BUNDLED_CHAIN).unwrap();
        let imported = command(&["import", "chain"]).output().unwrap();
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        let doors = ["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
        let rest = ["--listen", "/ip4/127.0.0.1/tcp/0/ws", "--sync", "false", "--target-peers", "0"];
        let mut child = command(&[&["serve"], &doors[..], &rest[..]].concat()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut http, mut libp2p, mut peer) = (None, Vec::new(), None);
        while peer.is_none() {
            let line = lines.next().expect("it serves").unwrap();
            match line.split_once(' ') {
                Some(("http", address)) => http = address.strip_prefix("http://").map(str::to_owned),
                Some(("libp2p", address)) => libp2p.push(address.parse::<Multiaddr>().unwrap()),
                Some(("peer-id", id)) => peer = Some(id.parse().unwrap()),
                _ => {}
            }
        }
        let stderr = Arc::new(Mutex::new(String::new()));
        let log = stderr.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let (websocket, tcp): (Vec<_>, Vec<_>) = libp2p.into_iter().partition(|a| a.to_string().contains("/ws"));
        let running = CancellationToken::new();
        let config = P2pConfig { target_peers: 0, gossip: false, ..P2pConfig::new(Keypair::generate_ed25519()) };
        let (client, _) = p2p::start(config, Arc::new(Mute), running.clone()).await.unwrap();
        let program = Self {
            child,
            stderr,
            http: http.unwrap(),
            tcp: tcp[0].clone(),
            websocket: websocket[0].clone(),
            peer: peer.unwrap(),
            client,
            web: reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap(),
            _running: running.drop_guard(),
            _folder: folder,
        };
        program.client.dial(program.tcp.clone()).await.unwrap();
        program
    }

    /// Where it listens, its peer id included.
    pub fn address(&self, transport: Transport) -> &Multiaddr {
        match transport {
            Transport::Tcp => &self.tcp,
            Transport::WebSocket => &self.websocket,
        }
    }

    /// One proper request at each door.
    async fn answers(&self) {
        let url = format!("http://{}/data/miner_block/epoch?epoch=1", self.http);
        let reply = self.web.get(url).send().await.expect("an answer over HTTP");
        assert_eq!(reply.status(), 200);
        assert!(reply.text().await.unwrap().contains("\"count\":20"));
        let request = encode_request(&Query::Epoch { epoch: 1 });
        let answer = self.client.request(self.peer, request, PATIENCE).await.expect("an answer over libp2p");
        assert!(answer.starts_with(b"{\"ok\":true,"), "{answer:?}");
    }

    /// A figure of its memory, MiB: `VmRSS` is what it has, `VmHWM` the most it ever had.
    fn memory(&self, figure: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it is alive");
        let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    }

    /// Runs an attack to its end, and checks what is promised.
    pub async fn survives(&mut self, name: &str, attack: impl Future<Output = ()>) {
        // Warm: both doors, and a stranger who connects with either transport.
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
        let (stranger, _) = p2p::start(stranger, Arc::new(Mute), running).await.unwrap();
        for address in [&self.tcp, &self.websocket] {
            let peer = stranger.dial(address.clone()).await.unwrap();
            stranger.request(peer, encode_request(&Query::Canonical), PATIENCE).await.unwrap();
        }
        let (after, most) = (self.memory("VmRSS"), self.memory("VmHWM"));
        eprintln!(
            "{name}: {:?}, {answered} proper requests meanwhile; memory {before} MiB before, {after} after, {most} at most",
            start.elapsed()
        );
        let log = self.stderr.lock().unwrap();
        assert!(!log.contains("panicked"), "{log}");
        assert!(self.child.try_wait().unwrap().is_none(), "it has ended: {log}");
        assert!(after.max(most) <= before + MOST_GROWTH, "{before} MiB before, {after} after, {most} at most");
        assert!(answered > 0, "nobody asked meanwhile");
    }
}

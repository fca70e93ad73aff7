//! A relay in front of a server on loopback, that can lose what passes: packets vanish, and nobody is told.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// What becomes of what arrives.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Forward,
    /// Connections are accepted and stay open; nothing passes, either way.
    Hole,
    /// The answer to the next COMMIT is swallowed, and the connection with it.
    LoseCommit,
}

/// Relays connections until it is dropped.
pub struct Hole {
    /// Where it listens.
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Where new connections lead; those to another server are closed.
    target: watch::Sender<SocketAddr>,
    _tasks: JoinSet<()>,
}

impl Hole {
    /// A relay to a server.
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, target) = (watch::Sender::new(Mode::Forward), watch::Sender::new(server));
        let (modes, targets) = (mode.clone(), target.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (modes, mut targets) = (modes.clone(), targets.subscribe());
                connections.spawn(async move {
                    let target = *targets.borrow_and_update();
                    tokio::select! {
                        () = relay(client, target, modes) => {}
                        _ = targets.changed() => {}
                    }
                });
            }
        });
        Self { address, mode, target, _tasks: tasks }
    }

    /// From now on nothing passes.
    pub fn open(&self) {
        self.mode.send_replace(Mode::Hole);
    }

    /// From now on everything passes, also what is late.
    pub fn close(&self) {
        self.mode.send_replace(Mode::Forward);
    }

    /// Swallows the answer to the next COMMIT.
    pub fn lose_commit(&self) {
        self.mode.send_replace(Mode::LoseCommit);
    }

    /// Leads to another server from now on.
    pub fn lead_to(&self, server: SocketAddr) {
        self.target.send_replace(server);
    }
}

async fn relay(client: TcpStream, target: SocketAddr, modes: watch::Sender<Mode>) {
    let mut mode = modes.subscribe();
    if mode.wait_for(|mode| *mode != Mode::Hole).await.is_err() {
        return;
    }
    // A server that refuses is one that hangs up.
    let Ok(server) = TcpStream::connect(target).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let lost = watch::Sender::new(false);
    tokio::join!(
        pump(from_client, to_server, &modes, |bytes| {
            let commits = bytes.windows(7).any(|window| window == b"COMMIT\0");
            if commits && *modes.borrow() == Mode::LoseCommit {
                modes.send_replace(Mode::Forward);
                lost.send_replace(true);
            }
            true
        }),
        // Its answer is there: it has committed. Nobody will hear.
        pump(from_server, to_client, &modes, |_| !*lost.borrow()),
    );
}

/// Passes bytes on while `pass` says so, and the end when it comes.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    modes: &watch::Sender<Mode>,
    pass: impl Fn(&[u8]) -> bool,
) {
    let (mut mode, mut bytes) = (modes.subscribe(), vec![0; 1 << 16]);
    loop {
        let read = from.read(&mut bytes).await;
        if mode.wait_for(|mode| *mode != Mode::Hole).await.is_err() {
            return;
        }
        match read {
            Ok(count) if count > 0 && pass(&bytes[..count]) && to.write_all(&bytes[..count]).await.is_ok() => {}
            _ => break,
        }
    }
    let _ = to.shutdown().await;
}

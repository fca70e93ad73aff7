//! Listeners on addresses where nobody may send us, which count who comes.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The addresses watched.
pub const TARGETS: [&str; 3] = ["127.0.0.1", "127.0.0.2", "::1"];

/// Ports tried before it is given up.
const MAX_TRIES: usize = 20;

/// One port, watched on all of [`TARGETS`].
pub struct ConnectionCounter {
    pub port: u16,
    counts: [Arc<AtomicUsize>; TARGETS.len()],
    _tasks: JoinSet<()>,
}

impl ConnectionCounter {
    pub async fn start() -> Self {
        let mut tries = 0;
        let (port, listeners) = loop {
            let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = first.local_addr().unwrap().port();
            let others = TARGETS[1..].iter().map(|ip| TcpListener::bind(address(ip, port)));
            tries += 1;
            match futures::future::try_join_all(others).await {
                Ok(others) => break (port, [first].into_iter().chain(others)),
                // The port may be taken on another address.
                Err(error) if error.kind() == ErrorKind::AddrInUse && tries < MAX_TRIES => {}
                Err(error) => panic!("{TARGETS:?} can't be watched: {error}"),
            }
        };
        let (counts, mut tasks) = ([(); TARGETS.len()].map(|()| Arc::default()), JoinSet::new());
        for (listener, count) in listeners.zip(&counts) {
            let count: Arc<AtomicUsize> = Arc::clone(count);
            tasks.spawn(async move {
                while listener.accept().await.is_ok() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self { port, counts, _tasks: tasks }
    }

    /// Connections to each target.
    pub fn counts(&self) -> [usize; TARGETS.len()] {
        self.counts.each_ref().map(|count| count.load(Ordering::SeqCst))
    }

    /// Multiaddrs of the targets, as an operator would write them.
    pub fn addresses(&self) -> Vec<String> {
        let kind = |ip: &str| if ip.contains(':') { "ip6" } else { "ip4" };
        TARGETS.iter().map(|ip| format!("/{}/{ip}/tcp/{}", kind(ip), self.port)).collect()
    }
}

fn address(ip: &str, port: u16) -> SocketAddr {
    (ip.parse::<IpAddr>().unwrap(), port).into()
}

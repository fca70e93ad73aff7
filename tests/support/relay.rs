//! A relay in front of a Postgres server, which can be cut as if the server had gone.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinSet,
};

/// Relays connections until it is cut or dropped.
pub struct Relay {
    /// The server's URL, by way of the relay.
    pub url: String,
    address: SocketAddr,
    tasks: JoinSet<()>,
}

impl Relay {
    /// A relay on a free port.
    pub async fn to(url: &str) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), url).await
    }

    /// A relay at this address.
    pub async fn at(address: SocketAddr, url: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = url::Url::parse(url).unwrap();
        let host = server.host_str().unwrap().replace("%2F", "/");
        let port = server.port().unwrap_or(5432);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let host = host.clone();
                connections.spawn(async move {
                    let relayed = if host.starts_with('/') {
                        let mut server = UnixStream::connect(format!("{host}/.s.PGSQL.{port}")).await.unwrap();
                        copy_bidirectional(&mut client, &mut server).await
                    } else {
                        let mut server = TcpStream::connect((host.as_str(), port)).await.unwrap();
                        copy_bidirectional(&mut client, &mut server).await
                    };
                    drop(relayed);
                });
            }
        });
        let credentials = url.split_once("://").unwrap().1.split_once('@').unwrap().0;
        Self { url: format!("postgres://{credentials}@{address}{}", server.path()), address, tasks }
    }

    /// Closes all connections and takes no more; the address, to which a new relay may be bound.
    pub async fn cut(mut self) -> SocketAddr {
        self.tasks.shutdown().await;
        self.address
    }
}

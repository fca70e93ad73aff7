//! A connection whose streams are a test's to fill: Noise and Yamux are libp2p's own.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{
    Multiaddr, PeerId,
    core::{
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        upgrade::OutboundConnectionUpgrade,
    },
    identity::Keypair,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    dialer::{MULTISTREAM, line, negotiate, prefixed, yamux_as},
    support::gateway::PATIENCE,
};

const IDENTIFY: &str = "/ipfs/id/1.0.0";
pub const GOSSIP: &str = "/meshsub/1.1.0";

/// A field of a protobuf message that holds bytes.
pub fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [crate::dialer::varint(number << 3 | 2), prefixed(bytes)].concat()
}

/// A field of a protobuf message that holds a number.
pub fn number(number: u64, value: u64) -> Vec<u8> {
    [crate::dialer::varint(number << 3), crate::dialer::varint(value)].concat()
}

/// Who somebody is, and where: the message of `identify`. Says that he takes part in Kademlia.
pub fn identity(keypair: &Keypair, addresses: &[Multiaddr]) -> Vec<u8> {
    let mut message = field(1, &keypair.public().encode_protobuf());
    for address in addresses {
        message.extend(field(2, &address.to_vec()));
    }
    message.extend(field(3, b"/ipfs/kad/1.0.0"));
    message
}

/// A connection that is open until this value goes.
pub struct Session {
    pub keypair: Keypair,
    open: mpsc::Sender<oneshot::Sender<SubstreamBox>>,
}

/// What the task of a connection waits for.
struct Driver {
    muxer: StreamMuxerBox,
    wanted: mpsc::Receiver<oneshot::Sender<SubstreamBox>>,
    next: Option<oneshot::Sender<SubstreamBox>>,
    keypair: Keypair,
}

impl Session {
    pub async fn start(address: &Multiaddr) -> Self {
        let keypair = Keypair::generate_ed25519();
        let wire = yamux_as(&keypair, address).await;
        let muxer = libp2p::yamux::Config::default().upgrade_outbound(wire, "/yamux/1.0.0").await.unwrap();
        let (open, wanted) = mpsc::channel(1);
        let mut driver = Driver { muxer: StreamMuxerBox::new(muxer), wanted, next: None, keypair: keypair.clone() };
        tokio::spawn(async move { poll_fn(|context| driver.poll(context)).await });
        Self { keypair, open }
    }

    pub fn peer_id(&self) -> PeerId {
        self.keypair.public().to_peer_id()
    }

    /// A stream without protocol.
    pub async fn raw(&self) -> io::Result<SubstreamBox> {
        let (reply, stream) = oneshot::channel();
        self.open.send(reply).await.map_err(|_| io::ErrorKind::NotConnected)?;
        stream.await.map_err(|_| io::ErrorKind::NotConnected.into())
    }

    /// A stream of a protocol.
    pub async fn stream(&self, protocol: &str) -> io::Result<SubstreamBox> {
        let open = async {
            let mut stream = self.raw().await?;
            negotiate(&mut stream, protocol).await?;
            Ok(stream)
        };
        tokio::time::timeout(PATIENCE, open).await?
    }

    /// What the other side says on a stream of its own to all that is said.
    pub async fn ask(&self, protocol: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = self.stream(protocol).await?;
        let ask = async {
            stream.write_all(bytes).await?;
            stream.close().await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok(answer)
        };
        tokio::time::timeout(PATIENCE, ask).await?
    }
}

impl Driver {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.next.is_none()
                && let Poll::Ready(wanted) = self.wanted.poll_recv(context)
            {
                let Some(wanted) = wanted else { return Poll::Ready(()) };
                self.next = Some(wanted);
            }
            if let Some(next) = self.next.take() {
                match self.muxer.poll_outbound_unpin(context) {
                    Poll::Ready(Ok(stream)) => {
                        let _ = next.send(stream);
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => self.next = Some(next),
                }
            }
            match self.muxer.poll_inbound_unpin(context) {
                Poll::Ready(Ok(stream)) => {
                    tokio::spawn(answer(stream, self.keypair.clone()));
                    continue;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            match self.muxer.poll_unpin(context) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Says who we are to who asks that, listens to gossip, and knows nothing else.
async fn answer(mut stream: SubstreamBox, keypair: Keypair) -> io::Result<()> {
    let mut header = vec![0; MULTISTREAM.len()];
    stream.read_exact(&mut header).await?;
    stream.write_all(MULTISTREAM).await?;
    loop {
        let mut length = [0];
        stream.read_exact(&mut length).await?;
        let mut name = vec![0; usize::from(length[0])];
        stream.read_exact(&mut name).await?;
        match name.trim_ascii_end() {
            name if name == IDENTIFY.as_bytes() => {
                stream.write_all(&[line(IDENTIFY), prefixed(&identity(&keypair, &[]))].concat()).await?;
                return stream.close().await;
            }
            name if name == GOSSIP.as_bytes() => {
                stream.write_all(&line(GOSSIP)).await?;
                stream.flush().await?;
                return futures::io::copy(&mut stream, &mut futures::io::sink()).await.map(drop);
            }
            _ => stream.write_all(&line("na")).await?,
        }
        stream.flush().await?;
    }
}

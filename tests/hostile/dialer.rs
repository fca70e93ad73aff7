//! A client that speaks each layer only as far as an attack needs: the transport, the negotiation of protocols, Noise.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    Multiaddr, Transport as _,
    core::{
        Endpoint,
        transport::{DialOpts, PortUse},
        upgrade::OutboundConnectionUpgrade,
    },
    identity::Keypair,
    multiaddr::Protocol,
    noise, tcp, websocket,
};

use crate::support::gateway::PATIENCE;

/// A stream of bytes.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Any stream of bytes.
pub type Wire = Box<dyn Io>;

/// How long a blow may take that the other side doesn't let through, or waits for more of.
pub const BLOW: Duration = Duration::from_millis(250);

pub const MULTISTREAM: &[u8] = b"\x13/multistream/1.0.0\n";

/// Connects; over WebSocket that includes the upgrade.
pub async fn connect(address: &Multiaddr) -> Wire {
    let address: Multiaddr = address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let mut plain = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let dial = async {
        if address.iter().any(|part| matches!(part, Protocol::Ws(_))) {
            let wire: Wire = Box::new(websocket::Config::new(plain).dial(address, options).unwrap().await.unwrap());
            wire
        } else {
            Box::new(plain.dial(address, options).unwrap().await.unwrap())
        }
    };
    tokio::time::timeout(PATIENCE, dial).await.expect("it takes connections")
}

/// A message of the negotiation: its length, itself, a line's end.
pub fn line(text: &str) -> Vec<u8> {
    prefixed(format!("{text}\n").as_bytes())
}

/// Bytes with their length before them, as a varint.
pub fn prefixed(bytes: &[u8]) -> Vec<u8> {
    [&varint(bytes.len() as u64)[..], bytes].concat()
}

pub fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Agrees on a protocol; an error if the other side doesn't know it.
pub async fn negotiate<T: Io + ?Sized>(wire: &mut T, protocol: &str) -> io::Result<()> {
    let line = line(protocol);
    wire.write_all(&[MULTISTREAM, &line].concat()).await?;
    wire.flush().await?;
    let mut answer = vec![0; MULTISTREAM.len() + line.len()];
    wire.read_exact(&mut answer[..MULTISTREAM.len() + 1]).await?;
    if answer[MULTISTREAM.len()] != line[0] {
        return Err(io::ErrorKind::Unsupported.into());
    }
    wire.read_exact(&mut answer[MULTISTREAM.len() + 1..]).await
}

/// The whole handshake with Noise, as somebody new.
pub async fn secure(wire: Wire) -> io::Result<Wire> {
    secure_as(&Keypair::generate_ed25519(), wire).await
}

/// The whole handshake with Noise.
async fn secure_as(keypair: &Keypair, mut wire: Wire) -> io::Result<Wire> {
    let work = async {
        negotiate(&mut *wire, "/noise").await?;
        let noise = noise::Config::new(keypair).map_err(io::Error::other)?;
        let (_, secured) = noise.upgrade_outbound(wire, "/noise").await.map_err(io::Error::other)?;
        Ok(Box::new(secured) as Wire)
    };
    tokio::time::timeout(PATIENCE, work).await?
}

/// Noise, and then Yamux agreed upon: what is written now are its frames.
pub async fn yamux(address: &Multiaddr) -> Wire {
    yamux_as(&Keypair::generate_ed25519(), address).await
}

/// The same, as somebody known.
pub async fn yamux_as(keypair: &Keypair, address: &Multiaddr) -> Wire {
    let mut wire = secure_as(keypair, connect(address).await).await.unwrap();
    negotiate(&mut *wire, "/yamux/1.0.0").await.unwrap();
    wire
}

/// Sends bytes and then reads until the other side hangs up or has nothing more to say. Whatever becomes of it.
pub async fn strike<T: Io + ?Sized>(wire: &mut T, bytes: &[u8]) -> Vec<u8> {
    strike_within(BLOW, wire, bytes).await
}

/// The same, with so much time, for an answer that must come.
pub async fn strike_within<T: Io + ?Sized>(limit: Duration, wire: &mut T, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let blow = async {
        wire.write_all(bytes).await?;
        wire.flush().await?;
        wire.read_to_end(&mut answer).await
    };
    let _ = tokio::time::timeout(limit, blow).await;
    answer
}

/// Sends bytes and never reads.
pub async fn shove<T: Io + ?Sized>(wire: &mut T, bytes: &[u8]) {
    let blow = async {
        wire.write_all(bytes).await?;
        wire.flush().await
    };
    let _ = tokio::time::timeout(BLOW, blow).await;
}

/// Ends our half of a stream.
pub async fn end<T: Io + ?Sized>(wire: &mut T) {
    let _ = tokio::time::timeout(BLOW, wire.close()).await;
}

/// What happens to what is written.
#[derive(Debug, Clone, Copy)]
pub enum Tamper {
    /// No more than so many bytes get through.
    Cut(usize),
    /// This byte becomes another.
    Change(usize),
}

/// A stream that spoils what goes out.
pub struct Spoiled {
    wire: Wire,
    written: usize,
    tamper: Tamper,
}

impl Spoiled {
    pub fn new(wire: Wire, tamper: Tamper) -> Self {
        Self { wire, written: 0, tamper }
    }
}

impl AsyncRead for Spoiled {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Spoiled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.written;
        let mut bytes = bytes.to_vec();
        match self.tamper {
            Tamper::Cut(most) if written >= most => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Tamper::Cut(most) => bytes.truncate(most - written),
            Tamper::Change(at) => {
                if let Some(byte) = at.checked_sub(written).and_then(|at| bytes.get_mut(at)) {
                    *byte ^= 0x55;
                }
            }
        }
        let result = Pin::new(&mut self.wire).poll_write(cx, &bytes);
        if let Poll::Ready(Ok(count)) = result {
            self.written += count;
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_close(cx)
    }
}

//! Transport of the node: TCP and WebSocket with DNS, Noise and Yamux.

use std::io;
use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::upgrade::Version;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, dns, noise, tcp, websocket};

use super::config::P2pConfig;

mod muxer;
mod socket;
mod write_budget;

use muxer::Yamux;
use socket::Socket;

/// Timeout of a connection's setup, name resolution and handshakes included, in either direction.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest WebSocket message. Its memory is allocated as soon as its length is claimed, before authentication: with
/// libp2p's 256 MiB, any client could claim that with 14 bytes. Peers write at most what Noise buffers before it
/// flushes: 128 KiB and one more frame of 64 KiB.
const MAX_WEBSOCKET_BYTES: usize = 512 << 10;

/// Fails when another process listens on the port of `address`. libp2p shares ports (`SO_REUSEPORT`), so that a
/// second node on the same port would start without complaint and take half of the first one's connections.
pub(super) fn check_free(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        // Binding `::` here would take IPv4 as well, which libp2p does not.
        Some(Protocol::Ip6(ip)) if !ip.is_unspecified() => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}

/// Builds the transport.
///
/// Nagle's algorithm is off: with it every small answer waits for a delayed ACK, some 40 ms.
pub(super) fn build(config: &P2pConfig) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let tick = config.ping_interval;
    let tcp = || resolving_tcp().map(move |io, _| Socket::new(io, tick));
    let mut websocket = websocket::Config::new(tcp());
    websocket.set_max_data_size(MAX_WEBSOCKET_BYTES);
    // WebSocket first: plain TCP refuses `…/ws`, while it would take a bare `…/tcp/N` of either.
    let upgraded = websocket
        .or_transport(tcp())
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&config.keypair)?)
        .multiplex(Yamux::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(TransportTimeout::new(upgraded, CONNECT_TIMEOUT).boxed())
}

/// TCP with the system's DNS resolver. Without DNS configuration (a container without `/etc/resolv.conf`) only ip
/// addresses work, which is better than not starting.
fn resolving_tcp() -> dns::tokio::Transport<tcp::tokio::Transport> {
    let tcp = || tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    dns::tokio::Transport::system(tcp()).unwrap_or_else(|error| {
        tracing::warn!(%error, "no DNS configuration: peers can be reached by ip address only");
        let empty = dns::ResolverConfig::from_parts(None, vec![], vec![]);
        dns::tokio::Transport::custom(tcp(), empty, dns::ResolverOpts::default())
    })
}

//! The peer book: whom we know, under which names, and how they did.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libp2p::{Multiaddr, PeerId};
use serde::Serialize;

use super::P2pError;
use super::address::PeerAddress;
use crate::protocol::PROTOCOL;

/// Peers remembered, connected ones included; the one unseen for longest goes first, configured ones stay.
const MAX_PEERS: usize = 1024;
/// Addresses kept of a peer that the operator dialled.
const MAX_ADDRESSES: usize = 8;
/// Longest agent kept, in characters; identify allows some 4000.
const MAX_AGENT_CHARS: usize = 256;
/// Most protocols kept of a peer.
const MAX_PROTOCOLS: usize = 64;
/// Weight of the latest request in the mean of a peer's latency.
const LATENCY_WEIGHT: f64 = 0.2;
/// After this time a failure counts half.
const FAILURE_HALF_LIFE: Duration = Duration::from_secs(60);

/// What we tell about a peer. Its ip addresses are not part of the serialized form: strangers may read that.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct PeerInfo {
    /// Id in base58; null for a configured address that was given without an id and has not been reached yet.
    #[schema(required)]
    pub peer_id: Option<String>,
    /// The operator's name for it.
    #[schema(required)]
    pub alias: Option<String>,
    /// Whether the operator named it, rather than the network.
    pub configured: bool,
    /// Whether a connection stands now.
    pub connected: bool,
    /// What it calls itself (identify).
    #[schema(required)]
    pub agent: Option<String>,
    /// Protocols that it says it speaks (identify).
    pub protocols: Vec<String>,
    /// Moving mean of the time it took to answer, in milliseconds; of pings while there were no requests.
    #[schema(required)]
    pub latency_ms: Option<f64>,
    /// Requests that we sent it.
    pub requests: u64,
    /// Those of them that got no answer.
    pub failures: u64,
    /// Code of the latest failure ([`P2pError::code`]); a later success leaves it.
    #[schema(required)]
    pub last_error: Option<&'static str>,
    /// When it last connected, identified itself or answered, in unix seconds.
    #[schema(required)]
    pub last_seen: Option<i64>,
    /// Its addresses: configured, and of the connection.
    #[serde(skip)]
    #[schema(ignore)]
    pub addresses: Vec<Multiaddr>,
}

#[derive(Default)]
struct Peer {
    alias: Option<String>,
    configured: bool,
    connections: u32,
    agent: Option<String>,
    protocols: Vec<String>,
    speaks: bool,
    latency_ms: Option<f64>,
    ping_ms: Option<f64>,
    requests: u64,
    failures: u64,
    recent_failures: Option<(f64, Instant)>,
    /// The latest dial failed, and why.
    dial_error: Option<String>,
    last_error: Option<&'static str>,
    last_seen: Option<i64>,
    /// Where the operator says it is.
    addresses: Vec<Multiaddr>,
    /// The other end of the latest connection.
    remote: Option<Multiaddr>,
}

impl Peer {
    fn seen(&mut self) {
        self.last_seen = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs() as i64);
    }

    /// Failures of late: each counts half after [`FAILURE_HALF_LIFE`].
    fn recent_failures(&self, now: Instant) -> f64 {
        let Some((count, at)) = self.recent_failures else { return 0.0 };
        count * 0.5f64.powf(now.duration_since(at).as_secs_f64() / FAILURE_HALF_LIFE.as_secs_f64())
    }

    fn add_address(&mut self, address: &Multiaddr) {
        if !self.addresses.contains(address) && self.addresses.len() < MAX_ADDRESSES {
            self.addresses.push(address.clone());
        }
    }
}

/// A configured address, and who is there.
struct Configured {
    alias: Option<String>,
    address: Multiaddr,
    peer: Option<PeerId>,
}

/// The peers that we know. Behind a lock that is never held across an `await`; every call is short.
pub(super) struct PeerBook {
    configured: Vec<Configured>,
    peers: HashMap<PeerId, Peer>,
}

impl PeerBook {
    pub fn new(configured: &[PeerAddress]) -> Self {
        let mut book = Self { configured: Vec::new(), peers: HashMap::new() };
        for PeerAddress { alias, address } in configured {
            book.configured.push(Configured { alias: alias.clone(), address: address.clone(), peer: None });
        }
        for (index, peer) in configured.iter().enumerate() {
            if let Some(id) = peer.peer_id() {
                book.learn(index, id);
            }
        }
        book
    }

    /// The configured address at `index` is that of `id`.
    pub fn learn(&mut self, index: usize, id: PeerId) {
        let Some(configured) = self.configured.get_mut(index) else { return };
        let before = configured.peer.replace(id);
        let (alias, address) = (configured.alias.clone(), configured.address.clone());
        if let Some(before) = before.filter(|before| *before != id)
            && let Some(peer) = self.peers.get_mut(&before)
        {
            // Somebody else answers at this address now.
            peer.alias = None;
            peer.configured = false;
            peer.addresses.retain(|known| *known != address);
        }
        let peer = self.entry(id);
        peer.configured = true;
        peer.alias = alias.or(peer.alias.take());
        peer.add_address(&address);
    }

    fn entry(&mut self, id: PeerId) -> &mut Peer {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&id) {
            let idle = self.peers.iter().filter(|(_, peer)| peer.connections == 0 && !peer.configured);
            if let Some(oldest) = idle.min_by_key(|(_, peer)| peer.last_seen).map(|(id, _)| *id) {
                self.peers.remove(&oldest);
            }
        }
        self.peers.entry(id).or_default()
    }

    /// The id behind an alias or a base58 id; `None` for a peer that we don't know (yet).
    pub fn resolve(&self, name: &str) -> Option<PeerId> {
        self.find(name).ok()
    }

    /// Like [`resolve`](Self::resolve), and tells an unknown name from a configured peer that was never reached.
    pub fn find(&self, name: &str) -> Result<PeerId, P2pError> {
        if let Some(configured) = self.configured.iter().find(|peer| peer.alias.as_deref() == Some(name)) {
            return configured.peer.ok_or_else(|| P2pError::Unreachable("it has not been reached yet".into()));
        }
        let id = name.parse().map_err(|_| P2pError::UnknownPeer)?;
        if self.peers.contains_key(&id) { Ok(id) } else { Err(P2pError::UnknownPeer) }
    }

    /// Where to dial a peer of the operator's; empty for others, `None` for one that we don't know.
    pub fn addresses(&self, id: &PeerId) -> Option<&[Multiaddr]> {
        self.peers.get(id).map(|peer| peer.addresses.as_slice())
    }

    pub fn is_configured(&self, id: &PeerId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.configured)
    }

    /// Whether it is connected and has identified itself.
    pub fn is_ready(&self, id: &PeerId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.connections > 0 && peer.agent.is_some())
    }

    /// The other end of the peer's latest connection.
    pub fn remote(&self, id: &PeerId) -> Option<&Multiaddr> {
        self.peers.get(id).and_then(|peer| peer.remote.as_ref())
    }

    pub fn connected(&mut self, id: PeerId, connections: u32, remote: Multiaddr) {
        let peer = self.entry(id);
        peer.connections = connections;
        peer.remote = Some(remote);
        peer.dial_error = None;
        peer.seen();
    }

    pub fn disconnected(&mut self, id: &PeerId, remaining: u32) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.connections = remaining;
        }
    }

    /// The operator dialled this address and the peer answered: it may be dialled again for a request.
    pub fn dialled(&mut self, id: PeerId, address: &Multiaddr) {
        self.entry(id).add_address(address);
    }

    pub fn dial_failed(&mut self, id: &PeerId, reason: String) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.last_error = Some(P2pError::Unreachable(String::new()).code());
            peer.dial_error = Some(reason);
        }
    }

    pub fn dial_error(&self, id: &PeerId) -> Option<&str> {
        self.peers.get(id)?.dial_error.as_deref()
    }

    pub fn identified(&mut self, id: PeerId, agent: &str, protocols: &[libp2p::StreamProtocol]) {
        let peer = self.entry(id);
        peer.agent = Some(agent.chars().take(MAX_AGENT_CHARS).collect());
        peer.speaks = protocols.iter().any(|protocol| protocol.as_ref() == PROTOCOL);
        peer.protocols = protocols.iter().take(MAX_PROTOCOLS).map(ToString::to_string).collect();
        peer.seen();
    }

    pub fn pinged(&mut self, id: &PeerId, time: Duration) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.ping_ms = Some(time.as_secs_f64() * 1e3);
            peer.seen();
        }
    }

    pub fn answered(&mut self, id: PeerId, time: Duration) {
        let peer = self.entry(id);
        let ms = time.as_secs_f64() * 1e3;
        peer.requests += 1;
        peer.latency_ms = Some(peer.latency_ms.map_or(ms, |mean| mean + LATENCY_WEIGHT * (ms - mean)));
        peer.seen();
    }

    pub fn failed(&mut self, id: PeerId, error: &P2pError, now: Instant) {
        let peer = self.entry(id);
        peer.requests += 1;
        peer.failures += 1;
        peer.last_error = Some(error.code());
        peer.recent_failures = Some((peer.recent_failures(now) + 1.0, now));
    }

    /// See [`P2pClient::candidates`](super::P2pClient::candidates).
    pub fn candidates(&self, now: Instant) -> Vec<PeerId> {
        // A configured peer that hung up (real nodes close idle connections) is dialled again by the request itself.
        let usable =
            |peer: &Peer| peer.speaks && (peer.connections > 0 || peer.configured && peer.dial_error.is_none());
        let mut best: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| usable(peer))
            .map(|(id, peer)| {
                let failures = peer.recent_failures(now).round() as u64;
                let micros = peer.latency_ms.or(peer.ping_ms).map_or(u64::MAX, |ms| (ms * 1e3) as u64);
                ((Reverse(peer.connections.min(1)), failures, micros), *id)
            })
            .collect();
        best.sort_unstable();
        best.into_iter().map(|(_, id)| id).collect()
    }

    /// Every peer, configured ones first in the operator's order, then by id.
    pub fn infos(&self) -> Vec<PeerInfo> {
        let unreached = self.configured.iter().filter(|peer| peer.peer.is_none()).map(|peer| PeerInfo {
            peer_id: None,
            alias: peer.alias.clone(),
            configured: true,
            connected: false,
            agent: None,
            protocols: Vec::new(),
            latency_ms: None,
            requests: 0,
            failures: 0,
            last_error: None,
            last_seen: None,
            addresses: vec![peer.address.clone()],
        });
        let mut infos: Vec<_> = self.peers.iter().map(|(id, peer)| info(id, peer)).chain(unreached).collect();
        let place = |info: &PeerInfo| {
            let configured = |peer: &Configured| info.addresses.contains(&peer.address);
            self.configured.iter().position(configured).filter(|_| info.configured).unwrap_or(usize::MAX)
        };
        infos.sort_by_cached_key(|info| (place(info), info.peer_id.clone()));
        infos
    }
}

fn info(id: &PeerId, peer: &Peer) -> PeerInfo {
    PeerInfo {
        peer_id: Some(id.to_string()),
        alias: peer.alias.clone(),
        configured: peer.configured,
        connected: peer.connections > 0,
        agent: peer.agent.clone(),
        protocols: peer.protocols.clone(),
        latency_ms: peer.latency_ms.or(peer.ping_ms),
        requests: peer.requests,
        failures: peer.failures,
        last_error: peer.last_error,
        last_seen: peer.last_seen,
        addresses: peer.addresses.iter().chain(&peer.remote).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use libp2p::StreamProtocol;

    use super::*;

    const OURS: StreamProtocol = StreamProtocol::new(PROTOCOL);

    fn connected(book: &mut PeerBook, protocols: &[StreamProtocol]) -> PeerId {
        let id = PeerId::random();
        book.connected(id, 1, "/ip4/192.0.2.7/tcp/4001".parse().unwrap());
        book.identified(id, "agent", protocols);
        id
    }

    #[test]
    fn names_get_their_ids() {
        let pinned = PeerId::random();
        let mut book = PeerBook::new(&[
            "node=/ip4/127.0.0.1/tcp/1".parse().unwrap(),
            format!("seed=/ip4/127.0.0.1/tcp/2/p2p/{pinned}").parse().unwrap(),
        ]);
        assert_eq!(book.resolve("seed"), Some(pinned));
        assert_eq!(book.resolve(&pinned.to_string()), Some(pinned));
        assert!(matches!(book.find("node"), Err(P2pError::Unreachable(_))));
        assert!(matches!(book.find("nobody"), Err(P2pError::UnknownPeer)));
        let (first, second) = (PeerId::random(), PeerId::random());
        assert!(matches!(book.find(&first.to_string()), Err(P2pError::UnknownPeer)));
        book.learn(0, first);
        assert_eq!(book.resolve("node"), Some(first));
        book.learn(0, second);
        assert_eq!(book.resolve("node"), Some(second), "somebody else answers at the address now");
        assert!(!book.is_configured(&first));
        assert_eq!(book.addresses(&first), Some(&[][..]));
        let names: Vec<_> = book.infos().into_iter().map(|info| (info.alias, info.configured)).collect();
        let named = |name: &str| (Some(name.to_string()), true);
        assert_eq!(names, [named("node"), named("seed"), (None, false)]);
    }

    #[test]
    fn the_best_candidate_fails_least_then_answers_fastest() {
        let now = Instant::now();
        let mut book = PeerBook::new(&[]);
        let deaf = connected(&mut book, &[]);
        let gone = connected(&mut book, &[OURS]);
        book.disconnected(&gone, 0);
        let fresh = connected(&mut book, &[OURS]);
        let (slow, fast, flaky) =
            (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]), connected(&mut book, &[OURS]));
        book.answered(slow, Duration::from_millis(900));
        book.answered(fast, Duration::from_millis(3));
        book.answered(flaky, Duration::from_millis(1));
        book.failed(flaky, &P2pError::Timeout, now);
        assert_eq!(book.candidates(now), [fast, slow, fresh, flaky]);
        let later = now + 3 * FAILURE_HALF_LIFE;
        assert_eq!(book.candidates(later), [flaky, fast, slow, fresh], "failures are forgotten with time");
        assert!(!book.candidates(now).contains(&deaf));
    }

    #[test]
    fn a_configured_peer_that_hung_up_is_a_candidate_until_a_dial_fails() {
        let now = Instant::now();
        let mut book = PeerBook::new(&["n=/ip4/127.0.0.1/tcp/1".parse().unwrap()]);
        let id = connected(&mut book, &[OURS]);
        book.learn(0, id);
        book.disconnected(&id, 0);
        assert_eq!(book.candidates(now), [id]);
        book.dial_failed(&id, "connection refused".into());
        assert_eq!(book.candidates(now), []);
    }

    #[test]
    fn strangers_are_forgotten_before_memory_runs_out_and_never_shown_with_addresses() {
        let mut book = PeerBook::new(&[format!("n=/ip4/192.0.2.1/tcp/1/p2p/{}", PeerId::random()).parse().unwrap()]);
        let online = connected(&mut book, &[OURS]);
        for _ in 0..2 * MAX_PEERS {
            let id = connected(&mut book, &[OURS]);
            book.disconnected(&id, 0);
        }
        assert_eq!(book.infos().len(), MAX_PEERS);
        assert!(book.resolve("n").is_some() && book.resolve(&online.to_string()).is_some());
        let info = book.infos().into_iter().find(|info| info.connected).unwrap();
        assert!(!info.addresses.is_empty());
        assert!(!serde_json::to_string(&book.infos()).unwrap().contains("192.0.2"));
    }
}

//! Which dials are made: the operator's go anywhere, the network's only where the settings allow.
//!
//! The network tells of addresses in many ways (identify, Kademlia's answers, mDNS), and some of libp2p's behaviours dial
//! them by themselves. So they are judged where every dial passes, see [`Guard`](super::Guard). Only ip addresses are
//! taken: a name is never resolved for a stranger, so that nothing remains to be checked after DNS.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;

use crate::p2p::address::is_dialable;
use crate::p2p::address::scope::{Place, ip};
use crate::p2p::error::Refused;
use crate::p2p::rate::Bucket;

/// Addresses of one peer that are dialled at once.
pub(crate) const MAX_ADDRESSES: usize = 8;
/// Dials of the network's under way; each may try [`MAX_ADDRESSES`] at once.
const MAX_PENDING: usize = 16;
/// Connections that came of the network's dials, those under way included; the rest of those that we may make are the
/// operator's.
const MAX_OPEN: usize = 48;
/// Addresses of the internet that the network makes us dial per second, on average, so that nobody makes us scan or
/// flood others.
const PER_SECOND: f64 = 8.0;
/// And at once.
const BURST: f64 = 128.0;
/// Dials to one ip address within [`WINDOW`], whatever the port.
const MAX_PER_TARGET: u32 = 8;
/// After this time an address's dials are forgotten.
const WINDOW: Duration = Duration::from_secs(60);
/// How long after its connection closed a peer's word may still be acted on: Kademlia's queries end within a minute.
const ECHO: Duration = Duration::from_secs(120);

/// The dials under way and the connections, as far as they matter for what may be dialled.
pub(crate) struct Dials {
    private_addresses: bool,
    own_ports: Vec<u16>,
    /// Our own addresses beside loopback.
    own: HashSet<IpAddr>,
    operators: HashSet<ConnectionId>,
    pending: HashSet<ConnectionId>,
    open: HashSet<ConnectionId>,
    /// Connections with other machines.
    away: HashSet<ConnectionId>,
    away_until: Option<Instant>,
    budget: Bucket,
    /// Bounded by the budget: no more addresses than that are dialled in a window.
    targets: HashMap<IpAddr, (u32, Instant)>,
}

impl Dials {
    pub fn new(private_addresses: bool, own_ports: &[u16], now: Instant) -> Self {
        Self {
            private_addresses,
            own_ports: own_ports.to_vec(),
            own: HashSet::new(),
            operators: HashSet::new(),
            pending: HashSet::new(),
            open: HashSet::new(),
            away: HashSet::new(),
            away_until: None,
            budget: Bucket::new(BURST, now),
            targets: HashMap::new(),
        }
    }

    /// The dial with this id is the operator's.
    pub fn permit(&mut self, connection: ConnectionId) {
        self.operators.insert(connection);
    }

    pub fn is_operators(&self, connection: &ConnectionId) -> bool {
        self.operators.contains(connection)
    }

    /// Whether an address that came from the network may be known at all. `local`: from this very machine.
    pub fn allows(&self, address: &Multiaddr, local: bool) -> bool {
        let (Some(ip), true) = (ip(address), is_dialable(address)) else { return false };
        let allowed = match Place::of(ip) {
            Place::Public => true,
            Place::Private => self.private_addresses,
            Place::Here => self.private_addresses && local,
            Place::Nowhere => false,
        };
        let ours = ip.is_loopback() || self.own.contains(&ip);
        allowed && !(ours && port(address).is_some_and(|port| self.own_ports.contains(&port)))
    }

    /// Whether everybody whose word may still be acted on is on this machine.
    fn all_here(&self, now: Instant) -> bool {
        self.away.is_empty() && self.away_until.is_none_or(|until| until <= now)
    }

    /// Like [`allows`](Self::allows), of an address whose teller is not known.
    pub fn allows_now(&self, address: &Multiaddr, now: Instant) -> bool {
        self.allows(address, self.all_here(now))
    }

    /// Whether others may hear of an address from us: one that a peer elsewhere could have us dial, or a bare id. Those of
    /// the operator's own peers may be internal.
    pub fn may_be_told(&self, address: &Multiaddr) -> bool {
        matches!(address.iter().next(), Some(Protocol::P2p(_))) || self.allows(address, true)
    }

    /// Begins a dial of the network's; it ends with [`ended`](Self::ended).
    pub fn begin(&mut self, connection: ConnectionId) -> Result<(), Refused> {
        if self.pending.len() >= MAX_PENDING || self.pending.len() + self.open.len() >= MAX_OPEN {
            return Err(Refused::Full);
        }
        self.pending.insert(connection);
        Ok(())
    }

    /// Takes the addresses that may be dialled now out of those told, and counts them.
    pub fn take(&mut self, told: Vec<Multiaddr>, now: Instant) -> Vec<Multiaddr> {
        let mut taken = Vec::new();
        for address in told {
            if taken.len() < MAX_ADDRESSES && !taken.contains(&address) && self.spend(&address, now) {
                taken.push(address);
            }
        }
        taken
    }

    fn spend(&mut self, address: &Multiaddr, now: Instant) -> bool {
        let Some(ip) = ip(address).filter(|_| self.allows_now(address, now)) else { return false };
        // Whoever can make us dial this machine is on it.
        if ip.is_loopback() {
            return true;
        }
        let (count, since) = self.targets.get(&ip).copied().unwrap_or((0, now));
        if count >= MAX_PER_TARGET && now - since < WINDOW || !self.budget.take(1.0, PER_SECOND, BURST, now) {
            return false;
        }
        self.targets.retain(|_, (_, since)| now - *since < WINDOW);
        self.targets.entry(ip).or_insert((0, now)).0 += 1;
        true
    }

    /// A connection stands.
    pub fn established(&mut self, connection: ConnectionId, remote: &Multiaddr, dialled: bool) {
        self.pending.remove(&connection);
        if dialled && !self.operators.remove(&connection) {
            self.open.insert(connection);
        }
        if ip(remote).is_none_or(|ip| !ip.is_loopback()) {
            self.away.insert(connection);
        }
    }

    /// A dial failed or a connection closed.
    pub fn ended(&mut self, connection: &ConnectionId, now: Instant) {
        self.operators.remove(connection);
        self.pending.remove(connection);
        self.open.remove(connection);
        if self.away.remove(connection) {
            self.away_until = Some(now + ECHO);
        }
    }

    /// We listen here.
    pub fn listening(&mut self, address: &Multiaddr) {
        self.own.extend(ip(address));
    }
}

fn port(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dials(private_addresses: bool) -> Dials {
        Dials::new(private_addresses, &[9090], Instant::now())
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn the_network_sends_us_only_where_the_settings_allow() {
        let public = ["/ip4/1.1.1.1/tcp/1", "/ip4/100.63.0.1/tcp/1/ws", "/ip6/2606:4700::1/tcp/1"];
        let private =
            ["/ip4/10.0.0.1/tcp/1", "/ip4/192.168.1.1/tcp/1/ws", "/ip4/100.64.0.1/tcp/1", "/ip6/fd00::1/tcp/1"];
        let here = ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip6/::ffff:127.0.0.1/tcp/1"];
        let nowhere = [
            "/ip4/169.254.169.254/tcp/80",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.251/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/64:ff9b::7f00:1/tcp/1",
            "/dns4/example.org/tcp/1",
            "/dns/localhost/tcp/1",
            "/dnsaddr/example.org",
            "/ip4/1.1.1.1/udp/1/quic-v1",
            "/ip4/1.1.1.1/tcp/0",
            "/ip4/127.0.0.1/tcp/9090",
        ];
        let (strict, loose) = (dials(false), dials(true));
        let all =
            |dials: &Dials, list: &[&str], local| list.iter().filter(|a| dials.allows(&address(a), local)).count();
        for local in [false, true] {
            assert_eq!((all(&strict, &public, local), all(&loose, &public, local)), (3, 3));
            assert_eq!((all(&strict, &private, local), all(&loose, &private, local)), (0, 4));
            assert_eq!((all(&strict, &here, local), all(&loose, &here, local)), (0, if local { 3 } else { 0 }));
            assert_eq!((all(&strict, &nowhere, local), all(&loose, &nowhere, local)), (0, 0));
        }
    }

    #[test]
    fn loopback_is_dialled_only_while_everybody_is_here() {
        let (mut dials, now, here) = (dials(true), Instant::now(), address("/ip4/127.0.0.1/tcp/1"));
        assert!(dials.allows_now(&here, now));
        dials.established(id(1), &here, false);
        assert!(dials.allows_now(&here, now));
        dials.established(id(2), &address("/ip4/10.0.0.1/tcp/1"), false);
        assert!(!dials.allows_now(&here, now));
        dials.ended(&id(2), now);
        assert!(!dials.allows_now(&here, now + ECHO / 2), "what it said may still be acted on");
        assert!(dials.allows_now(&here, now + ECHO));
    }

    #[test]
    fn one_target_and_all_together_are_dialled_so_often_and_no_more() {
        let (mut dials, now) = (dials(false), Instant::now());
        let ports = |ip: &str| (1..50).map(|port| address(&format!("/ip4/{ip}/tcp/{port}"))).collect::<Vec<_>>();
        assert_eq!(dials.take(ports("1.1.1.1"), now).len(), MAX_ADDRESSES);
        assert_eq!(dials.take(ports("1.1.1.1"), now), [], "whatever the port");
        let taken: usize = (0..100).map(|n| dials.take(ports(&format!("1.1.2.{n}")), now).len()).sum();
        assert_eq!(taken + MAX_ADDRESSES, BURST as usize);
        assert!(!dials.take(ports("1.1.1.1"), now + WINDOW).is_empty());
        assert_eq!(dials.targets.len(), 1, "the others are forgotten");
    }

    #[test]
    fn dials_of_the_network_leave_room_for_the_operators() {
        let (mut dials, now) = (dials(false), Instant::now());
        for n in 0..MAX_PENDING {
            dials.begin(id(n)).unwrap();
        }
        assert_eq!(dials.begin(id(100)), Err(Refused::Full));
        dials.ended(&id(0), now);
        dials.begin(id(100)).unwrap();
        for n in 0..=100 {
            dials.ended(&id(n), now);
        }
        for n in 200..200 + MAX_OPEN {
            dials.begin(id(n)).unwrap();
            assert!(n < 199 + MAX_OPEN || dials.begin(id(101)) == Err(Refused::Full), "those under way count as well");
            dials.established(id(n), &address("/ip4/1.1.1.1/tcp/1"), true);
        }
        assert_eq!(dials.begin(id(101)), Err(Refused::Full));
        dials.permit(id(102));
        assert!(dials.is_operators(&id(102)));
        dials.established(id(102), &address("/ip4/1.1.1.1/tcp/1"), true);
        assert_eq!((dials.open.len(), dials.is_operators(&id(102))), (MAX_OPEN, false));
    }
}

//! When to dial the configured peers, and which of their names have got an id.

use std::time::{Duration, Instant};

use libp2p::core::transport::TransportError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId};

use crate::p2p::address::scope::ip;
use crate::p2p::address::{PeerAddress, peer_id};
use crate::p2p::error::Refused;

/// A connection that lasted this long counts as good: the next loss is met with the shortest delay again.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The configured peers, in the order of the configuration.
pub(super) struct Dialer {
    targets: Vec<Target>,
    min: Duration,
    max: Duration,
}

struct Target {
    address: Multiaddr,
    /// Who is there: said by the address, or learned on connecting.
    peer: Option<PeerId>,
    state: State,
    /// Failures in a row.
    failures: u32,
}

impl Target {
    fn new(peer: &PeerAddress, now: Instant) -> Self {
        Self { address: peer.address.clone(), peer: peer.peer_id(), state: State::Waiting { until: now }, failures: 0 }
    }
}

enum State {
    Waiting {
        until: Instant,
    },
    Dialing(ConnectionId),
    Connected {
        since: Instant,
    },
    /// The ip address leads back to us: never dialled again.
    Ourselves,
}

/// A failed dial of which the operator is told, once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Setback<'a> {
    /// The address leads back to this node.
    Ourselves(&'a Multiaddr),
    /// The first failure in a row.
    Unreachable(&'a Multiaddr),
}

impl Dialer {
    /// All are due at once; delays after failures run from `min` to `max`.
    pub fn new(peers: &[PeerAddress], min: Duration, max: Duration, now: Instant) -> Self {
        Self { targets: peers.iter().map(|peer| Target::new(peer, now)).collect(), min, max }
    }

    /// One more, at the end of the list; due at once.
    pub fn add(&mut self, peer: &PeerAddress, now: Instant) {
        self.targets.push(Target::new(peer, now));
    }

    /// One less.
    pub fn remove(&mut self, index: usize) {
        if index < self.targets.len() {
            self.targets.remove(index);
        }
    }

    /// When the next target is due.
    pub fn next(&self) -> Option<Instant> {
        let until = |target: &Target| match target.state {
            State::Waiting { until } => Some(until),
            _ => None,
        };
        self.targets.iter().filter_map(until).min()
    }

    /// A target that is due, with the way to dial it; it is taken for dialling from here on.
    pub fn take_due(&mut self, now: Instant) -> Option<DialOpts> {
        let due = |target: &Target| matches!(target.state, State::Waiting { until } if until <= now);
        let target = self.targets.iter_mut().find(|target| due(target))?;
        let options = to_address(target.address.clone());
        target.state = State::Dialing(options.connection_id());
        Some(options)
    }

    /// A connection stands. Returns the targets whose peer this is, so that their names can be given the id.
    pub fn established(&mut self, connection: ConnectionId, peer: PeerId, now: Instant) -> Vec<usize> {
        let mut reached = Vec::new();
        for (index, target) in self.targets.iter_mut().enumerate() {
            let dialled = matches!(target.state, State::Dialing(id) if id == connection);
            if dialled || target.peer == Some(peer) {
                target.peer = Some(peer);
                if !matches!(target.state, State::Connected { .. }) {
                    target.state = State::Connected { since: now };
                }
                reached.push(index);
            }
        }
        reached
    }

    /// A dial failed. Returns what the operator should hear about it.
    pub fn failed(&mut self, connection: ConnectionId, error: &DialError, now: Instant) -> Option<Setback<'_>> {
        let (min, max) = (self.min, self.max);
        let target = self.targets.iter_mut().find(|t| matches!(t.state, State::Dialing(id) if id == connection))?;
        match error {
            // Somebody else's dial to the same peer is under way, or done: look again soon.
            DialError::DialPeerConditionFalse(_) => target.state = State::Waiting { until: now + min },
            // The swarm leaves out addresses that it listens on itself, and then has none.
            // A name may lead elsewhere next time.
            DialError::LocalPeerId { .. } | DialError::NoAddresses if ip(&target.address).is_some() => {
                target.state = State::Ourselves;
                return Some(Setback::Ourselves(&target.address));
            }
            _ => {
                target.state = State::Waiting { until: now + delay(target.failures, min, max) };
                target.failures = target.failures.saturating_add(1);
                if target.failures == 1 {
                    return Some(Setback::Unreachable(&target.address));
                }
            }
        }
        None
    }

    /// The last connection with `peer` is gone.
    pub fn disconnected(&mut self, peer: PeerId, now: Instant) {
        for target in self.targets.iter_mut().filter(|target| target.peer == Some(peer)) {
            if let State::Connected { since } = target.state {
                if now.duration_since(since) >= STABLE_AFTER {
                    target.failures = 0;
                }
                target.state = State::Waiting { until: now + delay(target.failures, self.min, self.max) };
                target.failures = target.failures.saturating_add(1);
            }
        }
    }
}

/// How we dial: from a port of its own. From the listening port, a peer that restarted could not be dialled until
/// the kernel has forgotten the old connection.
pub(super) fn to_peer(peer: PeerId, addresses: Vec<Multiaddr>) -> DialOpts {
    DialOpts::peer_id(peer).addresses(addresses).allocate_new_port().build()
}

/// Like [`to_address`], also while the peer is being dialled elsewhere: that dial may come to nothing.
pub(super) fn to_address_at_once(address: Multiaddr) -> DialOpts {
    match peer_id(&address) {
        Some(peer) => {
            let options = DialOpts::peer_id(peer).condition(PeerCondition::Disconnected);
            options.addresses(vec![address]).allocate_new_port().build()
        }
        None => to_address(address),
    }
}

/// Like [`to_peer`], for an address that may not say who is there.
pub(super) fn to_address(address: Multiaddr) -> DialOpts {
    match peer_id(&address) {
        Some(peer) => to_peer(peer, vec![address]),
        None => DialOpts::unknown_peer_id().address(address).allocate_new_port().build(),
    }
}

/// Doubles with each failure, and half of it is random, so that nodes which lost the same peer don't return at once.
pub(super) fn delay(failures: u32, min: Duration, max: Duration) -> Duration {
    let full = min.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).min(max);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// A dial's failure in a few words: libp2p's own text spans lines and repeats every address.
pub(super) fn reason(error: &DialError) -> String {
    match error {
        DialError::LocalPeerId { .. } | DialError::NoAddresses => "the address is this node's own".into(),
        DialError::WrongPeerId { obtained, .. } => format!("another peer is there: {obtained}"),
        DialError::Denied { cause } => format!("not allowed: {}", Refused::of(cause).unwrap_or(Refused::Full)),
        DialError::Transport(attempts) => match attempts.last() {
            Some((_, TransportError::MultiaddrNotSupported(address))) => format!("no transport for {address}"),
            Some((_, TransportError::Other(error))) => innermost(error),
            None => "no address worked".into(),
        },
        DialError::DialPeerConditionFalse(_) | DialError::Aborted => "the dial was given up".into(),
    }
}

/// The cause at the end of the chain: "connection refused" says more than the layers around it.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(60);

    fn dialer(address: &str, now: Instant) -> Dialer {
        Dialer::new(&[address.parse().unwrap()], MIN, MAX, now)
    }

    fn refused() -> DialError {
        DialError::Aborted
    }

    #[test]
    fn backs_off_with_jitter_up_to_the_maximum_and_forgets_after_a_good_connection() {
        let mut now = Instant::now();
        let peer = PeerId::random();
        let mut dialer = dialer("n=/ip4/127.0.0.1/tcp/1", now);
        for failures in 0..40 {
            let options = dialer.take_due(now).expect("due");
            assert!(dialer.take_due(now).is_none(), "not twice at once");
            let told = dialer.failed(options.connection_id(), &refused(), now);
            assert_eq!(told.is_some(), failures == 0, "the operator is told once");
            let wait = dialer.next().unwrap() - now;
            let full = MIN.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).min(MAX);
            assert!(wait >= full / 2 && wait <= full, "after {failures}: {wait:?}");
            now += wait;
        }
        let options = dialer.take_due(now).unwrap();
        assert_eq!(dialer.established(options.connection_id(), peer, now), [0]);
        assert_eq!(dialer.next(), None);
        now += STABLE_AFTER;
        dialer.disconnected(peer, now);
        assert!(dialer.next().unwrap() - now <= MIN);
    }

    #[test]
    fn a_peer_that_drops_us_at_once_is_not_dialled_in_a_tight_loop() {
        let mut now = Instant::now();
        let peer = PeerId::random();
        let mut dialer = dialer("/ip4/127.0.0.1/tcp/1", now);
        for _ in 0..10 {
            let options = dialer.take_due(now).unwrap();
            dialer.established(options.connection_id(), peer, now);
            dialer.disconnected(peer, now);
            now = dialer.next().unwrap();
        }
        dialer.take_due(now).unwrap();
        dialer.established(ConnectionId::new_unchecked(usize::MAX), peer, now);
        dialer.disconnected(peer, now);
        assert!(dialer.next().unwrap() - now >= MAX / 2);
    }

    #[test]
    fn a_connection_that_the_peer_opened_counts() {
        let now = Instant::now();
        let peer = PeerId::random();
        let mut dialer = dialer(&format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}"), now);
        assert_eq!(dialer.established(ConnectionId::new_unchecked(7), peer, now), [0]);
        assert!(dialer.take_due(now).is_none());
        assert!(dialer.established(ConnectionId::new_unchecked(8), PeerId::random(), now).is_empty());
    }

    #[test]
    fn our_own_address_is_noticed_and_left_alone() {
        let now = Instant::now();
        let mut own = dialer("/ip4/127.0.0.1/tcp/1", now);
        let options = own.take_due(now).unwrap();
        let error = DialError::LocalPeerId { address: Multiaddr::empty() };
        let address = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        assert_eq!(own.failed(options.connection_id(), &error, now), Some(Setback::Ourselves(&address)));
        assert_eq!(own.next(), None);

        for name in ["/dns/a.example/tcp/1", "/dns4/a.example/tcp/1", "/dns6/a.example/tcp/1", "/dnsaddr/a.example"] {
            let (mut named, mut now) = (dialer(name, now), now);
            for error in [&error, &DialError::NoAddresses] {
                let options = named.take_due(now).unwrap();
                let told = named.failed(options.connection_id(), error, now);
                assert!(!matches!(told, Some(Setback::Ourselves(_))), "{name}");
                now = named.next().expect("others may stand behind the name");
            }
        }
    }
}

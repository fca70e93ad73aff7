//! Dial schedule of the configured peers, and dial options.

use std::time::{Duration, Instant};

use libp2p::core::transport::TransportError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId};

use crate::p2p::address::scope::ip;
use crate::p2p::address::{PeerAddress, peer_id};
use crate::p2p::error::Refusal;

/// Duration of a connection after which its loss starts with the shortest delay again.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Dial schedule of the configured peers, in the order of the configuration.
pub(super) struct Dialer {
    targets: Vec<Target>,
    min: Duration,
    max: Duration,
}

/// A configured address.
struct Target {
    address: Multiaddr,
    /// Id of the peer there: from the address, or learned on connecting.
    peer: Option<PeerId>,
    state: State,
    /// Consecutive failures.
    failures: u32,
}

impl Target {
    fn new(peer: &PeerAddress, now: Instant) -> Self {
        Self { address: peer.address.clone(), peer: peer.peer_id(), state: State::Waiting { until: now }, failures: 0 }
    }
}

/// Dial state of a target.
enum State {
    Waiting {
        until: Instant,
    },
    Dialing(ConnectionId),
    Connected {
        since: Instant,
    },
    /// The ip address is this node's own: never dialled again.
    OwnAddress,
}

/// Dial problem to log for the operator, once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DialProblem<'a> {
    /// The address is this node's own.
    OwnAddress(&'a Multiaddr),
    /// First of consecutive failures.
    Unreachable(&'a Multiaddr),
}

impl Dialer {
    /// Makes a schedule with all peers due at once; delays after failures run from `min` to `max`.
    pub fn new(peers: &[PeerAddress], min: Duration, max: Duration, now: Instant) -> Self {
        Self { targets: peers.iter().map(|peer| Target::new(peer, now)).collect(), min, max }
    }

    /// Adds a peer at the end of the list, due at once.
    pub fn add(&mut self, peer: &PeerAddress, now: Instant) {
        self.targets.push(Target::new(peer, now));
    }

    /// Removes the peer at `index`.
    pub fn remove(&mut self, index: usize) {
        if index < self.targets.len() {
            self.targets.remove(index);
        }
    }

    /// Time at which the next target is due.
    pub fn next(&self) -> Option<Instant> {
        let until = |target: &Target| match target.state {
            State::Waiting { until } => Some(until),
            _ => None,
        };
        self.targets.iter().filter_map(until).min()
    }

    /// Returns the dial options of a due target, which is in the dialling state from now on.
    pub fn take_due(&mut self, now: Instant) -> Option<DialOpts> {
        let due = |target: &Target| matches!(target.state, State::Waiting { until } if until <= now);
        let target = self.targets.iter_mut().find(|target| due(target))?;
        let options = dial_address(target.address.clone());
        target.state = State::Dialing(options.connection_id());
        Some(options)
    }

    /// Records a connection. Returns the indexes of the targets that have this peer.
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

    /// Records a failed dial. Returns the problem to log.
    pub fn failed(&mut self, connection: ConnectionId, error: &DialError, now: Instant) -> Option<DialProblem<'_>> {
        let (min, max) = (self.min, self.max);
        let target = self.targets.iter_mut().find(|t| matches!(t.state, State::Dialing(id) if id == connection))?;
        match error {
            // Another dial to the same peer is pending or has connected: check again soon.
            DialError::DialPeerConditionFalse(_) => target.state = State::Waiting { until: now + min },
            // The swarm drops addresses that it listens on and then has none. A DNS name may resolve to others next
            // time.
            DialError::LocalPeerId { .. } | DialError::NoAddresses if ip(&target.address).is_some() => {
                target.state = State::OwnAddress;
                return Some(DialProblem::OwnAddress(&target.address));
            }
            _ => {
                target.state = State::Waiting { until: now + backoff(target.failures, min, max) };
                target.failures = target.failures.saturating_add(1);
                if target.failures == 1 {
                    return Some(DialProblem::Unreachable(&target.address));
                }
            }
        }
        None
    }

    /// Records that the last connection with `peer` closed.
    pub fn disconnected(&mut self, peer: PeerId, now: Instant) {
        for target in self.targets.iter_mut().filter(|target| target.peer == Some(peer)) {
            if let State::Connected { since } = target.state {
                if now.duration_since(since) >= STABLE_AFTER {
                    target.failures = 0;
                }
                target.state = State::Waiting { until: now + backoff(target.failures, self.min, self.max) };
                target.failures = target.failures.saturating_add(1);
            }
        }
    }
}

/// Dial options for a known peer, from a new port. From the listening port, a restarted peer could not be dialled until
/// the kernel has forgotten the old connection.
pub(super) fn dial_peer(peer: PeerId, addresses: Vec<Multiaddr>) -> DialOpts {
    DialOpts::peer_id(peer).addresses(addresses).allocate_new_port().build()
}

/// Like [`dial_address`], also while another dial to the peer is pending, which may fail.
pub(super) fn dial_address_now(address: Multiaddr) -> DialOpts {
    match peer_id(&address) {
        Some(peer) => {
            let options = DialOpts::peer_id(peer).condition(PeerCondition::Disconnected);
            options.addresses(vec![address]).allocate_new_port().build()
        }
        None => dial_address(address),
    }
}

/// Like [`dial_peer`], for an address with or without a peer id.
pub(super) fn dial_address(address: Multiaddr) -> DialOpts {
    match peer_id(&address) {
        Some(peer) => dial_peer(peer, vec![address]),
        None => DialOpts::unknown_peer_id().address(address).allocate_new_port().build(),
    }
}

/// Exponential backoff with jitter: between half of and the full delay, which doubles with each failure.
pub(super) fn backoff(failures: u32, min: Duration, max: Duration) -> Duration {
    let full = min.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).min(max);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// Short text for a dial error: libp2p's own text spans lines and repeats every address.
pub(super) fn dial_error_text(error: &DialError) -> String {
    match error {
        DialError::LocalPeerId { .. } | DialError::NoAddresses => "the address is this node's own".into(),
        DialError::WrongPeerId { obtained, .. } => format!("another peer is there: {obtained}"),
        DialError::Denied { cause } => format!("not allowed: {}", Refusal::of(cause).unwrap_or(Refusal::LimitExceeded)),
        DialError::Transport(attempts) => match attempts.last() {
            Some((_, TransportError::MultiaddrNotSupported(address))) => format!("no transport for {address}"),
            Some((_, TransportError::Other(error))) => innermost(error),
            None => "no address worked".into(),
        },
        DialError::DialPeerConditionFalse(_) | DialError::Aborted => "the dial was abandoned".into(),
    }
}

/// Text of the innermost cause, such as "connection refused".
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
    fn backoff_grows_with_jitter_up_to_the_maximum_and_ends_with_a_stable_connection() {
        let mut now = Instant::now();
        let peer = PeerId::random();
        let mut dialer = dialer("n=/ip4/127.0.0.1/tcp/1", now);
        for failures in 0..40 {
            let options = dialer.take_due(now).expect("due");
            assert!(dialer.take_due(now).is_none(), "not twice at once");
            let problem = dialer.failed(options.connection_id(), &refused(), now);
            assert_eq!(problem.is_some(), failures == 0, "it is logged once");
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
    fn a_peer_that_disconnects_at_once_is_dialled_with_backoff() {
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
    fn an_incoming_connection_counts() {
        let now = Instant::now();
        let peer = PeerId::random();
        let mut dialer = dialer(&format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}"), now);
        assert_eq!(dialer.established(ConnectionId::new_unchecked(7), peer, now), [0]);
        assert!(dialer.take_due(now).is_none());
        assert!(dialer.established(ConnectionId::new_unchecked(8), PeerId::random(), now).is_empty());
    }

    #[test]
    fn the_own_address_is_never_dialled_again() {
        let now = Instant::now();
        let mut own = dialer("/ip4/127.0.0.1/tcp/1", now);
        let options = own.take_due(now).unwrap();
        let error = DialError::LocalPeerId { address: Multiaddr::empty() };
        let address = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        assert_eq!(own.failed(options.connection_id(), &error, now), Some(DialProblem::OwnAddress(&address)));
        assert_eq!(own.next(), None);

        for name in ["/dns/a.example/tcp/1", "/dns4/a.example/tcp/1", "/dns6/a.example/tcp/1", "/dnsaddr/a.example"] {
            let (mut named, mut now) = (dialer(name, now), now);
            for error in [&error, &DialError::NoAddresses] {
                let options = named.take_due(now).unwrap();
                let problem = named.failed(options.connection_id(), error, now);
                assert!(!matches!(problem, Some(DialProblem::OwnAddress(_))), "{name}");
                now = named.next().expect("others may stand behind the name");
            }
        }
    }
}

//! Rate limits with token buckets that may go into debt.
//!
//! The cost of a request is known only once it is answered: it is charged then, and a requester in debt waits.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

use libp2p::PeerId;

use super::address::scope::Subnet;

/// Limit of a subnet, in limits of one peer: peer ids are free to make, subnets are not.
const PEERS_PER_SUBNET: f64 = 4.0;

/// Token bucket, refilled with time up to the burst.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenBucket {
    tokens: f64,
    since: Instant,
}

impl TokenBucket {
    /// Makes a full bucket.
    pub fn new(burst: f64, now: Instant) -> Self {
        Self { tokens: burst, since: now }
    }

    fn at(&self, per_second: f64, burst: f64, now: Instant) -> f64 {
        (self.tokens + now.saturating_duration_since(self.since).as_secs_f64() * per_second).min(burst)
    }

    /// Takes `cost` tokens. Returns false, and takes none, where there are fewer.
    pub fn take(&mut self, cost: f64, per_second: f64, burst: f64, now: Instant) -> bool {
        let tokens = self.at(per_second, burst, now);
        let enough = tokens >= cost;
        *self = Self { tokens: if enough { tokens - cost } else { tokens }, since: now };
        enough
    }

    /// Takes `cost` tokens in any case, down to a debt of one burst.
    fn charge(&mut self, cost: f64, per_second: f64, burst: f64, now: Instant) {
        *self = Self { tokens: (self.at(per_second, burst, now) - cost).max(-burst), since: now };
    }
}

/// Keys with a bucket; where there are more, the fuller half of the buckets is forgotten.
const MAX_KEYS: usize = 4096;

/// Rate limit per key.
pub(super) struct KeyedRateLimit<K> {
    per_second: f64,
    burst: f64,
    buckets: HashMap<K, TokenBucket>,
}

impl<K: Eq + Hash + Copy> KeyedRateLimit<K> {
    /// `per_second` tokens on average, 0 for no limit, and `burst` at once.
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, buckets: HashMap::new() }
    }

    /// Takes one token of the key's bucket, if it has one.
    pub fn take(&mut self, key: K, now: Instant) -> bool {
        let (per_second, burst) = (self.per_second, self.burst);
        self.bucket(key, now).is_none_or(|bucket| bucket.take(1.0, per_second, burst, now))
    }

    /// Charges the cost of a request.
    pub fn charge(&mut self, key: K, cost: f64, now: Instant) {
        let (per_second, burst) = (self.per_second, self.burst);
        if let Some(bucket) = self.bucket(key, now) {
            bucket.charge(cost, per_second, burst, now);
        }
    }

    fn bucket(&mut self, key: K, now: Instant) -> Option<&mut TokenBucket> {
        if self.per_second == 0.0 {
            return None;
        }
        if self.buckets.len() >= MAX_KEYS && !self.buckets.contains_key(&key) {
            let (per_second, burst) = (self.per_second, self.burst);
            let left = |bucket: &TokenBucket| bucket.at(per_second, burst, now);
            let mut lefts: Vec<_> = self.buckets.values().map(left).collect();
            let middle = lefts.len() / 2;
            // Half of them at a time, so that a new key costs little on average.
            let (_, median, _) = lefts.select_nth_unstable_by(middle, f64::total_cmp);
            let median = *median;
            self.buckets.retain(|_, bucket| left(bucket) < median);
        }
        Some(self.buckets.entry(key).or_insert_with(|| TokenBucket::new(self.burst, now)))
    }
}

/// Peer that sends requests or gossip, as limits see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requester {
    pub peer: PeerId,
    /// `None` for this machine.
    pub subnet: Option<Subnet>,
    /// Whether the operator trusts the peer: no rate limit, and reserved memory.
    pub trusted: bool,
}

impl Requester {
    /// Subnet whose limits hold for the peer; `None` for trusted peers.
    pub fn limited_subnet(&self) -> Option<Subnet> {
        self.subnet.filter(|_| !self.trusted)
    }
}

/// Rate limit per untrusted peer, and per subnet for all of its untrusted peers.
pub(super) struct PeerRateLimit {
    peers: KeyedRateLimit<PeerId>,
    subnets: KeyedRateLimit<Subnet>,
}

impl PeerRateLimit {
    /// `per_second` tokens per peer on average, 0 for no limit, and `burst` at once.
    pub fn new(per_second: f64, burst: f64) -> Self {
        let subnets = KeyedRateLimit::new(per_second * PEERS_PER_SUBNET, burst * PEERS_PER_SUBNET);
        Self { peers: KeyedRateLimit::new(per_second, burst), subnets }
    }

    /// Takes one token, if the peer and its subnet have one. The peer comes first: without a token of its own it takes
    /// none from its subnet.
    pub fn take(&mut self, requester: &Requester, now: Instant) -> bool {
        requester.trusted
            || self.peers.take(requester.peer, now)
                && requester.subnet.is_none_or(|subnet| self.subnets.take(subnet, now))
    }

    /// Charges a cost to the peer and its subnet.
    pub fn charge(&mut self, requester: &Requester, cost: f64, now: Instant) {
        if requester.trusted {
            return;
        }
        self.peers.charge(requester.peer, cost, now);
        if let Some(subnet) = requester.subnet {
            self.subnets.charge(subnet, cost, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_in_debt_waits_and_others_do_not() {
        let now = Instant::now();
        let mut rate = KeyedRateLimit::new(10.0, 100.0);
        assert!(rate.take(1, now));
        rate.charge(1, 149.0, now);
        assert!(!rate.take(1, now) && rate.take(2, now));
        assert!(!rate.take(1, now + Duration::from_secs(5)));
        assert!(rate.take(1, now + Duration::from_millis(5200)));
        rate.charge(1, 1e9, now);
        assert!(rate.take(1, now + Duration::from_secs(16)), "a debt is never more than a burst");
        let mut free = KeyedRateLimit::new(0.0, 0.0);
        free.charge(1, 1e9, now);
        assert!(free.take(1, now));
    }

    #[test]
    fn debts_survive_a_crowd_of_new_keys() {
        let now = Instant::now();
        let mut rate = KeyedRateLimit::new(1.0, 100.0);
        rate.charge(0, 200.0, now);
        for key in 1..3 * MAX_KEYS {
            assert!(rate.take(key, now));
        }
        assert!(rate.buckets.len() <= MAX_KEYS);
        assert!(!rate.take(0, now));
    }
}

//! How much of something is used per second: token buckets that may go into debt.
//!
//! The cost of a request is known only once it is answered: it is charged then, and who is in debt waits. (The crate that
//! limits HTTP clients takes costs in advance only.)

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

use libp2p::PeerId;

use super::address::scope::Subnet;

/// What a subnet may use, in shares of a peer: ids are free to make, subnets are not.
const SUBNET_SHARES: f64 = 4.0;

/// Tokens that come back with time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    tokens: f64,
    since: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(burst: f64, now: Instant) -> Self {
        Self { tokens: burst, since: now }
    }

    fn at(&self, per_second: f64, burst: f64, now: Instant) -> f64 {
        (self.tokens + now.saturating_duration_since(self.since).as_secs_f64() * per_second).min(burst)
    }

    /// Takes `cost` if there is so much.
    pub fn take(&mut self, cost: f64, per_second: f64, burst: f64, now: Instant) -> bool {
        let tokens = self.at(per_second, burst, now);
        let enough = tokens >= cost;
        *self = Self { tokens: if enough { tokens - cost } else { tokens }, since: now };
        enough
    }

    /// Takes `cost` in any case, down to a debt of one burst.
    fn charge(&mut self, cost: f64, per_second: f64, burst: f64, now: Instant) {
        *self = Self { tokens: (self.at(per_second, burst, now) - cost).max(-burst), since: now };
    }
}

/// Parties told apart at once; when there are more, those who used least of their share are forgotten.
const MAX_KEYS: usize = 4096;

/// A bucket for each party.
pub(super) struct Rate<K> {
    per_second: f64,
    burst: f64,
    buckets: HashMap<K, Bucket>,
}

impl<K: Eq + Hash + Copy> Rate<K> {
    /// So much a second on average; 0 is no limit.
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, buckets: HashMap::new() }
    }

    /// Takes one token if the party has it.
    pub fn take(&mut self, key: K, now: Instant) -> bool {
        let (per_second, burst) = (self.per_second, self.burst);
        self.bucket(key, now).is_none_or(|bucket| bucket.take(1.0, per_second, burst, now))
    }

    /// Charges what a request cost.
    pub fn charge(&mut self, key: K, cost: f64, now: Instant) {
        let (per_second, burst) = (self.per_second, self.burst);
        if let Some(bucket) = self.bucket(key, now) {
            bucket.charge(cost, per_second, burst, now);
        }
    }

    fn bucket(&mut self, key: K, now: Instant) -> Option<&mut Bucket> {
        if self.per_second == 0.0 {
            return None;
        }
        if self.buckets.len() >= MAX_KEYS && !self.buckets.contains_key(&key) {
            let (per_second, burst) = (self.per_second, self.burst);
            let left = |bucket: &Bucket| bucket.at(per_second, burst, now);
            let mut lefts: Vec<_> = self.buckets.values().map(left).collect();
            let middle = lefts.len() / 2;
            // Half of them at a time, so that a new party costs little on average.
            let (_, median, _) = lefts.select_nth_unstable_by(middle, f64::total_cmp);
            let median = *median;
            self.buckets.retain(|_, bucket| left(bucket) < median);
        }
        Some(self.buckets.entry(key).or_insert_with(|| Bucket::new(self.burst, now)))
    }
}

/// Who asks, or tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub peer: PeerId,
    /// `None` for this machine.
    pub subnet: Option<Subnet>,
    /// The operator's own: its rate has no limit, and some memory is kept for it.
    pub trusted: bool,
}

impl Asker {
    /// With whom a stranger shares.
    pub fn neighbours(&self) -> Option<Subnet> {
        self.subnet.filter(|_| !self.trusted)
    }
}

/// What strangers use, each of them and all of a subnet together. Trusted peers have no limit.
pub(super) struct Shares {
    peers: Rate<PeerId>,
    subnets: Rate<Subnet>,
}

impl Shares {
    /// Each may use so much a second on average, and `burst` at once; 0 a second is no limit.
    pub fn new(per_second: f64, burst: f64) -> Self {
        let subnets = Rate::new(per_second * SUBNET_SHARES, burst * SUBNET_SHARES);
        Self { peers: Rate::new(per_second, burst), subnets }
    }

    /// Takes one token if the peer and its subnet have it. The peer is asked first: one that has none left takes nothing
    /// from its neighbours.
    pub fn take(&mut self, asker: &Asker, now: Instant) -> bool {
        asker.trusted
            || self.peers.take(asker.peer, now) && asker.subnet.is_none_or(|subnet| self.subnets.take(subnet, now))
    }

    /// Charges what something cost.
    pub fn charge(&mut self, asker: &Asker, cost: f64, now: Instant) {
        if asker.trusted {
            return;
        }
        self.peers.charge(asker.peer, cost, now);
        if let Some(subnet) = asker.subnet {
            self.subnets.charge(subnet, cost, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_is_in_debt_waits_and_others_do_not() {
        let now = Instant::now();
        let mut rate = Rate::new(10.0, 100.0);
        assert!(rate.take(1, now));
        rate.charge(1, 149.0, now);
        assert!(!rate.take(1, now) && rate.take(2, now));
        assert!(!rate.take(1, now + Duration::from_secs(5)));
        assert!(rate.take(1, now + Duration::from_millis(5200)));
        rate.charge(1, 1e9, now);
        assert!(rate.take(1, now + Duration::from_secs(16)), "a debt is never more than a burst");
        let mut free = Rate::new(0.0, 0.0);
        free.charge(1, 1e9, now);
        assert!(free.take(1, now));
    }

    #[test]
    fn a_debtor_is_not_forgotten_for_a_crowd() {
        let now = Instant::now();
        let mut rate = Rate::new(1.0, 100.0);
        rate.charge(0, 200.0, now);
        for key in 1..3 * MAX_KEYS {
            assert!(rate.take(key, now));
        }
        assert!(rate.buckets.len() <= MAX_KEYS);
        assert!(!rate.take(0, now));
    }
}

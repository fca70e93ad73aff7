//! Rate limits of HTTP clients and of peers: token buckets that may go into debt.
//!
//! What an answer costs is known only once it is made: it is charged then, and its client waits until the debt is paid.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// What the members of one network have together, compared with one of them: addresses and peer ids are easy to get
/// many of, networks are not.
pub const MEMBERS_PER_NETWORK: u32 = 4;

/// Most buckets that are remembered. Where there are more keys, the fuller half of the buckets is forgotten: these keys
/// lose their small debts, and the large debts remain.
const MAX_BUCKETS: usize = 16_384;

/// Tokens that a bucket gains and holds.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Tokens gained per second; at least 1.
    pub per_second: u32,
    /// Tokens of a full bucket.
    pub burst: u32,
}

impl Rate {
    /// Time in which a bucket gains `tokens`.
    fn time(self, tokens: u64) -> Duration {
        let nanos = u128::from(tokens) * 1_000_000_000 / u128::from(self.per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Tokens gained in `time`, rounded up: [`time`](Self::time) rounds down.
    fn tokens(self, time: Duration) -> u32 {
        let tokens = (time.as_nanos() * u128::from(self.per_second)).div_ceil(1_000_000_000);
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    fn times(self, factor: u32) -> Self {
        Self { per_second: self.per_second.saturating_mul(factor), burst: self.burst.saturating_mul(factor) }
    }
}

/// A token bucket for each key, by the generic cell rate algorithm (ITU-T I.371): of a bucket only the time is kept at
/// which it will be full.
#[derive(Debug)]
pub struct TokenBuckets<K> {
    rate: Rate,
    max_debt: u32,
    full_at: HashMap<K, Instant>,
}

impl<K: Eq + Hash + Copy> TokenBuckets<K> {
    /// Full buckets, which may come to owe `max_debt` tokens.
    pub fn new(rate: Rate, max_debt: u32) -> Self {
        Self { rate, max_debt, full_at: HashMap::new() }
    }

    /// Takes `cost` tokens.
    ///
    /// # Errors
    /// The time until there are enough; nothing is taken.
    pub fn take(&mut self, key: K, cost: u32, now: Instant) -> Result<(), Duration> {
        match self.wait(key, cost, now) {
            Duration::ZERO => {
                self.charge(key, cost.into(), now);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// Takes `cost` tokens in any case; what is missing becomes debt.
    pub fn charge(&mut self, key: K, cost: u64, now: Instant) {
        let most = self.rate.time(u64::from(self.rate.burst) + u64::from(self.max_debt));
        if self.full_at.len() >= MAX_BUCKETS && !self.full_at.contains_key(&key) {
            self.forget_half();
        }
        let full_at = self.full_at.entry(key).or_insert(now);
        *full_at = now + full_at.saturating_duration_since(now).saturating_add(self.rate.time(cost)).min(most);
    }

    /// Time until the bucket has `cost` tokens.
    pub fn wait(&self, key: K, cost: u32, now: Instant) -> Duration {
        let missing = self.missing(key, now).saturating_add(self.rate.time(cost.into()));
        missing.saturating_sub(self.rate.time(self.rate.burst.into()))
    }

    /// Tokens left.
    pub fn left(&self, key: K, now: Instant) -> u32 {
        self.rate.burst.saturating_sub(self.rate.tokens(self.missing(key, now)))
    }

    /// Number of buckets that are not full.
    pub fn len(&self, now: Instant) -> usize {
        self.full_at.values().filter(|full_at| **full_at > now).count()
    }

    /// Time until the bucket is full.
    fn missing(&self, key: K, now: Instant) -> Duration {
        self.full_at.get(&key).map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now))
    }

    /// Half of the buckets at a time, so that a new key costs little on average.
    fn forget_half(&mut self) {
        let mut times: Vec<_> = self.full_at.values().copied().collect();
        let (_, median, _) = times.select_nth_unstable(MAX_BUCKETS / 2);
        let median = *median;
        self.full_at.retain(|_, full_at| *full_at > median);
    }
}

/// A rate limit of each key, and of the keys of one network together, which have [`MEMBERS_PER_NETWORK`] times as much.
#[derive(Debug)]
pub struct RateLimit<K, N> {
    keys: TokenBuckets<K>,
    networks: TokenBuckets<N>,
}

impl<K: Eq + Hash + Copy, N: Eq + Hash + Copy> RateLimit<K, N> {
    /// A limit under which a key may come to owe `max_debt` tokens; `None` where the rate is 0, which is no limit.
    pub fn new(rate: Rate, max_debt: u32) -> Option<Self> {
        let networks = TokenBuckets::new(rate.times(MEMBERS_PER_NETWORK), max_debt.saturating_mul(MEMBERS_PER_NETWORK));
        (rate.per_second > 0 && rate.burst > 0).then(|| Self { keys: TokenBuckets::new(rate, max_debt), networks })
    }

    /// Takes `cost` tokens of the key and of its network.
    ///
    /// # Errors
    /// The time until both have enough; nothing is taken.
    pub fn take(&mut self, key: K, network: Option<N>, cost: u32, now: Instant) -> Result<(), Duration> {
        match self.wait(key, network, cost, now) {
            Duration::ZERO => {
                self.charge(key, network, cost.into(), now);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// Takes `cost` tokens of both in any case; what is missing becomes debt.
    pub fn charge(&mut self, key: K, network: Option<N>, cost: u64, now: Instant) {
        self.keys.charge(key, cost, now);
        if let Some(network) = network {
            self.networks.charge(network, cost, now);
        }
    }

    /// Time until both have `cost` tokens.
    pub fn wait(&self, key: K, network: Option<N>, cost: u32, now: Instant) -> Duration {
        let wait = self.keys.wait(key, cost, now);
        network.map_or(wait, |network| wait.max(self.networks.wait(network, cost, now)))
    }

    /// Tokens that both have left.
    pub fn left(&self, key: K, network: Option<N>, now: Instant) -> u32 {
        let left = self.keys.left(key, now);
        network.map_or(left, |network| left.min(self.networks.left(network, now)))
    }

    /// Number of keys whose bucket is not full.
    pub fn len(&self, now: Instant) -> usize {
        self.keys.len(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(per_second: u32, burst: u32) -> RateLimit<u32, u32> {
        RateLimit::new(Rate { per_second, burst }, burst).unwrap()
    }

    #[test]
    fn a_key_has_its_burst_then_its_rate_and_pays_its_debt() {
        let (now, mut limit) = (Instant::now(), limit(10, 100));
        assert_eq!((limit.take(1, None, 1, now), limit.left(1, None, now)), (Ok(()), 99));
        limit.charge(1, None, 149, now);
        assert_eq!(limit.take(1, None, 1, now), Err(Duration::from_millis(5100)));
        assert_eq!((limit.left(1, None, now), limit.left(2, None, now), limit.len(now)), (0, 100, 1));
        assert_eq!(limit.take(1, None, 1, now + Duration::from_millis(5100)), Ok(()));
        limit.charge(1, None, u64::MAX, now);
        assert_eq!(limit.wait(1, None, 0, now), Duration::from_secs(10), "a debt is never more than the largest");
        assert_eq!(limit.len(now + Duration::from_secs(20)), 0);
    }

    #[test]
    fn rates_that_divide_no_second_are_counted_exactly() {
        let (now, mut limit) = (Instant::now(), limit(3, 100));
        for left in (0..100).rev() {
            assert_eq!((limit.take(1, None, 1, now), limit.left(1, None, now)), (Ok(()), left));
        }
        assert!(limit.take(1, None, 1, now).is_err());
    }

    #[test]
    fn the_keys_of_a_network_have_what_four_have() {
        let (now, mut limit) = (Instant::now(), limit(1, 100));
        let taken = (0..1000).filter(|n| limit.take(n % 100, Some(7), 1, now).is_ok()).count();
        assert_eq!(taken, 400);
        assert_eq!(limit.take(500, Some(7), 1, now), Err(Duration::from_millis(250)));
        assert_eq!(limit.left(500, None, now), 100, "a refused request costs nothing");
        assert_eq!(limit.take(501, Some(8), 1, now), Ok(()), "another network");
    }

    #[test]
    fn debts_survive_a_crowd_of_new_keys() {
        let (now, mut limit) = (Instant::now(), limit(1, 100));
        limit.charge(0, None, 200, now);
        for key in 1..3 * MAX_BUCKETS as u32 {
            assert_eq!(limit.take(key, None, 1, now), Ok(()));
        }
        assert!(limit.len(now) <= MAX_BUCKETS);
        assert_eq!(limit.take(0, None, 1, now), Err(Duration::from_secs(101)));
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        assert!(RateLimit::<u32, u32>::new(Rate { per_second: 0, burst: 5 }, 0).is_none());
    }
}

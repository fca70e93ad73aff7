//! The rate limit: a token bucket for each client.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::client::{CLIENTS_PER_NETWORK, ClientKey};
use crate::protocol::MAX_RESPONSE_BYTES;

/// What a client has left, by draft-ietf-httpapi-ratelimit-headers: `r` units, and a full bucket in `t` seconds.
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The client's limit: `q` units in `w` seconds.
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Clients with buckets of their own, some 6 MiB. Further ones share the bucket of their /16, until full buckets are removed.
pub const MAX_CLIENTS: usize = 65_536;

/// How often full buckets are removed.
const REMOVE_EVERY: Duration = Duration::from_secs(10);

/// Bytes of an answer that cost a unit.
const UNIT_BYTES: u64 = 64 << 10;

/// Bytes of an answer that cost as much as one of a request, which may be part of a hash to look up.
const REQUEST_BYTE: u64 = 8;

/// Cost of a forwarded request, compared with one that is answered from the store.
const FORWARDED: u32 = 5;

/// A unit in ticks: a bucket gets a tick per nanosecond for each unit per second of its rate.
const UNIT: u128 = 1_000_000_000;
/// A unit in the bucket of a network, which is that of one client and serves [`CLIENTS_PER_NETWORK`].
const NETWORK_UNIT: u128 = UNIT / CLIENTS_PER_NETWORK as u128;

/// The buckets, by the generic cell rate algorithm (ITU-T I.371): of each only the time is kept when it will be full.
pub struct RateLimit {
    rate: u32,
    burst: u32,
    policy: HeaderValue,
    started: Instant,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    /// When each client's bucket is full again, in ticks since the start.
    full_at: HashMap<ClientKey, u128>,
    /// The same for networks.
    networks: HashMap<ClientKey, u128>,
    /// When full buckets are removed next, in the same ticks.
    remove_at: u128,
}

/// The cost of a request.
#[derive(Debug, Clone, Copy)]
pub struct Cost(u32);

impl Cost {
    /// The cost of a request that is answered by a peer, or from the store.
    pub fn of(forwarded: bool) -> Self {
        Self(if forwarded { FORWARDED } else { 1 })
    }

    /// The cost of the answer's bytes, beyond the request's own unit.
    fn of_bytes(self, bytes: u64) -> u32 {
        u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).saturating_mul(self.0)
    }
}

/// The client has too little left.
#[derive(Debug)]
pub struct RateExceeded {
    /// Time until it has enough.
    pub wait: Duration,
}

impl RateLimit {
    /// `rate` units a second, at most `burst` at once. Without a rate there is no limit.
    pub fn new(rate: u32, burst: u32) -> Option<Self> {
        if rate == 0 || burst == 0 {
            return None;
        }
        let policy = HeaderValue::try_from(format!("\"client\";q={burst};w={}", burst.div_ceil(rate))).ok()?;
        Some(Self { rate, burst, policy, started: Instant::now(), buckets: Mutex::default() })
    }

    /// Takes the cost of a request; returns the units that are left.
    ///
    /// # Errors
    /// [`RateExceeded`], and nothing is taken.
    pub fn take(&self, client: ClientKey, cost: Cost) -> Result<u32, RateExceeded> {
        self.spend(client, cost.0.min(self.burst), false)
    }

    /// Takes the cost of an answer of `bytes`; returns the units that are left. What is missing becomes debt, at most a burst or
    /// the cost of the largest answer: the client is answered again once the debt is paid.
    pub fn charge_answer(&self, client: ClientKey, cost: Cost, bytes: u64) -> u32 {
        self.spend(client, cost.of_bytes(bytes), true).unwrap_or(0)
    }

    /// Takes the cost of a request of `bytes`, in the same way.
    pub fn charge_request(&self, client: ClientKey, cost: Cost, bytes: u64) {
        self.charge_answer(client, cost, bytes.saturating_mul(REQUEST_BYTE));
    }

    /// Time until the client is out of debt.
    pub fn debt(&self, client: ClientKey) -> Duration {
        self.spend(client, 0, false).err().map_or(Duration::ZERO, |exceeded| exceeded.wait)
    }

    fn spend(&self, client: ClientKey, units: u32, on_credit: bool) -> Result<u32, RateExceeded> {
        let rate = u128::from(self.rate);
        let mut buckets = self.buckets();
        let now = self.started.elapsed().as_nanos() * rate;
        if now > buckets.remove_at {
            buckets.remove_at = now + REMOVE_EVERY.as_nanos() * rate;
            let Buckets { full_at, networks, .. } = &mut *buckets;
            for buckets in [full_at, networks] {
                buckets.retain(|_, full_at| *full_at > now);
                buckets.shrink_to_fit();
            }
        }
        let bucket = |buckets: &HashMap<ClientKey, u128>, key: ClientKey, unit: u128| {
            let has_own = buckets.len() < MAX_CLIENTS || buckets.contains_key(&key);
            let key = if has_own { key } else { key.coarse() };
            let full_at = buckets.get(&key).copied().unwrap_or(0);
            (key, full_at.saturating_sub(now) + u128::from(units) * unit)
        };
        let (key, lacks) = bucket(&buckets.full_at, client, UNIT);
        let network = client.network().map(|network| bucket(&buckets.networks, network, NETWORK_UNIT));
        let most = u128::from(self.burst) * UNIT;
        let most_owed = most + most.max(u128::from(Cost::of(true).of_bytes(MAX_RESPONSE_BYTES as u64)) * UNIT);
        let worst = network.map_or(lacks, |(_, shared)| lacks.max(shared));
        if worst > most && !on_credit {
            let nanos = (worst - most).div_ceil(rate);
            return Err(RateExceeded { wait: Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)) });
        }
        buckets.full_at.insert(key, now + lacks.min(most_owed));
        let mut left = most.saturating_sub(lacks) / UNIT;
        if let Some((key, shared)) = network {
            buckets.networks.insert(key, now + shared.min(most_owed));
            left = left.min(most.saturating_sub(shared) / NETWORK_UNIT);
        }
        Ok(left as u32)
    }

    /// Adds the headers that say what a client has left; not to an answer that shared caches may give to other clients.
    pub fn add_headers(&self, headers: &mut HeaderMap, left: u32) {
        if headers.get(header::CACHE_CONTROL).is_some_and(|caches| caches.as_bytes().starts_with(b"public")) {
            return;
        }
        headers.insert(RATELIMIT_POLICY, self.policy.clone());
        let until_full = self.burst.saturating_sub(left).div_ceil(self.rate);
        if let Ok(value) = HeaderValue::try_from(format!("\"client\";r={left};t={until_full}")) {
            headers.insert(RATELIMIT, value);
        }
    }

    /// Clients with buckets of their own.
    pub fn clients(&self) -> usize {
        self.buckets().full_at.len()
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ClientKey {
        ClientKey::of(text.parse().unwrap())
    }

    #[test]
    fn a_client_has_its_burst_and_no_more() {
        let limit = RateLimit::new(1, 100).unwrap();
        let (mine, other) = (key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(limit.take(mine, Cost::of(false)).unwrap(), 99);
        assert_eq!(limit.take(mine, Cost::of(true)).unwrap(), 94);
        assert_eq!(limit.charge_answer(mine, Cost::of(false), 10 * UNIT_BYTES), 84);
        while limit.take(mine, Cost::of(true)).is_ok() {}
        let wait = |units: u64| {
            let wait = limit.take(mine, Cost::of(true)).unwrap_err().wait;
            assert!(wait > Duration::from_secs(units - 1) && wait <= Duration::from_secs(units), "{wait:?} {units}");
        };
        wait(1);
        assert_eq!(
            limit.charge_answer(mine, Cost::of(false), 20 * UNIT_BYTES),
            0,
            "an answer may put a client into debt"
        );
        wait(21);
        assert_eq!(limit.charge_answer(mine, Cost::of(true), 1 << 40), 0);
        // 10 MiB from a peer, at the least.
        wait(5 + 800);
        assert_eq!(limit.take(other, Cost::of(false)).unwrap(), 99);
        let mut headers = HeaderMap::new();
        limit.add_headers(&mut headers, 94);
        assert_eq!(
            (&headers[RATELIMIT], &headers[RATELIMIT_POLICY]),
            (&HeaderValue::from_static("\"client\";r=94;t=6"), &HeaderValue::from_static("\"client\";q=100;w=100"))
        );
    }

    #[test]
    fn the_clients_of_a_network_have_what_four_have() {
        let limit = RateLimit::new(1, 100).unwrap();
        let nth = |n: u32| key(&format!("2001:db8:0:{n:x}::1"));
        let taken = (0..1000).filter(|n| limit.take(nth(n % 100), Cost::of(false)).is_ok()).count();
        assert!((400..=402).contains(&taken), "{taken}");
        let wait = limit.take(nth(500), Cost::of(false)).unwrap_err().wait;
        assert!(wait <= Duration::from_millis(250), "{wait:?}");
        assert_eq!(limit.take(key("2001:db8:1::1"), Cost::of(false)).unwrap(), 99, "another network");
    }

    #[test]
    fn an_answer_for_shared_caches_has_no_headers_of_one_client() {
        let limit = RateLimit::new(1, 100).unwrap();
        let has_headers = |caches: &'static str| {
            let mut headers = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static(caches))]);
            limit.add_headers(&mut headers, 1);
            headers.contains_key(RATELIMIT)
        };
        assert!(has_headers("private, no-cache") && !has_headers("public, max-age=86400"));
    }

    #[test]
    fn any_number_of_clients_takes_bounded_memory() {
        let limit = RateLimit::new(1, 100).unwrap();
        let nth = |n: u32| ClientKey::of(std::net::Ipv4Addr::from(0x0b00_0000 + n).into());
        let refused = (0..MAX_CLIENTS as u32 + 1000).filter(|n| limit.take(nth(*n), Cost::of(false)).is_err());
        assert!(refused.count() > 800, "the last thousand share a bucket of 100");
        assert_eq!(limit.clients(), MAX_CLIENTS + 1);
    }
}

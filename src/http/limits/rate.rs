//! The rate limit: a token bucket for each client.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::client::ClientKey;
use crate::{
    limits::{self, Rate},
    protocol::MAX_RESPONSE_BYTES,
};

/// What a client has left, by draft-ietf-httpapi-ratelimit-headers: `r` units, and a full bucket in `t` seconds.
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The client's limit: `q` units in `w` seconds.
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Bytes of an answer that cost a unit.
const UNIT_BYTES: u64 = 64 << 10;

/// Bytes of an answer that cost as much as one of a request, which may be part of a hash to look up.
const REQUEST_BYTE: u64 = 8;

/// Cost of a forwarded request, compared with one that is answered from the store.
const FORWARDED: u32 = 5;

/// The rate limit of the public listener.
pub struct RateLimit {
    rate: Rate,
    policy: HeaderValue,
    buckets: Mutex<limits::RateLimit<ClientKey, ClientKey>>,
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
    const fn of_bytes(self, bytes: u64) -> u64 {
        (bytes / UNIT_BYTES).saturating_mul(self.0 as u64)
    }
}

/// The client has too little left.
#[derive(Debug)]
pub struct RateExceeded {
    /// Time until it has enough.
    pub wait: Duration,
}

impl RateLimit {
    /// A limit of `rate` units; `None` where the rate is 0, which is no limit.
    pub fn new(rate: Rate) -> Option<Self> {
        let max_debt = rate.burst.max(Cost(FORWARDED).of_bytes(MAX_RESPONSE_BYTES as u64) as u32);
        let buckets = Mutex::new(limits::RateLimit::new(rate, max_debt)?);
        let policy = format!("\"client\";q={};w={}", rate.burst, rate.burst.div_ceil(rate.per_second));
        Some(Self { rate, policy: HeaderValue::try_from(policy).ok()?, buckets })
    }

    /// Takes the cost of a request; returns the units that are left.
    ///
    /// # Errors
    /// [`RateExceeded`], and nothing is taken.
    pub fn take(&self, client: ClientKey, cost: Cost) -> Result<u32, RateExceeded> {
        let (mut buckets, now) = (self.buckets(), Instant::now());
        let taken = buckets.take(client, client.network(), cost.0.min(self.rate.burst), now);
        taken.map(|()| buckets.left(client, client.network(), now)).map_err(|wait| RateExceeded { wait })
    }

    /// Takes the cost of an answer of `bytes`; returns the units that are left, `None` if it costs nothing. What is
    /// missing becomes debt, at most a burst or the cost of the largest answer: the client is answered again once the
    /// debt is paid.
    pub fn charge_answer(&self, client: ClientKey, cost: Cost, bytes: u64) -> Option<u32> {
        let units = cost.of_bytes(bytes);
        (units > 0).then(|| {
            let (mut buckets, now) = (self.buckets(), Instant::now());
            buckets.charge(client, client.network(), units, now);
            buckets.left(client, client.network(), now)
        })
    }

    /// Takes the cost of a request of `bytes`, in the same way.
    pub fn charge_request(&self, client: ClientKey, cost: Cost, bytes: u64) -> Option<u32> {
        self.charge_answer(client, cost, bytes.saturating_mul(REQUEST_BYTE))
    }

    /// Time until the client is out of debt.
    pub fn debt(&self, client: ClientKey) -> Duration {
        self.buckets().wait(client, client.network(), 0, Instant::now())
    }

    /// Adds the headers that say what a client has left; not to an answer that shared caches may give to other clients.
    pub fn add_headers(&self, headers: &mut HeaderMap, left: u32) {
        if headers.get(header::CACHE_CONTROL).is_some_and(|caches| caches.as_bytes().starts_with(b"public")) {
            return;
        }
        headers.insert(RATELIMIT_POLICY, self.policy.clone());
        let until_full = self.rate.burst.saturating_sub(left).div_ceil(self.rate.per_second);
        if let Ok(value) = HeaderValue::try_from(format!("\"client\";r={left};t={until_full}")) {
            headers.insert(RATELIMIT, value);
        }
    }

    /// Clients with a bucket that is not full.
    pub fn clients(&self) -> usize {
        self.buckets().len(Instant::now())
    }

    fn buckets(&self) -> MutexGuard<'_, limits::RateLimit<ClientKey, ClientKey>> {
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
        let limit = RateLimit::new(Rate { per_second: 1, burst: 100 }).unwrap();
        let (mine, other) = (key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(limit.take(mine, Cost::of(false)).unwrap(), 99);
        assert_eq!(limit.take(mine, Cost::of(true)).unwrap(), 94);
        assert_eq!(limit.charge_answer(mine, Cost::of(false), 10 * UNIT_BYTES), Some(84));
        assert_eq!(limit.charge_answer(mine, Cost::of(false), UNIT_BYTES - 1), None, "part of a unit");
        while limit.take(mine, Cost::of(true)).is_ok() {}
        let wait = |units: u64| {
            let wait = limit.take(mine, Cost::of(true)).unwrap_err().wait;
            assert!(wait > Duration::from_secs(units - 1) && wait <= Duration::from_secs(units), "{wait:?} {units}");
        };
        wait(1);
        assert_eq!(
            limit.charge_answer(mine, Cost::of(false), 20 * UNIT_BYTES),
            Some(0),
            "an answer may put a client into debt"
        );
        wait(21);
        assert_eq!(limit.charge_answer(mine, Cost::of(true), 1 << 40), Some(0));
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
        let limit = RateLimit::new(Rate { per_second: 1, burst: 100 }).unwrap();
        let nth = |n: u32| key(&format!("2001:db8:0:{n:x}::1"));
        let taken = (0..1000).filter(|n| limit.take(nth(n % 100), Cost::of(false)).is_ok()).count();
        assert!((400..=402).contains(&taken), "{taken}");
        let wait = limit.take(nth(500), Cost::of(false)).unwrap_err().wait;
        assert!(wait <= Duration::from_millis(250), "{wait:?}");
        assert_eq!(limit.take(key("2001:db8:1::1"), Cost::of(false)).unwrap(), 99, "another network");
    }

    #[test]
    fn an_answer_for_shared_caches_has_no_headers_of_one_client() {
        let limit = RateLimit::new(Rate { per_second: 1, burst: 100 }).unwrap();
        let has_headers = |caches: &'static str| {
            let mut headers = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static(caches))]);
            limit.add_headers(&mut headers, 1);
            headers.contains_key(RATELIMIT)
        };
        assert!(has_headers("private, no-cache") && !has_headers("public, max-age=86400"));
    }
}

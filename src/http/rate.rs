//! How much a client may ask: a bucket for each, which fills up at a steady rate.

use std::{
    num::NonZeroU32,
    sync::Mutex,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::HashMapStateStore,
};

use super::client::ClientKey;

/// What a client has left, as draft-ietf-httpapi-ratelimit-headers has it: `r` units, and the bucket full in `t` seconds.
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// What it may have: `q` units in `w` seconds.
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Clients that are told apart, some 6 MiB. Beyond them, those of a /16 share a bucket, until buckets are full again and so
/// may be forgotten.
pub const MAX_CLIENTS: usize = 65_536;

/// How often full buckets are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// Bytes of an answer that cost a unit.
const UNIT_BYTES: u64 = 64 << 10;

/// What a request costs that is forwarded to a peer, compared with one that is answered from the store.
const FORWARDED: u32 = 5;

type Buckets = RateLimiter<ClientKey, HashMapStateStore<ClientKey>, DefaultClock, StateInformationMiddleware>;

/// The buckets.
pub struct RateLimit {
    buckets: Buckets,
    rate: u32,
    burst: u32,
    policy: HeaderValue,
    clock: DefaultClock,
    forgotten: Mutex<Instant>,
}

/// What a request costs.
#[derive(Debug, Clone, Copy)]
pub struct Price(u32);

impl Price {
    /// Of a request, whose answer comes from a peer or from the store.
    pub fn of(forwarded: bool) -> Self {
        Self(if forwarded { FORWARDED } else { 1 })
    }

    /// Of the answer's bytes, beyond the request's own unit.
    fn of_bytes(self, bytes: u64) -> u32 {
        u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).saturating_mul(self.0)
    }
}

/// A client has nothing left.
#[derive(Debug)]
pub struct Empty {
    /// When it has enough again.
    pub wait: Duration,
}

impl RateLimit {
    /// `rate` units a second, at most `burst` at once. Without a rate there is no limit.
    pub fn new(rate: u32, burst: u32) -> Option<Self> {
        let (per_second, at_once) = (NonZeroU32::new(rate)?, NonZeroU32::new(burst)?);
        let buckets = RateLimiter::keyed(Quota::per_second(per_second).allow_burst(at_once)).with_middleware();
        let policy = format!("\"client\";q={burst};w={}", burst.div_ceil(rate));
        Some(Self {
            buckets,
            rate,
            burst,
            policy: HeaderValue::try_from(policy).ok()?,
            clock: DefaultClock::default(),
            forgotten: Mutex::new(Instant::now()),
        })
    }

    /// Takes the price of a request.
    ///
    /// # Errors
    /// [`Empty`], and nothing is taken.
    pub fn take(&self, client: ClientKey, price: Price) -> Result<u32, Empty> {
        self.forget();
        let cost = NonZeroU32::new(price.0.min(self.burst)).unwrap_or(NonZeroU32::MIN);
        match self.buckets.check_key_n(&self.key(client), cost) {
            Ok(Ok(state)) => Ok(state.remaining_burst_capacity()),
            Ok(Err(not_yet)) => Err(Empty { wait: not_yet.wait_time_from(self.clock.now()) }),
            // A cost within the burst has room.
            Err(_) => Ok(0),
        }
    }

    /// Takes what an answer of so many bytes costs besides, as far as it is there: what a client has got, it is not asked
    /// for again. `left` is what it had before; returns what it has then.
    pub fn take_bytes(&self, client: ClientKey, price: Price, bytes: u64, left: u32) -> u32 {
        let (key, mut due, mut left) = (self.key(client), price.of_bytes(bytes).min(self.burst), left);
        let mut part = due;
        while let Some(units) = NonZeroU32::new(part) {
            match self.buckets.check_key_n(&key, units) {
                Ok(Ok(state)) => {
                    left = state.remaining_burst_capacity();
                    due -= part;
                    part = due.min(left);
                }
                _ => part /= 2,
            }
        }
        left
    }

    /// Says what a client has left.
    pub fn tell(&self, headers: &mut HeaderMap, left: u32) {
        headers.insert(RATELIMIT_POLICY, self.policy.clone());
        let until_full = self.burst.saturating_sub(left).div_ceil(self.rate);
        if let Ok(value) = HeaderValue::try_from(format!("\"client\";r={left};t={until_full}")) {
            headers.insert(RATELIMIT, value);
        }
    }

    /// How many clients are told apart now.
    pub fn clients(&self) -> usize {
        self.buckets.len()
    }

    fn key(&self, client: ClientKey) -> ClientKey {
        if self.buckets.len() < MAX_CLIENTS { client } else { client.coarse() }
    }

    fn forget(&self) {
        let Ok(mut forgotten) = self.forgotten.try_lock() else { return };
        if forgotten.elapsed() > FORGET_EVERY {
            *forgotten = Instant::now();
            self.buckets.retain_recent();
            self.buckets.shrink_to_fit();
        }
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
        assert_eq!(limit.take(mine, Price::of(false)).unwrap(), 99);
        assert_eq!(limit.take(mine, Price::of(true)).unwrap(), 94);
        assert_eq!(limit.take_bytes(mine, Price::of(false), 10 * UNIT_BYTES, 94), 84);
        assert_eq!(limit.take_bytes(mine, Price::of(true), 1 << 40, 84), 0, "all that is left");
        let wait = limit.take(mine, Price::of(true)).unwrap_err().wait;
        assert!(wait > Duration::from_secs(4) && wait <= Duration::from_secs(5), "{wait:?}");
        assert_eq!(limit.take(other, Price::of(false)).unwrap(), 99);
        let mut headers = HeaderMap::new();
        limit.tell(&mut headers, 94);
        assert_eq!(
            (&headers[RATELIMIT], &headers[RATELIMIT_POLICY]),
            (&HeaderValue::from_static("\"client\";r=94;t=6"), &HeaderValue::from_static("\"client\";q=100;w=100"))
        );
    }

    #[test]
    fn any_number_of_clients_takes_bounded_memory() {
        let limit = RateLimit::new(1, 100).unwrap();
        let nth = |n: u32| ClientKey::of(std::net::Ipv4Addr::from(0x0b00_0000 + n).into());
        let refused = (0..MAX_CLIENTS as u32 + 1000).filter(|n| limit.take(nth(*n), Price::of(false)).is_err());
        assert!(refused.count() > 800, "the last thousand share a bucket of 100");
        assert_eq!(limit.clients(), MAX_CLIENTS + 1);
    }
}

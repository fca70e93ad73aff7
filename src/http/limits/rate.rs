//! How much a client may ask: a bucket for each, which fills up at a steady rate.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::client::{ClientKey, NETWORK};
use crate::protocol::MAX_RESPONSE_BYTES;

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

/// By this a request's own bytes are dearer: each may be a hash to look for.
const QUESTION: u64 = 8;

/// What a request costs that is forwarded to a peer, compared with one that is answered from the store.
const FORWARDED: u32 = 5;

/// A unit in ticks: a bucket gets one for each nanosecond and each unit that it gets a second.
const UNIT: u128 = 1_000_000_000;
/// The same in the bucket of a network, which has the ticks of one client for those of [`NETWORK`].
const NETWORK_UNIT: u128 = UNIT / NETWORK as u128;

/// The buckets, by the generic cell rate algorithm (ITU-T I.371): all that is kept of one is when it will be full.
pub struct RateLimit {
    rate: u32,
    burst: u32,
    policy: HeaderValue,
    started: Instant,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    /// When each is full again, in ticks since the start.
    full_at: HashMap<ClientKey, u128>,
    /// The same of networks.
    networks: HashMap<ClientKey, u128>,
    /// When those that are full are forgotten, likewise.
    forget_at: u128,
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
        if rate == 0 || burst == 0 {
            return None;
        }
        let policy = HeaderValue::try_from(format!("\"client\";q={burst};w={}", burst.div_ceil(rate))).ok()?;
        Some(Self { rate, burst, policy, started: Instant::now(), buckets: Mutex::default() })
    }

    /// Takes the price of a request; returns what is left.
    ///
    /// # Errors
    /// [`Empty`], and nothing is taken.
    pub fn take(&self, client: ClientKey, price: Price) -> Result<u32, Empty> {
        self.spend(client, price.0.min(self.burst), false)
    }

    /// Takes what an answer of so many bytes costs besides; returns what is left. What is not there becomes debt, at most
    /// a burst of it, or the price of the dearest answer: the client is answered again once it is paid.
    pub fn take_bytes(&self, client: ClientKey, price: Price, bytes: u64) -> u32 {
        self.spend(client, price.of_bytes(bytes), true).unwrap_or(0)
    }

    /// Takes what a request of so many bytes costs besides, likewise.
    pub fn take_question(&self, client: ClientKey, price: Price, bytes: u64) {
        self.take_bytes(client, price, bytes.saturating_mul(QUESTION));
    }

    /// How long the client is in debt.
    pub fn debt(&self, client: ClientKey) -> Duration {
        self.spend(client, 0, false).err().map_or(Duration::ZERO, |empty| empty.wait)
    }

    fn spend(&self, client: ClientKey, units: u32, on_credit: bool) -> Result<u32, Empty> {
        let rate = u128::from(self.rate);
        let mut buckets = self.buckets();
        let now = self.started.elapsed().as_nanos() * rate;
        if now > buckets.forget_at {
            buckets.forget_at = now + FORGET_EVERY.as_nanos() * rate;
            let Buckets { full_at, networks, .. } = &mut *buckets;
            for buckets in [full_at, networks] {
                buckets.retain(|_, full_at| *full_at > now);
                buckets.shrink_to_fit();
            }
        }
        let bucket = |buckets: &HashMap<ClientKey, u128>, key: ClientKey, unit: u128| {
            let told_apart = buckets.len() < MAX_CLIENTS || buckets.contains_key(&key);
            let key = if told_apart { key } else { key.coarse() };
            let full_at = buckets.get(&key).copied().unwrap_or(0);
            (key, full_at.saturating_sub(now) + u128::from(units) * unit)
        };
        let (key, lacks) = bucket(&buckets.full_at, client, UNIT);
        let network = client.network().map(|network| bucket(&buckets.networks, network, NETWORK_UNIT));
        let most = u128::from(self.burst) * UNIT;
        let most_owed = most + most.max(u128::from(Price::of(true).of_bytes(MAX_RESPONSE_BYTES as u64)) * UNIT);
        let worst = network.map_or(lacks, |(_, shared)| lacks.max(shared));
        if worst > most && !on_credit {
            let nanos = (worst - most).div_ceil(rate);
            return Err(Empty { wait: Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)) });
        }
        buckets.full_at.insert(key, now + lacks.min(most_owed));
        let mut left = most.saturating_sub(lacks) / UNIT;
        if let Some((key, shared)) = network {
            buckets.networks.insert(key, now + shared.min(most_owed));
            left = left.min(most.saturating_sub(shared) / NETWORK_UNIT);
        }
        Ok(left as u32)
    }

    /// Says what a client has left, but in an answer that any cache may keep: others would read it as theirs.
    pub fn tell(&self, headers: &mut HeaderMap, left: u32) {
        if headers.get(header::CACHE_CONTROL).is_some_and(|caches| caches.as_bytes().starts_with(b"public")) {
            return;
        }
        headers.insert(RATELIMIT_POLICY, self.policy.clone());
        let until_full = self.burst.saturating_sub(left).div_ceil(self.rate);
        if let Ok(value) = HeaderValue::try_from(format!("\"client\";r={left};t={until_full}")) {
            headers.insert(RATELIMIT, value);
        }
    }

    /// How many clients are told apart now.
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
        assert_eq!(limit.take(mine, Price::of(false)).unwrap(), 99);
        assert_eq!(limit.take(mine, Price::of(true)).unwrap(), 94);
        assert_eq!(limit.take_bytes(mine, Price::of(false), 10 * UNIT_BYTES), 84);
        while limit.take(mine, Price::of(true)).is_ok() {}
        let wait = |units: u64| {
            let wait = limit.take(mine, Price::of(true)).unwrap_err().wait;
            assert!(wait > Duration::from_secs(units - 1) && wait <= Duration::from_secs(units), "{wait:?} {units}");
        };
        wait(1);
        assert_eq!(limit.take_bytes(mine, Price::of(false), 20 * UNIT_BYTES), 0, "what is got is owed");
        wait(21);
        assert_eq!(limit.take_bytes(mine, Price::of(true), 1 << 40), 0);
        // 10 MiB from a peer, at the least.
        wait(5 + 800);
        assert_eq!(limit.take(other, Price::of(false)).unwrap(), 99);
        let mut headers = HeaderMap::new();
        limit.tell(&mut headers, 94);
        assert_eq!(
            (&headers[RATELIMIT], &headers[RATELIMIT_POLICY]),
            (&HeaderValue::from_static("\"client\";r=94;t=6"), &HeaderValue::from_static("\"client\";q=100;w=100"))
        );
    }

    #[test]
    fn a_network_of_many_clients_has_what_four_have() {
        let limit = RateLimit::new(1, 100).unwrap();
        let nth = |n: u32| key(&format!("2001:db8:0:{n:x}::1"));
        let taken = (0..1000).filter(|n| limit.take(nth(n % 100), Price::of(false)).is_ok()).count();
        assert!((400..=402).contains(&taken), "{taken}");
        let wait = limit.take(nth(500), Price::of(false)).unwrap_err().wait;
        assert!(wait <= Duration::from_millis(250), "{wait:?}");
        assert_eq!(limit.take(key("2001:db8:1::1"), Price::of(false)).unwrap(), 99, "another network");
    }

    #[test]
    fn an_answer_for_everybody_says_nothing_of_one_client() {
        let limit = RateLimit::new(1, 100).unwrap();
        let told = |caches: &'static str| {
            let mut headers = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static(caches))]);
            limit.tell(&mut headers, 1);
            headers.contains_key(RATELIMIT)
        };
        assert!(told("private, no-cache") && !told("public, max-age=86400"));
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

//! Limits on what is in flight, in all and for each client.
//!
//! * [`client`]: the keys of clients, by address
//! * [`rate`]: the rate limit
//!
//! | limit | in all | one client |
//! | --- | --- | --- |
//! | requests in flight | `max_requests` | half |
//! | of them, waiting for a peer | half of `max_requests` | an eighth of `max_requests` |
//! | bytes of answers being sent | 1 MiB for each of `max_requests` | an eighth |
//! | request bodies | none | 16 |
//! | bytes of request bodies | 64 MiB | |
//! | event streams | `max_streams` | 16 |
//!
//! Unlimited clients may take all. The clients of one IPv6 /48 have four times what one client has.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::client::{Client, ClientKey};
use crate::{
    limits::MEMBERS_PER_NETWORK,
    protocol::{Code, Failure},
};

pub mod client;
pub mod rate;

/// Bytes of answers that may be in flight for each request that may be.
const ANSWER_BYTES: usize = 1 << 20;
/// What a stream counts as: one page, and a part of the next.
const STREAM_BYTES: usize = 1 << 20;
/// Answers up to this size are not counted.
const TINY_ANSWER: u64 = 4 << 10;
/// Answers up to this size count for their client only: they are sent whatever else is in flight.
const SMALL_ANSWER: u64 = 64 << 10;

/// Bodies up to this size count for their client only while they are received, and need no permit of [`BODY_BYTES`].
pub(super) const SHORT_BODY: usize = 4 << 10;
/// Bytes of request bodies in memory, short ones aside.
const BODY_BYTES: usize = 64 << 20;
/// Bodies of one client, so that no client holds all [`BODY_BYTES`].
const MAX_CLIENT_BODIES: usize = 16;

/// Event streams of one client.
const MAX_CLIENT_STREAMS: usize = 16;

/// A limit on something countable, in all and for each client. Unlimited clients may take all of it.
pub(super) struct Limit {
    size: usize,
    /// What is counted, as it follows the number in an error's text.
    what: &'static str,
    free: Arc<Semaphore>,
    per_client: Arc<PerClientLimit>,
}

/// What was taken of a [`Limit`], given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    _total: Option<OwnedSemaphorePermit>,
    _client: Option<ClientPermit>,
}

/// The permits of a request or an answer.
pub(super) type Permits = (Permit, Option<Permit>);

/// The limit that a request would exceed: how many there may be of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitExceeded {
    /// The limit for all clients together.
    Total(usize, &'static str),
    /// The limit for this client, or for the clients of its network.
    Client(usize, &'static str),
}

impl From<LimitExceeded> for Failure {
    fn from(exceeded: LimitExceeded) -> Self {
        let (code, most, what) = match exceeded {
            LimitExceeded::Total(most, what) => (Code::Busy, most, what),
            LimitExceeded::Client(most, what) => (Code::RateLimited, most, what),
        };
        Self::with_detail(code, format!("{most} {what}"))
    }
}

impl Limit {
    fn new(what: &'static str, size: usize, per_client: usize) -> Self {
        Self { size, what, free: Arc::new(Semaphore::new(size)), per_client: PerClientLimit::new(per_client) }
    }

    /// Takes `count`, or all that the client may have if that is less.
    ///
    /// # Errors
    /// [`LimitExceeded`], and nothing is taken.
    pub(super) fn take(&self, client: Client, count: usize) -> Result<Permit, LimitExceeded> {
        let count = count.min(if client.unlimited { self.size } else { self.per_client.most });
        let permit = self.take_from_client(client, count)?;
        let exceeded = LimitExceeded::Total(self.size, self.what);
        let count = u32::try_from(count).map_err(|_| exceeded)?;
        let total = self.free.clone().try_acquire_many_owned(count).map_err(|_| exceeded)?;
        Ok(Permit { _total: Some(total), ..permit })
    }

    /// Takes `count` of what this client may have, whatever others have.
    ///
    /// # Errors
    /// [`LimitExceeded::Client`].
    fn take_from_client(&self, client: Client, count: usize) -> Result<Permit, LimitExceeded> {
        let exceeded = LimitExceeded::Client(self.per_client.most, self.what);
        let client = match client.unlimited {
            true => None,
            false => Some(self.per_client.take(client.key, count).ok_or(exceeded)?),
        };
        Ok(Permit { _total: None, _client: client })
    }

    /// How much may be taken in all.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// How much is taken.
    pub(super) fn taken(&self) -> usize {
        self.size - self.free.available_permits()
    }
}

/// The limits of the public listener's requests.
pub(super) struct RequestLimits {
    /// Requests in flight.
    pub(super) in_flight: Limit,
    /// Requests in flight that wait for a peer: slow peers must not block answers from the store.
    pub(super) forwarded: Limit,
    /// Bytes of answers being sent: slow readers must not block others' answers.
    pub(super) answer_bytes: Limit,
    /// Request bodies being received or held.
    pub(super) bodies: Limit,
    /// Bytes of these.
    pub(super) body_bytes: Arc<Semaphore>,
    /// Event streams.
    pub(super) streams: Limit,
}

impl RequestLimits {
    pub(super) fn new(max_requests: usize, max_streams: usize) -> Self {
        let (bytes, part) = (max_requests * ANSWER_BYTES, |of: usize, divisor: usize| (of / divisor).max(1));
        Self {
            in_flight: Limit::new("requests are in progress", max_requests, part(max_requests, 2)),
            forwarded: Limit::new("requests wait for peers", part(max_requests, 2), part(max_requests, 8)),
            answer_bytes: Limit::new("bytes of answers are on their way", bytes, part(bytes, 8)),
            bodies: Limit::new("bodies are in progress", Semaphore::MAX_PERMITS, MAX_CLIENT_BODIES),
            body_bytes: Arc::new(Semaphore::new(BODY_BYTES)),
            streams: Limit::new("event streams are open", max_streams, MAX_CLIENT_STREAMS),
        }
    }

    /// Permits for a request: one in flight, and another where it waits for a peer. A stream of the chain takes that of
    /// its answer at once.
    ///
    /// # Errors
    /// [`LimitExceeded`].
    pub(super) fn admit(&self, client: Client, forwarded: bool, streamed: bool) -> Result<Permits, LimitExceeded> {
        if streamed {
            return Ok((self.answer_bytes.take(client, STREAM_BYTES)?, None));
        }
        let second = if forwarded { Some(self.forwarded.take(client, 1)?) } else { None };
        Ok((self.in_flight.take(client, 1)?, second))
    }

    /// A permit for sending an answer of `size` bytes, `None` if that is unknown. Small answers need none.
    ///
    /// # Errors
    /// [`LimitExceeded`].
    pub(super) fn send(&self, client: Client, size: Option<u64>) -> Result<Option<Permits>, LimitExceeded> {
        let permit = match size {
            Some(size) if size <= TINY_ANSWER || client.unlimited && size <= SMALL_ANSWER => return Ok(None),
            Some(size) if size <= SMALL_ANSWER => self.answer_bytes.take_from_client(client, size as usize)?,
            size => self.answer_bytes.take(client, size.map_or(STREAM_BYTES, |size| size as usize))?,
        };
        Ok(Some((permit, None)))
    }

    /// Bytes of request bodies in memory.
    pub(super) fn body_bytes_taken(&self) -> usize {
        BODY_BYTES - self.body_bytes.available_permits()
    }
}

/// A limit on what each client holds, and the clients of each [network](ClientKey::network) together. Clients that hold
/// nothing take no memory.
#[derive(Debug)]
pub(super) struct PerClientLimit {
    most: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    clients: HashMap<ClientKey, usize>,
    networks: HashMap<ClientKey, usize>,
}

impl PerClientLimit {
    /// At most `most` for each client, and [`MEMBERS_PER_NETWORK`] times that for each network.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// `count` more for `client`; `None` if the client or its network would hold too much.
    pub(super) fn take(self: &Arc<Self>, client: ClientKey, count: usize) -> Option<ClientPermit> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Held { clients, networks } = &mut *held;
        let of_client = with_room(clients, client, count, self.most)?;
        if let Some(network) = client.network() {
            *with_room(networks, network, count, MEMBERS_PER_NETWORK as usize * self.most)?.or_default() += count;
        }
        *of_client.or_default() += count;
        Some(ClientPermit { limit: self.clone(), client, count })
    }
}

/// Where the holder's number is or will be; `None` if `count` more would be over `most`.
fn with_room(
    holders: &mut HashMap<ClientKey, usize>,
    key: ClientKey,
    count: usize,
    most: usize,
) -> Option<Entry<'_, ClientKey, usize>> {
    let entry = holders.entry(key);
    let held = if let Entry::Occupied(held) = &entry { *held.get() } else { 0 };
    (held + count <= most).then_some(entry)
}

/// What a client holds, given back when it is dropped.
#[derive(Debug)]
pub(super) struct ClientPermit {
    limit: Arc<PerClientLimit>,
    client: ClientKey,
    count: usize,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut held = self.limit.held.lock().unwrap_or_else(PoisonError::into_inner);
        give_back(&mut held.clients, self.client, self.count);
        if let Some(network) = self.client.network() {
            give_back(&mut held.networks, network, self.count);
        }
    }
}

fn give_back(holders: &mut HashMap<ClientKey, usize>, key: ClientKey, count: usize) {
    if let Entry::Occupied(mut held) = holders.entry(key) {
        *held.get_mut() -= count;
        if *held.get() == 0 {
            held.remove();
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
    fn each_client_has_a_limit_of_its_own() {
        let limit = PerClientLimit::new(2);
        let first = limit.take(key("2001:db8::1"), 1).unwrap();
        let _second = limit.take(key("2001:db8::2"), 1).unwrap();
        assert!(limit.take(key("2001:db8::3"), 1).is_none(), "one /64 is one client");
        assert!(limit.take(key("2001:db8:0:1::1"), 3).is_none());
        assert!(limit.take(key("2001:db8:0:1::1"), 2).is_some());
        drop(first);
        assert!(limit.take(key("2001:db8::3"), 1).is_some());
        assert_eq!(limit.held.lock().unwrap().clients.len(), 1, "clients that hold nothing are forgotten");
    }

    #[test]
    fn the_clients_of_a_network_hold_what_four_may() {
        let limit = PerClientLimit::new(2);
        let nth = |n: usize| key(&format!("2001:db8:0:{n:x}::1"));
        let held: Vec<_> = (0..100).filter_map(|n| limit.take(nth(n), 1)).collect();
        assert_eq!(held.len(), 2 * MEMBERS_PER_NETWORK as usize);
        assert!(limit.take(key("2001:db8:1::1"), 1).is_some(), "another network");
        assert!((0..100).all(|n| limit.take(key(&format!("192.0.2.{n}")), 1).is_some()), "IPv4");
        drop(held);
        assert!(limit.take(nth(200), 2).is_some());
        assert!(limit.held.lock().unwrap().networks.is_empty());
    }
}

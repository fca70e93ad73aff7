//! Room at the public door: how much of everything there is, and how much of it one client may take.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::client::{Client, ClientKey, NETWORK};
use crate::protocol::{Code, Failure};

pub mod client;
pub mod rate;

/// Bytes of answers on their way, for each request that may be worked at.
const LEAVING_BYTES: usize = 1 << 20;

/// What a stream takes of that: a page of it, and a part of the next one.
const STREAM_BYTES: usize = 1 << 20;
/// Answers of so few bytes leave without being counted.
const TINY: u64 = 4 << 10;
/// Answers of at most so many bytes leave whatever else does: only their own client can have too many of them.
const SMALL: u64 = 64 << 10;

/// Bodies of so few bytes count for their client only while they come, and need no room.
pub(super) const SHORT_BODY: usize = 4 << 10;
/// Bytes of all requests' bodies that are in memory at once, but for short ones when there is no more.
const BODY_BYTES: usize = 64 << 20;
/// Bodies of one client: it must not have all of [`BODY_BYTES`].
const MAX_CLIENT_BODIES: usize = 16;

/// Most streams of events at once.
pub const MAX_STREAMS: usize = 256;
/// Most of one client.
pub const MAX_CLIENT_STREAMS: usize = 16;

/// So much of something, of which each client may have its part. Programs on this machine may have all of it.
pub(super) struct Pool {
    size: usize,
    of: &'static str,
    free: Arc<Semaphore>,
    shares: Arc<Shares>,
}

/// What somebody has of it, until it is dropped.
#[derive(Debug)]
pub(super) struct Part {
    _permit: Option<OwnedSemaphorePermit>,
    _share: Option<Share>,
}

/// What a request or an answer has.
pub(super) type Place = (Part, Option<Part>);

/// So many of something, in words that follow the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    most: usize,
    of: &'static str,
}

/// Who has taken too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// All together have taken what there is.
    All(Limit),
    /// The client that asks has taken its part, or those of its network theirs.
    Yours(Limit),
}

impl Taken {
    /// What the client is told.
    pub(super) fn failure(self) -> Failure {
        let (code, Limit { most, of }) = match self {
            Self::All(limit) => (Code::Busy, limit),
            Self::Yours(limit) => (Code::RateLimited, limit),
        };
        Failure::with_detail(code, format!("{most} {of}"))
    }
}

impl Pool {
    fn new(of: &'static str, size: usize, of_one_client: usize) -> Self {
        Self { size, of, free: Arc::new(Semaphore::new(size)), shares: Shares::new(of_one_client) }
    }

    /// So much of it for this client; no more than all that it may have, for who wants more.
    ///
    /// # Errors
    /// [`Taken`], and nothing is taken.
    pub(super) fn take(&self, client: Client, count: usize) -> Result<Part, Taken> {
        let count = count.min(if client.local { self.size } else { self.shares.most() });
        let part = self.take_share(client, count)?;
        let taken = Taken::All(Limit { most: self.size, of: self.of });
        let permits = u32::try_from(count).map_err(|_| taken)?;
        let permit = self.free.clone().try_acquire_many_owned(permits).map_err(|_| taken)?;
        Ok(Part { _permit: Some(permit), ..part })
    }

    /// So much of what this client may have, whatever others have.
    ///
    /// # Errors
    /// [`Taken::Yours`].
    pub(super) fn take_share(&self, client: Client, count: usize) -> Result<Part, Taken> {
        let share = match client.local {
            true => None,
            false => {
                let taken = Taken::Yours(Limit { most: self.shares.most(), of: self.of });
                Some(self.shares.take(client.key, count).ok_or(taken)?)
            }
        };
        Ok(Part { _permit: None, _share: share })
    }

    /// What is taken of it.
    pub(super) fn taken(&self) -> usize {
        self.size - self.free.available_permits()
    }
}

/// Room for requests and their answers.
pub(super) struct Room {
    /// Requests that are worked at.
    pub(super) working: Pool,
    /// Those of them that wait for a peer: its slowness must not stand in the way of answers from the store.
    pub(super) forwarded: Pool,
    /// Bytes of answers on their way: who reads slowly must keep nobody from being answered.
    pub(super) leaving: Pool,
    /// Bodies that are received.
    pub(super) bodies: Pool,
    /// Their bytes, those of requests that are worked at included.
    pub(super) body_bytes: Arc<Semaphore>,
    /// Streams of events.
    pub(super) streams: Pool,
}

impl Room {
    pub(super) fn new(most: usize) -> Self {
        let part = |of: usize, divisor: usize| (of / divisor).max(1);
        Self {
            working: Pool::new("requests are in progress", most, part(most, 2)),
            forwarded: Pool::new("requests wait for peers", part(most, 2), part(most, 8)),
            leaving: Pool::new(
                "bytes of answers are on their way",
                most * LEAVING_BYTES,
                part(most * LEAVING_BYTES, 8),
            ),
            bodies: Pool::new("bodies are in progress", Semaphore::MAX_PERMITS, MAX_CLIENT_BODIES),
            body_bytes: Arc::new(Semaphore::new(BODY_BYTES)),
            streams: Pool::new("event streams are open", MAX_STREAMS, MAX_CLIENT_STREAMS),
        }
    }

    /// A place for a request: one that is worked at, twice where it waits for a peer. A stream of the chain begins to leave
    /// at once.
    ///
    /// # Errors
    /// [`Taken`].
    pub(super) fn enter(&self, client: Client, forwarded: bool, streamed: bool) -> Result<Place, Taken> {
        if streamed {
            return Ok((self.leaving.take(client, STREAM_BYTES)?, None));
        }
        let second = if forwarded { Some(self.forwarded.take(client, 1)?) } else { None };
        Ok((self.working.take(client, 1)?, second))
    }

    /// A place for an answer on its way, of so many bytes; `None` where it needs none.
    ///
    /// # Errors
    /// [`Taken`].
    pub(super) fn leave(&self, client: Client, size: Option<u64>) -> Result<Option<Place>, Taken> {
        let part = match size {
            Some(size) if size <= TINY || client.local && size <= SMALL => return Ok(None),
            Some(size) if size <= SMALL => self.leaving.take_share(client, size as usize)?,
            size => self.leaving.take(client, size.map_or(STREAM_BYTES, |size| size as usize))?,
        };
        Ok(Some((part, None)))
    }

    /// Bytes of bodies in memory.
    pub(super) fn body_bytes(&self) -> usize {
        BODY_BYTES - self.body_bytes.available_permits()
    }
}

/// Of which each client may hold so many. Who holds none takes no memory.
#[derive(Debug)]
pub struct Shares {
    most: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    clients: HashMap<ClientKey, usize>,
    networks: HashMap<ClientKey, usize>,
}

impl Shares {
    /// At most `most` for each client, and four times that for those of one network.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// At most so many for each client.
    pub fn most(&self) -> usize {
        self.most
    }

    /// `count` more for `client`, unless it or its network holds all that it may.
    pub fn take(self: &Arc<Self>, client: ClientKey, count: usize) -> Option<Share> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |holders: &HashMap<_, usize>, key, most| holders.get(&key).copied().unwrap_or(0) + count <= most;
        let network = client.network();
        if !fits(&held.clients, client, self.most)
            || network.is_some_and(|network| !fits(&held.networks, network, NETWORK * self.most))
        {
            return None;
        }
        *held.clients.entry(client).or_default() += count;
        if let Some(network) = network {
            *held.networks.entry(network).or_default() += count;
        }
        Some(Share { of: self.clone(), client, count })
    }
}

/// So many of them, until it is dropped.
#[derive(Debug)]
pub struct Share {
    of: Arc<Shares>,
    client: ClientKey,
    count: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        give_back(&mut held.clients, self.client, self.count);
        if let Some(network) = self.client.network() {
            give_back(&mut held.networks, network, self.count);
        }
    }
}

fn give_back(holders: &mut HashMap<ClientKey, usize>, key: ClientKey, count: usize) {
    if let Some(held) = holders.get_mut(&key) {
        *held -= count;
        if *held == 0 {
            holders.remove(&key);
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
    fn each_client_has_its_own() {
        let shares = Shares::new(2);
        let first = shares.take(key("2001:db8::1"), 1).unwrap();
        let _second = shares.take(key("2001:db8::2"), 1).unwrap();
        assert!(shares.take(key("2001:db8::3"), 1).is_none(), "one /64 is one client");
        assert!(shares.take(key("2001:db8:0:1::1"), 3).is_none());
        assert!(shares.take(key("2001:db8:0:1::1"), 2).is_some());
        drop(first);
        assert!(shares.take(key("2001:db8::3"), 1).is_some());
        assert_eq!(shares.held.lock().unwrap().clients.len(), 1, "who holds none is forgotten");
    }

    #[test]
    fn a_network_of_many_clients_has_that_of_four() {
        let shares = Shares::new(2);
        let nth = |n: usize| key(&format!("2001:db8:0:{n:x}::1"));
        let held: Vec<_> = (0..100).filter_map(|n| shares.take(nth(n), 1)).collect();
        assert_eq!(held.len(), 2 * NETWORK);
        assert!(shares.take(key("2001:db8:1::1"), 1).is_some(), "another network");
        assert!((0..100).all(|n| shares.take(key(&format!("192.0.2.{n}")), 1).is_some()), "IPv4");
        drop(held);
        assert!(shares.take(nth(200), 2).is_some());
        assert!(shares.held.lock().unwrap().networks.is_empty());
    }
}

//! Limits on inbound requests and gossip: number, memory and rate.
//!
//! A request is in flight from its arrival until its answer is sent or its stream has closed, and in any case until the
//! work on it is done: a peer that hangs up and comes back under a new id gains nothing. A request over a limit waits
//! ([`DelayedRequests`]) or is answered with a failure, which costs next to nothing.
//!
//! No sums are kept: a check scans the requests, and their limits keep them few.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::PeerId;
use libp2p::request_response::{InboundRequestId, ResponseChannel};

use crate::limits::{Rate, RateLimit};
use crate::p2p::address::scope::Subnet;
use crate::p2p::config::P2pConfig;
use crate::protocol::codec::WireResponse;
use crate::protocol::{Code, MAX_RESPONSE_BYTES};

/// Cost of a block in bytes: about the length of its JSON.
pub const BLOCK_BYTES: usize = 700;
/// Longest answer that counts as short: a block, an epoch, a chain's state.
const SHORT_BYTES: usize = 64 << 10;
/// Burst of a peer, in seconds of its rate.
const BURST_SECONDS: u32 = 10;

/// Peer that sends requests or gossip, as limits see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requester {
    pub peer: PeerId,
    /// `None` for this machine.
    pub subnet: Option<Subnet>,
    /// Whether the operator trusts the peer: no rate limit, and reserved memory.
    pub trusted: bool,
}

/// Rate limit per untrusted peer, and per subnet for all of its untrusted peers. A debt is at most a burst.
pub(crate) struct PeerRateLimit(Option<RateLimit<PeerId, Subnet>>);

impl PeerRateLimit {
    pub fn new(rate: Rate) -> Self {
        Self(RateLimit::new(rate, rate.burst))
    }

    /// Takes one token. Returns false, and takes none, where the peer or its subnet has none.
    pub fn take(&mut self, requester: &Requester, now: Instant) -> bool {
        self.limit(requester).is_none_or(|limit| limit.take(requester.peer, requester.subnet, 1, now).is_ok())
    }

    /// Charges a cost to the peer and its subnet.
    fn charge(&mut self, requester: &Requester, cost: u64, now: Instant) {
        if let Some(limit) = self.limit(requester) {
            limit.charge(requester.peer, requester.subnet, cost, now);
        }
    }

    fn limit(&mut self, requester: &Requester) -> Option<&mut RateLimit<PeerId, Subnet>> {
        self.0.as_mut().filter(|_| !requester.trusted)
    }
}

/// Number and bytes of requests.
#[derive(Clone, Copy, Default)]
struct Sum {
    count: usize,
    bytes: usize,
}

impl Sum {
    fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// Requests that share limits with those of one peer.
#[derive(Default)]
struct Usage {
    all: Sum,
    of_peer: Sum,
    /// Of the untrusted peers of an untrusted peer's subnet.
    of_subnet: Sum,
    /// Bytes of long answers to untrusted peers.
    long_bytes: usize,
}

impl Usage {
    /// Sums up requests, each with its bytes.
    fn new<'a>(requester: &Requester, requests: impl Iterator<Item = (&'a Requester, usize)>) -> Self {
        let mut usage = Self::default();
        for (other, bytes) in requests {
            usage.all.add(bytes);
            if other.peer == requester.peer {
                usage.of_peer.add(bytes);
            }
            if !requester.trusted && !other.trusted && other.subnet.is_some() && other.subnet == requester.subnet {
                usage.of_subnet.add(bytes);
            }
            if !other.trusted && bytes > SHORT_BYTES {
                usage.long_bytes += bytes;
            }
        }
        usage
    }

    /// Whether one more request would be over a limit on their number. A quarter of all is reserved for trusted peers;
    /// one subnet may have half of the rest.
    fn is_full(&self, trusted: bool, max: usize, max_per_peer: usize) -> bool {
        let untrusted = max - max / 4;
        let max = if trusted { max } else { untrusted };
        self.all.count >= max || self.of_peer.count >= max_per_peer || self.of_subnet.count >= untrusted.div_ceil(2)
    }
}

/// A request that is being answered.
struct InFlight {
    requester: Requester,
    /// Memory of the request and its answer: an estimate until the answer is there.
    bytes: usize,
    /// Whether the responder works on it.
    in_progress: bool,
    /// Whether its stream has closed.
    stream_closed: bool,
}

/// Inbound requests in flight, and the rates of their requesters.
pub(crate) struct InboundLimits {
    max: usize,
    max_per_peer: usize,
    max_bytes: usize,
    rate: PeerRateLimit,
    in_flight: HashMap<InboundRequestId, InFlight>,
}

impl InboundLimits {
    pub fn new(config: &P2pConfig) -> Self {
        let per_second = config.peer_rate_limit;
        let rate = Rate { per_second, burst: per_second.saturating_mul(BURST_SECONDS) };
        Self {
            max: config.max_inbound,
            max_per_peer: config.max_inbound_per_peer,
            max_bytes: config.answer_bytes.max(MAX_RESPONSE_BYTES),
            rate: PeerRateLimit::new(rate),
            in_flight: HashMap::new(),
        }
    }

    /// Number of requests in flight; at most `max_inbound`.
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Memory of the requests in flight and their answers.
    pub fn bytes(&self) -> usize {
        self.in_flight.values().map(|request| request.bytes).sum()
    }

    /// Charges a request of `length` bytes, before it is parsed.
    ///
    /// # Errors
    /// [`Code::RateLimited`] where the requester has used up its rate.
    pub fn charge_request(&mut self, requester: &Requester, length: usize, now: Instant) -> Result<(), Code> {
        if !self.rate.take(requester, now) {
            return Err(Code::RateLimited);
        }
        self.charge(requester, length, now);
        Ok(())
    }

    /// Charges the cost of a request or an answer.
    fn charge(&mut self, requester: &Requester, bytes: usize, now: Instant) {
        self.rate.charge(requester, (bytes / BLOCK_BYTES) as u64, now);
    }

    /// Admits a request with an estimate of its memory, answer included.
    ///
    /// # Errors
    /// [`Code::Busy`] where a limit is exceeded.
    pub fn admit(&mut self, id: InboundRequestId, requester: Requester, bytes: usize) -> Result<(), Code> {
        let usage = self.usage(&requester, None);
        if usage.is_full(requester.trusted, self.max, self.max_per_peer) || !self.fits(&requester, &usage, bytes) {
            return Err(Code::Busy);
        }
        self.in_flight.insert(id, InFlight { requester, bytes, in_progress: true, stream_closed: false });
        Ok(())
    }

    /// Sums up the requests in flight `except` one.
    fn usage(&self, requester: &Requester, except: Option<&InboundRequestId>) -> Usage {
        let others = self.in_flight.iter().filter(|(id, _)| Some(*id) != except);
        Usage::new(requester, others.map(|(_, request)| (&request.requester, request.bytes)))
    }

    /// Whether a request may have `bytes` beside the `usage` of the others. In eighths of the memory:
    ///
    /// | | all untrusted peers | one peer | one subnet |
    /// |---|---|---|---|
    /// | any answers | 6 | 4 | 5 |
    /// | long answers | 5 | 2 | 4 |
    ///
    /// A peer and subnet with nothing else in flight may have one answer of any length.
    fn fits(&self, requester: &Requester, usage: &Usage, bytes: usize) -> bool {
        let Usage { all, of_peer, of_subnet, long_bytes } = usage;
        if requester.trusted {
            return all.bytes + bytes <= self.max_bytes;
        }
        let eighths = |count: usize| self.max_bytes / 8 * count;
        let is_long = bytes > SHORT_BYTES;
        let alone = of_peer.bytes == 0 && of_subnet.bytes == 0;
        // A peer that receives a long answer may still ask for short ones.
        let (max_of_peer, max_of_subnet) = if is_long { (2, 4) } else { (4, 5) };
        // One answer always fits.
        all.bytes + bytes <= eighths(6).max(MAX_RESPONSE_BYTES)
            && (!is_long || long_bytes + bytes <= eighths(5).max(MAX_RESPONSE_BYTES))
            && (alone
                || of_peer.bytes + bytes <= eighths(max_of_peer) && of_subnet.bytes + bytes <= eighths(max_of_subnet))
    }

    /// Records that the answer is ready and charges its `bytes`. Returns false where they exceed the memory limit.
    pub fn answer_ready(&mut self, id: &InboundRequestId, bytes: usize, now: Instant) -> bool {
        let Some(&InFlight { requester, bytes: reserved, stream_closed, .. }) = self.in_flight.get(id) else {
            return true;
        };
        self.charge(&requester, bytes, now);
        self.work_done(id);
        if stream_closed {
            return true;
        }
        if bytes > reserved && !self.fits(&requester, &self.usage(&requester, Some(id)), bytes) {
            return false;
        }
        if let Some(request) = self.in_flight.get_mut(id) {
            request.bytes = bytes;
        }
        true
    }

    /// Records that the responder has finished, with an answer or without.
    pub fn work_done(&mut self, id: &InboundRequestId) {
        self.update(id, |request| request.in_progress = false);
    }

    /// Records that the request's stream has closed.
    pub fn stream_closed(&mut self, id: &InboundRequestId) {
        self.update(id, |request| request.stream_closed = true);
    }

    /// Changes a request, which ends once its work is done and its stream has closed.
    fn update(&mut self, id: &InboundRequestId, change: impl FnOnce(&mut InFlight)) {
        let Some(request) = self.in_flight.get_mut(id) else { return };
        change(request);
        if request.stream_closed && !request.in_progress {
            self.in_flight.remove(id);
        }
    }
}

/// Bytes of all delayed requests; one peer may have an eighth, and the untrusted peers of one subnet half.
const MAX_DELAYED_BYTES: usize = 4 << 20;

/// An inbound request that is not answered yet.
pub(crate) struct InboundRequest {
    pub id: InboundRequestId,
    pub requester: Requester,
    pub body: Bytes,
    pub channel: ResponseChannel<WireResponse>,
    /// Estimated memory, answer included; `None` until the request is charged.
    pub cost: Option<usize>,
}

/// An inbound request over a limit.
pub(crate) struct DelayedRequest {
    pub request: InboundRequest,
    /// Time at which it is refused with `reason`.
    pub until: Instant,
    pub reason: Code,
}

/// Queue of inbound requests that wait for a limit. A node of the network takes a failure for the end of the chain, so
/// that a late answer is better. Bounded in number and bytes: in all, per peer and per subnet.
pub(crate) struct DelayedRequests {
    pub waiting: VecDeque<DelayedRequest>,
    pub limit: Duration,
    max: usize,
    max_per_peer: usize,
}

impl DelayedRequests {
    pub fn new(config: &P2pConfig) -> Self {
        // A connection has twice as many streams as its peer may have requests in flight; the rest is for refused ones.
        let max_per_peer = config.max_inbound_per_peer.div_ceil(2);
        Self { waiting: VecDeque::new(), limit: config.delay_limit, max: config.max_inbound, max_per_peer }
    }

    /// Number of requests that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The reason why the first request of this peer waits, if one does.
    pub fn reason(&self, peer: &PeerId) -> Option<Code> {
        self.waiting.iter().find(|waiting| waiting.request.requester.peer == *peer).map(|waiting| waiting.reason)
    }

    /// Whether one more request of `bytes` may wait. Of their number, the shares are those of the requests in flight.
    pub fn fits(&self, requester: &Requester, bytes: usize) -> bool {
        let waiting = self.waiting.iter().map(|waiting| (&waiting.request.requester, waiting.request.body.len()));
        let usage = Usage::new(requester, waiting);
        !usage.is_full(requester.trusted, self.max, self.max_per_peer)
            && usage.all.bytes + bytes <= MAX_DELAYED_BYTES
            && usage.of_peer.bytes + bytes <= MAX_DELAYED_BYTES / 8
            && usage.of_subnet.bytes + bytes <= MAX_DELAYED_BYTES / 2
    }
}

#[cfg(test)]
mod tests;

//! Limits on inbound requests: number, memory and rate.
//!
//! A request is in flight from its arrival until its answer is sent or its stream has closed, and in any case until the
//! work on it is done: a peer that hangs up and comes back under a new id gains nothing. A request over a limit waits
//! ([`DelayedRequests`]) or is answered with a failure, which costs next to nothing.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::PeerId;
use libp2p::request_response::{InboundRequestId, ResponseChannel};

use crate::limits::Rate;
use crate::p2p::address::scope::Subnet;
use crate::p2p::config::P2pConfig;
use crate::p2p::rate::{PeerRateLimit, Requester};
use crate::protocol::codec::WireResponse;
use crate::protocol::{Code, MAX_RESPONSE_BYTES};

/// Cost of a block in bytes: about the length of its JSON.
pub const BLOCK_BYTES: usize = 700;
/// Longest answer that counts as short: a block, an epoch, a chain's state.
const SHORT_BYTES: usize = 64 << 10;
/// Burst of a peer, in seconds of its rate.
const BURST_SECONDS: u32 = 10;

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
    /// Requests in flight and their bytes.
    by_peer: HashMap<PeerId, (usize, usize)>,
    /// The same, of untrusted peers.
    by_subnet: HashMap<Subnet, (usize, usize)>,
    /// Bytes of long answers to untrusted peers.
    long: usize,
    bytes: usize,
}

/// Counts `bytes` where the answer is long.
fn long(bytes: usize) -> usize {
    if bytes > SHORT_BYTES { bytes } else { 0 }
}

/// Subtracts one request of a peer or subnet.
fn decrement<K: Eq + Hash>(counts: &mut HashMap<K, (usize, usize)>, key: &K) {
    if let Some((requests, _)) = counts.get_mut(key) {
        *requests -= 1;
        if *requests == 0 {
            counts.remove(key);
        }
    }
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
            by_peer: HashMap::new(),
            by_subnet: HashMap::new(),
            long: 0,
            bytes: 0,
        }
    }

    /// Number of requests in flight; at most `max_inbound`.
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Memory of the requests in flight and their answers.
    pub fn bytes(&self) -> usize {
        self.bytes
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
        let (of_peer, _) = self.by_peer.get(&requester.peer).copied().unwrap_or_default();
        let subnet = requester.limited_subnet().and_then(|subnet| self.by_subnet.get(&subnet));
        let (of_subnet, _) = subnet.copied().unwrap_or_default();
        // A quarter is reserved for trusted peers; one subnet may have half of the rest.
        let untrusted = self.max - self.max / 4;
        let max = if requester.trusted { self.max } else { untrusted };
        let full = self.in_flight.len() >= max || of_peer >= self.max_per_peer || of_subnet >= untrusted.div_ceil(2);
        if full || !self.fits(&requester, 0, bytes) {
            return Err(Code::Busy);
        }
        self.in_flight.insert(id, InFlight { requester, bytes, in_progress: true, stream_closed: false });
        self.by_peer.entry(requester.peer).or_default().0 += 1;
        if let Some(subnet) = requester.limited_subnet() {
            self.by_subnet.entry(subnet).or_default().0 += 1;
        }
        self.resize(&requester, 0, bytes);
        Ok(())
    }

    /// Whether a request that has `before` bytes may have `bytes` instead. In eighths of the memory:
    ///
    /// | | all untrusted peers | one peer | one subnet |
    /// |---|---|---|---|
    /// | any answers | 6 | 4 | 5 |
    /// | long answers | 5 | 2 | 4 |
    ///
    /// A peer and subnet with nothing else in flight may have one answer of any length.
    fn fits(&self, requester: &Requester, before: usize, bytes: usize) -> bool {
        let all = self.bytes - before + bytes;
        if requester.trusted {
            return all <= self.max_bytes;
        }
        let eighths = |count: usize| self.max_bytes / 8 * count;
        let of_peer = self.by_peer.get(&requester.peer).map_or(0, |(_, sum)| *sum - before);
        let subnet = requester.subnet.and_then(|subnet| self.by_subnet.get(&subnet));
        let of_subnet = subnet.map_or(0, |(_, sum)| *sum - before);
        let alone = of_peer == 0 && of_subnet == 0;
        let all_long = self.long - long(before) + long(bytes);
        // A peer that receives a long answer may still ask for short ones.
        let (max_of_peer, max_of_subnet) = if bytes <= SHORT_BYTES { (4, 5) } else { (2, 4) };
        // One answer always fits.
        all <= eighths(6).max(MAX_RESPONSE_BYTES)
            && (bytes <= SHORT_BYTES || all_long <= eighths(5).max(MAX_RESPONSE_BYTES))
            && (alone || of_peer + bytes <= eighths(max_of_peer) && of_subnet + bytes <= eighths(max_of_subnet))
    }

    /// Replaces the memory of a request.
    fn resize(&mut self, requester: &Requester, before: usize, bytes: usize) {
        self.bytes = self.bytes - before + bytes;
        if let Some((_, sum)) = self.by_peer.get_mut(&requester.peer) {
            *sum = *sum - before + bytes;
        }
        if requester.trusted {
            return;
        }
        self.long = self.long - long(before) + long(bytes);
        if let Some((_, sum)) = requester.subnet.and_then(|subnet| self.by_subnet.get_mut(&subnet)) {
            *sum = *sum - before + bytes;
        }
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
        if bytes > reserved && !self.fits(&requester, reserved, bytes) {
            return false;
        }
        self.resize(&requester, reserved, bytes);
        if let Some(request) = self.in_flight.get_mut(id) {
            request.bytes = bytes;
        }
        true
    }

    /// Records that the responder has finished, with an answer or without.
    pub fn work_done(&mut self, id: &InboundRequestId) {
        let Some(request) = self.in_flight.get_mut(id) else { return };
        request.in_progress = false;
        if request.stream_closed {
            self.release(id);
        }
    }

    /// Records that the request's stream has closed.
    pub fn stream_closed(&mut self, id: &InboundRequestId) {
        let Some(request) = self.in_flight.get_mut(id) else { return };
        request.stream_closed = true;
        if !request.in_progress {
            self.release(id);
        }
    }

    fn release(&mut self, id: &InboundRequestId) {
        let Some(InFlight { requester, bytes, .. }) = self.in_flight.remove(id) else { return };
        self.resize(&requester, bytes, 0);
        decrement(&mut self.by_peer, &requester.peer);
        if let Some(subnet) = requester.limited_subnet() {
            decrement(&mut self.by_subnet, &subnet);
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

    /// Whether one more request of `bytes` may wait.
    pub fn fits(&self, requester: &Requester, bytes: usize) -> bool {
        let usage = |matches: &dyn Fn(&Requester) -> bool| {
            let theirs =
                self.waiting.iter().map(|waiting| &waiting.request).filter(|request| matches(&request.requester));
            theirs.fold((0, bytes), |(count, sum), request| (count + 1, sum + request.body.len()))
        };
        let fits = |(count, sum): (usize, usize), max: usize, max_bytes: usize| count < max && sum <= max_bytes;
        // The same shares as of the requests in flight.
        let untrusted = self.max - self.max / 4;
        let subnet = requester.subnet;
        fits(usage(&|_| true), if requester.trusted { self.max } else { untrusted }, MAX_DELAYED_BYTES)
            && fits(usage(&|other| other.peer == requester.peer), self.max_per_peer, MAX_DELAYED_BYTES / 8)
            && (requester.trusted
                || subnet.is_none()
                || fits(
                    usage(&|other| !other.trusted && other.subnet == subnet),
                    untrusted.div_ceil(2),
                    MAX_DELAYED_BYTES / 2,
                ))
    }
}

#[cfg(test)]
mod tests;

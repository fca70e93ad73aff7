//! How much others may ask of us, and how much their answers may take.
//!
//! A request is held from its arrival until its answer is sent or its stream has ended, and in any case until the work at
//! it is done: who hangs up and comes back under a new id gains nothing by it. What exceeds a limit waits
//! ([`delayed`](super::delayed)), or is answered with a failure, which costs next to nothing: a peer that stalls has its own
//! places and memory, and no more.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::PeerId;
use libp2p::request_response::{InboundRequestId, ResponseChannel};

use crate::p2p::address::scope::Subnet;
use crate::p2p::config::P2pConfig;
use crate::p2p::rate::{Asker, Shares};
use crate::protocol::codec::Response;
use crate::protocol::{Code, MAX_RESPONSE_BYTES};

/// Bytes that a block costs: about its JSON text.
pub const BLOCK_BYTES: usize = 700;
/// Longest answer that counts as short: a block, an epoch, what a chain weighs.
const SHORT_BYTES: usize = 64 << 10;
/// Seconds' worth of its rate that a peer may use at once.
const BURST_SECONDS: f64 = 10.0;

struct Held {
    asker: Asker,
    bytes: usize,
    /// It is being worked at.
    working: bool,
    /// Its stream has ended meanwhile.
    gone: bool,
}

/// The requests of others that are being worked at, and what they used of late.
pub(crate) struct Inbound {
    max: usize,
    max_per_peer: usize,
    max_bytes: usize,
    rate: Shares,
    held: HashMap<InboundRequestId, Held>,
    /// Requests and bytes.
    by_peer: HashMap<PeerId, (usize, usize)>,
    /// Requests and bytes of strangers.
    by_subnet: HashMap<Subnet, (usize, usize)>,
    /// Bytes of strangers' answers that are not short.
    long: usize,
    bytes: usize,
}

/// What an answer of so many bytes takes of the room for long ones.
fn long(bytes: usize) -> usize {
    if bytes > SHORT_BYTES { bytes } else { 0 }
}

/// One request less of this party's.
fn leave<K: Eq + Hash>(parties: &mut HashMap<K, (usize, usize)>, party: &K) {
    if let Some((requests, _)) = parties.get_mut(party) {
        *requests -= 1;
        if *requests == 0 {
            parties.remove(party);
        }
    }
}

impl Inbound {
    pub fn new(config: &P2pConfig) -> Self {
        let rate = f64::from(config.peer_rate_limit);
        Self {
            max: config.max_inbound,
            max_per_peer: config.max_inbound_per_peer,
            max_bytes: config.answer_bytes.max(MAX_RESPONSE_BYTES),
            rate: Shares::new(rate, rate * BURST_SECONDS),
            held: HashMap::new(),
            by_peer: HashMap::new(),
            by_subnet: HashMap::new(),
            long: 0,
            bytes: 0,
        }
    }

    /// Requests held; at most `max_inbound`.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Bytes that they and their answers have, or may have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges a request of so many bytes, or says that its asker used too much of late. First of all: reading it costs
    /// us as well.
    pub fn ask(&mut self, asker: &Asker, length: usize, now: Instant) -> Result<(), Code> {
        if !self.rate.take(asker, now) {
            return Err(Code::RateLimited);
        }
        self.charge(asker, length, now);
        Ok(())
    }

    /// Charges what the bytes of a request or an answer cost.
    fn charge(&mut self, asker: &Asker, bytes: usize, now: Instant) {
        self.rate.charge(asker, (bytes / BLOCK_BYTES) as f64, now);
    }

    /// Takes a request that may have so many bytes, its answer included, or says why not.
    pub fn admit(&mut self, id: InboundRequestId, asker: Asker, bytes: usize) -> Result<(), Code> {
        let (of_peer, _) = self.by_peer.get(&asker.peer).copied().unwrap_or_default();
        let subnet = asker.neighbours().and_then(|subnet| self.by_subnet.get(&subnet));
        let (of_subnet, _) = subnet.copied().unwrap_or_default();
        // Strangers leave a quarter of the places, too; those of a subnet, half of the others.
        let strangers = self.max - self.max / 4;
        let places = if asker.trusted { self.max } else { strangers };
        let full = self.held.len() >= places || of_peer >= self.max_per_peer || of_subnet >= strangers.div_ceil(2);
        if full || !self.has_room(&asker, 0, bytes) {
            return Err(Code::Busy);
        }
        self.held.insert(id, Held { asker, bytes, working: true, gone: false });
        self.by_peer.entry(asker.peer).or_default().0 += 1;
        if let Some(subnet) = asker.neighbours() {
            self.by_subnet.entry(subnet).or_default().0 += 1;
        }
        self.change(&asker, 0, bytes);
        Ok(())
    }

    /// Whether there is room for so many bytes in place of those that the request has already. Strangers together leave a
    /// quarter of the memory to trusted peers, and their long answers another eighth to short ones. Of long ones a stranger
    /// may have a quarter, and those of a subnet half; who has nothing else, any answer for which there is room.
    fn has_room(&self, asker: &Asker, before: usize, bytes: usize) -> bool {
        let all = self.bytes - before + bytes;
        if asker.trusted {
            return all <= self.max_bytes;
        }
        let part = |eighths: usize| self.max_bytes / 8 * eighths;
        let of_peer = self.by_peer.get(&asker.peer).map_or(0, |(_, sum)| *sum - before);
        let subnet = asker.subnet.and_then(|subnet| self.by_subnet.get(&subnet));
        let of_subnet = subnet.map_or(0, |(_, sum)| *sum - before);
        let alone = of_peer == 0 && of_subnet == 0;
        let all_long = self.long - long(before) + long(bytes);
        // Who has a long answer on its way may still ask short questions.
        let (of_peer_most, of_subnet_most) = if bytes <= SHORT_BYTES { (4, 5) } else { (2, 4) };
        // One answer fits in any case.
        all <= part(6).max(MAX_RESPONSE_BYTES)
            && (bytes <= SHORT_BYTES || all_long <= part(5).max(MAX_RESPONSE_BYTES))
            && (alone || of_peer + bytes <= part(of_peer_most) && of_subnet + bytes <= part(of_subnet_most))
    }

    /// A request has so many bytes in place of those that it had.
    fn change(&mut self, asker: &Asker, before: usize, bytes: usize) {
        self.bytes = self.bytes - before + bytes;
        if let Some((_, sum)) = self.by_peer.get_mut(&asker.peer) {
            *sum = *sum - before + bytes;
        }
        if asker.trusted {
            return;
        }
        self.long = self.long - long(before) + long(bytes);
        if let Some((_, sum)) = asker.subnet.and_then(|subnet| self.by_subnet.get_mut(&subnet)) {
            *sum = *sum - before + bytes;
        }
    }

    /// The answer is there, and has so many bytes: they are charged. False if there is no room for it.
    pub fn answered(&mut self, id: &InboundRequestId, bytes: usize, now: Instant) -> bool {
        let Some(&Held { asker, bytes: reserved, gone, .. }) = self.held.get(id) else { return true };
        self.charge(&asker, bytes, now);
        self.finished(id);
        if gone {
            return true;
        }
        if bytes > reserved && !self.has_room(&asker, reserved, bytes) {
            return false;
        }
        self.change(&asker, reserved, bytes);
        if let Some(held) = self.held.get_mut(id) {
            held.bytes = bytes;
        }
        true
    }

    /// The work at the request is done, with an answer or without.
    pub fn finished(&mut self, id: &InboundRequestId) {
        let Some(held) = self.held.get_mut(id) else { return };
        held.working = false;
        if held.gone {
            self.release(id);
        }
    }

    /// The request's stream has ended.
    pub fn ended(&mut self, id: &InboundRequestId) {
        let Some(held) = self.held.get_mut(id) else { return };
        held.gone = true;
        if !held.working {
            self.release(id);
        }
    }

    fn release(&mut self, id: &InboundRequestId) {
        let Some(Held { asker, bytes, .. }) = self.held.remove(id) else { return };
        self.change(&asker, bytes, 0);
        leave(&mut self.by_peer, &asker.peer);
        if let Some(subnet) = asker.neighbours() {
            leave(&mut self.by_subnet, &subnet);
        }
    }
}

/// Bytes of all requests that wait, of which one peer may have an eighth, and the strangers of a subnet half.
const MAX_BYTES: usize = 4 << 20;
/// A request of others, and what has become of it so far.
pub(crate) struct Asked {
    pub id: InboundRequestId,
    pub asker: Asker,
    pub request: Bytes,
    pub channel: ResponseChannel<Response>,
    /// Bytes that it may have, its answer included, once its cost is taken from what its asker may use. Not before: reading
    /// it costs us as well.
    pub bytes: Option<usize>,
}

/// A request that waits.
pub(crate) struct Waiting {
    pub asked: Asked,
    /// When it is refused, and why.
    pub until: Instant,
    pub why: Code,
}

/// The requests of others that wait.
pub(crate) struct Delayed {
    pub waiting: VecDeque<Waiting>,
    pub limit: Duration,
    max: usize,
    max_per_peer: usize,
}

impl Delayed {
    pub fn new(config: &P2pConfig) -> Self {
        // A connection has twice as many streams as a peer may have places: the other half is for those that are refused.
        let max_per_peer = config.max_inbound_per_peer.div_ceil(2);
        Self { waiting: VecDeque::new(), limit: config.delay_limit, max: config.max_inbound, max_per_peer }
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Why the first request of this peer waits, if one does.
    pub fn why(&self, peer: &PeerId) -> Option<Code> {
        self.waiting.iter().find(|waiting| waiting.asked.asker.peer == *peer).map(|waiting| waiting.why)
    }

    pub fn has_room(&self, asker: &Asker, bytes: usize) -> bool {
        let of = |whom: &dyn Fn(&Asker) -> bool| {
            let theirs = self.waiting.iter().map(|waiting| &waiting.asked).filter(|asked| whom(&asked.asker));
            theirs.fold((0, bytes), |(count, sum), asked| (count + 1, sum + asked.request.len()))
        };
        let fits = |(count, sum): (usize, usize), most: usize, most_bytes: usize| count < most && sum <= most_bytes;
        // As with places: strangers leave a quarter, and those of a subnet half of the others.
        let strangers = self.max - self.max / 4;
        let subnet = asker.subnet;
        fits(of(&|_| true), if asker.trusted { self.max } else { strangers }, MAX_BYTES)
            && fits(of(&|other| other.peer == asker.peer), self.max_per_peer, MAX_BYTES / 8)
            && (asker.trusted
                || subnet.is_none()
                || fits(of(&|other| !other.trusted && other.subnet == subnet), strangers.div_ceil(2), MAX_BYTES / 2))
    }
}

#[cfg(test)]
mod tests;

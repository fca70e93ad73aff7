//! How much others may ask of us, and how much their answers may take.
//!
//! A request is held from its arrival until its answer is sent or its stream has ended, and in any case until the work at
//! it is done: who hangs up and comes back under a new id gains nothing by it. What exceeds a limit is answered
//! at once with a failure, which costs next to nothing: a peer that stalls has its own places and memory, and no more.

use std::collections::HashMap;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::request_response::InboundRequestId;

use super::P2pConfig;
use super::place::Subnet;
use super::rate::Rate;
use crate::protocol::{Code, MAX_RESPONSE_BYTES};

/// Bytes that a block costs: about its JSON text.
pub const BLOCK_BYTES: usize = 700;
/// Seconds' worth of its rate that a peer may use at once.
const BURST_SECONDS: f64 = 10.0;
/// What a subnet may use, in shares of a peer: ids are free to make, subnets are not.
const SUBNET_SHARES: f64 = 4.0;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub peer: PeerId,
    /// `None` for this machine.
    pub subnet: Option<Subnet>,
    /// The operator's own: its rate has no limit, and some memory is kept for it.
    pub trusted: bool,
}

struct Held {
    asker: Asker,
    bytes: usize,
    /// It is being worked at.
    working: bool,
    /// Its stream has ended meanwhile.
    gone: bool,
}

/// The requests of others that are being worked at, and what they used of late.
pub(super) struct Inbound {
    max: usize,
    max_per_peer: usize,
    max_bytes: usize,
    peers: Rate<PeerId>,
    subnets: Rate<Subnet>,
    held: HashMap<InboundRequestId, Held>,
    by_peer: HashMap<PeerId, (usize, usize)>,
    bytes: usize,
}

impl Inbound {
    pub fn new(config: &P2pConfig) -> Self {
        let rate = f64::from(config.peer_rate_limit);
        Self {
            max: config.max_inbound,
            max_per_peer: config.max_inbound_per_peer,
            max_bytes: config.answer_bytes.max(MAX_RESPONSE_BYTES),
            peers: Rate::new(rate, rate * BURST_SECONDS),
            subnets: Rate::new(rate * SUBNET_SHARES, rate * SUBNET_SHARES * BURST_SECONDS),
            held: HashMap::new(),
            by_peer: HashMap::new(),
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
        if asker.trusted {
            return Ok(());
        }
        let in_subnet = asker.subnet.is_none_or(|subnet| self.subnets.take(subnet, now));
        if !(in_subnet && self.peers.take(asker.peer, now)) {
            return Err(Code::RateLimited);
        }
        self.charge(asker, length, now);
        Ok(())
    }

    /// Charges what the bytes of a request or an answer cost.
    fn charge(&mut self, asker: &Asker, bytes: usize, now: Instant) {
        let cost = (bytes / BLOCK_BYTES) as f64;
        self.peers.charge(asker.peer, cost, now);
        if let Some(subnet) = asker.subnet {
            self.subnets.charge(subnet, cost, now);
        }
    }

    /// Takes a request that may have so many bytes, its answer included, or says why not.
    pub fn admit(&mut self, id: InboundRequestId, asker: Asker, bytes: usize) -> Result<(), Code> {
        let (requests, _) = self.by_peer.get(&asker.peer).copied().unwrap_or_default();
        // Strangers leave a quarter of the places, too.
        let places = if asker.trusted { self.max } else { self.max - self.max / 4 };
        if self.held.len() >= places || requests >= self.max_per_peer || !self.has_room(&asker, bytes) {
            return Err(Code::Busy);
        }
        self.held.insert(id, Held { asker, bytes, working: true, gone: false });
        let (requests, sum) = self.by_peer.entry(asker.peer).or_default();
        *requests += 1;
        *sum += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// A peer may have half of the memory, and at least one answer; strangers together leave a quarter to trusted peers.
    fn has_room(&self, asker: &Asker, more: usize) -> bool {
        let (_, of_peer) = self.by_peer.get(&asker.peer).copied().unwrap_or_default();
        let all = if asker.trusted { self.max_bytes } else { self.max_bytes / 4 * 3 };
        let share = if asker.trusted { all } else { self.max_bytes / 2 };
        let first = of_peer == 0 && self.bytes + more <= all.max(MAX_RESPONSE_BYTES);
        first || self.bytes + more <= all && of_peer + more <= share
    }

    /// The answer is there, and has so many bytes: they are charged. False if there is no room for it.
    pub fn answered(&mut self, id: &InboundRequestId, bytes: usize, now: Instant) -> bool {
        let Some(&Held { asker, bytes: reserved, gone, .. }) = self.held.get(id) else { return true };
        if !asker.trusted {
            self.charge(&asker, bytes, now);
        }
        self.finished(id);
        if gone {
            return true;
        }
        if bytes > reserved && !self.has_room(&asker, bytes - reserved) {
            return false;
        }
        self.bytes = self.bytes - reserved + bytes;
        if let Some(held) = self.held.get_mut(id) {
            held.bytes = bytes;
        }
        if let Some((_, sum)) = self.by_peer.get_mut(&asker.peer) {
            *sum = *sum - reserved + bytes;
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
        self.bytes -= bytes;
        if let Some((requests, sum)) = self.by_peer.get_mut(&asker.peer) {
            *requests -= 1;
            *sum -= bytes;
            if *requests == 0 {
                self.by_peer.remove(&asker.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests;

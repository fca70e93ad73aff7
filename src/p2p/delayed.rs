//! Requests of others for which there is no room yet, or whose asker has used its rate: they wait for a while.
//!
//! A node of the network takes a failure for the end of the chain, so that it is better answered late. The list is
//! bounded in all, per peer and per subnet, in number and in bytes; what exceeds it is refused at once.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::PeerId;
use libp2p::request_response::{InboundRequestId, ResponseChannel};

use super::P2pConfig;
use super::inbound::Asker;
use super::worker::Worker;
use crate::protocol::Code;
use crate::protocol::codec::Response;

/// Bytes of all requests that wait, of which one peer may have an eighth, and the strangers of a subnet half.
const MAX_BYTES: usize = 4 << 20;
/// How often to see whether those that wait can be answered, where nothing else tells.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A request of others, and what has become of it so far.
pub(super) struct Asked {
    pub id: InboundRequestId,
    pub asker: Asker,
    pub request: Bytes,
    pub channel: ResponseChannel<Response>,
    /// Bytes that it may have, its answer included, once its cost is taken from what its asker may use. Not before: reading
    /// it costs us as well.
    pub bytes: Option<usize>,
}

struct Waiting {
    asked: Asked,
    /// When it is refused, and why.
    until: Instant,
    why: Code,
}

/// The requests of others that wait.
pub(super) struct Delayed {
    waiting: VecDeque<Waiting>,
    limit: Duration,
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

    fn has_room(&self, asker: &Asker, bytes: usize) -> bool {
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

impl Worker {
    /// Keeps a request for which there is no room until there is, or says that there is none.
    pub fn delay(&mut self, asked: Asked, why: Code) {
        let limit = self.delayed.limit;
        if limit.is_zero() || !self.delayed.has_room(&asked.asker, asked.request.len()) {
            return self.refuse(asked.channel, why);
        }
        let now = Instant::now();
        self.delayed.waiting.push_back(Waiting { asked, until: now + limit, why });
        self.shared.counters.delayed.add();
        self.wake_at(now + LOOK_AGAIN.min(limit));
        self.measure();
    }

    /// Answers those that wait, as far as there is room: one of each peer, and again as long as there is more.
    pub fn serve_delayed(&mut self) {
        let now = Instant::now();
        while self.serve_one_of_each(now) {}
        if self.delayed.len() > 0 {
            self.wake_at(now + LOOK_AGAIN);
        }
        self.measure();
    }

    /// Whether one was taken.
    fn serve_one_of_each(&mut self, now: Instant) -> bool {
        let (mut tried, mut taken) = (HashSet::new(), false);
        // Each goes to the end once, so that their order stays.
        for _ in 0..self.delayed.len() {
            let Some(Waiting { asked, until, why }) = self.delayed.waiting.pop_front() else { break };
            if !asked.channel.is_open() {
                // Its asker is gone.
                continue;
            }
            if until <= now {
                self.refuse(asked.channel, why);
                continue;
            }
            let left = match tried.insert(asked.asker.peer) {
                true => self.try_serve(asked, now),
                false => Some((asked, why)),
            };
            match left {
                None => taken = true,
                Some((asked, why)) => self.delayed.waiting.push_back(Waiting { asked, until, why }),
            }
        }
        taken
    }
}

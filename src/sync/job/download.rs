//! The download stage: fetches the blocks of a plan in windows, from several peers at once, and passes them on in
//! order.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{Stream, StreamExt, future::BoxFuture, stream, stream::FuturesUnordered};
use libp2p::PeerId;

use crate::{
    chain::{ChainEnd, EpochNumbering, MinerBlock, Position},
    p2p::P2pError,
    protocol::MAX_CHUNK,
    source::job::Mode,
    sync::{
        failure::PeerFault,
        peers::sources::{DEFAULT_TIMEOUT, InFlight, PaceCheck, STALL_TIMEOUT, Sources},
    },
};

/// Spans in flight: enough to hide a round trip, few enough for the memory of a small machine.
const SPANS_IN_FLIGHT: usize = 4;

/// Times that a span is requested again after every peer has failed.
const MAX_RETRIES: usize = 3;

/// A wait that ends later than this does not count against the peers: the later stages were busy, and answers were not
/// read meanwhile.
const LATE: Duration = Duration::from_secs(1);

/// A part of a plan.
#[derive(Debug, Clone)]
pub struct Span {
    pub from: u64,
    pub to: u64,
    /// Hash of the last block, where headers were fetched first.
    pub ends_with: Option<String>,
}

/// Consecutive blocks of a span, from one peer.
#[derive(Debug)]
pub struct Window {
    pub peer: PeerId,
    pub blocks: Vec<MinerBlock>,
}

/// The fault that ended a download, and its peer.
pub type Failed = (PeerId, PeerFault);

/// The result of a span: its blocks in order, from the first on, and the fault without which there would be more.
pub struct FetchedSpan {
    pub windows: Vec<Window>,
    pub failed: Option<Failed>,
}

/// How blocks are requested.
#[derive(Clone)]
pub struct FetchOptions {
    pub mode: Mode,
    pub numbering: EpochNumbering,
    /// The tip of the planned chain.
    pub tip: Position,
    /// The block before the plan's first.
    pub parent: Option<ChainEnd>,
}

/// Cuts the blocks of a plan into spans, as the mode requests them.
pub fn spans(mode: Mode, numbering: EpochNumbering, from: u64, to: u64) -> Vec<Span> {
    let cut = |first: u64| {
        let last = match mode {
            Mode::Full => to,
            Mode::Epoch => numbering.first_index(numbering.epoch(first).saturating_add(1)).saturating_sub(1),
            Mode::Incremental | Mode::Headers | Mode::Delta => first.saturating_add(MAX_CHUNK - 1),
        };
        Span { from: first, to: last.min(to), ends_with: None }
    };
    let next = |span: &Span| (span.to < to).then(|| cut(span.to + 1));
    std::iter::successors((from <= to).then(|| cut(from)), next).collect()
}

/// Downloads `spans`, in order. Peers' faults that did not end the download go to `report`.
pub fn download(
    options: FetchOptions,
    spans: Vec<Span>,
    sources: Arc<Sources>,
    report: impl Fn(PeerId, &PeerFault) + Clone + Send + 'static,
) -> impl Stream<Item = FetchedSpan> + Send {
    let in_flight = match options.mode {
        Mode::Full => 1,
        Mode::Incremental | Mode::Epoch | Mode::Headers | Mode::Delta => SPANS_IN_FLIGHT,
    };
    let fetch = move |span| {
        let (sources, options, report) = (sources.clone(), options.clone(), report.clone());
        async move { SpanDownload::new(&options, &span, &sources, report).run().await }
    };
    stream::iter(spans).map(fetch).buffered(in_flight)
}

/// The blocks of a span that one peer has sent so far: they count even if the request fails.
struct Attempt {
    peer: PeerId,
    /// Index of the first block requested.
    from: u64,
    received: Mutex<Received>,
}

#[derive(Default)]
struct Received {
    /// How many blocks the peer has sent.
    count: u64,
    /// The last of them, which are not added to the span yet.
    blocks: Vec<MinerBlock>,
}

impl Attempt {
    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt that has ended, and its fault if it failed.
type Ended = (Arc<Attempt>, Option<PeerFault>);

/// The download of one span: from the best peer, from a further one as well when that takes too long, and again after a
/// pause when all have failed. A later request begins after the blocks that are there.
struct SpanDownload<'a, R> {
    options: &'a FetchOptions,
    span: &'a Span,
    sources: &'a Sources,
    report: R,
    /// Index of the first missing block.
    next: u64,
    windows: Vec<Window>,
    /// Requests since the last pause.
    attempts: Vec<Arc<Attempt>>,
    requests: FuturesUnordered<BoxFuture<'a, Ended>>,
    /// How long to wait for the latest request before a further peer is asked.
    timeout: Duration,
    pauses: ExponentialBackoff,
    pace: PaceCheck,
    /// The latest fault, not reported yet: it may end the download.
    last: Option<Failed>,
}

impl<'a, R: Fn(PeerId, &PeerFault)> SpanDownload<'a, R> {
    fn new(options: &'a FetchOptions, span: &'a Span, sources: &'a Sources, report: R) -> Self {
        Self {
            options,
            span,
            sources,
            report,
            next: span.from,
            windows: Vec::new(),
            attempts: Vec::new(),
            requests: FuturesUnordered::new(),
            timeout: DEFAULT_TIMEOUT,
            pauses: ExponentialBuilder::default().with_jitter().with_max_times(MAX_RETRIES).build(),
            pace: PaceCheck::default(),
            last: None,
        }
    }

    async fn run(mut self) -> FetchedSpan {
        let mut failed = None;
        while failed.is_none() && self.next <= self.span.to {
            let ended = if self.ask_next() {
                Ok(self.wait_for_answer().await)
            } else if self.requests.is_empty() {
                self.pause().await.map(|()| None)
            } else if self.sources.alternatives {
                self.wait_for_progress().await
            } else {
                Ok(self.requests.next().await)
            };
            match ended {
                Ok(ended) => ended.into_iter().for_each(|(attempt, fault)| self.finish(&attempt, fault)),
                Err(fault) => failed = Some(self.last.take().unwrap_or(fault)),
            }
        }
        FetchedSpan { windows: self.windows, failed }
    }

    /// Sends a request for the rest of the span to the best peer that was not tried; returns whether there is one.
    fn ask_next(&mut self) -> bool {
        let tried: Vec<_> = self.attempts.iter().map(|attempt| attempt.peer).collect();
        let Some((source, timeout)) = self.sources.pick(&tried) else { return false };
        let attempt = Arc::new(Attempt { peer: source.remote.peer, from: self.next, received: Mutex::default() });
        self.requests.push(Box::pin(request(self.options, self.span, source, attempt.clone())));
        self.attempts.push(attempt);
        self.timeout = timeout;
        true
    }

    /// Waits for an answer, with a further peer left to ask: `None` if this takes too long.
    async fn wait_for_answer(&mut self) -> Option<Ended> {
        let ended = tokio::time::timeout(self.timeout, self.requests.next()).await;
        ended.unwrap_or_else(|_| {
            self.attempts.last().into_iter().for_each(|attempt| self.sources.record_late(attempt.peer));
            self.add_parts();
            None
        })
    }

    /// Waits for an answer, with no further peer left, but another chain that could be fetched. A peer may be busy with
    /// other spans; fails only when all send nothing at all, or untrusted ones next to nothing.
    async fn wait_for_progress(&mut self) -> Result<Option<Ended>, Failed> {
        let lead = &self.sources.lead;
        // A trusted peer's link may be slow: each of its requests gets the full time.
        let trusted = lead.is_trusted().then_some(lead.timeout);
        let longest = self.timeout.max(STALL_TIMEOUT).max(trusted.unwrap_or_default());
        let (before, began) = (self.count(), Instant::now());
        if let Ok(ended) = tokio::time::timeout(longest, self.requests.next()).await {
            return Ok(ended);
        }
        let waited = if began.elapsed() < longest + LATE { longest } else { Duration::ZERO };
        let fault = match self.count().saturating_sub(before) {
            0 => PeerFault::NoAnswer(P2pError::Timeout),
            blocks if self.sources.enforce_pace && self.pace.is_too_slow(waited, blocks) => PeerFault::Slow,
            _ => return Ok(None),
        };
        self.attempts.iter().for_each(|attempt| self.sources.record_late(attempt.peer));
        self.add_parts();
        // The first peer has taken longest.
        Err((self.attempts.first().map_or(self.sources.lead.peer, |attempt| attempt.peer), fault))
    }

    /// Pauses before all peers are asked again; fails after too many pauses. Where another chain could be fetched, only
    /// a peer that asked for a pause gets one.
    async fn pause(&mut self) -> Result<(), Failed> {
        let retry = !self.sources.alternatives || self.last.as_ref().is_some_and(|(_, fault)| fault.is_slow_down());
        match self.pauses.next().filter(|_| retry && self.sources.any_left()) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err((self.sources.lead.peer, PeerFault::NoAnswer(P2pError::UnknownPeer))),
        }
        self.attempts.clear();
        Ok(())
    }

    /// Adds the blocks of an attempt that has ended, and reports the fault before: it did not end the download.
    fn finish(&mut self, attempt: &Attempt, fault: Option<PeerFault>) {
        self.add(attempt, fault.is_none());
        let earlier = match fault {
            None => self.last.take(),
            Some(fault) => self.last.replace((attempt.peer, fault)),
        };
        if let Some((peer, fault)) = earlier {
            (self.report)(peer, &fault);
        }
    }

    /// Blocks received since the last pause.
    fn count(&self) -> u64 {
        self.attempts.iter().map(|attempt| attempt.received().count).sum()
    }

    /// Adds what the attempts have received so far.
    fn add_parts(&mut self) {
        for attempt in self.attempts.clone() {
            self.add(&attempt, false);
        }
    }

    /// Adds the blocks of an attempt that are missing. Where the span's last hash is known, they can't be checked
    /// before the attempt has succeeded, and don't count until then.
    fn add(&mut self, attempt: &Attempt, succeeded: bool) {
        if !succeeded && self.span.ends_with.is_some() {
            return;
        }
        let mut received = attempt.received();
        let first = attempt.from.saturating_add(received.count - received.blocks.len() as u64);
        let mut blocks = std::mem::take(&mut received.blocks);
        blocks.drain(..blocks.len().min(usize::try_from(self.next.saturating_sub(first)).unwrap_or(usize::MAX)));
        if !blocks.is_empty() {
            self.next = self.next.saturating_add(blocks.len() as u64);
            self.windows.push(Window { peer: attempt.peer, blocks });
        }
    }
}

/// Requests the rest of a span from one peer, from the attempt's first block.
async fn request(options: &FetchOptions, span: &Span, source: InFlight<'_>, attempt: Arc<Attempt>) -> Ended {
    let (started, remote) = (Instant::now(), &source.remote);
    let (from, to) = (attempt.from, span.to);
    let mut end = None;
    let keep = |blocks: Vec<MinerBlock>| {
        end = blocks.last().map(|block| block.hash.clone());
        let mut received = attempt.received();
        received.count += blocks.len() as u64;
        received.blocks.extend(blocks);
    };
    let FetchOptions { mode, numbering, tip, parent } = options;
    let parent = parent.as_ref().filter(|parent| parent.index.checked_add(1) == Some(from));
    let parent = parent.map(|parent| parent.hash.as_str());
    let mut outcome = match mode {
        Mode::Full => remote.canonical(from, to, tip).await.map(keep),
        Mode::Epoch => remote.epoch(numbering.epoch(from), from, to, tip).await.map(keep),
        Mode::Incremental | Mode::Headers | Mode::Delta => remote.range(from, to, tip, parent, keep).await,
    };
    if outcome.is_ok() && span.ends_with.is_some() && span.ends_with != end {
        attempt.received().blocks.clear();
        outcome = Err(PeerFault::HeaderMismatch(from));
    }
    source.sources.record(remote.peer, started.elapsed(), outcome.as_ref().err());
    (attempt, outcome.err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_each_block_once() {
        let spans = |mode, numbering, from, to| -> Vec<_> {
            super::spans(mode, numbering, from, to).iter().map(|span| (span.from, span.to)).collect()
        };
        let numbering = EpochNumbering::GenesisFirst;
        assert_eq!(spans(Mode::Full, numbering, 3, 5000), [(3, 5000)]);
        assert_eq!(spans(Mode::Delta, numbering, 3, 2100), [(3, 1002), (1003, 2002), (2003, 2100)]);
        assert_eq!(spans(Mode::Epoch, numbering, 0, 90), [(0, 40), (41, 80), (81, 90)]);
        assert_eq!(spans(Mode::Epoch, EpochNumbering::Plain, 5, 41), [(5, 39), (40, 41)]);
        assert_eq!(spans(Mode::Delta, numbering, 7, 7), [(7, 7)]);
        assert_eq!(spans(Mode::Delta, numbering, u64::MAX - 1, u64::MAX), [(u64::MAX - 1, u64::MAX)]);
    }
}

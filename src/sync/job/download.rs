//! Fetching a stretch of a chain in windows, from several peers at once, handed on in order.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use backon::BackoffBuilder;
use futures::{Stream, StreamExt, stream, stream::FuturesUnordered};
use libp2p::PeerId;

use crate::{
    chain::{ChainEnd, EpochNumbering, MinerBlock, Position},
    p2p::P2pError,
    protocol::MAX_CHUNK,
    source::job::Mode,
    sync::{
        failure::Fault,
        peers::sources::{FIRST_PATIENCE, InFlight, LAST_PATIENCE, Sources, Trickle},
    },
};

/// Windows on their way at once: enough to hide a round trip, little enough for the memory of a small machine.
const WINDOWS_IN_FLIGHT: usize = 4;

/// Times that a window is asked for again where nobody else has it.
const MAX_RETRIES: usize = 3;

/// A wait that ends so much late was the later stages': while they are busy, nobody looks for blocks.
const LATE: Duration = Duration::from_secs(1);

/// A part of the stretch. With what is known of its hashes where headers were fetched first.
#[derive(Debug, Clone)]
pub struct Span {
    pub from: u64,
    pub to: u64,
    /// Hash of the last block.
    pub ends_with: Option<String>,
}

/// Blocks of a span, and who gave them.
#[derive(Debug)]
pub struct Window {
    pub peer: PeerId,
    pub blocks: Vec<MinerBlock>,
}

/// Cuts a stretch into spans as the mode asks for them.
pub fn spans(mode: Mode, numbering: EpochNumbering, from: u64, to: u64) -> Vec<(u64, u64)> {
    let cut = |first: u64| {
        let last = match mode {
            Mode::Full => to,
            Mode::Epoch => numbering.first_index(numbering.epoch(first).saturating_add(1)).saturating_sub(1),
            Mode::Incremental | Mode::Headers | Mode::Delta => first.saturating_add(MAX_CHUNK - 1),
        };
        (first, last.min(to))
    };
    let next = |(_, last): &(u64, u64)| (*last < to).then(|| cut(last + 1));
    std::iter::successors((from <= to).then(|| cut(from)), next).collect()
}

/// A fault that ended a download, and whose it was.
pub type Failed = (PeerId, Fault);

/// What came of a span: its blocks in the order of the chain, by those who gave them, from its first on; and the fault
/// that kept the rest away.
pub struct Fetched {
    pub windows: Vec<Window>,
    pub failed: Option<Failed>,
}

/// The `spans` in order, as they arrive. Faults of peers that did not end the download go to `report`.
pub fn fetched(
    way: Way,
    spans: Vec<Span>,
    sources: Arc<Sources>,
    report: impl Fn(PeerId, &Fault) + Clone + Send + 'static,
) -> impl Stream<Item = Fetched> + Send {
    // One at a time where the mode means one peer's answers in order.
    let in_flight = match way.mode {
        Mode::Full => 1,
        Mode::Incremental | Mode::Epoch | Mode::Headers | Mode::Delta => WINDOWS_IN_FLIGHT,
    };
    let fetch = move |span| {
        let (sources, way, report) = (sources.clone(), way.clone(), report.clone());
        async move {
            let mut windows = Gathered::new(&span);
            let failed = fetch(&way, &mut windows, &sources, report).await.err();
            Fetched { windows: windows.windows, failed }
        }
    };
    stream::iter(spans).map(fetch).buffered(in_flight)
}

/// What one peer has given of a span so far: not lost when it gives no more.
struct Attempt {
    peer: PeerId,
    /// Index of the first block that it was asked for.
    from: u64,
    given: Mutex<Given>,
}

/// Blocks that are not gathered yet, and the index of the first.
struct Given {
    from: u64,
    blocks: Vec<MinerBlock>,
}

impl Attempt {
    fn new(peer: PeerId, from: u64) -> Arc<Self> {
        Arc::new(Self { peer, from, given: Mutex::new(Given { from, blocks: Vec::new() }) })
    }

    /// How many blocks it has waiting, or handed on.
    fn count(&self) -> usize {
        let given = self.given();
        usize::try_from(given.from - self.from).unwrap_or(usize::MAX).saturating_add(given.blocks.len())
    }

    fn given(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A span, as far as its blocks are there.
struct Gathered<'a> {
    span: &'a Span,
    /// Index of the first block that isn't.
    next: u64,
    windows: Vec<Window>,
}

impl<'a> Gathered<'a> {
    fn new(span: &'a Span) -> Self {
        Self { span, next: span.from, windows: Vec::new() }
    }

    /// The same of an attempt that has not ended well. Where the span's last hash is known, blocks count only with it.
    fn add_part(&mut self, attempt: &Attempt) {
        if self.span.ends_with.is_none() {
            self.add(attempt);
        }
    }

    /// Adds what an attempt has that isn't there yet.
    fn add(&mut self, attempt: &Attempt) {
        let mut given = attempt.given();
        let there = usize::try_from(self.next.saturating_sub(given.from)).unwrap_or(usize::MAX);
        let there = there.min(given.blocks.len());
        given.from = given.from.saturating_add(given.blocks.len() as u64);
        let blocks = std::mem::take(&mut given.blocks).split_off(there);
        if !blocks.is_empty() {
            self.next = self.next.saturating_add(blocks.len() as u64);
            self.windows.push(Window { peer: attempt.peer, blocks });
        }
    }
}

/// How blocks are asked for.
#[derive(Clone)]
pub struct Way {
    pub mode: Mode,
    pub numbering: EpochNumbering,
    /// The end of the chain that they are on.
    pub tip: Position,
    /// The block that the first of them follows.
    pub parent: Option<ChainEnd>,
}

/// One span: from the best peer, from another one as well when that takes too long, and once more after a pause when
/// nobody has answered. Whoever comes later begins where the others have ended.
async fn fetch(
    way: &Way,
    gathered: &mut Gathered<'_>,
    sources: &Sources,
    report: impl Fn(PeerId, &Fault),
) -> Result<(), Failed> {
    let mut pauses = backon::ExponentialBuilder::default().with_jitter().with_max_times(MAX_RETRIES).build();
    let (mut attempts, mut racing) = (Vec::<Arc<Attempt>>::new(), FuturesUnordered::new());
    let (mut patience, mut trickle) = (FIRST_PATIENCE, Trickle::default());
    let mut last: Option<Failed> = None;
    loop {
        let tried: Vec<_> = attempts.iter().map(|attempt| attempt.peer).collect();
        let next = sources.pick(&tried);
        let nobody_else = next.is_none();
        if let Some((source, its_patience)) = next {
            patience = its_patience;
            let attempt = Attempt::new(source.remote.peer, gathered.next);
            attempts.push(attempt.clone());
            racing.push(take(way, gathered.span, source, attempt));
        } else if racing.is_empty() {
            // Where another chain could be followed, only who asks for a pause gets one.
            let again = !sources.alternatives || last.as_ref().is_some_and(|(_, fault)| fault.is_slow_down());
            match pauses.next().filter(|_| again && sources.any_left()) {
                Some(pause) => tokio::time::sleep(pause).await,
                // A download has a lead, which was asked first.
                None => return Err(last.unwrap_or((PeerId::random(), Fault::Silent(P2pError::UnknownPeer)))),
            }
            attempts.clear();
            continue;
        }
        let outcome = match nobody_else {
            // Who has the chain is busy, maybe with our other windows: giving up is for those who give nothing at all,
            // and for strangers who give next to nothing.
            true if sources.alternatives => {
                let count = || attempts.iter().map(|attempt| attempt.count()).sum::<usize>();
                // A request of its own time is waited for where the operator trusts the peer: its link may be slow.
                let trusted = sources.lead.is_trusted().then(|| sources.lead.timeout());
                let longest = patience.max(LAST_PATIENCE).max(trusted.unwrap_or_default());
                let (before, began) = (count(), Instant::now());
                match tokio::time::timeout(longest, racing.next()).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        let waited = if began.elapsed() < longest + LATE { longest } else { Duration::ZERO };
                        let fault = match count().saturating_sub(before) {
                            0 => Fault::Silent(P2pError::Timeout),
                            blocks if sources.impatient && trickle.is_too_slow(waited, blocks) => Fault::Slow,
                            _ => continue,
                        };
                        attempts.iter().for_each(|attempt| gathered.add_part(attempt));
                        // Whoever was asked first took longest.
                        let peer = tried.first().copied().unwrap_or_else(PeerId::random);
                        return Err(last.unwrap_or((peer, fault)));
                    }
                }
            }
            true => racing.next().await,
            false => match tokio::time::timeout(patience, racing.next()).await {
                Ok(outcome) => outcome,
                // Another one is asked as well, for what isn't there yet.
                Err(_) => {
                    attempts.last().into_iter().for_each(|attempt| sources.late(attempt.peer));
                    attempts.iter().for_each(|attempt| gathered.add_part(attempt));
                    continue;
                }
            },
        };
        let Some((attempt, fault)) = outcome else { continue };
        match &fault {
            None => gathered.add(&attempt),
            Some(_) => gathered.add_part(&attempt),
        }
        // The fault that ends the download is told by its end.
        let told = match fault {
            Some(fault) => last.replace((attempt.peer, fault)),
            None => last.take(),
        };
        if let Some((peer, fault)) = told {
            report(peer, &fault);
        }
        if gathered.next > gathered.span.to {
            return Ok(());
        }
    }
}

/// Asks one peer for a span, from where the attempt begins.
async fn take(way: &Way, span: &Span, source: InFlight<'_>, attempt: Arc<Attempt>) -> (Arc<Attempt>, Option<Fault>) {
    let (started, remote) = (Instant::now(), &source.remote);
    let (from, to) = (attempt.from, span.to);
    let mut end = None;
    let keep = |blocks: Vec<MinerBlock>| {
        end = blocks.last().map(|block| block.hash.clone());
        attempt.given().blocks.extend(blocks);
    };
    let Way { mode, numbering, tip, parent } = way;
    let parent = parent.as_ref().filter(|parent| parent.index.checked_add(1) == Some(from));
    let parent = parent.map(|parent| parent.hash.as_str());
    let mut outcome = match mode {
        Mode::Full => remote.canonical(from, to, tip).await.map(keep),
        Mode::Epoch => remote.epoch(numbering.epoch(from), from, to, tip).await.map(keep),
        Mode::Incremental | Mode::Headers | Mode::Delta => remote.range(from, to, tip, parent, keep).await,
    };
    if outcome.is_ok() && span.ends_with.is_some() && span.ends_with != end {
        attempt.given().blocks.clear();
        outcome = Err(Fault::OtherBlocks(from));
    }
    source.sources.note(remote.peer, started.elapsed(), outcome.as_ref().err());
    (attempt, outcome.err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_the_stretch_once() {
        let numbering = EpochNumbering::GenesisFirst;
        assert_eq!(spans(Mode::Full, numbering, 3, 5000), [(3, 5000)]);
        assert_eq!(spans(Mode::Delta, numbering, 3, 2100), [(3, 1002), (1003, 2002), (2003, 2100)]);
        assert_eq!(spans(Mode::Epoch, numbering, 0, 90), [(0, 40), (41, 80), (81, 90)]);
        assert_eq!(spans(Mode::Epoch, EpochNumbering::Plain, 5, 41), [(5, 39), (40, 41)]);
        assert_eq!(spans(Mode::Delta, numbering, 7, 7), [(7, 7)]);
        assert_eq!(spans(Mode::Delta, numbering, u64::MAX - 1, u64::MAX), [(u64::MAX - 1, u64::MAX)]);
    }
}

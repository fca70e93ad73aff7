//! The threads that compute RandomX hashes.

use std::{
    collections::HashSet,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use super::{
    hashing::{Hasher, Hashing},
    options::{PowAlgorithm, PowError, PowOptions},
};
use crate::chain::encoding::sha256_hex;

/// Makes a thread's hasher.
type MakeHasher = dyn Fn() -> Hasher + Send + Sync;

/// A text to hash, the hash that it should have, and where another one that it has goes.
struct Job {
    at: usize,
    text: String,
    wanted: String,
    /// `None`: it is the wanted one.
    reply: Sender<(usize, Result<Option<String>, PowError>)>,
}

/// Compares texts with their proof-of-work hashes. SHA-256 runs on the caller's thread; RandomX on threads of its own,
/// which start with the first hash and end with the last clone of the pool.
#[derive(Clone)]
pub(in crate::chain) struct HashPool {
    hashing: Hashing,
    /// `None`: SHA-256.
    make: Option<Arc<MakeHasher>>,
    threads: usize,
    jobs: Arc<Mutex<Option<SyncSender<Job>>>>,
}

impl fmt::Debug for HashPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashPool").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl HashPool {
    /// A pool for `algorithm`, with options that it can work with.
    pub(in crate::chain) fn new(algorithm: &PowAlgorithm, options: PowOptions) -> Self {
        let hashing = Hashing::new(algorithm, options.memory);
        let make: Option<Arc<MakeHasher>> = match hashing.clone() {
            Hashing::Sha256 => None,
            randomx => Some(Arc::new(move || randomx.hasher())),
        };
        Self { hashing, make, threads: options.threads(), jobs: Arc::default() }
    }

    /// What [`Verifier::expect`](crate::chain::Verifier::expect) says.
    pub(in crate::chain) fn expect(&self, hashes: u64) {
        self.hashing.expect(hashes);
    }

    /// Hashes texts in order until one doesn't have the hash that comes with it; its position and real hash. What comes
    /// after it is not hashed, apart from a few texts that are already on their way. Blocks the thread.
    ///
    /// # Errors
    /// Any [`PowError`] of a text before the first unequal one.
    pub(in crate::chain) fn first_unequal<'a>(
        &self,
        pairs: impl Iterator<Item = (String, &'a str)>,
    ) -> Result<Option<(usize, String)>, PowError> {
        let Some(make) = &self.make else {
            let mut hashes = pairs.map(|(text, wanted)| (sha256_hex(text.as_bytes()), wanted)).enumerate();
            return Ok(hashes.find(|(_, (hash, wanted))| hash != wanted).map(|(at, (hash, _))| (at, hash)));
        };
        let mut pairs = pairs.enumerate().peekable();
        if pairs.peek().is_none() {
            return Ok(None);
        }
        let jobs = self.jobs(make)?;
        let (reply, replies) = channel();
        let mut waiting = HashSet::new();
        let mut worst: Option<(usize, Result<String, PowError>)> = None;
        loop {
            // Two texts a thread on their way: no thread waits, and little is wasted once one is wrong.
            while worst.is_none() && waiting.len() < 2 * self.threads {
                let Some((at, (text, wanted))) = pairs.next() else { break };
                let job = Job { at, text, wanted: wanted.into(), reply: reply.clone() };
                jobs.send(job).map_err(|_| PowError::Stopped)?;
                waiting.insert(at);
            }
            // Only an earlier text can still change the outcome.
            if worst.as_ref().map_or(waiting.is_empty(), |(first, _)| waiting.iter().all(|at| at > first)) {
                return worst.map(|(at, outcome)| outcome.map(|hash| (at, hash))).transpose();
            }
            let (at, outcome) = replies.recv().map_err(|_| PowError::Stopped)?;
            waiting.remove(&at);
            if let Some(outcome) = outcome.transpose()
                && worst.as_ref().is_none_or(|(first, _)| at < *first)
            {
                worst = Some((at, outcome));
            }
        }
    }

    /// The way to the threads, which are started if they aren't yet.
    fn jobs(&self, make: &Arc<MakeHasher>) -> Result<SyncSender<Job>, PowError> {
        let mut slot = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(jobs) = slot.as_ref() {
            return Ok(jobs.clone());
        }
        // As many texts waiting as there are threads; a caller with more waits.
        let (jobs, queue) = sync_channel(self.threads);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..self.threads {
            let (make, queue) = (make.clone(), queue.clone());
            thread::Builder::new()
                .name(format!("pow-{number}"))
                .spawn(move || work(&*make, &queue))
                .map_err(|error| PowError::Spawn(error.to_string()))?;
        }
        *slot = Some(jobs.clone());
        Ok(jobs)
    }
}

/// Hashes what comes down the queue until its other end is gone.
fn work(make: &MakeHasher, queue: &Mutex<Receiver<Job>>) {
    let mut hasher: Option<Hasher> = None;
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { at, text, wanted, reply }) = job else { return };
        // A panic must reach the caller that waits for the hash; the hasher that panicked is not used again.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut ready = hasher.take().unwrap_or_else(make);
            let hash = ready(&text, &|hash| hash != wanted)?;
            hasher = Some(ready);
            Ok((hash != wanted).then_some(hash))
        }));
        // No caller waits any more when an earlier text was wrong.
        let _ = reply.send((at, outcome.unwrap_or_else(|panic| Err(PowError::panicked(&*panic)))));
    }
}

#[cfg(test)]
mod tests;

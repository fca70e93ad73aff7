//! Proof-of-work hashes, and the threads that compute the expensive kind.

use std::{
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use randomx_rs::{RandomXCache, RandomXError, RandomXFlag, RandomXVM};
use serde::{Deserialize, Serialize};

use super::block::sha256_hex;

/// Most threads that compute RandomX hashes: each has 256 MiB of its own.
pub const MAX_POW_THREADS: usize = 64;

/// The key of the public network's RandomX.
pub const NETWORK_RANDOMX_KEY: &str = "modality-network-randomx-key";

/// How header and nonce become a hash. In settings: `{ algorithm = "randomx", key = "…" }` or
/// `{ algorithm = "sha256" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "algorithm", rename_all = "lowercase", deny_unknown_fields)]
pub enum PowAlgorithm {
    /// RandomX version 1: the network since late October 2025.
    RandomX {
        /// Key of the cache. Default: [`NETWORK_RANDOMX_KEY`].
        #[serde(default = "network_key")]
        key: String,
    },
    /// SHA-256: the network's first release, and networks for tests.
    Sha256,
}

fn network_key() -> String {
    NETWORK_RANDOMX_KEY.into()
}

impl Default for PowAlgorithm {
    fn default() -> Self {
        Self::RandomX { key: network_key() }
    }
}

/// Why proof-of-work hashes can't be computed. No block is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PowError {
    /// The RandomX key is empty.
    #[error("the RandomX key is empty")]
    Key,
    /// A number of threads that can't work.
    #[error("{0} proof-of-work threads: expected 1 to {MAX_POW_THREADS}")]
    Threads(usize),
    /// A thread could not be started.
    #[error("starting a proof-of-work thread: {0}")]
    Spawn(String),
    /// RandomX failed: most often, no memory for its cache.
    #[error("RandomX: {0}")]
    RandomX(String),
    /// The computation panicked.
    #[error("a proof-of-work thread panicked: {0}")]
    Panicked(String),
    /// The threads are gone.
    #[error("the proof-of-work threads have stopped")]
    Stopped,
}

impl From<RandomXError> for PowError {
    fn from(error: RandomXError) -> Self {
        Self::RandomX(error.to_string())
    }
}

/// Computes one hash after another on the thread that made it: lower-case hex of `H(text)`.
type Hasher = Box<dyn FnMut(&str) -> Result<String, PowError>>;

/// Makes a [`Hasher`]. Called on the thread that will use it, because a RandomX machine can't change threads.
type MakeHasher = dyn Fn() -> Result<Hasher, PowError> + Send + Sync;

/// A light-mode RandomX machine with the processor's recommended flags. Neither large pages nor the full data set:
/// without reserved huge pages the former ends the process, the latter needs 2 GiB and more than a minute of set-up.
fn randomx(key: &str) -> Result<Hasher, PowError> {
    let flags = RandomXFlag::get_recommended_flags();
    let cache = RandomXCache::new(flags, key.as_bytes())?;
    let machine = RandomXVM::new(flags, Some(cache), None)?;
    Ok(Box::new(move |text| Ok(hex::encode(machine.calculate_hash(text.as_bytes())?))))
}

/// A text to hash, and where its hash goes.
struct Job {
    at: usize,
    text: String,
    reply: Sender<(usize, Result<String, PowError>)>,
}

/// Computes proof-of-work hashes. SHA-256 runs on the caller's thread; RandomX on threads of its own, which start with
/// the first hash and end with the last clone of the pool.
#[derive(Clone)]
pub(super) struct HashPool {
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
    /// A pool for `algorithm`. Each of the `threads` that RandomX uses builds a cache of 256 MiB for itself, which takes
    /// it some 0.6 s, and then computes about 27 hashes a second: the library's caches can't be shared by threads.
    ///
    /// # Errors
    /// [`PowError::Key`] and [`PowError::Threads`] for RandomX settings that can't work.
    pub(super) fn new(algorithm: &PowAlgorithm, threads: usize) -> Result<Self, PowError> {
        match algorithm {
            PowAlgorithm::RandomX { key } if key.is_empty() => Err(PowError::Key),
            PowAlgorithm::RandomX { .. } if !(1..=MAX_POW_THREADS).contains(&threads) => {
                Err(PowError::Threads(threads))
            }
            PowAlgorithm::RandomX { key } => {
                let key = key.clone();
                Ok(Self::with(Some(Arc::new(move || randomx(&key))), threads))
            }
            PowAlgorithm::Sha256 => Ok(Self::with(None, threads)),
        }
    }

    fn with(make: Option<Arc<MakeHasher>>, threads: usize) -> Self {
        Self { make, threads, jobs: Arc::default() }
    }

    /// Hashes texts in order until one doesn't have the hash that comes with it; its position and real hash. What comes
    /// after it is not hashed, apart from a few texts that are already on their way. Blocks the thread.
    ///
    /// # Errors
    /// Any [`PowError`] of a text before the first unequal one.
    pub(super) fn first_unequal<'a>(
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
        let mut wanted = HashMap::new();
        let mut worst: Option<(usize, Result<String, PowError>)> = None;
        loop {
            // Two texts a thread on their way: no thread waits, and little is wasted once one is wrong.
            while worst.is_none() && wanted.len() < 2 * self.threads {
                let Some((at, (text, hash))) = pairs.next() else { break };
                jobs.send(Job { at, text, reply: reply.clone() }).map_err(|_| PowError::Stopped)?;
                wanted.insert(at, hash);
            }
            // Only an earlier text can still change the outcome.
            if worst.as_ref().map_or(wanted.is_empty(), |(first, _)| wanted.keys().all(|at| at > first)) {
                return worst.map(|(at, outcome)| outcome.map(|hash| (at, hash))).transpose();
            }
            let (at, outcome) = replies.recv().map_err(|_| PowError::Stopped)?;
            let equal = matches!((&outcome, wanted.remove(&at)), (Ok(hash), Some(wanted)) if hash == wanted);
            if !equal && worst.as_ref().is_none_or(|(first, _)| at < *first) {
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
        // As many texts waiting as there are threads; whoever has more waits.
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
        let Ok(Job { at, text, reply }) = job else { return };
        // A panic must reach whoever waits for the hash; the hasher it happened in is not used again.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut ready = hasher.take().map_or_else(make, Ok)?;
            let hash = ready(&text)?;
            hasher = Some(ready);
            Ok(hash)
        }));
        let outcome = outcome.unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<&str>().map(ToString::to_string);
            let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(PowError::Panicked(message.unwrap_or_else(|| "no message".into())))
        });
        // Nobody waits any more when an earlier text was wrong.
        let _ = reply.send((at, outcome));
    }
}

#[cfg(test)]
mod tests;

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
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use super::*;

    /// A pool whose hash of a text is the text; `before` runs first and may fail or panic.
    fn echo(threads: usize, before: impl Fn(&str) -> Result<(), PowError> + Send + Sync + 'static) -> HashPool {
        let before = Arc::new(before);
        let make = move || -> Result<Hasher, PowError> {
            let before = before.clone();
            Ok(Box::new(move |text| before(text).map(|()| text.to_owned())))
        };
        HashPool::with(Some(Arc::new(make)), threads)
    }

    /// `count` texts that are their numbers; those in `wrong` come with another hash.
    fn texts(count: usize, wrong: &[usize]) -> Vec<(String, String)> {
        (0..count).map(|n| (n.to_string(), if wrong.contains(&n) { "-".into() } else { n.to_string() })).collect()
    }

    fn first_unequal(pool: &HashPool, texts: &[(String, String)]) -> Result<Option<(usize, String)>, PowError> {
        pool.first_unequal(texts.iter().map(|(text, hash)| (text.clone(), hash.as_str())))
    }

    #[test]
    fn the_lowest_wins_even_when_it_comes_last() {
        let (told, tell) = channel();
        let tell = Mutex::new(tell);
        // Text 3 is not done before text 4 is.
        let pool = echo(2, move |text| {
            match text {
                "3" => tell.lock().unwrap().recv().unwrap(),
                "4" => told.send(()).unwrap(),
                _ => {}
            }
            Ok(())
        });
        assert_eq!(first_unequal(&pool, &texts(100, &[3, 4])), Ok(Some((3, "3".into()))));
    }

    #[test]
    fn what_comes_after_a_wrong_hash_is_dropped() {
        let hashed = Arc::new(AtomicUsize::new(0));
        let count = hashed.clone();
        let pool = echo(2, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        assert_eq!(first_unequal(&pool, &texts(10_000, &[10])), Ok(Some((10, "10".into()))));
        drop(pool);
        assert!(hashed.load(Ordering::Relaxed) <= 10 + 2 * 2);
    }

    #[test]
    fn a_panic_is_an_error_and_the_pool_goes_on() {
        let pool = echo(1, |text| if text == "5" { panic!("broken by text {text}") } else { Ok(()) });
        assert_eq!(first_unequal(&pool, &texts(8, &[])), Err(PowError::Panicked("broken by text 5".into())));
        assert_eq!(first_unequal(&pool, &texts(8, &[2])), Ok(Some((2, "2".into()))));
        assert_eq!(first_unequal(&pool, &texts(5, &[])), Ok(None));
    }

    #[test]
    fn a_failed_set_up_is_an_error_and_is_tried_again() {
        let tries = AtomicUsize::new(0);
        let make = move || -> Result<Hasher, PowError> {
            match tries.fetch_add(1, Ordering::Relaxed) {
                0 => Err(PowError::RandomX("no memory".into())),
                1 => panic!("set-up"),
                _ => Ok(Box::new(|text| Ok(text.to_owned()))),
            }
        };
        let pool = HashPool::with(Some(Arc::new(make)), 1);
        assert_eq!(first_unequal(&pool, &texts(1, &[])), Err(PowError::RandomX("no memory".into())));
        assert_eq!(first_unequal(&pool, &texts(1, &[])), Err(PowError::Panicked("set-up".into())));
        assert_eq!(first_unequal(&pool, &texts(1, &[])), Ok(None));
    }

    #[test]
    fn several_callers_share_the_threads() {
        let pool = echo(2, |_| Ok(()));
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for caller in 0..8 {
                let (pool, start) = (pool.clone(), &start);
                scope.spawn(move || {
                    start.wait();
                    let expected = Ok(Some((100 + caller, (100 + caller).to_string())));
                    assert_eq!(first_unequal(&pool, &texts(1000, &[100 + caller])), expected);
                });
            }
        });
    }

    #[test]
    fn threads_start_with_the_first_hash_and_end_with_the_pool() {
        let (alive, ended) = channel::<()>();
        let alive = Mutex::new(alive);
        let make = move || -> Result<Hasher, PowError> {
            let alive = alive.lock().unwrap().clone();
            Ok(Box::new(move |text| {
                let _ = &alive;
                Ok(text.to_owned())
            }))
        };
        let pool = HashPool::with(Some(Arc::new(make)), 2);
        assert_eq!(first_unequal(&pool, &[]), Ok(None));
        assert!(pool.jobs.lock().unwrap().is_none(), "nothing to hash, no thread");
        assert_eq!(first_unequal(&pool, &texts(100, &[])), Ok(None));
        assert!(pool.jobs.lock().unwrap().is_some());
        drop(pool);
        let end = ended.recv_timeout(Duration::from_secs(10));
        assert_eq!(end, Err(std::sync::mpsc::RecvTimeoutError::Disconnected), "the threads and their hashers are gone");
    }

    #[test]
    fn sha256_needs_no_thread() {
        let pool = HashPool::new(&PowAlgorithm::Sha256, 0).unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(
            pool.first_unequal([(String::new(), empty), ("x".into(), empty)].into_iter()).unwrap().unwrap().0,
            1
        );
        assert!(pool.jobs.lock().unwrap().is_none());
    }
}

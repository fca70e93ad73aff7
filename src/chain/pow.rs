//! Proof-of-work hashes, and the threads that compute the expensive kind.
//!
//! RandomX has two modes that give the same hashes. In light mode all threads share a cache of 256 MiB, which takes
//! some 0.6 s to set up, and each computes about 27 hashes a second. In full-memory mode they share a data set of 2080
//! MiB, which takes some 80 s of one core to set up, and each computes about 160.
//!
//! The library's set-up of the data set has a fault: it divides the items among the cores, leaves what remains, and the
//! number of items is odd. On two cores the last item is never written, which makes about one hash in 2000 wrong. So a
//! hash in full-memory mode that isn't the wanted one counts only once light mode has confirmed it, and so does one
//! that a miner has found. A hash that is the wanted one is right: a fault doesn't hit 256 bits by chance.

mod hashing;
mod memory;
mod options;
mod pool;

pub(super) use hashing::Hashing;
pub use options::{MAX_POW_THREADS, NETWORK_RANDOMX_KEY, PowAlgorithm, PowError, PowMemory, PowOptions};
pub(super) use pool::HashPool;

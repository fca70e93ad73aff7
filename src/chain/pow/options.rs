//! Which hash proves work, what it may use of the machine, and why it can't be computed.

use std::thread;

use serde::{Deserialize, Serialize};

use crate::chain::words;

/// Most threads that compute RandomX hashes.
pub const MAX_POW_THREADS: usize = 256;

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

/// What RandomX may use of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PowOptions {
    /// Threads, at most [`MAX_POW_THREADS`]. Default: 0, as many as there are cores.
    pub threads: usize,
    /// Memory. Default: [`PowMemory::Auto`].
    pub memory: PowMemory,
}

impl PowOptions {
    /// Whether hashes of `algorithm` can be computed like this.
    pub(in crate::chain) fn check(self, algorithm: &PowAlgorithm) -> Result<(), PowError> {
        match algorithm {
            PowAlgorithm::RandomX { key } if key.is_empty() => Err(PowError::Key),
            PowAlgorithm::RandomX { .. } if self.threads > MAX_POW_THREADS => Err(PowError::Threads(self.threads)),
            _ => Ok(()),
        }
    }

    /// The number of threads, 0 resolved.
    pub(in crate::chain) fn threads(self) -> usize {
        match self.threads {
            0 => thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_POW_THREADS)),
            threads => threads,
        }
    }
}

/// In which mode RandomX runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PowMemory {
    /// Full-memory mode once enough hashes are expected to repay its set-up and the machine has the memory, else light.
    #[default]
    Auto,
    /// Light mode.
    Light,
    /// Full-memory mode, or [`PowError::Memory`] if the machine lacks it.
    Full,
}

words!(PowMemory { Auto = "auto", Light = "light", Full = "full" });

/// Why proof-of-work hashes can't be computed. No block is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PowError {
    /// The RandomX key is empty.
    #[error("the RandomX key is empty")]
    Key,
    /// A number of threads that can't work.
    #[error("{0} proof-of-work threads: expected at most {MAX_POW_THREADS}, or 0 for one a core")]
    Threads(usize),
    /// Not enough memory for full-memory mode.
    #[error("RandomX's full-memory mode needs {needed_mib} MiB, available are {available_mib}")]
    Memory {
        /// What it takes and what must be left for others, MiB.
        needed_mib: u64,
        /// What the system, or the process's control group, can give, MiB.
        available_mib: u64,
    },
    /// The system does not give the process the memory of the mode.
    #[error("RandomX needs {needed_mib} MiB, which this process may not take: see `ulimit -v`")]
    Limit {
        /// What the mode takes, MiB.
        needed_mib: u64,
    },
    /// A thread could not be started.
    #[error("starting a proof-of-work thread: {0}")]
    Spawn(String),
    /// The computation panicked.
    #[error("a proof-of-work thread panicked: {0}")]
    Panicked(String),
    /// The threads are gone.
    #[error("the proof-of-work threads have stopped")]
    Stopped,
}

impl PowError {
    pub(in crate::chain) fn panicked(panic: &(dyn std::any::Any + Send)) -> Self {
        let message = panic.downcast_ref::<&str>().map(ToString::to_string);
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
        Self::Panicked(message.unwrap_or_else(|| "no message".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_named() {
        for memory in [PowMemory::Auto, PowMemory::Light, PowMemory::Full] {
            assert_eq!(memory.to_string().parse(), Ok(memory));
        }
        assert_eq!("large".parse::<PowMemory>(), Err("expected auto, light or full".into()));
    }
}

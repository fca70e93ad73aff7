//! The domain: miner blocks, their arithmetic and their rules. No I/O and no async in here.
//!
//! * [`epoch`]: the length of an epoch, and how epochs are numbered
//! * [`block`]: `MinerBlock` in both dialects, its header, data hash and header text
//! * [`difficulty`]: targets, actualized and cumulative difficulty in 256-bit arithmetic
//! * [`election`]: who becomes a validator
//! * [`fork_choice`]: which of two chains wins
//! * [`locator`]: the search for the last block that two chains share
//! * [`miner`]: new blocks
//! * [`network`]: what makes one network differ from another
//! * [`position`]: places in a chain, and its end that blocks are to follow
//! * [`pow`]: proof-of-work hashes, RandomX and SHA-256
//! * [`schedule`]: how the difficulty follows from the time that an epoch took
//! * [`verify`]: the rules; produces [`VerifiedBlocks`], the only thing a store appends

pub mod block;
pub mod difficulty;
pub mod election;
mod encoding;
pub mod epoch;
pub mod fork_choice;
pub mod locator;
pub mod miner;
pub mod network;
pub mod position;
pub mod pow;
pub mod schedule;
pub mod verify;

pub use block::{Deviation, Header, MAX_BLOCK_BYTES, MinerBlock};
pub use difficulty::CumulativeDifficulty;
pub use election::Election;
pub(crate) use encoding::{Decimal, expected, words};
pub use epoch::{BLOCKS_PER_EPOCH, EpochNumbering};
pub use fork_choice::Weight;
pub use locator::{Locator, Step};
pub use miner::Miner;
pub use network::{AssumeValid, Enforcement, Network, description::DescriptionError};
pub use position::{ChainEnd, Position};
pub use pow::{PowAlgorithm, PowError, PowMemory, PowOptions};
pub use verify::{Level, Rule, VerifiedBlocks, Verifier, VerifyError, Violation, derived::Differences};

/// The time, unix seconds: what the rule about timestamps calls now.
pub fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_secs().try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

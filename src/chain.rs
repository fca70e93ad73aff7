//! The domain: miner blocks, their arithmetic and their rules. No I/O and no async in here.
//!
//! * [`block`]: `MinerBlock` in both dialects, epoch numbering, data hash and header text
//! * [`difficulty`]: targets, actualized and cumulative difficulty in 256-bit arithmetic
//! * [`network`]: what makes one network differ from another
//! * [`pow`]: proof-of-work hashes, RandomX and SHA-256
//! * [`verify`]: the rules; produces [`VerifiedBlocks`], the only thing a store appends

pub mod block;
pub mod difficulty;
pub mod network;
pub mod pow;
pub mod verify;

pub use block::{BLOCKS_PER_EPOCH, EpochNumbering, MAX_BLOCK_BYTES, MinerBlock};
pub use difficulty::CumulativeDifficulty;
pub use network::Network;
pub use pow::{PowAlgorithm, PowError};
pub use verify::{Level, Position, Rule, VerifiedBlocks, Verifier, VerifyError, Violation};

#[cfg(test)]
mod tests;

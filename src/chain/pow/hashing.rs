//! Hashers of either algorithm.

use std::sync::Arc;

use super::{
    options::{PowAlgorithm, PowMemory},
    randomx::{Hasher, RandomX},
};
use crate::chain::encoding::sha256_hex;

/// Makes the [`Hasher`]s of an algorithm, which share what they can.
#[derive(Clone)]
pub(in crate::chain) enum Hashing {
    Sha256,
    RandomX(Arc<RandomX>),
}

impl Hashing {
    pub(in crate::chain) fn new(algorithm: &PowAlgorithm, memory: PowMemory) -> Self {
        match algorithm {
            PowAlgorithm::Sha256 => Self::Sha256,
            PowAlgorithm::RandomX { key } => Self::RandomX(Arc::new(RandomX::new(key, memory))),
        }
    }

    /// What [`Verifier::expect`](super::Verifier::expect) says.
    pub(in crate::chain) fn expect(&self, hashes: u64) {
        if let Self::RandomX(randomx) = self {
            randomx.expect(hashes);
        }
    }

    /// A hasher, which sets up what it needs with its first hash.
    pub(in crate::chain) fn hasher(&self) -> Hasher {
        match self {
            Self::Sha256 => Box::new(|text, _| Ok(sha256_hex(text.as_bytes()))),
            Self::RandomX(randomx) => randomx.clone().hasher(),
        }
    }
}

//! Blocks of a miner's own: SHA-256 over the network's header text, as its first release had it.

use std::ops::RangeInclusive;

use modal_gateway::chain::MinerBlock;
use ruint::aliases::U256;
use sha2::{Digest, Sha256};

use super::block::{Block, now};
use crate::support::chain;

/// `hex(sha256(nominee ++ decimal(number)))`.
pub(super) fn data_hash(nominee: &str, number: u64) -> String {
    hex::encode(Sha256::digest(format!("{nominee}{number}")))
}

/// The difficulty that a hash would have met; none of what isn't one.
pub(super) fn hash_worth(hash: &str) -> Option<u128> {
    let hash = U256::from_be_slice(&hex::decode(hash).ok().filter(|bytes| bytes.len() == 32)?);
    let easiest: U256 = U256::from(0xffff_u64) << 232_usize;
    Some(easiest.checked_div(hash).map_or(u128::MAX, |worth| worth.saturating_to()))
}

/// The first block of a chain, as a network's first miner makes it: its own id as nominee, no proof of work.
pub fn genesis(nominee: &str, time: i64, difficulty: u128) -> Block {
    sealed(template(0, "0", nominee, 0, time, difficulty))
}

/// The block after `parent`, without nonce and hash.
pub fn next(parent: &Block, nominee: &str, number: u64, time: i64, difficulty: u128) -> MinerBlock {
    template(parent.index + 1, &parent.hash, nominee, number, time, difficulty)
}

/// The block with the first nonce that makes its hash worth so much, and at least its difficulty.
pub fn mined(template: &MinerBlock, worth: &RangeInclusive<u128>) -> Block {
    let least = template.target_difficulty.max(*worth.start());
    Block::from(&chain::mine(template.clone(), &(least..=*worth.end())))
}

/// The block with the hash that its nonce gives.
pub fn sealed(template: MinerBlock) -> Block {
    Block::from(&chain::sealed(template))
}

fn template(index: u64, previous: &str, nominee: &str, number: u64, time: i64, difficulty: u128) -> MinerBlock {
    MinerBlock {
        index,
        epoch: Block::miners_epoch(index),
        timestamp: time,
        previous_hash: previous.into(),
        data_hash: data_hash(nominee, number),
        target_difficulty: difficulty,
        nominated_peer_id: nominee.into(),
        miner_number: number,
        is_canonical: true,
        seen_at: Some(now()),
        height_at_time: Some(index),
        ..MinerBlock::default()
    }
}

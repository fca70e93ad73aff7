//! Chains that keep every rule of the network of [`linked`](super::linked), proof of work included, with branches as
//! heavy as a test wants them. Mined with SHA-256, without any of our own code that verifies.

use std::{
    ops::{Deref, RangeInclusive},
    sync::OnceLock,
};

use modal_gateway::chain::MinerBlock;
use ruint::aliases::U256;
use sha2::{Digest, Sha256};

/// What a block's hash is worth, from the light ones to the heavy ones: two of a kind weigh less than one of the next.
pub const LIGHT: RangeInclusive<u128> = 1..=1;
pub const MIDDLE: RangeInclusive<u128> = 3..=4;
pub const HEAVY: RangeInclusive<u128> = 9..=20;

/// Difficulty of the whole chain: every epoch takes its time.
const DIFFICULTY: u128 = 1;

/// A chain from genesis on.
#[derive(Debug, Clone)]
pub struct Chain {
    blocks: Vec<MinerBlock>,
    /// Whom its next blocks nominate: branches differ by it.
    nominee: String,
}

impl Deref for Chain {
    type Target = Vec<MinerBlock>;
    fn deref(&self) -> &Vec<MinerBlock> {
        &self.blocks
    }
}

impl Chain {
    /// Genesis alone. Those of two networks differ.
    pub fn genesis(number: u64) -> Self {
        let block = MinerBlock {
            previous_hash: "0".into(),
            target_difficulty: DIFFICULTY,
            miner_number: number,
            is_canonical: true,
            ..MinerBlock::default()
        };
        let block = MinerBlock { data_hash: data_hash(&block), ..block };
        let hash = hash(&block);
        let worth = worth(&hash);
        let genesis = MinerBlock { hash: hex::encode(hash), actualized_difficulty: worth, ..block };
        Self { blocks: vec![genesis], nominee: "main".into() }
    }

    /// With `count` more blocks, each of which has a hash that is worth so much.
    pub fn extend(mut self, count: usize, worth: &RangeInclusive<u128>) -> Self {
        for _ in 0..count {
            let block = self.next();
            self.blocks.push(mine(block, worth));
        }
        self
    }

    /// What comes next, without nonce and hash.
    pub fn next(&self) -> MinerBlock {
        let parent = self.tip();
        let index = parent.index + 1;
        let block = MinerBlock {
            index,
            epoch: (index - 1) / 40,
            timestamp: timestamp(index),
            previous_hash: parent.hash.clone(),
            target_difficulty: DIFFICULTY,
            nominated_peer_id: self.nominee.clone(),
            miner_number: index % 7,
            is_canonical: true,
            ..MinerBlock::default()
        };
        MinerBlock { data_hash: data_hash(&block), ..block }
    }

    /// With this block at the end, whatever it is.
    pub fn with(mut self, block: MinerBlock) -> Self {
        self.blocks.push(block);
        self
    }

    /// A branch that shares the blocks up to and with `index`, and goes on in its own way.
    pub fn fork(&self, index: u64, name: &str) -> Self {
        Self { blocks: self.blocks[..=index as usize].to_vec(), nominee: name.into() }
    }

    /// The first `count` blocks.
    pub fn first(&self, count: usize) -> Self {
        Self { blocks: self.blocks[..count].to_vec(), nominee: self.nominee.clone() }
    }

    pub fn tip(&self) -> &MinerBlock {
        self.blocks.last().unwrap()
    }

    pub fn work(&self) -> u128 {
        work(&self.blocks)
    }
}

/// Sum of the actualized difficulties.
pub fn work(blocks: &[MinerBlock]) -> u128 {
    blocks.iter().map(|block| block.actualized_difficulty).sum()
}

/// The chain that most tests sync: light blocks, mined once for the whole test program.
pub fn main_chain() -> &'static Chain {
    static CHAIN: OnceLock<Chain> = OnceLock::new();
    CHAIN.get_or_init(|| Chain::genesis(0).extend(1_200, &LIGHT))
}

/// When the block at `index` was mined: as fast as the schedule wants it, years ago.
fn timestamp(index: u64) -> i64 {
    1_700_000_000 + 10 * index as i64
}

/// Searches the nonce of a block of which all else is there, until its hash is worth so much.
pub fn mine(mut block: MinerBlock, wanted: &RangeInclusive<u128>) -> MinerBlock {
    let header = Sha256::new_with_prefix(header_text(&block));
    for nonce in 0u128.. {
        let hash: [u8; 32] = header.clone().chain_update(nonce.to_string()).finalize().into();
        // Anything else is worth nothing at all, and most hashes are.
        if hash[0] == 0 && wanted.contains(&worth(&hash)) {
            block.nonce = nonce;
            block.actualized_difficulty = worth(&hash);
            block.hash = hex::encode(hash);
            break;
        }
    }
    block
}

/// Gives a block the hash and the worth that its nonce has, whatever they are.
pub fn sealed(block: MinerBlock) -> MinerBlock {
    let hash = hash(&block);
    MinerBlock { hash: hex::encode(hash), actualized_difficulty: worth(&hash), ..block }
}

fn hash(block: &MinerBlock) -> [u8; 32] {
    Sha256::digest(format!("{}{}", header_text(block), block.nonce)).into()
}

fn header_text(block: &MinerBlock) -> String {
    let MinerBlock { index, timestamp, previous_hash, data_hash, target_difficulty, .. } = block;
    format!("{index}{timestamp}{previous_hash}{data_hash}{target_difficulty}")
}

fn data_hash(block: &MinerBlock) -> String {
    hex::encode(Sha256::digest(format!("{}{}", block.nominated_peer_id, block.miner_number)))
}

/// The difficulty that a hash would have met: the easiest target by it.
fn worth(hash: &[u8; 32]) -> u128 {
    let easiest: U256 = U256::from(0xffff_u64) << 232_usize;
    (easiest / U256::from_be_slice(hash)).saturating_to::<u128>()
}

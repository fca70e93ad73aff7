//! Chains that pass every rule but the proof-of-work hash, for level `linked`: made in no time, of any length.

use modal_gateway::chain::{MinerBlock, Network, PowAlgorithm};
use sha2::{Digest, Sha256};

/// The network of these chains: difficulty 1, 10 s a block, SHA-256.
pub fn network() -> Network {
    Network {
        name: "linked".into(),
        pow: PowAlgorithm::Sha256,
        genesis_hash: None,
        initial_difficulty: 1,
        target_block_time: 10,
        ..Network::default()
    }
}

/// The same as a settings file.
pub const NETWORK_FILE: &str = "name = \"linked\"\ninitial_difficulty = 1\ntarget_block_time = 10\n\
                                [pow]\nalgorithm = \"sha256\"\n";

/// `count` blocks on top of `parent`, or from genesis on. Each hash is worth 1, so that longer is heavier. Chains of
/// another `salt` are other chains.
pub fn linked(parent: Option<&MinerBlock>, count: u64, salt: &str) -> Vec<MinerBlock> {
    let mut parent = parent.map(|block| (block.index, block.hash.clone()));
    let blocks = (0..count).map(|_| {
        let index = parent.as_ref().map_or(0, |(index, _)| index + 1);
        let hash = format!("0080{}", &hex::encode(Sha256::digest(format!("{salt} {index}")))[4..]);
        let previous_hash = parent.take().map_or("0".into(), |(_, hash)| hash);
        let mut block = MinerBlock {
            hash: hash.clone(),
            index,
            epoch: index.saturating_sub(1) / 40,
            timestamp: if index == 0 { 0 } else { 1_700_000_000 + 10 * index as i64 },
            previous_hash,
            target_difficulty: 1,
            actualized_difficulty: 1,
            nonce: u128::from(index),
            nominated_peer_id: if index == 0 { String::new() } else { "12D3KooWMiner".into() },
            miner_number: index,
            is_canonical: true,
            ..MinerBlock::default()
        };
        block.data_hash = block.expected_data_hash();
        parent = Some((index, hash));
        block
    });
    blocks.collect()
}

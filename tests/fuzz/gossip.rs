//! Blocks as the gossip topic has them.

use modal_gateway::{chain::MinerBlock, protocol::gossip as topic};

/// A block that is heard can be told on: whoever hears it from us reads the same.
pub fn gossip(data: &[u8]) {
    if let Ok(block) = serde_json::from_slice::<MinerBlock>(data) {
        let told = topic::decode(&topic::encode(&block), 7).unwrap();
        let header = |block: &MinerBlock| (block.hash.clone(), block.previous_hash.clone(), block.index, block.nonce);
        assert_eq!(header(&told), header(&block), "any block can be told");
    }
    let Ok(block) = topic::decode(data, 7) else { return };
    assert_eq!(block.data_hash, block.expected_data_hash());
    assert_eq!((block.seen_at, block.is_canonical, block.is_orphaned), (Some(7), true, false));
    assert_eq!(topic::decode(&topic::encode(&block), 7).unwrap(), block);
    assert_eq!(serde_json::from_str::<MinerBlock>(&block.to_json()).unwrap(), block);
}

//! What any block must keep to be stored at all.

use super::rules::{Rule, Violation};
use crate::chain::block::{MAX_BLOCK_BYTES, MAX_KEY_BYTES, MinerBlock};

/// What any block must keep to be stored at all, orphans too: [`Rule::Size`] and [`Rule::Text`].
///
/// # Errors
/// The rule that it breaks.
pub fn check_storable(block: &MinerBlock) -> Result<(), Violation> {
    let bytes = if is_short(block) { 0 } else { block.to_json().len() };
    // What a column of its own holds as it is; of the other texts there is only the JSON, in which a NUL is an escape.
    let mut columns = [("hash", &block.hash), ("previous_hash", &block.previous_hash)]
        .into_iter()
        .chain(block.orphan_reason.as_ref().map(|reason| ("orphan_reason", reason)));
    let (rule, detail) = if bytes > MAX_BLOCK_BYTES {
        (Rule::Size, format!("{bytes} bytes, at most {MAX_BLOCK_BYTES} may be"))
    } else if let Some((name, text)) = columns.clone().find(|(_, text)| text.len() > MAX_KEY_BYTES) {
        (Rule::Size, format!("{name}: {} bytes, at most {MAX_KEY_BYTES} may be", text.len()))
    } else if block.hash.is_empty() {
        (Rule::Text, "its hash is empty".into())
    } else if let Some((name, _)) = columns.find(|(_, text)| text.contains('\0')) {
        (Rule::Text, format!("{name}: it has a NUL character"))
    } else {
        return Ok(());
    };
    Err(Violation { index: block.index, hash: block.hash.clone(), rule, detail })
}

/// Whether a block's JSON has at most [`MAX_BLOCK_BYTES`], whatever of it must be escaped: without writing it, as for
/// nearly every block.
fn is_short(block: &MinerBlock) -> bool {
    let texts = [&block.hash, &block.previous_hash, &block.data_hash, &block.nominated_peer_id];
    let texts = texts.into_iter().chain(&block.orphan_reason).chain(&block.competing_hash);
    // An escape has six bytes; names, numbers and words have less than 1024 together.
    6 * texts.map(String::len).sum::<usize>() + 1024 <= MAX_BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Deviation;

    /// The longest block with these texts.
    fn with_text(text: &str) -> MinerBlock {
        MinerBlock {
            hash: "h".into(),
            index: u64::MAX,
            epoch: u64::MAX,
            timestamp: i64::MIN,
            data_hash: text.into(),
            nonce: u128::MAX,
            target_difficulty: u128::MAX,
            actualized_difficulty: u128::MAX,
            miner_number: u64::MAX,
            seen_at: Some(i64::MIN),
            orphaned_at: Some(i64::MIN),
            orphan_reason: Some(String::new()),
            height_at_time: Some(u64::MAX),
            competing_hash: Some(String::new()),
            deviations: Deviation::ALL.into(),
            ..MinerBlock::default()
        }
    }

    #[test]
    fn the_longest_block_that_counts_as_short_is_storable() {
        let block = with_text(&"\0".repeat((MAX_BLOCK_BYTES - 1024) / 6 - 1));
        assert!(is_short(&block) && block.to_json().len() <= MAX_BLOCK_BYTES);
        let longer = with_text(&"\0".repeat((MAX_BLOCK_BYTES - 1024) / 6));
        assert!(!is_short(&longer));
    }

    #[test]
    fn the_limit_of_size_is_exact() {
        let longest = MAX_BLOCK_BYTES - with_text("").to_json().len();
        check_storable(&with_text(&"x".repeat(longest))).unwrap();
        assert_eq!(check_storable(&with_text(&"x".repeat(longest + 1))).unwrap_err().rule, Rule::Size);
    }
}

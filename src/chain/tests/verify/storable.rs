//! What a store can hold.

use super::*;

#[test]
fn messages_are_short_and_plain() {
    let block = MinerBlock { index: 7, hash: "\u{1b}[31m".repeat(10_000), ..MinerBlock::default() };
    let message = check_storable(&block).unwrap_err().to_string();
    assert!(message.starts_with(r"block 7 (\u{1b}[31m\u{1b}[31m"), "{message}");
    assert!(message.ends_with("violates rule `size`: 100340 bytes, at most 66560 may be"), "{message}");
    assert!(message.len() < 300 && !message.contains('\u{1b}'), "{message}");
}

#[test]
fn what_a_column_can_not_hold_is_refused_and_nothing_else() {
    let sound = MinerBlock { hash: "h".into(), previous_hash: "p".into(), ..MinerBlock::default() };
    let (long, most, nul) = ("x".repeat(1025), "x".repeat(1024), "a\0b");
    let text = |text: &str| Some(text.to_owned());
    for (rule, block) in [
        (Some(Rule::Size), MinerBlock { hash: long.clone(), ..sound.clone() }),
        (Some(Rule::Size), MinerBlock { previous_hash: long.clone(), ..sound.clone() }),
        (Some(Rule::Size), MinerBlock { orphan_reason: text(&long), ..sound.clone() }),
        (Some(Rule::Text), MinerBlock { hash: nul.into(), ..sound.clone() }),
        (Some(Rule::Text), MinerBlock { hash: String::new(), ..sound.clone() }),
        (Some(Rule::Text), MinerBlock { previous_hash: nul.into(), ..sound.clone() }),
        (Some(Rule::Text), MinerBlock { orphan_reason: text(nul), ..sound.clone() }),
        (None, MinerBlock { hash: most.clone(), previous_hash: most.clone(), ..sound.clone() }),
        (None, MinerBlock { nominated_peer_id: nul.into(), data_hash: nul.into(), ..sound.clone() }),
        (None, MinerBlock { competing_hash: text(nul), ..sound.clone() }),
        (None, MinerBlock { nominated_peer_id: "x".repeat(60_000), competing_hash: text(&long), ..sound.clone() }),
    ] {
        assert_eq!(check_storable(&block).err().map(|violation| violation.rule), rule, "{block:?}");
    }
}

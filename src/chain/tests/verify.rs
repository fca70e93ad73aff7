use std::sync::LazyLock;

use rstest::rstest;

use super::*;
use crate::chain::{
    EpochNumbering, Level, Network, Position, PowAlgorithm, PowError, Rule, Verifier, VerifyError, Violation,
    block::sha256_hex, verify::check_storable,
};

/// One for all tests: each of its threads takes 256 MiB.
static POW: LazyLock<Verifier> = LazyLock::new(|| Verifier::new(&Network::default(), Level::Pow, 2).unwrap());

fn at(level: Level) -> Verifier {
    Verifier::new(&Network::default(), level, 1).unwrap()
}

fn refused(verifier: &Verifier, parent: Option<&Position>, blocks: Vec<MinerBlock>) -> Violation {
    match verifier.verify(parent, blocks) {
        Err(VerifyError::Violation(violation)) => violation,
        other => panic!("expected a violation, got {other:?}"),
    }
}

/// Changes the last character, a hex digit, to another one.
fn flip(hash: &mut String) {
    let last = if hash.pop() == Some('0') { '1' } else { '0' };
    hash.push(last);
}

#[test]
fn the_bundled_chain_verifies_with_proof_of_work() {
    let verified = POW.verify(None, fixture()).unwrap();
    assert_eq!((verified.len(), verified.level()), (61, Level::Pow));
    assert_eq!(verified.blocks(), fixture());
}

#[rstest]
#[case::hash(|block: &mut MinerBlock| flip(&mut block.hash), &[Rule::Hash])]
#[case::index(|block: &mut MinerBlock| block.index += 1, &[Rule::Index])]
#[case::epoch(|block: &mut MinerBlock| block.epoch += 1, &[Rule::Epoch])]
#[case::timestamp(|block: &mut MinerBlock| block.timestamp += 1, &[Rule::Hash])]
#[case::previous_hash(|block: &mut MinerBlock| flip(&mut block.previous_hash), &[Rule::Link, Rule::Genesis])]
#[case::data_hash(|block: &mut MinerBlock| flip(&mut block.data_hash), &[Rule::DataHash])]
#[case::nonce(|block: &mut MinerBlock| block.nonce += 1, &[Rule::Hash])]
#[case::target_difficulty(|block: &mut MinerBlock| block.target_difficulty += 1, &[Rule::Target, Rule::Hash])]
#[case::zero_difficulty(|block: &mut MinerBlock| block.target_difficulty = 0, &[Rule::Difficulty])]
#[case::actualized_difficulty(|block: &mut MinerBlock| block.actualized_difficulty += 1, &[Rule::ActualizedDifficulty])]
#[case::nominated_peer_id(|block: &mut MinerBlock| block.nominated_peer_id.push('x'), &[Rule::DataHash])]
#[case::miner_number(|block: &mut MinerBlock| block.miner_number += 1, &[Rule::DataHash])]
fn each_corrupted_field_of_each_block_breaks_a_rule(#[case] corrupt: fn(&mut MinerBlock), #[case] rules: &[Rule]) {
    let mut parent = None;
    for sound in fixture() {
        let mut block = sound.clone();
        corrupt(&mut block);
        let violation = refused(&POW, parent.as_ref(), vec![block.clone()]);
        assert!(rules.contains(&violation.rule), "{violation}");
        assert_eq!((violation.index, &violation.hash), (block.index, &block.hash));
        parent = Some(Position::from(&sound));
    }
}

#[test]
fn only_genesis_may_miss_its_target() {
    let mut parent = None;
    for sound in fixture() {
        let harder = MinerBlock { target_difficulty: sound.actualized_difficulty + 1, ..sound.clone() };
        match at(Level::Linked).verify(parent.as_ref(), vec![harder]) {
            Ok(_) => assert_eq!(sound.index, 0),
            Err(VerifyError::Violation(violation)) => {
                assert_eq!((violation.rule, violation.index > 0), (Rule::Target, true), "{violation}");
            }
            Err(error) => panic!("{error}"),
        }
        parent = Some(Position::from(&sound));
    }
}

#[test]
fn without_proof_of_work_the_child_still_shows_a_changed_hash() {
    let mut blocks = fixture();
    flip(&mut blocks[30].hash);
    let violation = refused(&at(Level::Linked), None, blocks);
    assert_eq!((violation.index, violation.rule), (31, Rule::Link));
}

#[test]
fn the_first_wrong_hash_is_the_one_reported() {
    let mut blocks = fixture();
    for at in [25, 26, 40] {
        blocks[at].timestamp += 1;
    }
    let violation = refused(&POW, None, blocks);
    assert_eq!((violation.index, violation.rule), (25, Rule::Hash));
}

#[rstest]
#[case::upper_case(|block: &mut MinerBlock| block.hash = block.hash.to_uppercase())]
#[case::short(|block: &mut MinerBlock| block.hash = block.hash[2..].into())]
#[case::plain_text(|block: &mut MinerBlock| block.hash = "block_hash_000".into())]
fn a_hash_has_one_form(#[case] change: fn(&mut MinerBlock)) {
    let mut block = fixture().remove(0);
    change(&mut block);
    assert_eq!(refused(&at(Level::Linked), None, vec![block.clone()]).rule, Rule::HashForm);
    assert_eq!(at(Level::None).verify(None, vec![block]).unwrap().level(), Level::None);
}

#[rstest]
#[case::gap(|blocks: &mut Vec<MinerBlock>| { blocks.remove(1); }, Rule::Index, 2)]
#[case::no_genesis(|blocks: &mut Vec<MinerBlock>| { blocks.remove(0); }, Rule::Index, 1)]
#[case::two_at_one_index(|blocks: &mut Vec<MinerBlock>| blocks.insert(1, blocks[1].clone()), Rule::Index, 1)]
#[case::backwards(|blocks: &mut Vec<MinerBlock>| blocks.reverse(), Rule::Index, 60)]
#[case::link(|blocks: &mut Vec<MinerBlock>| blocks[2].previous_hash = "x".into(), Rule::Link, 2)]
#[case::cycle(|blocks: &mut Vec<MinerBlock>| blocks[2].hash = blocks[0].hash.clone(), Rule::Link, 2)]
#[case::size(|blocks: &mut Vec<MinerBlock>| blocks[3].nominated_peer_id = "x".repeat(8192), Rule::Size, 3)]
#[case::nul(|blocks: &mut Vec<MinerBlock>| blocks[3].orphan_reason = Some("\0".into()), Rule::Text, 3)]
#[case::no_hash(|blocks: &mut Vec<MinerBlock>| blocks[0].hash.clear(), Rule::Text, 0)]
fn what_a_store_relies_on_holds_at_every_level(
    #[case] change: fn(&mut Vec<MinerBlock>),
    #[case] rule: Rule,
    #[case] index: u64,
    #[values(Level::None, Level::Linked)] level: Level,
) {
    let mut blocks = fixture();
    change(&mut blocks);
    let violation = refused(&at(level), None, blocks);
    assert_eq!((violation.rule, violation.index), (rule, index), "{violation}");
}

#[test]
fn a_run_follows_its_parent() {
    let mut blocks = fixture();
    let rest = blocks.split_off(30);
    let parent = Position::from(&blocks[29]);
    assert_eq!(at(Level::Linked).verify(Some(&parent), rest.clone()).unwrap().len(), 31);
    assert_eq!(
        refused(&at(Level::None), Some(&Position { index: 30, ..parent.clone() }), rest.clone()).rule,
        Rule::Index
    );
    assert_eq!(
        refused(&at(Level::None), Some(&Position { hash: "x".into(), ..parent }), rest.clone()).rule,
        Rule::Link
    );
    let last = Position { index: u64::MAX, hash: "x".into() };
    assert_eq!(refused(&at(Level::None), Some(&last), rest).rule, Rule::Index);
    assert!(at(Level::Pow).verify(Some(&last), Vec::new()).unwrap().is_empty());
}

#[test]
fn a_block_alone_must_be_consistent() {
    let mut blocks = fixture();
    blocks[4].is_orphaned = true;
    assert_eq!(refused(&at(Level::Linked), None, blocks.clone()).rule, Rule::Status);
    assert!(at(Level::None).verify(None, blocks).is_ok());

    let plain = Network { epoch_numbering: EpochNumbering::Plain, ..Network::default() };
    let violation = refused(&Verifier::new(&plain, Level::Linked, 1).unwrap(), None, fixture());
    assert_eq!((violation.rule, violation.index), (Rule::Epoch, 40));
    assert_eq!(violation.detail, "its epoch is 1, it claims 0");
}

#[test]
fn genesis_is_any_of_the_usual_form_or_the_pinned_one() {
    let genesis = fixture().remove(0);
    let other = MinerBlock { previous_hash: "none".into(), ..genesis.clone() };
    assert!(at(Level::None).verify(None, vec![other.clone()]).is_ok());
    assert_eq!(refused(&at(Level::Linked), None, vec![other.clone()]).rule, Rule::Genesis);

    let pinned = |hash: &str, level| {
        let network = Network { genesis_hash: Some(hash.into()), ..Network::default() };
        Verifier::new(&network, level, 1).unwrap()
    };
    assert!(pinned(&genesis.hash, Level::Linked).verify(None, vec![other]).is_ok());
    for level in [Level::None, Level::Linked] {
        assert_eq!(refused(&pinned("ff", level), None, vec![genesis.clone()]).rule, Rule::Genesis);
    }
}

#[test]
fn sha256_networks_verify_too() {
    let network = Network { pow: PowAlgorithm::Sha256, ..Network::default() };
    let verifier = Verifier::new(&network, Level::Pow, 0).unwrap();
    let mut genesis = MinerBlock { previous_hash: "0".into(), target_difficulty: 1000, ..MinerBlock::default() };
    genesis.data_hash = genesis.expected_data_hash();
    assert_eq!(genesis.header_text(), format!("000{}1000", genesis.data_hash));
    genesis.hash = sha256_hex(format!("{}0", genesis.header_text()).as_bytes());
    assert!(verifier.verify(None, vec![genesis.clone()]).is_ok());
    genesis.nonce = 1;
    assert_eq!(refused(&verifier, None, vec![genesis]).rule, Rule::Hash);
    assert_eq!(refused(&verifier, None, fixture()).rule, Rule::Hash);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let network = |key: &str| Network { pow: PowAlgorithm::RandomX { key: key.into() }, ..Network::default() };
    let error = |key, threads| Verifier::new(&network(key), Level::Pow, threads).unwrap_err();
    assert_eq!(error("", 1), PowError::Key);
    assert_eq!(error("k", 0), PowError::Threads(0));
    assert_eq!(error("k", 65), PowError::Threads(65));
    assert!(Verifier::new(&network(""), Level::Linked, 0).is_ok(), "no hash is computed");
}

#[test]
fn the_key_decides_the_hash() {
    let network = Network { pow: PowAlgorithm::RandomX { key: "another".into() }, ..Network::default() };
    let verifier = Verifier::new(&network, Level::Pow, 1).unwrap();
    let violation = refused(&verifier, None, fixture());
    assert_eq!((violation.index, violation.rule), (0, Rule::Hash));
}

#[test]
fn messages_are_short_and_plain() {
    let block = MinerBlock { index: 7, hash: "\u{1b}[31m".repeat(5000), ..MinerBlock::default() };
    let message = check_storable(&block).unwrap_err().to_string();
    assert!(message.starts_with(r"block 7 (\u{1b}[31m\u{1b}[31m"), "{message}");
    assert!(message.ends_with("violates rule `size`: 50340 bytes, at most 8192 may be"), "{message}");
    assert!(message.len() < 300 && !message.contains('\u{1b}'), "{message}");
}

#[test]
fn levels_are_ordered_and_named() {
    let levels = [Level::None, Level::Linked, Level::Pow];
    assert!(levels.is_sorted());
    for (code, level) in (0..).zip(levels) {
        assert_eq!((level.code(), Level::from_code(code)), (code, Some(level)));
        assert_eq!(level.to_string().parse(), Ok(level));
        assert_eq!(serde_json::to_value(level).unwrap(), level.as_str());
    }
    assert_eq!(Level::from_code(3), None);
    let error = "full".parse::<Level>().unwrap_err().to_string();
    assert_eq!(error, "unknown verification level `full`: expected `none`, `linked` or `pow`");
    for rule in [Rule::HashForm, Rule::ActualizedDifficulty, Rule::Link] {
        assert_eq!(serde_json::to_value(rule).unwrap(), rule.as_str());
    }
}

use std::sync::LazyLock;

use rstest::rstest;

use super::*;
use crate::chain::{
    ChainEnd, Deviation, Differences, Enforcement, EpochNumbering, Header, Level, Network, Position, PowAlgorithm,
    PowError, PowOptions, Rule, Verifier, VerifyError, Violation, encoding::sha256_hex, unix_now,
    verify::check_storable,
};

mod derived;
mod storable;

/// One for all tests, so that its cache is set up once.
static POW: LazyLock<Verifier> = LazyLock::new(|| on(&Network::devnet(), Level::Pow));

fn on(network: &Network, level: Level) -> Verifier {
    Verifier::new(network, level, PowOptions::default()).unwrap()
}

fn at(level: Level) -> Verifier {
    on(&Network::devnet(), level)
}

/// A network that takes any genesis of the usual form.
fn unpinned() -> Network {
    Network { genesis_hash: None, ..Network::devnet() }
}

/// The end of the chain after the block at `index`.
fn end(index: usize) -> ChainEnd {
    let blocks = fixture();
    let first = if index <= 40 { 1.min(index) } else { 41 };
    ChainEnd::new(&blocks[index], &blocks[first])
}

fn refused(verifier: &Verifier, parent: Option<&ChainEnd>, blocks: Vec<MinerBlock>) -> Violation {
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
#[case::hash(|block: &mut MinerBlock| flip(&mut block.hash), &[Rule::Hash, Rule::Genesis])]
#[case::index(|block: &mut MinerBlock| block.index += 1, &[Rule::Index])]
#[case::epoch(|block: &mut MinerBlock| block.epoch += 1, &[Rule::Epoch])]
#[case::timestamp(|block: &mut MinerBlock| block.timestamp += 1, &[Rule::Hash])]
#[case::future(|block: &mut MinerBlock| block.timestamp = unix_now() + 7260, &[Rule::Timestamp])]
#[case::previous_hash(|block: &mut MinerBlock| flip(&mut block.previous_hash), &[Rule::Link, Rule::Hash])]
#[case::data_hash(|block: &mut MinerBlock| flip(&mut block.data_hash), &[Rule::DataHash])]
#[case::nonce(|block: &mut MinerBlock| block.nonce += 1, &[Rule::Hash])]
#[case::target_difficulty(|block: &mut MinerBlock| block.target_difficulty += 1, &[Rule::Schedule, Rule::Target])]
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
        parent = Some(end(sound.index as usize));
    }
}

#[rstest]
#[case::without_a_schedule(Enforcement::Off)]
#[case::whose_schedule_it_breaks_too(Enforcement::Enforce)]
fn only_genesis_may_miss_its_target(#[case] difficulty_schedule: Enforcement) {
    let network = Network { difficulty_schedule, ..Network::devnet() };
    let (verifier, mut parent) = (on(&network, Level::Linked), None);
    for sound in fixture() {
        let harder = MinerBlock { target_difficulty: sound.actualized_difficulty + 1, ..sound.clone() };
        match verifier.verify(parent.as_ref(), vec![harder]) {
            Ok(_) => assert_eq!(sound.index, 0),
            Err(VerifyError::Violation(violation)) if violation.index == 0 => {
                assert_eq!(violation.rule, Rule::Schedule, "{violation}");
            }
            Err(VerifyError::Violation(violation)) => {
                assert_eq!(violation.rule, Rule::Target, "{violation}");
            }
            Err(error) => panic!("{error}"),
        }
        parent = Some(end(sound.index as usize));
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
    assert_eq!(refused(&on(&unpinned(), Level::Linked), None, vec![block.clone()]).rule, Rule::HashForm);
    assert_eq!(on(&unpinned(), Level::None).verify(None, vec![block]).unwrap().level(), Level::None);
}

#[rstest]
#[case::gap(|blocks: &mut Vec<MinerBlock>| { blocks.remove(1); }, Rule::Index, 2)]
#[case::no_genesis(|blocks: &mut Vec<MinerBlock>| { blocks.remove(0); }, Rule::Index, 1)]
#[case::two_at_one_index(|blocks: &mut Vec<MinerBlock>| blocks.insert(1, blocks[1].clone()), Rule::Index, 1)]
#[case::backwards(|blocks: &mut Vec<MinerBlock>| blocks.reverse(), Rule::Index, 60)]
#[case::link(|blocks: &mut Vec<MinerBlock>| blocks[2].previous_hash = "x".into(), Rule::Link, 2)]
#[case::cycle(|blocks: &mut Vec<MinerBlock>| blocks[2].hash = blocks[0].hash.clone(), Rule::Link, 2)]
#[case::size(|blocks: &mut Vec<MinerBlock>| blocks[3].nominated_peer_id = "x".repeat(66_560), Rule::Size, 3)]
#[case::long_hash(|blocks: &mut Vec<MinerBlock>| blocks[3].hash = "x".repeat(1025), Rule::Size, 3)]
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
    let parent = end(29);
    let verified = at(Level::Linked).verify(Some(&parent), rest.clone()).unwrap();
    assert_eq!((verified.len(), verified.end()), (31, Some(&end(60))));
    let refused = |parent: ChainEnd| refused(&at(Level::None), Some(&parent), rest.clone()).rule;
    assert_eq!(refused(ChainEnd { index: 30, ..parent.clone() }), Rule::Index);
    assert_eq!(refused(ChainEnd { hash: "x".into(), ..parent.clone() }), Rule::Link);
    let last = ChainEnd { index: u64::MAX, ..parent };
    assert_eq!(refused(last.clone()), Rule::Index);
    let none = at(Level::Pow).verify(Some(&last), Vec::new()).unwrap();
    assert_eq!((none.is_empty(), none.end()), (true, Some(&last)));
    assert_eq!(at(Level::Pow).verify(None, Vec::new()).unwrap().end(), None);
}

#[test]
fn the_end_is_the_same_wherever_a_run_is_cut() {
    for cut in 1..=60 {
        let mut blocks = fixture();
        let rest = blocks.split_off(cut);
        let first = at(Level::Linked).verify(None, blocks).unwrap();
        assert_eq!(first.end(), Some(&end(cut - 1)));
        assert_eq!(at(Level::Linked).verify(first.end(), rest).unwrap().end(), Some(&end(60)));
    }
}

#[test]
fn headers_show_what_blocks_do() {
    let headers: Vec<Header> = fixture().iter().map(Header::from).collect();
    let (last, work) = at(Level::Linked).verify_headers(None, &headers).unwrap();
    assert_eq!((last, work.to_string()), (Some(end(60)), "809".into()));
    let (last, work) = POW.verify_headers(Some(&end(29)), &headers[30..]).unwrap();
    let rest: crate::chain::CumulativeDifficulty = headers[30..].iter().map(Header::actualized).sum();
    assert_eq!((last, work), (Some(end(60)), rest));

    let refused = |change: fn(&mut Header)| {
        let mut headers = headers.clone();
        change(&mut headers[49]);
        let violation = at(Level::Linked).verify_headers(None, &headers).unwrap_err();
        (violation.index, violation.rule)
    };
    assert_eq!(refused(|header| flip(&mut header.hash)), (50, Rule::Link));
    assert_eq!(refused(|header| header.hash.replace_range(..2, "ff")), (49, Rule::Target));
    assert_eq!(refused(|header| header.target_difficulty = 2), (49, Rule::Schedule));
    assert_eq!(refused(|header| header.target_difficulty = 3), (49, Rule::Target));
    assert_eq!(refused(|header| header.index = 51), (51, Rule::Index));
    assert_eq!(refused(|header| header.timestamp = i64::MAX), (49, Rule::Timestamp));
}

#[test]
fn the_difficulty_follows_the_schedule() {
    // The bundled chain's first epoch took 379 s of the 400 that it should; of 1200 it would have been too fast.
    let slower = Network { target_block_time: 30, ..Network::devnet() };
    let violation = refused(&on(&slower, Level::Linked), None, fixture());
    assert_eq!((violation.index, violation.rule), (41, Rule::Schedule), "{violation}");
    let any = Network { difficulty_schedule: Enforcement::Off, ..slower };
    assert!(on(&any, Level::Linked).verify(None, fixture()).is_ok());
    assert!(on(&Network { initial_difficulty: 2, ..any.clone() }, Level::Linked).verify(None, fixture()).is_ok());
    let initial = Network { initial_difficulty: 2, difficulty_schedule: Enforcement::Enforce, ..any };
    assert_eq!(refused(&on(&initial, Level::Linked), None, fixture()).index, 0);
}

#[rstest]
fn a_chain_contains_the_checkpoints(#[values(Level::None, Level::Linked)] level: Level) {
    let blocks = fixture();
    let with = |checkpoints| on(&Network { checkpoints, ..Network::devnet() }, level);
    let sound = vec![Position::from(&blocks[0]), Position::from(&blocks[30]), Position { index: 99, hash: "x".into() }];
    assert!(with(sound).verify(None, blocks.clone()).is_ok());
    let other = with(vec![Position { index: 30, hash: blocks[31].hash.clone() }]);
    let violation = refused(&other, None, blocks.clone());
    assert_eq!((violation.index, violation.rule), (30, Rule::Checkpoint), "{violation}");
    let headers: Vec<Header> = blocks.iter().map(Header::from).collect();
    assert_eq!(other.verify_headers(None, &headers).unwrap_err().rule, Rule::Checkpoint);
}

#[test]
fn a_timestamp_may_be_a_little_ahead() {
    let ahead = |seconds| {
        let mut blocks = fixture();
        blocks[60].timestamp = unix_now() + seconds;
        at(Level::Linked).verify(None, blocks).map(|_| ())
    };
    assert!(ahead(7100).is_ok());
    assert!(ahead(7300).unwrap_err().to_string().contains("more than 7200 s ahead of now"));
}

#[test]
fn levels_of_one_verifier_share_its_threads() {
    let linked = POW.at(Level::Linked).unwrap();
    let mut blocks = fixture();
    blocks[60].nonce += 1;
    assert_eq!(linked.verify(None, blocks.clone()).unwrap().level(), Level::Linked);
    assert_eq!(refused(&linked.at(Level::Pow).unwrap(), Some(&end(59)), blocks.split_off(60)).rule, Rule::Hash);
}

#[test]
fn a_damaged_epoch_is_found() {
    let plain = Network { epoch_numbering: EpochNumbering::Plain, ..Network::devnet() };
    let violation = refused(&on(&plain, Level::Linked), None, fixture());
    assert_eq!((violation.rule, violation.index), (Rule::Epoch, 40));
    assert_eq!(violation.detail, "its epoch is 1, it claims 0");
}

#[test]
fn a_block_from_before_the_fork_is_refused_and_proves_nothing() {
    let blocks = fixture();
    let network = |earliest| Network { minimum_block_timestamp: Some(earliest), ..Network::devnet() };
    assert!(on(&network(blocks[1].timestamp), Level::Linked).verify(None, blocks.clone()).is_ok(), "genesis is older");
    let violation = refused(&on(&network(blocks[30].timestamp + 1), Level::Linked), None, blocks);
    assert_eq!((violation.rule, violation.index), (Rule::MinimumTimestamp, 1), "{violation}");
    assert!(!violation.rule.proves_forgery());
}

#[test]
fn a_hash_alone_tells_a_forged_header() {
    let mut block = fixture().remove(50);
    assert!(POW.verify_hash(&block).is_ok());
    block.index += 1;
    assert!(matches!(POW.verify_hash(&block), Err(VerifyError::Violation(Violation { rule: Rule::Hash, .. }))));
    assert!(at(Level::Linked).verify_hash(&block).is_ok(), "nothing is computed there");
}

#[test]
fn genesis_is_any_of_the_usual_form_or_the_pinned_one() {
    let genesis = fixture().remove(0);
    let other = MinerBlock { previous_hash: "none".into(), ..genesis.clone() };
    let any = |level| on(&unpinned(), level);
    assert!(any(Level::None).verify(None, vec![other.clone()]).is_ok());
    assert_eq!(refused(&any(Level::Linked), None, vec![other.clone()]).rule, Rule::Genesis);

    assert!(at(Level::Linked).verify(None, vec![other]).is_ok());
    let pinned = Network { genesis_hash: Some("ff".into()), ..Network::devnet() };
    for level in [Level::None, Level::Linked] {
        assert_eq!(refused(&on(&pinned, level), None, vec![genesis.clone()]).rule, Rule::Genesis);
    }
}

#[test]
fn sha256_networks_verify_too() {
    let network = Network { pow: PowAlgorithm::Sha256, initial_difficulty: 1000, ..unpinned() };
    let verifier = on(&network, Level::Pow);
    let mut genesis = MinerBlock { previous_hash: "0".into(), target_difficulty: 1000, ..MinerBlock::default() };
    genesis.data_hash = genesis.expected_data_hash();
    assert_eq!(genesis.header_text(), format!("000{}1000", genesis.data_hash));
    genesis.hash = sha256_hex(format!("{}0", genesis.header_text()).as_bytes());
    assert!(verifier.verify(None, vec![genesis.clone()]).is_ok());
    genesis.nonce = 1;
    assert_eq!(refused(&verifier, None, vec![genesis]).rule, Rule::Hash);
    let easy = on(&Network { pow: PowAlgorithm::Sha256, ..Network::devnet() }, Level::Pow);
    assert_eq!(refused(&easy, None, fixture()).rule, Rule::Hash);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let network = |key: &str| Network { pow: PowAlgorithm::RandomX { key: key.into() }, ..Network::devnet() };
    let new =
        |key, level, threads| Verifier::new(&network(key), level, PowOptions { threads, ..PowOptions::default() });
    assert_eq!(new("", Level::Pow, 1).unwrap_err(), PowError::Key);
    assert_eq!(new("k", Level::Pow, 257).unwrap_err(), PowError::Threads(257));
    let linked = new("", Level::Linked, 257).unwrap();
    assert_eq!(linked.at(Level::Pow).unwrap_err(), PowError::Key, "now a hash is computed");
}

#[test]
fn the_key_decides_the_hash() {
    let network = Network { pow: PowAlgorithm::RandomX { key: "another".into() }, ..Network::devnet() };
    let violation = refused(&on(&network, Level::Pow), None, fixture());
    assert_eq!((violation.index, violation.rule), (0, Rule::Hash));
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
    assert_eq!("full".parse::<Level>(), Err("expected none, linked or pow".into()));
    for rule in
        [Rule::HashForm, Rule::ActualizedDifficulty, Rule::Link, Rule::Checkpoint, Rule::Timestamp, Rule::Schedule]
    {
        assert_eq!(serde_json::to_value(rule).unwrap(), rule.as_str());
    }
}

use proptest::{option, prelude::*, sample::subsequence};
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::chain::{
    CumulativeDifficulty, Deviation, EpochNumbering, Header, Network, PowAlgorithm, verify::check_storable,
};
use crate::protocol::gossip;

/// A block as the first release sends it, with the plain-text hashes of its document.
fn first_dialect() -> Value {
    json!({
        "hash": "block_hash_005", "index": 5, "epoch": 0, "timestamp": 1_760_000_000, "previous_hash": "block_hash_004",
        "data_hash": "data_hash_005", "nonce": "340282366920938463463374607431768211455", "difficulty": "1000",
        "nominated_peer_id": "12D3KooWPeer", "miner_number": u64::MAX, "is_canonical": true, "is_orphaned": false,
    })
}

/// A block as today's nodes send it, with a field that we don't know.
fn current_dialect() -> Value {
    let mut block = first_dialect();
    let fields = block.as_object_mut().unwrap();
    fields.remove("difficulty");
    fields.extend([
        ("target_difficulty".into(), json!("1000")),
        ("actualized_difficulty".into(), json!("1007")),
        ("height_at_time".into(), json!(6)),
        ("orphan_reason".into(), Value::Null),
        ("finalized".into(), json!({"by": ["later", "releases"]})),
    ]);
    block
}

fn parse(block: &Value) -> Result<MinerBlock, String> {
    serde_json::from_str(&block.to_string()).map_err(|error| error.to_string())
}

#[test]
fn both_dialects_are_read() {
    let first = parse(&first_dialect()).unwrap();
    assert_eq!(
        (first.nonce, first.miner_number, first.target_difficulty, first.height_at_time),
        (u128::MAX, u64::MAX, 1000, None)
    );
    assert_eq!(first.actualized_difficulty, 1000, "a hash that isn't hex is worth the target difficulty");

    let current = parse(&current_dialect()).unwrap();
    assert_eq!((current.target_difficulty, current.actualized_difficulty), (1000, 1007));
    assert_eq!((current.height_at_time, current.orphan_reason), (Some(6), None));
}

#[test]
fn a_missing_actualized_difficulty_is_computed() {
    for expected in fixture() {
        let mut line: Value = serde_json::from_str(&expected.to_json()).unwrap();
        line.as_object_mut().unwrap().remove("actualized_difficulty");
        assert_eq!(parse(&line).unwrap(), expected);
    }
}

#[test]
fn the_union_of_both_dialects_is_written_in_fixed_order() {
    for line in FIXTURE.lines() {
        let block: MinerBlock = serde_json::from_str(line).unwrap();
        let mut expected: Value = serde_json::from_str(line).unwrap();
        expected["difficulty"] = expected["target_difficulty"].clone();
        assert_eq!(serde_json::from_str::<Value>(&block.to_json()).unwrap(), expected);
    }
    assert_eq!(
        MinerBlock { hash: "h".into(), nonce: 7, orphaned_at: Some(-1), ..MinerBlock::default() }.to_json(),
        concat!(
            r#"{"hash":"h","index":0,"epoch":0,"timestamp":0,"previous_hash":"","data_hash":"","nonce":"7","#,
            r#""difficulty":"0","target_difficulty":"0","actualized_difficulty":"0","nominated_peer_id":"","#,
            r#""miner_number":0,"is_canonical":false,"is_orphaned":false,"seen_at":null,"orphaned_at":-1,"#,
            r#""orphan_reason":null,"height_at_time":null,"competing_hash":null}"#
        )
    );
}

#[test]
fn deviations_are_written_behind_the_rest_where_there_are_any() {
    let plain = MinerBlock::default();
    let deviating = MinerBlock { deviations: Deviation::ALL.to_vec(), ..plain.clone() };
    let expected = plain.to_json().replace('}', r#","deviations":["schedule","timestamp"]}"#);
    assert_eq!(deviating.to_json(), expected);
    assert_eq!(parse(&serde_json::from_str(&expected).unwrap()).unwrap(), deviating);
}

#[rstest]
#[case::known(r#"["timestamp"]"#, &[Deviation::Timestamp])]
#[case::out_of_order(r#"["timestamp", "schedule", "timestamp"]"#, &[Deviation::Schedule, Deviation::Timestamp])]
#[case::unknown(r#"["colour", "timestamp", 7, -7, 0.5, null, true, ["schedule"], {"schedule": "schedule"}]"#, &[Deviation::Timestamp])]
#[case::empty("[]", &[])]
#[case::null("null", &[])]
#[case::text(r#""schedule""#, &[])]
#[case::number("1", &[])]
#[case::object(r#"{"schedule": ["schedule"]}"#, &[])]
fn deviations_that_are_no_list_of_known_words_are_ignored(#[case] value: &str, #[case] expected: &[Deviation]) {
    let json = MinerBlock::default().to_json().replace('}', &format!(r#","deviations":{value}}}"#));
    assert_eq!(serde_json::from_str::<MinerBlock>(&json).unwrap().deviations, expected);
}

#[test]
fn deviations_are_not_looked_for_in_a_long_text() {
    let deviations = |others: usize| {
        let value = ["\"schedule\""].into_iter().chain(std::iter::repeat_n("{\"\":0}", others)).collect::<Vec<_>>();
        let json = MinerBlock::default().to_json().replace('}', &format!(r#","deviations":[{}]}}"#, value.join(",")));
        serde_json::from_str::<MinerBlock>(&json).unwrap().deviations
    };
    assert_eq!(deviations(30), [Deviation::Schedule]);
    // As values they would take 100 MB.
    assert_eq!(deviations(150_000), []);
}

/// A message on the gossip topic in the fewest bytes, but for the nominee, which fills it: `unit` as often as it goes.
#[rstest]
#[case::letters("x")]
#[case::nul(r"\u0000")]
#[case::quotes(r#"\""#)]
#[case::wide("\u{1F980}")]
fn whatever_gossip_carries_is_not_too_long(#[case] unit: &str) {
    let most = 64 << 10;
    let message = |nominee: &str| {
        let numbers = r#""index":0,"epoch":0,"miner_number":0,"difficulty":"","nonce":"","timestamp":"0""#;
        let numbers = numbers.replace(r#""""#, r#""0""#);
        format!(r#"{{{numbers},"previous_hash":"","hash":"h","nominated_peer_id":"{nominee}"}}"#)
    };
    let message = message(&unit.repeat((most - message("").len()) / unit.len()));
    assert!(message.len() <= most && message.len() > most - unit.len());
    let heard = gossip::decode(message.as_bytes(), i64::MIN).unwrap();
    // What we compute or add ourselves may have the most digits.
    let stored = MinerBlock {
        epoch: u64::MAX,
        actualized_difficulty: u128::MAX,
        data_hash: heard.expected_data_hash(),
        is_canonical: false,
        is_orphaned: true,
        orphaned_at: Some(i64::MIN),
        height_at_time: Some(u64::MAX),
        orphan_reason: Some("a chain with more work was found".into()),
        competing_hash: Some("f".repeat(64)),
        deviations: Deviation::ALL.to_vec(),
        ..heard
    };
    assert_eq!(check_storable(&stored), Ok(()));
    assert!(stored.to_json().len() > most, "the limit is not far off");
}

#[rstest]
#[case::disagree("difficulty", json!("999"), "difficulty 999 and target_difficulty 1000 disagree")]
#[case::number("nonce", json!(5), "nonce: invalid type: integer `5`, expected a string of decimal digits below 2^128")]
#[case::sign("nonce", json!("+5"), "nonce: invalid value: string \"+5\", expected a string of decimal digits")]
#[case::space("nonce", json!(" 5"), "nonce: invalid value")]
#[case::empty("target_difficulty", json!(""), "target_difficulty: invalid value")]
#[case::too_big("target_difficulty", json!("340282366920938463463374607431768211456"), "target_difficulty: invalid")]
#[case::negative("index", json!(-1), "index: invalid value: integer `-1`, expected u64")]
#[case::fraction("epoch", json!(0.5), "epoch: invalid type: floating point `0.5`, expected u64")]
#[case::text("timestamp", json!("now"), "timestamp: invalid type: string \"now\", expected i64")]
#[case::null("hash", Value::Null, "hash: invalid type: null, expected a string")]
#[case::flag("is_canonical", json!(1), "is_canonical: invalid type: integer `1`, expected a boolean")]
#[case::optional("seen_at", json!("x"), "seen_at: invalid type: string \"x\", expected i64")]
fn a_bad_value_is_refused_by_its_fields_name(#[case] field: &str, #[case] value: Value, #[case] message: &str) {
    let mut block = current_dialect();
    block[field] = value;
    let error = parse(&block).unwrap_err();
    assert!(error.starts_with(message), "{error}");
}

#[rstest]
fn a_missing_field_is_refused_by_its_name(
    #[values(
        "hash",
        "index",
        "timestamp",
        "previous_hash",
        "nonce",
        "nominated_peer_id",
        "miner_number",
        "is_canonical",
        "is_orphaned"
    )]
    field: &str,
) {
    let mut block = first_dialect();
    block.as_object_mut().unwrap().remove(field);
    let error = parse(&block).unwrap_err();
    assert!(error.starts_with(&format!("missing field `{field}`")), "{error}");
}

#[rstest]
fn what_follows_from_other_members_may_be_missing(
    #[values("epoch", "data_hash", "actualized_difficulty")] field: &str,
    #[values(true, false)] null: bool,
) {
    let whole = parse(&current_dialect()).unwrap();
    let mut block = current_dialect();
    match null {
        true => block[field] = Value::Null,
        false => _ = block.as_object_mut().unwrap().remove(field),
    }
    let read = parse(&block).unwrap();
    match field {
        "data_hash" => assert_eq!(read, MinerBlock { data_hash: String::new(), ..whole }),
        "epoch" => assert_eq!(read, whole, "that of the usual numbering"),
        _ => assert_eq!(read, MinerBlock { actualized_difficulty: 1000, ..whole }, "what the hash is worth"),
    }
    block["actualized_difficulty"] = json!("no number");
    assert_eq!(parse(&block).unwrap().actualized_difficulty, 1000);
}

#[test]
fn a_block_needs_a_difficulty_and_each_field_once() {
    let mut block = first_dialect();
    block["difficulty"] = Value::Null;
    let error = parse(&block).unwrap_err();
    assert!(error.starts_with("missing field `target_difficulty` or `difficulty`"), "{error}");

    let twice = first_dialect().to_string().replacen('{', r#"{"index":5,"#, 1);
    let error = serde_json::from_str::<MinerBlock>(&twice).unwrap_err().to_string();
    assert!(error.starts_with("duplicate field `index`"), "{error}");

    let error = serde_json::from_str::<MinerBlock>("[1]").unwrap_err().to_string();
    assert!(error.starts_with("invalid type: sequence, expected a miner block (an object)"), "{error}");
}

#[test]
fn the_bundled_chain_weighs_809() {
    let blocks = fixture();
    assert_eq!(blocks.len(), 61);
    let total: CumulativeDifficulty = blocks.iter().map(|block| block.actualized_difficulty).sum();
    assert_eq!(total.to_string(), "809");
}

#[rstest]
#[case(0, 0, 0)]
#[case(39, 0, 0)]
#[case(40, 1, 0)]
#[case(41, 1, 1)]
#[case(80, 2, 1)]
#[case(u64::MAX, u64::MAX / 40, (u64::MAX - 1) / 40)]
fn epochs_are_numbered_either_way(#[case] index: u64, #[case] plain: u64, #[case] genesis_first: u64) {
    assert_eq!(EpochNumbering::Plain.epoch(index), plain);
    assert_eq!(EpochNumbering::GenesisFirst.epoch(index), genesis_first);
}

#[test]
fn an_epoch_begins_where_the_one_before_ends() {
    for (numbering, first) in [(EpochNumbering::Plain, 0), (EpochNumbering::GenesisFirst, 1)] {
        assert_eq!([0, 1, 2].map(|epoch| numbering.first_index(epoch)), [first, first + 40, first + 80]);
        assert_eq!([39, 40].map(|after| numbering.epoch(first + 40 + after)), [1, 2]);
    }
    assert_eq!(EpochNumbering::GenesisFirst.first_index(u64::MAX), u64::MAX);
}

#[test]
fn a_networks_settings_name_only_what_differs() {
    let parse = |settings: Value| serde_json::from_value::<Network>(settings).map_err(|error| error.to_string());
    let usual = parse(json!({})).unwrap();
    assert_eq!((usual.initial_difficulty, usual.target_block_time, usual.genesis_hash.as_ref()), (10, 60, None));
    let seed = parse(json!({"epoch_numbering": "plain", "pow": {"algorithm": "sha256"}})).unwrap();
    assert_eq!((seed.epoch_numbering, seed.pow), (EpochNumbering::Plain, PowAlgorithm::Sha256));
    let keyed = parse(json!({"pow": {"algorithm": "randomx", "key": "k"}})).unwrap();
    assert_eq!(keyed.pow, PowAlgorithm::RandomX { key: "k".into() });
    assert_eq!(parse(json!({"pow": {"algorithm": "randomx"}})).unwrap(), usual);
    for settings in [json!({"epochs": "plain"}), json!({"pow": {"algorithm": "randomx", "kee": "k"}})] {
        assert!(parse(settings.clone()).unwrap_err().contains("unknown field"), "{settings}");
    }
    assert!(parse(json!({"pow": {"algorithm": "scrypt"}})).is_err());
}

#[test]
fn a_header_is_what_a_block_shows_of_it() {
    for block in fixture() {
        let header: Header = serde_json::from_str(&block.to_json()).unwrap();
        assert_eq!(header, Header::from(&block), "fields that a header lacks are ignored");
        assert_eq!(serde_json::from_str::<Header>(&serde_json::to_string(&header).unwrap()).unwrap(), header);
        assert_eq!((header.header_text(), header.actualized()), (block.header_text(), block.actualized_difficulty));
    }
    let header = Header { nonce: u128::MAX, target_difficulty: 5, ..Header::default() };
    let json = serde_json::to_value(&header).unwrap();
    assert_eq!((&json["nonce"], &json["target_difficulty"]), (&json!(u128::MAX.to_string()), &json!("5")));
}

prop_compose! {
    fn any_block()(
        texts in any::<[String; 4]>(),
        numbers in any::<(u64, u64, i64, u64)>(),
        wide in any::<(u128, u128, u128)>(),
        flags in any::<(bool, bool)>(),
        times in any::<(Option<i64>, Option<i64>, Option<u64>)>(),
        reasons in (option::of(any::<String>()), option::of(any::<String>())),
        deviations in subsequence(&Deviation::ALL, 0..=Deviation::ALL.len()),
    ) -> MinerBlock {
        let [hash, previous_hash, data_hash, nominated_peer_id] = texts;
        MinerBlock {
            hash, previous_hash, data_hash, nominated_peer_id,
            index: numbers.0, epoch: numbers.1, timestamp: numbers.2, miner_number: numbers.3,
            nonce: wide.0, target_difficulty: wide.1, actualized_difficulty: wide.2,
            is_canonical: flags.0, is_orphaned: flags.1,
            seen_at: times.0, orphaned_at: times.1, height_at_time: times.2,
            orphan_reason: reasons.0, competing_hash: reasons.1, deviations,
        }
    }
}

proptest! {
    #[test]
    fn any_block_comes_back_exactly(block in any_block()) {
        prop_assert_eq!(serde_json::from_str::<MinerBlock>(&block.to_json()).unwrap(), block);
    }
}

#[test]
fn the_largest_numbers_come_back_exactly() {
    for (small, large) in [(u64::MAX, i64::MIN), (u64::MAX - 1, i64::MAX), (1 << 53 | 1, -(1 << 53) - 1)] {
        let block = MinerBlock {
            index: small,
            epoch: small,
            miner_number: small,
            height_at_time: Some(small),
            timestamp: large,
            seen_at: Some(large),
            nonce: u128::MAX,
            target_difficulty: u128::MAX - 1,
            actualized_difficulty: u128::MAX,
            ..MinerBlock::default()
        };
        assert_eq!(serde_json::from_str::<MinerBlock>(&block.to_json()).unwrap(), block);
    }
}

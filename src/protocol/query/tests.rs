use serde_json::value::RawValue;

use super::*;
use crate::protocol::{Code, Failure};
fn parse(path: &str, data: &str) -> Result<Query, Failure> {
    let raw = RawValue::from_string(data.to_owned()).unwrap();
    Query::parse(path, Some(&raw))
}

#[test]
fn every_query_comes_back_from_its_own_path_and_data() {
    let hash = "a".repeat(64);
    for query in [
        Query::Ping { data: r#"{"b": [1,2.50]}"#.into() },
        Query::Inspect,
        Query::Get { hash: hash.clone() },
        Query::Canonical,
        Query::Epoch { epoch: u64::MAX },
        Query::Range { from_index: 0, to_index: u64::MAX, chunk_size: 7 },
        Query::Headers { from_index: 1, to_index: 2, chunk_size: 1 },
        Query::ChainInfo { local_block_hashes: vec![hash.clone()], include_blocks: true, from_index: Some(3) },
        Query::FindAncestor { check_points: vec![CheckPoint { index: 3, hash }] },
        Query::DebugIndex { index: u64::MAX },
    ] {
        assert_eq!(parse(query.path(), &query.data()).unwrap(), query);
    }
}

#[test]
fn a_parameter_of_the_wrong_type_counts_as_missing() {
    for data in ["null", "{}", "[]", "3", r#"{"epoch":"1"}"#, r#"{"epoch":-1}"#, r#"{"epoch":1.5}"#] {
        let failure = parse("/data/miner_block/epoch", data).unwrap_err();
        assert_eq!((failure.code, &*failure.error), (Code::MissingParameter, "Missing 'epoch' parameter"), "{data}");
    }
}

#[test]
fn whatever_a_node_answers_to_a_short_question_fits_and_not_much_more() {
    let text = format!("[{}7]", "1e15,".repeat(1000));
    let again = serde_json::from_str::<serde_json::Value>(&text).unwrap().to_string();
    assert!(again.len() > 3 * text.len());
    let ping = Query::Ping { data: text.into() };
    assert!((again.len()..256 << 10).contains(&ping.most_bytes()), "{}", again.len());
    let point = CheckPoint { index: u64::MAX, hash: "\u{1}".repeat(64) };
    let matched = crate::protocol::answer::Match { index: point.index, hash: point.hash.clone(), matches: false };
    let each = serde_json::to_string(&matched).unwrap().len() + 1;
    let find = Query::FindAncestor { check_points: vec![point; 1000] };
    assert!((1000 * each..1 << 20).contains(&find.most_bytes()), "{each}");
    let info = |include_blocks| Query::ChainInfo { local_block_hashes: vec![], include_blocks, from_index: None };
    assert_eq!((info(false).most_bytes(), info(true).most_bytes()), (64 << 10, 10 << 20));
    let one = Query::Range { from_index: 7, to_index: 7, chunk_size: 1 };
    assert_eq!(one.most_bytes(), 10 << 20, "some give the whole range");
}

#[test]
fn chunk_sizes_are_clamped_and_zero_is_refused() {
    let size = |size: &str| parse("/data/miner_block/range", &format!(r#"{{"from_index":0,"to_index":9{size}}}"#));
    for (given, used) in [("", 1000), (r#","max_chunk_size":1000000000"#, 1000), (r#","max_chunk_size":"x""#, 1000)] {
        assert_eq!(size(given).unwrap(), Query::Range { from_index: 0, to_index: 9, chunk_size: used });
    }
    assert_eq!(size(r#","max_chunk_size":0"#).unwrap_err().code, Code::InvalidParameter);
}

#[test]
fn text_becomes_data_by_kind() {
    let row = path("/data/miner_block/chain_info").unwrap();
    let read = |pairs: &[(&'static str, &'static str)]| data_from_text(row.path, row.parameters, pairs.iter().copied());
    let pairs = [("local_block_hashes", "aa,bb"), ("include_blocks", "true"), ("from_index", "18446744073709551615")];
    let data = read(&pairs).unwrap();
    assert_eq!(
        data,
        serde_json::json!({"local_block_hashes": ["aa", "bb"], "include_blocks": true, "from_index": u64::MAX})
    );
    for (name, text) in [
        ("from_index", "-1"),
        ("from_index", "+1"),
        ("from_index", "1.0"),
        ("from_index", "1e3"),
        ("from_index", ""),
        ("from_index", "18446744073709551616"),
        ("include_blocks", "yes"),
    ] {
        let failure = read(&[(name, text)]).unwrap_err();
        assert_eq!(failure.code, Code::InvalidParameter, "{name}={text}");
        assert!(failure.detail.unwrap().starts_with(name));
    }
    let unknown = read(&[("epohc", "1")]).unwrap_err();
    assert_eq!(unknown.code, Code::UnknownParameter);
    let twice = read(&[("from_index", "1"), ("from_index", "2")]).unwrap_err();
    assert_eq!(twice.detail.unwrap(), "\"from_index\" is given twice");
}

#[test]
fn a_body_is_checked_member_by_member() {
    let row = path("/data/miner_block/epoch").unwrap();
    let check = |data: serde_json::Value| check(row.path, row.parameters.unwrap(), &data);
    assert_eq!(check(serde_json::json!({"epoch": 1})), Ok(()));
    let wrong = check(serde_json::json!({"epoch": "1"})).unwrap_err();
    assert_eq!((wrong.code, &*wrong.error), (Code::InvalidParameter, "Missing 'epoch' parameter"));
    assert_eq!(check(serde_json::json!({"epohc": 1})).unwrap_err().code, Code::UnknownParameter);
    assert_eq!(check(serde_json::json!([1])).unwrap_err().code, Code::MalformedBody);
}

#[test]
fn a_fraction_of_zero_is_no_fraction() {
    assert_eq!(parse("/data/miner_block/epoch", r#"{"epoch":7.0}"#).unwrap(), Query::Epoch { epoch: 7 });
    let points = parse("/data/miner_block/find_ancestor", r#"{"check_points":[{"index":3.0,"hash":"aa"}]}"#).unwrap();
    assert_eq!(points, Query::FindAncestor { check_points: vec![CheckPoint { index: 3, hash: "aa".into() }] });
    let large = parse("/data/miner_block/epoch", r#"{"epoch":3729864778711722.0}"#).unwrap();
    assert_eq!(large, Query::Epoch { epoch: 3_729_864_778_711_722 });
    for epoch in ["7.5", "-1.0", "18446744073709551616", "1e300", "\"7\""] {
        let failure = parse("/data/miner_block/epoch", &format!(r#"{{"epoch":{epoch}}}"#)).unwrap_err();
        assert_eq!(failure.error, "Missing 'epoch' parameter", "{epoch}");
    }
}

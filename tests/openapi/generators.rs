//! What generators of clients need of the document.

use std::collections::BTreeSet;

use modal_gateway::{http::Numbers, protocol::query::PATHS};
use serde_json::{Value, json};

use super::{document, document_of, named, operations, parameters};

/// Finds every schema of an integer and says where it is.
fn integers<'a>(at: String, value: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(members) => {
            if members.get("type").is_some_and(|kind| kind == "integer" || kind == &json!(["integer", "null"])) {
                found.push((at.clone(), value));
            }
            members.iter().for_each(|(name, member)| integers(format!("{at}/{name}"), member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| integers(format!("{at}/_"), item, found)),
        _ => {}
    }
}

#[test]
fn every_integer_has_a_format_that_generators_know() {
    let (document, mut found) = (document(), Vec::new());
    integers(String::new(), &document, &mut found);
    assert!(found.len() > 30, "{}", found.len());
    for (at, schema) in found {
        // Unix seconds are signed.
        let signed = [
            "at",
            "timestamp",
            "first_time",
            "last_time",
            "tip_time",
            "seen_at",
            "orphaned_at",
            "last_seen",
            "created_at",
            "updated_at",
            "checked_at",
        ];
        if at.rsplit('/').next().is_some_and(|name| signed.contains(&name)) {
            assert_eq!((&schema["format"], &schema["minimum"]), (&json!("int64"), &Value::Null), "{at}");
        } else {
            let lowest = if at.ends_with("max_chunk_size") || schema["minimum"] == 1 { 1 } else { 0 };
            assert_eq!((&schema["format"], &schema["minimum"]), (&json!("int64"), &json!(lowest)), "{at}");
            // That of a page's length is one that any language can write.
            assert!(schema["maximum"].is_null() || schema["maximum"].as_u64() <= Some(100), "{at}");
        }
    }
}

/// Finds every schema whose only type is null, and every literal that a generator can't write as a signed integer.
fn unfit(at: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            // `oneOf` with null makes a member optional, which generators know.
            if members.get("type").is_some_and(|kind| kind == "null") && !at.contains("/oneOf/") {
                found.push(at.to_owned());
            }
            members.iter().for_each(|(name, member)| unfit(&format!("{at}/{name}"), member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| unfit(&format!("{at}/_"), item, found)),
        Value::Number(number) if number.as_i64().is_none() && number.as_u64().is_some() => found.push(at.to_owned()),
        _ => {}
    }
}

/// Routes of our own whose answers hold whole blocks.
const WITH_BLOCKS: [&str; 5] =
    ["/events", "/chain/blocks", "/chain/blocks/{id}", "/chain/orphans", "/chain/nominees/{peer}"];

#[test]
fn each_document_is_fit_for_generators() {
    for numbers in Numbers::ALL {
        let (document, mut found) = (document_of(numbers), Vec::new());
        unfit("", &document, &mut found);
        assert_eq!(found, Vec::<String>::new(), "{numbers}");
        // Each answer's `data` is one type, not one for each place.
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            let data = name.strip_prefix("Envelope_").filter(|data| *data != "Value");
            let reference = data.map(|data| format!("#/components/schemas/{data}"));
            assert!(reference.is_none_or(|reference| schema["properties"]["data"]["$ref"] == reference), "{name}");
        }
        // In Go the words of all named enumerations share one scope.
        let schemas = document["components"]["schemas"].as_object().unwrap().values();
        let words: Vec<_> =
            schemas.filter_map(|schema| schema["enum"].as_array()).flatten().map(Value::to_string).collect();
        assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len(), "{words:?}");
        let number = &document["components"]["schemas"]["MinerBlock"]["properties"]["miner_number"];
        assert_eq!(number["type"], if numbers == Numbers::String { "string" } else { "integer" });
        for (method, path, operation) in operations(&document) {
            let query = parameters(operation, "query");
            let parameter = named(&query, "numbers");
            let gives_blocks =
                WITH_BLOCKS.contains(&path.as_str()) || PATHS.iter().any(|row| row.path == path && row.gives_blocks());
            assert_eq!(parameter.is_some(), gives_blocks, "{method} {path}");
            if let Some(parameter) = parameter {
                assert_eq!(parameter["schema"]["enum"], json!([numbers.as_str()]), "{method} {path}");
                assert_eq!(parameter["required"], numbers == Numbers::String, "{method} {path}");
            }
        }
    }
}

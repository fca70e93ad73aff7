//! The events are what the OpenAPI document says, and so are its examples.

use std::collections::{BTreeMap, BTreeSet};

use modal_gateway::{
    chain::Level,
    http::{Numbers, openapi_json},
};
use serde_json::Value;

use crate::{
    stream::{SentEvent, Stream, append, blocks, reorganise},
    support::gateway::{Backend, TestGateway, TestStore, synthetic},
};

/// The schema of each kind of event.
const SCHEMAS: [(&str, &str); 6] = [
    ("extended", "ExtendedEvent"),
    ("reorganised", "ReorganisedEvent"),
    ("reset", "ResetEvent"),
    ("sync", "SyncEvent"),
    ("peers", "PeersEvent"),
    ("peer", "PeerEvent"),
];

/// Says where a value is not what a schema says, as far as the document's schemas go.
fn mismatch(document: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return mismatch(document, document.pointer(reference.trim_start_matches('#')).unwrap(), value, at);
    }
    if let Some(any) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let problems: Option<Vec<_>> = any.iter().map(|schema| mismatch(document, schema, value, at)).collect();
        return problems.map(|problems| problems.join(" and "));
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        other => panic!("{at}: no type: {other} in {schema}"),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.contains(&kind) {
        return Some(format!("{at}: {value} is no {kinds:?}"));
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        return Some(format!("{at}: {value} is not in {}", schema["enum"]));
    }
    match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(n, item)| mismatch(document, &schema["items"], item, &format!("{at}/{n}"))),
        Value::Object(members) => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let missing =
                required.filter(|name| !members.contains_key(*name)).map(|name| format!("{at}: no {name}")).next();
            missing.or_else(|| {
                members.iter().find_map(|(name, value)| match &schema["properties"][name] {
                    Value::Null => Some(format!("{at}: {name} is not documented")),
                    schema => mismatch(document, schema, value, &format!("{at}/{name}")),
                })
            })
        }
        _ => None,
    }
}

#[test]
fn every_kind_of_event_has_a_schema_and_an_example_of_it() {
    for numbers in Numbers::ALL {
        let document: Value = serde_json::from_str(&openapi_json(numbers)).unwrap();
        let described = document["paths"]["/events"]["get"]["description"].as_str().unwrap();
        for (kind, name) in SCHEMAS {
            let schema = &document["components"]["schemas"][name];
            let examples = schema["examples"].as_array().unwrap_or_else(|| panic!("{name}: no example"));
            assert_eq!(examples.len(), 1, "{name}");
            assert_eq!(mismatch(&document, schema, &examples[0], name), None);
            assert!(described.contains(&format!("`{kind}`")) && described.contains(&format!("`{name}`")), "{name}");
            let properties = schema["properties"].as_object().unwrap();
            assert!(properties.values().all(|member| member["description"].is_string() || member["oneOf"].is_array()));
        }
    }
}

#[tokio::test]
async fn the_events_that_are_sent_have_their_schemas() {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(50), Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    let handle = gateway.store.open().await;
    let query = "?topics=chain,sync,peers&include=blocks&numbers=string";
    let (mut stream, _) = Stream::begin(&gateway.base, query, Some("no id")).await;
    let document: Value = serde_json::from_str(&openapi_json(Numbers::String)).unwrap();
    let schemas = BTreeMap::from(SCHEMAS);
    let mut seen = BTreeSet::new();
    while seen.len() < SCHEMAS.len() {
        let SentEvent { event, data, .. } = stream.next().await;
        let schema = &document["components"]["schemas"][schemas[event.as_str()]];
        assert_eq!(mismatch(&document, schema, &data, &event), None);
        match event.as_str() {
            "reset" => append(&*handle, (49, "main-49"), blocks("main", "main", 50, 51)).await,
            "extended" => reorganise(&*handle, (30, "main"), blocks("side", "main", 31, 52)).await,
            "reorganised" => assert_eq!(data["blocks"]["removed"].as_array().map(Vec::len), Some(21)),
            "peers" => drop(gateway.ask(r#"{"path":"/ping","data":1}"#).await),
            _ => {}
        }
        seen.insert(event);
    }
}

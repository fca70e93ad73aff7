//! Parameters and request bodies of the protocol's paths, from the table that the parser uses; and an example of each
//! path.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    chain::MinerBlock,
    http::numbers::Numbers,
    protocol::query::{Kind, PATHS, Parameter},
};

/// A request's `data` and the answer for each path, of a chain of two blocks. Tests ask a gateway the same.
const EXAMPLES: &str = include_str!("../../../openapi/examples.json");

/// An event of each kind, by the name of its schema.
const EVENTS: &str = include_str!("../../../openapi/events.json");

/// Adds the parameters of every path of the protocol: to `GET` as query parameters, to `POST` as a body.
pub(super) fn add_parameters(document: &mut Value) {
    for row in &PATHS {
        let item = &mut document["paths"][row.path];
        let (query, body) = match row.parameters {
            None => (vec![echo()], Some(json!({"content": content(json!({})), "description": "Any JSON"}))),
            Some(parameters) => {
                // A query string has lists in one style only.
                let lists = parameters.iter().any(|parameter| parameter.kind == Kind::TextList);
                let query = parameters.iter().map(|parameter| query_parameter(row.path, parameter, lists)).collect();
                let reference = json!({"$ref": format!("#/components/schemas/{}", schema_name(row.path))});
                let body = match parameters.iter().any(|parameter| parameter.required) {
                    true => json!({"content": content(reference), "required": true}),
                    false => json!({"content": content(json!({"oneOf": [reference, {"type": "null"}]}))}),
                };
                (query, (!parameters.is_empty()).then_some(body))
            }
        };
        let only_post = item.get("get").is_none();
        if !only_post {
            item["get"]["parameters"] = query.into();
        }
        if let Some(body) = body {
            item["post"]["requestBody"] = body;
        }
        if let Some(parameters) = row.parameters.filter(|parameters| !parameters.is_empty()) {
            let schema = body_schema(row.path, parameters, if only_post { "Body" } else { "Parameters" });
            document["components"]["schemas"][schema_name(row.path)] = schema;
        }
    }
}

fn content(schema: Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

/// `RangeQuery` for `/data/miner_block/range`.
fn schema_name(path: &str) -> String {
    let words = path.rsplit('/').next().unwrap_or_default().split('_');
    let capitalised = words.map(|word| word[..1].to_ascii_uppercase() + &word[1..]);
    capitalised.collect::<String>() + "Query"
}

/// The parameter of `GET /ping`: any names and values.
fn echo() -> Value {
    let text = json!({"type": "string"});
    let object = json!({
        "type": "object", "description": "What `GET /ping` echoes.", "propertyNames": text, "additionalProperties": text,
    });
    json!({
        "name": "echo", "in": "query", "required": false, "description": "Any names and values", "schema": object,
        "style": "form", "explode": true,
    })
}

fn query_parameter(path: &str, parameter: &Parameter, lists: bool) -> Value {
    let mut documented = json!({
        "name": parameter.name, "in": "query", "required": parameter.required, "schema": schema(parameter),
        "description": description(path, parameter.name),
    });
    if lists {
        documented["style"] = "form".into();
    }
    if parameter.kind == Kind::TextList {
        documented["explode"] = false.into();
    }
    documented
}

fn body_schema(path: &str, parameters: &[Parameter], what: &str) -> Value {
    let mut properties = Map::new();
    for parameter in parameters {
        let mut property = schema(parameter);
        if !parameter.required {
            property["type"] = json!([property["type"], "null"]);
        }
        property["description"] = description(path, parameter.name).into();
        properties.insert(parameter.name.into(), property);
    }
    let required: Vec<_> = parameters.iter().filter(|parameter| parameter.required).map(|p| p.name).collect();
    let mut schema = json!({
        "type": "object", "description": format!("{what} of `{path}`."), "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn schema(parameter: &Parameter) -> Value {
    match parameter.kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Integer => {
            let minimum = u64::from(parameter.name == "max_chunk_size");
            // Without `maximum`: generators can't write 2^64-1, and 2^63-1 would not be true.
            json!({"type": "integer", "format": "int64", "minimum": minimum})
        }
        Kind::TextList => json!({"type": "array", "items": {"type": "string"}}),
        Kind::CheckPoints => json!({"type": "array", "items": {"$ref": "#/components/schemas/CheckPoint"}}),
    }
}

fn description(path: &str, name: &str) -> &'static str {
    match name {
        "level" => "`basic`, `datastore` or `full`; every level gives the same answer.",
        "hash" => "Hash of the block, orphaned or not.",
        "epoch" => "Number of the epoch, as the blocks carry it.",
        "from_index" if path.ends_with("/range") => "First index.",
        "from_index" => "First block to send. Absent: the one after the common ancestor, or the first.",
        "to_index" => "Last index, included; at least `from_index`. It may lie beyond the tip.",
        "max_chunk_size" => "Most blocks to give. Absent, or above 1000: 1000.",
        "local_block_hashes" => {
            "Hashes of the asker's blocks: the highest that is canonical here is the common ancestor. In a query string \
             they\nare separated by commas."
        }
        "include_blocks" => "Whether to send blocks, at most 1000.",
        "check_points" => "Blocks of the asker's chain.",
        "index" => "The index.",
        _ => "",
    }
}

#[derive(Deserialize)]
struct Example {
    data: Value,
    answer: Value,
}

/// Adds the examples to every operation.
pub(super) fn add_examples(document: &mut Value, numbers: Numbers) {
    // A test reads every example in the finished document: a file that can't be read leaves none.
    let mut examples: BTreeMap<String, Example> = serde_json::from_str(EXAMPLES).unwrap_or_default();
    for (path, Example { data, answer }) in &mut examples {
        if numbers == Numbers::String {
            *answer = serde_json::from_str(&Numbers::quoted(&answer.to_string())).unwrap_or_default();
        }
        let Some(item) = document["paths"].get_mut(path) else { continue };
        for method in ["get", "post"] {
            let Some(operation) = item.get_mut(method) else { continue };
            for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap_or_default();
                let value = if name == "echo" { Some(&*data) } else { data.get(name) };
                if let (Some("query" | "path"), Some(value)) = (parameter["in"].as_str(), value) {
                    parameter["example"] = value.clone();
                }
            }
            if let Some(body) = operation.get_mut("requestBody") {
                body["content"]["application/json"]["example"] = data.clone();
            }
            let answers = operation["responses"]["200"].get_mut("content").and_then(Value::as_object_mut);
            for (media_type, content) in answers.into_iter().flatten() {
                content["example"] = match media_type.as_str() {
                    "application/x-ndjson" => lines(answer).into(),
                    "text/csv" => csv(answer).into(),
                    _ => answer.clone(),
                };
            }
        }
    }
}

/// Adds an example to the schema of each event. They stand there, since the stream of them has no schema.
pub(super) fn add_event_examples(document: &mut Value, numbers: Numbers) {
    let events = match numbers {
        Numbers::Number => EVENTS.to_owned(),
        Numbers::String => {
            let events: Value = serde_json::from_str(EVENTS).unwrap_or_default();
            Numbers::quoted(&events.to_string())
        }
    };
    let events: Map<String, Value> = serde_json::from_str(&events).unwrap_or_default();
    for (name, event) in events {
        document["components"]["schemas"][name]["examples"] = json!([event]);
    }
}

fn lines(answer: &Value) -> String {
    let blocks = answer["data"]["blocks"].as_array();
    blocks.into_iter().flatten().map(|block| format!("{block}\n")).collect()
}

fn csv(answer: &Value) -> String {
    let blocks = answer["data"]["blocks"].as_array();
    // With `?numbers=string` the numbers are texts, which CSV has no need of.
    let blocks = blocks.into_iter().flatten().filter_map(|block| {
        let mut block = block.clone();
        if let Some(number) = block["miner_number"].as_str() {
            block["miner_number"] = number.parse::<u64>().ok()?.into();
        }
        serde_json::from_value(block).ok()
    });
    let blocks: Vec<MinerBlock> = blocks.collect();
    MinerBlock::csv_header() + &MinerBlock::csv_lines(&blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_is_described() {
        let parameters =
            PATHS.iter().flat_map(|row| row.parameters.unwrap_or_default().iter().map(|p| (row.path, p.name)));
        let missing: Vec<_> = parameters.filter(|(path, name)| description(path, name).is_empty()).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

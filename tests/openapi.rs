//! The OpenAPI document: checked in, complete, true, and good for generating clients.

use std::collections::BTreeSet;

use modal_gateway::{
    config::{Config, Sources},
    http::{Numbers, envelope, openapi_json},
    protocol::{
        Code,
        query::{PATHS, Parameter},
    },
};
use serde_json::{Map, Value, json};

mod support;

#[path = "openapi/examples.rs"]
mod examples;
#[path = "client/generated.rs"]
mod generated;
#[path = "openapi/generators.rs"]
mod generators;

/// Routes that are no path of the protocol.
const OWN: [&str; 17] = [
    "/chain/blocks",
    "/chain/blocks/{id}",
    "/chain/orphans",
    "/chain/epochs",
    "/chain/epochs/{epoch}",
    "/chain/nominees",
    "/chain/nominees/{peer}",
    "/chain/network",
    "/chain/reorganisations",
    "/chain/search",
    "/status",
    "/peers",
    "/health/live",
    "/health/ready",
    "/sync",
    "/sync/{id}",
    "/events",
];

fn document() -> Value {
    document_of(Numbers::Number)
}

fn document_of(numbers: Numbers) -> Value {
    serde_json::from_str(&openapi_json(numbers)).unwrap()
}

/// Every operation: method, path, operation.
fn operations(document: &Value) -> Vec<(String, String, &Map<String, Value>)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            methods.map(|(method, operation)| (method.clone(), path.clone(), operation.as_object().unwrap()))
        })
        .collect()
}

/// Follows a `$ref` into the document.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

fn parameters<'a>(operation: &'a Map<String, Value>, place: &str) -> Vec<&'a Value> {
    let all = operation.get("parameters").and_then(Value::as_array);
    all.into_iter().flatten().filter(|parameter| parameter["in"] == place).collect()
}

fn named<'a>(parameters: &[&'a Value], name: &str) -> Option<&'a Value> {
    parameters.iter().copied().find(|parameter| parameter["name"] == name)
}

#[test]
fn the_checked_in_openapi_document_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        checked_in == openapi_json(Numbers::Number),
        "openapi/openapi.json is not what the code says: run `make openapi`"
    );
}

#[test]
fn every_route_is_documented_with_its_methods_and_a_good_name() {
    let document = document();
    let found: BTreeSet<_> = operations(&document).iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let mut expected: BTreeSet<_> = OWN.iter().map(|path| format!("get {path}")).collect();
    for row in &PATHS {
        expected.insert(format!("post {}", row.path));
        if !row.path.ends_with("/find_ancestor") {
            expected.insert(format!("get {}", row.path));
        }
    }
    assert_eq!(found, expected);
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name), "{name} twice");
        assert!(method == "get" || path.ends_with("/find_ancestor") || name.ends_with("_by_post"), "{name}");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{name}");
    }
}

#[test]
fn every_parameter_is_documented_for_get_and_for_post() {
    let document = document();
    for row in &PATHS {
        let item = &document["paths"][row.path];
        for Parameter { name, required, .. } in row.parameters.unwrap_or_default() {
            let body = &item["post"]["requestBody"];
            let schema = &body["content"]["application/json"]["schema"];
            let schema = schema["oneOf"]
                .as_array()
                .and_then(|any| any.iter().find(|s| s["$ref"] != Value::Null))
                .unwrap_or(schema);
            let schema = resolved(&document, schema);
            assert!(schema["properties"][name]["description"].is_string(), "post {} {name}", row.path);
            let listed = schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
            assert_eq!(listed, *required, "post {} {name}", row.path);
            assert!(!required || body["required"] == true, "post {} {name}", row.path);
            if let Some(operation) = item["get"].as_object() {
                let query = parameters(operation, "query");
                let parameter = named(&query, name).unwrap_or_else(|| panic!("get {} {name}", row.path));
                assert_eq!(parameter["required"], *required, "get {} {name}", row.path);
            }
        }
        for operation in ["get", "post"].iter().filter_map(|method| item[method].as_object()) {
            let query = parameters(operation, "query");
            let list = ["canonical", "epoch", "range"].iter().any(|name| row.path.ends_with(name));
            assert!(named(&query, "peer").is_some(), "{}", row.path);
            assert_eq!(named(&query, "anchor").is_some(), list, "{}", row.path);
            assert!(named(&parameters(operation, "header"), "if-none-match").is_some(), "{}", row.path);
            let types: Vec<_> = operation["responses"]["200"]["content"].as_object().unwrap().keys().collect();
            for lines in ["application/x-ndjson", "text/csv"] {
                assert_eq!(types.contains(&&lines.to_owned()), list, "{}", row.path);
            }
        }
    }
    for (method, path, operation) in operations(&document) {
        let is_read = !OWN.contains(&path.as_str()) || path.starts_with("/chain/");
        let headers = parameters(operation, "header");
        let tip = named(&headers, "x-modal-tip");
        assert_eq!(tip.is_some(), is_read, "{method} {path}");
        if let Some(tip) = tip {
            assert!(tip["required"] == false && tip["schema"]["pattern"].is_string(), "{method} {path}");
            for (status, code) in [("400", "`invalid_parameter`"), ("503", "`store_unavailable`")] {
                let described = operation["responses"][status]["description"].as_str().unwrap_or_default();
                assert!(described.contains(code), "{method} {path}: {described}");
            }
        }
        for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
            let has_example = !parameter["example"].is_null() || parameter["schema"]["examples"].is_array();
            assert!(has_example && parameter["description"].is_string(), "{method} {path} {parameter}");
        }
        if let Some(body) = operation.get("requestBody") {
            assert!(body["content"]["application/json"]["example"].is_object(), "{method} {path}");
        }
    }
}

#[test]
fn every_answer_is_documented_with_headers_and_an_example() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let is_read = !OWN.contains(&path.as_str()) || path.starts_with("/chain/");
        for (status, response) in operation["responses"].as_object().unwrap() {
            let at = format!("{method} {path} {status}");
            let headers = &response["headers"];
            let mut expected = vec!["x-modal-source", "x-modal-tip-age", "x-modal-sync", "cache-control"];
            expected.extend(["x-request-id", "server-timing"]);
            if is_read && ["200", "304"].contains(&status.as_str()) {
                expected.extend(["x-modal-tip", "x-modal-verification", "etag", "vary"]);
            }
            if status == "503" || status == "429" {
                expected.push("retry-after");
            }
            if !path.starts_with("/health/") {
                expected.extend(["ratelimit", "ratelimit-policy"]);
            }
            for name in expected {
                let header = resolved(&document, &headers[name]);
                assert!(header["description"].is_string() && header["example"].is_string(), "{at} {name}");
            }
            if status == "304" {
                continue;
            }
            if path == "/events" && status == "200" {
                assert!(response["content"]["text/event-stream"]["example"].is_string(), "{at}");
                continue;
            }
            let content = &response["content"]["application/json"];
            let envelope = resolved(&document, &content["schema"]);
            for member in ["ok", "data", "errors"] {
                assert!(envelope["properties"][member].is_object(), "{at} {member}");
                assert!(envelope["required"].as_array().unwrap().contains(&json!(member)), "{at} {member}");
            }
            assert_eq!(content["example"]["ok"], status == "200", "{at}");
        }
    }
}

#[test]
fn every_error_code_is_documented_with_its_status() {
    let document = document();
    let overview = document["info"]["description"].as_str().unwrap();
    for code in Code::ALL {
        let status = envelope::status(*code).as_u16();
        assert!(
            overview.contains(&format!("| {status} | `{}` | {} |", code.as_str(), code.text())),
            "{}",
            code.as_str()
        );
    }
    for (method, path, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            for line in response["description"].as_str().unwrap().split("; ").filter(|line| line.starts_with('`')) {
                let name = line.split('`').nth(1).unwrap();
                let code = Code::ALL.iter().find(|code| code.as_str() == name).unwrap();
                assert_eq!(envelope::status(*code).as_str(), status, "{method} {path} {name}");
            }
        }
    }
    let epoch = &document["paths"]["/data/miner_block/epoch"]["get"]["responses"];
    let statuses: Vec<_> = epoch.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        statuses,
        ["200", "304", "400", "404", "406", "409", "412", "413", "414", "429", "500", "502", "503", "504"]
    );
    assert_eq!(epoch["400"]["content"]["application/json"]["example"]["errors"]["error"], "Missing 'epoch' parameter");
}

#[test]
fn the_pages_have_every_code_route_and_setting() {
    let (api, table) = (include_str!("../docs/api.md"), include_str!("../docs/settings.md"));
    for code in Code::ALL {
        let status = envelope::status(*code).as_u16();
        let row = api.lines().find(|line| line.contains(&format!("`{}`", code.as_str())) && line.starts_with("| "));
        assert!(row.is_some_and(|row| row.starts_with(&format!("| {status} |"))), "{}", code.as_str());
    }
    for (_, path, _) in operations(&document()) {
        assert!(api.contains(&format!("`{path}`")), "{path}");
    }
    // The error about a setting that isn't there names those that are.
    let env = vec![("MODAL_GATEWAY_NOPE".into(), "1".into())];
    let problem = Config::load(Sources { env, ..Sources::default() }).unwrap_err().problem;
    let settings: Vec<_> = problem.split("known are ").nth(1).unwrap().split(", ").collect();
    assert!(settings.len() > 10, "{problem}");
    for setting in settings {
        assert!(table.contains(&format!("\n| `{setting}` |")), "{setting}");
    }
}

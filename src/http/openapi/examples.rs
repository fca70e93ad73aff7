//! A question and its answer for each path, of a chain of two blocks. Tests ask a gateway the same.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::openapi::{
    self, RefOr,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
};

/// Per path the request's `data` and the answer.
const EXAMPLES: &str = include_str!("../../../openapi/examples.json");

#[derive(Deserialize)]
struct Example {
    data: Value,
    answer: Value,
}

/// Adds the examples to every operation.
pub(super) fn add(document: &mut openapi::OpenApi) {
    // A test reads every example in the finished document: a file that can't be read leaves none.
    let examples: BTreeMap<String, Example> = serde_json::from_str(EXAMPLES).unwrap_or_default();
    for (path, item) in &mut document.paths.paths {
        let Some(example) = examples.get(path) else { continue };
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            add_question(operation, &example.data);
            add_answer(operation, &example.answer);
        }
    }
}

fn add_question(operation: &mut Operation, data: &Value) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(inner) = parameter {
            let value = if inner.name == "echo" { Some(data) } else { data.get(&inner.name) };
            if let (ParameterIn::Query | ParameterIn::Path, Some(value)) = (&inner.parameter_in, value) {
                let inner = std::mem::replace(inner, Parameter::new(""));
                *parameter = RefOr::T(ParameterBuilder::from(inner).example(Some(value.clone())).build());
            }
        }
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        for content in body.content.values_mut() {
            if let RefOr::T(content) = content {
                content.example = Some(data.clone());
            }
        }
    }
}

fn add_answer(operation: &mut Operation, answer: &Value) {
    let Some(RefOr::T(good)) = operation.responses.responses.get_mut("200") else { return };
    for (media_type, content) in &mut good.content {
        let RefOr::T(content) = content else { continue };
        content.example = Some(match media_type.as_str() {
            "application/x-ndjson" => lines(answer).into(),
            _ => answer.clone(),
        });
    }
}

fn lines(answer: &Value) -> String {
    let blocks = answer["data"]["blocks"].as_array();
    blocks.into_iter().flatten().map(|block| format!("{block}\n")).collect()
}

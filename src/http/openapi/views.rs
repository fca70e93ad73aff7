//! The routes under `/chain`: their parameters and errors, from the table that the handlers use.

use serde_json::{Value, json};

use super::parts::{GENESIS, READ, add_headers, describe_numbers, request_headers};
use crate::{
    http::{
        numbers::{self, Numbers},
        views::{self, View},
    },
    protocol::{Code, query::Kind},
};

/// Whether a view can fail with `code`, beside what every route can.
pub(super) fn concerns(code: Code, view: &View) -> bool {
    let has = |name: &str| view.parameters.iter().any(|parameter| parameter.name == name);
    match code {
        Code::BlockNotFound => view.path.ends_with("/{id}") || view.path.ends_with("/{epoch}") || has("anchor"),
        Code::AnchorNotCanonical => has("anchor"),
        Code::AnswerTooLarge => view.path.starts_with("/chain/nominees"),
        Code::MissingParameter => view.parameters.iter().any(|parameter| parameter.required),
        // `x-modal-tip` too may be malformed.
        Code::InvalidParameter
        | Code::UnknownParameter
        | Code::MalformedQuery
        | Code::UriTooLong
        | Code::PreconditionFailed => true,
        _ => false,
    }
}

/// Completes a view: its parameters, conditions and headers.
pub(super) fn describe(operation: &mut Value, view: &View, numbers: Numbers) {
    let segment = view.path.split_once('{').map(|(_, name)| name.trim_end_matches('}'));
    let segment = segment.map(|name| {
        let schema = match name {
            "epoch" => json!({"type": "integer", "format": "int64", "minimum": 0}),
            _ => json!({"type": "string", "minLength": 1}),
        };
        json!({
            "name": name, "in": "path", "required": true, "description": views::description(view.path, name),
            "schema": schema,
        })
    });
    let query = view.parameters.iter().filter(|parameter| parameter.name != numbers::NAME).map(|parameter| {
        let mut schema = match parameter.kind {
            Kind::Integer => json!({"type": "integer", "format": "int64", "minimum": 0}),
            _ => json!({"type": "string"}),
        };
        if matches!(parameter.name, "limit" | "epochs") {
            let bounds = [("minimum", 1), ("maximum", view.most), ("default", view.default)];
            bounds.iter().for_each(|(name, bound)| schema[name] = (*bound).into());
        }
        let example = match (parameter.name, parameter.kind) {
            ("anchor", _) => GENESIS.into(),
            ("before", Kind::Text) => format!("1:{GENESIS}").into(),
            ("before", _) => 1.into(),
            _ => Value::from(view.default),
        };
        schema["examples"] = json!([example]);
        if (parameter.name, parameter.kind) == ("before", Kind::Text) {
            schema["pattern"] = "^[0-9]{1,19}(:[\\s\\S]*)?$".into();
        }
        json!({
            "name": parameter.name, "in": "query", "required": parameter.required,
            "description": views::description(view.path, parameter.name), "schema": schema,
        })
    });
    let numbers = view.has_blocks.then(|| describe_numbers(numbers));
    operation["parameters"] = segment.into_iter().chain(query).chain(numbers).chain(request_headers(true)).collect();
    let responses = &mut operation["responses"];
    add_headers(&mut responses["200"], &READ);
    responses["304"] = json!({"description": "The client's copy is current"});
    add_headers(&mut responses["304"], &READ);
}

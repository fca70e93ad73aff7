//! What operations have in common: parameters, headers, errors.

use serde_json::{Map, Value, json};

use super::{
    parts::{
        EVERY, GENESIS, HEADERS, LIMITED, READ, UNCACHED, add_headers, describe_numbers, optional_text, request_headers,
    },
    views,
};
use crate::{
    http::{envelope, numbers::Numbers, views::VIEWS},
    protocol::{Ancestor, Code, Failure, Query, query},
};

/// Completes every operation.
pub(super) fn describe(document: &mut Value, numbers: Numbers) {
    if numbers == Numbers::String {
        let number = &mut document["components"]["schemas"]["MinerBlock"]["properties"]["miner_number"];
        let description = "A number of the miner's choice, up to 2^64-1, in decimal.";
        *number = json!({"type": "string", "pattern": "^[0-9]{1,20}$", "description": description});
    }
    for (component, _, description, example) in HEADERS {
        let header = json!({"description": description, "schema": {"type": "string"}, "example": example});
        document["components"]["headers"][component] = header;
    }
    let paths = document["paths"].as_object_mut();
    for (path, item) in paths.into_iter().flatten() {
        let row = query::path(path).ok();
        let view = VIEWS.iter().find(|view| view.path == path);
        for method in ["get", "post"] {
            let Some(operation) = item.get_mut(method) else { continue };
            match row {
                Some(row) => {
                    describe_read(operation, method == "get", row.is_list(), row.gives_blocks().then_some(numbers))
                }
                None => match view {
                    Some(view) => views::describe(operation, view, numbers),
                    None => add_headers(&mut operation["responses"]["200"], &UNCACHED),
                },
            }
            // Its blocks have numbers too.
            if path == "/events"
                && let Some(parameters) = operation["parameters"].as_array_mut()
            {
                parameters.push(describe_numbers(numbers));
            }
            // A stream has no schema: tools disagree whether it describes the whole text or each event.
            if let Some(stream) = operation["responses"]["200"]["content"].get_mut("text/event-stream") {
                stream.as_object_mut().map(|stream| stream.remove("schema"));
            }
            let responses = operation["responses"].as_object_mut();
            let Some(responses) = responses else { continue };
            for code in Code::ALL {
                if concerns(*code, row, method == "post", path) || view.is_some_and(|view| views::concerns(*code, view))
                {
                    describe_error(responses, *code, row);
                }
            }
            responses.values_mut().for_each(|response| add_headers(response, &EVERY));
            if is_limited(path) {
                responses.values_mut().for_each(|response| add_headers(response, &LIMITED));
            }
        }
    }
}

/// Routes about the gateway itself that refuse unknown parameters.
const STRICT: [&str; 6] = ["/sync", "/sync/{id}", "/events", "/health/ready", "/status", "/peers"];

/// Whether requests count against the rate limit; probes don't.
fn is_limited(path: &str) -> bool {
    !path.starts_with("/health/")
}

/// Whether an operation can fail with `code`.
fn concerns(code: Code, row: Option<&query::Path>, is_post: bool, path: &str) -> bool {
    let is_list = row.is_some_and(query::Path::is_list);
    match code {
        Code::StoreUnavailable | Code::Internal => path != "/health/live" && path != "/peers",
        // In a list: an unknown anchor.
        Code::BlockNotFound => path.ends_with("/get") || is_list,
        Code::MissingParameter => {
            row.and_then(|row| row.parameters).is_some_and(|parameters| parameters.iter().any(|p| p.required))
        }
        Code::InvalidRange => path.ends_with("/range"),
        Code::InvalidCheckPoint => path.ends_with("/find_ancestor"),
        Code::AnchorNotCanonical | Code::AnswerTooLarge => is_list,
        Code::MalformedBody | Code::RequestTooLarge | Code::UnsupportedMediaType | Code::RequestTimeout => is_post,
        Code::UnknownJob => path == "/sync/{id}",
        Code::NotSynced => path == "/health/ready",
        // Also where the store takes too long.
        Code::Busy => path != "/health/live",
        Code::RateLimited => is_limited(path),
        // Clients set the header themselves.
        Code::InvalidHost | Code::UnsupportedTransferCoding => false,
        // Only on the admin listener, which this document doesn't cover.
        Code::Unauthorized => false,
        Code::InvalidParameter => row.is_some() || matches!(path, "/sync/{id}" | "/events" | "/health/ready"),
        Code::UnknownParameter | Code::MalformedQuery | Code::UriTooLong => row.is_some() || STRICT.contains(&path),
        // Another method is another operation.
        Code::MethodNotAllowed => false,
        // Probes are answered in any case.
        Code::NotAcceptable => is_limited(path),
        // `unknown_path` is the answer of a peer of an older release.
        _ => row.is_some(),
    }
}

fn describe_error(responses: &mut Map<String, Value>, code: Code, row: Option<&query::Path>) {
    let status = envelope::status(code).as_str().to_owned();
    let line = format!("`{}`: {}", code.as_str(), code.text());
    if let Some(response) = responses.get_mut(&status) {
        response["description"] = format!("{}; {line}", response["description"].as_str().unwrap_or_default()).into();
        return;
    }
    let failure = match (code, row) {
        // The text names the parameter.
        (Code::MissingParameter, Some(row)) => Query::parse(row.path, None).err().unwrap_or(Failure::new(code)),
        (Code::AnchorNotCanonical, _) => {
            let common_ancestor = Some(Ancestor { index: 0, hash: GENESIS.into() });
            Failure { common_ancestor, ..Failure::new(code) }
        }
        _ => Failure::new(code),
    };
    let example: Value = serde_json::from_slice(&failure.encode()).unwrap_or_default();
    let content = json!({"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}, "example": example});
    let mut response = json!({"description": line, "content": {"application/json": content}});
    add_headers(&mut response, &UNCACHED);
    if status == "503" || status == "429" {
        add_headers(&mut response, &["retry"]);
    }
    responses.insert(status, response);
}

/// Completes a read; `numbers` if its answers can hold blocks.
fn describe_read(operation: &mut Value, is_get: bool, is_list: bool, numbers: Option<Numbers>) {
    let peer = "The source of the answer: a peer id or configured alias; `any`, the best peer; `auto`, the gateway's store \
                and, where it lacks the answer, the best peer. Absent: the store.";
    let anchor = "Hash of a block that the chain must hold, so that a read in pages stays on one chain; 409 with the common \
                  ancestor if it was reorganised away. Only for the gateway's own store.";
    let parameters = [("peer", peer, "any"), ("anchor", anchor, GENESIS)];
    let parameters = parameters.into_iter().filter(|(name, ..)| is_list || *name != "anchor");
    let parameters = parameters.map(|(name, description, example)| optional_text(name, "query", description, example));
    let parameters = numbers.map(describe_numbers).into_iter().chain(parameters).chain(request_headers(is_get));
    match operation.get_mut("parameters").and_then(Value::as_array_mut) {
        Some(all) => all.extend(parameters),
        None => operation["parameters"] = parameters.collect(),
    }
    let responses = &mut operation["responses"];
    add_headers(&mut responses["200"], &READ);
    if is_get {
        responses["304"] = json!({"description": "The client's copy is current"});
        add_headers(&mut responses["304"], &READ);
    }
    if is_list {
        let lines = json!({"schema": {"type": "string", "description": "One block a line"}});
        responses["200"]["content"]["application/x-ndjson"] = lines;
        let description =
            "A line of names, then one block a line: its members, in the order of the schema. Null is empty.";
        responses["200"]["content"]["text/csv"] = json!({"schema": {"type": "string", "description": description}});
    }
}

//! What operations have in common: parameters, headers, errors.

use serde_json::{Map, Value, json};

use crate::{
    http::{
        envelope,
        numbers::{self, Numbers},
        views::{self, VIEWS, View},
    },
    protocol::{
        Ancestor, Code, Failure, Query,
        query::{self, Kind},
    },
};

const GENESIS: &str = "63dc2d1c29cfed7824b8696e63e2105d6929aff382e7e03c738989d170087e60";

const ETAG: &str = "\"c1d4ce3cd4bd2ab7e4e8f3f1a4ae0a3f\"";

/// Headers: the component's name, the header's name, description, example.
const HEADERS: [(&str, &str, &str, &str); 14] = [
    ("source", "x-modal-source", "The source of the answer: `local` or `peer:<id>`.", "local"),
    (
        "tip",
        "x-modal-tip",
        "Tip of the gateway's store: `<index>:<hash>`. Absent for an empty chain, for `/ping`, and from answers that any cache may keep.",
        "1:0030b29d284c73be09fef31e0d5b564f25fdd8381d8759b771a2f459e7e1b859",
    ),
    (
        "tip_age",
        "x-modal-tip-age",
        "Seconds since the timestamp of the store's tip: since its mining began. Absent for an empty chain, from a peer's answer, \
         and from answers that any cache may keep.",
        "74",
    ),
    (
        "sync",
        "x-modal-sync",
        "State of the store's sync: `synced`, `syncing`, `stalled` or `off`. Absent from a peer's answer, and from answers \
         that any cache may keep.",
        "synced",
    ),
    (
        "verification",
        "x-modal-verification",
        "The weakest verification among the blocks: `pow`, `linked` or `none`. Absent where there are none.",
        "pow",
    ),
    ("etag", "etag", "Changes when the answer does.", ETAG),
    (
        "cached",
        "cache-control",
        "`public` once every block that the answer can hold is below the finality depth.",
        "private, no-cache",
    ),
    (
        "vary",
        "vary",
        "The format of the answer depends on `accept`, its content coding on `accept-encoding`.",
        "accept, accept-encoding",
    ),
    ("uncached", "cache-control", "Always `no-store`.", "no-store"),
    (
        "request_id",
        "x-request-id",
        "Names the request, also in the gateway's log: the request's own `x-request-id`, else the trace id of its \
         `traceparent`, else a new id.",
        "4bf92f3577b34da6a3ce929d0e0e4736",
    ),
    (
        "timing",
        "server-timing",
        "What took how long, in milliseconds: `store` or `peer`, and `total`.",
        "store;dur=0.412, total;dur=0.530",
    ),
    ("retry", "retry-after", "Seconds after which to try again.", "1"),
    (
        "ratelimit",
        "ratelimit",
        "What the client has left: `r` units, and all of them again in `t` seconds. Absent for clients without a limit.",
        "\"client\";r=990;t=1",
    ),
    (
        "policy",
        "ratelimit-policy",
        "The client's limit: `q` units in `w` seconds. A request costs a unit, and another for each 64 KiB of its answer \
         before compression; with `peer` five times as much. Absent for clients without a limit.",
        "\"client\";q=1000;w=10",
    ),
];

/// Headers of a good read.
const READ: [&str; 8] = ["source", "tip", "tip_age", "sync", "verification", "etag", "cached", "vary"];
/// Headers of errors and of answers about the gateway itself.
const UNCACHED: [&str; 4] = ["source", "tip_age", "sync", "uncached"];
/// Headers of all answers.
const EVERY: [&str; 2] = ["request_id", "timing"];
/// Headers of all that counts against the rate limit.
const LIMITED: [&str; 2] = ["ratelimit", "policy"];

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
                    describe_read(operation, method == "get", is_list(path), row.gives_blocks().then_some(numbers))
                }
                None => match view {
                    Some(view) => describe_view(operation, view, numbers),
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
                if concerns(*code, row, method == "post", path) || view.is_some_and(|view| view_concerns(*code, view)) {
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
const STRICT: [&str; 4] = ["/sync", "/sync/{id}", "/events", "/health/ready"];

fn is_list(path: &str) -> bool {
    ["/canonical", "/epoch", "/range"].iter().any(|name| path.ends_with(name))
}

/// Whether requests count against the rate limit; probes don't.
fn is_limited(path: &str) -> bool {
    !path.starts_with("/health/")
}

/// Whether an operation can fail with `code`.
fn concerns(code: Code, row: Option<&query::Path>, is_post: bool, path: &str) -> bool {
    match code {
        Code::StoreUnavailable | Code::Internal => path != "/health/live" && path != "/peers",
        // In a list: an unknown anchor.
        Code::BlockNotFound => path.ends_with("/get") || is_list(path),
        Code::MissingParameter => {
            row.and_then(|row| row.parameters).is_some_and(|parameters| parameters.iter().any(|p| p.required))
        }
        Code::InvalidRange => path.ends_with("/range"),
        Code::InvalidCheckPoint => path.ends_with("/find_ancestor"),
        Code::AnchorNotCanonical | Code::AnswerTooLarge => is_list(path),
        Code::MalformedBody | Code::RequestTooLarge | Code::UnsupportedMediaType | Code::RequestTimeout => is_post,
        Code::UnknownJob => path == "/sync/{id}",
        Code::NotSynced => path == "/health/ready",
        // Also where the store takes too long.
        Code::Busy => path != "/health/live",
        Code::RateLimited => is_limited(path),
        // Clients set the header themselves.
        Code::InvalidHost => false,
        // Only on the admin listener, which this document doesn't cover.
        Code::Unauthorized => false,
        Code::InvalidParameter => row.is_some() || STRICT.contains(&path) && path != "/sync",
        Code::UnknownParameter | Code::MalformedQuery | Code::UriTooLong => row.is_some() || STRICT.contains(&path),
        // Another method is another operation.
        Code::MethodNotAllowed => false,
        // Probes are answered in any case.
        Code::NotAcceptable => is_limited(path),
        // `unknown_path` is the answer of a peer of an older release.
        _ => row.is_some(),
    }
}

/// Whether a view can fail with `code`, beside what every route can.
fn view_concerns(code: Code, view: &View) -> bool {
    let has = |name: &str| view.parameters.iter().any(|parameter| parameter.name == name);
    match code {
        Code::BlockNotFound => view.path.ends_with("/{id}") || view.path.ends_with("/{epoch}") || has("anchor"),
        Code::AnchorNotCanonical => has("anchor"),
        Code::AnswerTooLarge => view.path.starts_with("/chain/nominees"),
        Code::MissingParameter => view.parameters.iter().any(|parameter| parameter.required),
        Code::InvalidParameter => !view.parameters.is_empty() || view.path.ends_with('}'),
        Code::UnknownParameter | Code::MalformedQuery | Code::UriTooLong | Code::PreconditionFailed => true,
        _ => false,
    }
}

/// Completes a view: its parameters, conditions and headers.
fn describe_view(operation: &mut Value, view: &View, numbers: Numbers) {
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
        json!({
            "name": parameter.name, "in": "query", "required": parameter.required,
            "description": views::description(view.path, parameter.name), "schema": schema,
        })
    });
    let numbers = view.has_blocks.then(|| describe_numbers(numbers));
    operation["parameters"] = segment.into_iter().chain(query).chain(numbers).chain(conditions(true)).collect();
    let responses = &mut operation["responses"];
    add_headers(&mut responses["200"], &READ);
    responses["304"] = json!({"description": "The client's copy is current"});
    add_headers(&mut responses["304"], &READ);
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
    let parameters = numbers.map(describe_numbers).into_iter().chain(parameters).chain(conditions(is_get));
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

/// The headers of conditional requests.
fn conditions(is_get: bool) -> [Value; 2] {
    let copies = match is_get {
        true => "Entity tags of the client's copies, separated by commas; 304 if one is current.",
        false => "Entity tags of the client's copies, separated by commas; 412 if one is current.",
    };
    let current = "Entity tags of which one must be current, separated by commas; else 412.";
    [("if-none-match", copies), ("if-match", current)]
        .map(|(name, description)| optional_text(name, "header", description, ETAG))
}

fn optional_text(name: &str, place: &str, description: &str, example: &str) -> Value {
    // An example of the schema rather than of the parameter: Swagger UI would send the latter unasked.
    let schema = json!({"type": "string", "examples": [example]});
    json!({"name": name, "in": place, "required": false, "description": description, "schema": schema})
}

/// The parameter that says how miner numbers are written. One document holds one form of them, so that they have one type.
fn describe_numbers(numbers: Numbers) -> Value {
    let (is_string, value) = (numbers == Numbers::String, numbers.as_str());
    let description = match numbers {
        Numbers::Number => {
            "How miner numbers are written. `number`, the default: as JSON numbers. `string`: as strings, for clients that \
             can't read every number up to 2^64-1; described by `/openapi.json?numbers=string`."
        }
        Numbers::String => "How miner numbers are written: as strings. Without it they are JSON numbers.",
    };
    let schema = json!({"type": "string", "enum": [value], "examples": [value]});
    let mut parameter = json!({
        "name": numbers::NAME, "in": "query", "required": is_string, "description": description, "schema": schema,
    });
    if is_string {
        parameter["example"] = value.into();
    }
    parameter
}

fn add_headers(response: &mut Value, components: &[&str]) {
    for (component, name, ..) in HEADERS.iter().filter(|(component, ..)| components.contains(component)) {
        response["headers"][name] = json!({"$ref": format!("#/components/headers/{component}")});
    }
}

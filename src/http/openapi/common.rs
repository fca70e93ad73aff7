//! What operations have in common: parameters, headers, errors.

use utoipa::openapi::{
    self, Content, HttpMethod, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Type,
    header::HeaderBuilder,
    path::{Operation, ParameterBuilder, ParameterIn},
};

use crate::{
    http::envelope,
    protocol::{Ancestor, Code, Failure, Query, query},
};

const GENESIS: &str = "63dc2d1c29cfed7824b8696e63e2105d6929aff382e7e03c738989d170087e60";

const ETAG: &str = "\"c1d4ce3cd4bd2ab7e4e8f3f1a4ae0a3f\"";

/// Headers: the component's name, the header's name, description, example.
const HEADERS: [(&str, &str, &str, &str); 10] = [
    ("source", "x-modal-source", "The source of the answer: `local` or `peer:<id>`.", "local"),
    (
        "tip",
        "x-modal-tip",
        "Tip of the gateway's store: `<index>:<hash>`. Absent for an empty chain and for `/ping`.",
        "1:0030b29d284c73be09fef31e0d5b564f25fdd8381d8759b771a2f459e7e1b859",
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
    ("vary", "vary", "The format of the answer depends on `accept`.", "accept"),
    ("uncached", "cache-control", "Always `no-store`.", "no-store"),
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
        "The client's limit: `q` units in `w` seconds. A request costs a unit, and another for each 64 KiB of its answer; \
         with `peer` five times as much. Absent for clients without a limit.",
        "\"client\";q=1000;w=10",
    ),
];

/// Headers of a good read.
const READ: [&str; 6] = ["source", "tip", "verification", "etag", "cached", "vary"];
/// Headers of errors and of answers about the gateway itself.
const UNCACHED: [&str; 2] = ["source", "uncached"];
/// Headers of all that counts against the rate limit.
const LIMITED: [&str; 2] = ["ratelimit", "policy"];

/// Completes every operation.
pub(super) fn describe(document: &mut openapi::OpenApi) {
    let components = document.components.get_or_insert_default();
    for (component, _, description, example) in HEADERS {
        let schema = ObjectBuilder::new().schema_type(Type::String);
        let mut header = HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build();
        header.example = Some(example.into());
        components.headers.insert(component.into(), RefOr::T(header));
    }
    for (path, item) in &mut document.paths.paths {
        let row = query::path(path).ok();
        let operations = [(HttpMethod::Get, &mut item.get), (HttpMethod::Post, &mut item.post)];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            match row {
                Some(_) => describe_read(operation, is_list(path)),
                None => add_headers(operation, "200", &UNCACHED),
            }
            without_stream_schema(operation);
            for code in Code::ALL {
                if concerns(*code, row, method == HttpMethod::Post, path) {
                    describe_error(operation, *code, row);
                }
            }
            if is_limited(path) {
                let statuses: Vec<_> = operation.responses.responses.keys().cloned().collect();
                statuses.iter().for_each(|status| add_headers(operation, status, &LIMITED));
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
        // Only on the admin listener, which this document doesn't cover.
        Code::Unauthorized => false,
        Code::InvalidParameter => row.is_some() || STRICT.contains(&path) && path != "/sync",
        Code::UnknownParameter | Code::MalformedQuery | Code::UriTooLong => row.is_some() || STRICT.contains(&path),
        // Another method is another operation.
        Code::MethodNotAllowed => false,
        // `unknown_path` is the answer of a peer of an older release.
        _ => row.is_some(),
    }
}

/// Removes the schema of an event stream: tools disagree whether it describes the whole text or each event.
fn without_stream_schema(operation: &mut Operation) {
    if let Some(RefOr::T(good)) = operation.responses.responses.get_mut("200")
        && let Some(RefOr::T(stream)) = good.content.get_mut("text/event-stream")
    {
        stream.schema = None;
    }
}

fn describe_error(operation: &mut Operation, code: Code, row: Option<&query::Path>) {
    let status = envelope::status(code).as_u16().to_string();
    let line = format!("`{}`: {}", code.as_str(), code.text());
    match operation.responses.responses.get_mut(&status) {
        Some(RefOr::T(response)) => response.description += &format!("; {line}"),
        Some(RefOr::Ref(_)) => {}
        None => {
            let response = RefOr::T(error_response(code, row, line));
            operation.responses.responses.insert(status.clone(), response);
            add_headers(operation, &status, &UNCACHED);
            if status == "503" || status == "429" {
                add_headers(operation, &status, &["retry"]);
            }
        }
    }
}

fn error_response(code: Code, row: Option<&query::Path>, description: String) -> Response {
    let failure = match (code, row) {
        // The text names the parameter.
        (Code::MissingParameter, Some(row)) => Query::parse(row.path, None).err().unwrap_or(Failure::new(code)),
        (Code::AnchorNotCanonical, _) => {
            let common_ancestor = Some(Ancestor { index: 0, hash: GENESIS.into() });
            Failure { common_ancestor, ..Failure::new(code) }
        }
        _ => Failure::new(code),
    };
    let mut content = Content::new(Some(Ref::from_schema_name("ErrorEnvelope")));
    content.example = serde_json::from_slice(&failure.encode()).ok();
    ResponseBuilder::new().description(description).content("application/json", content).build()
}

fn describe_read(operation: &mut Operation, is_list: bool) {
    let mut parameters = vec![(
        "peer",
        ParameterIn::Query,
        "The source of the answer: a peer id or configured alias; `any`, the best peer; `auto`, the gateway's store and, where it \
         lacks the answer, the best peer. Absent: the store.",
        "any",
    )];
    if is_list {
        parameters.push((
            "anchor",
            ParameterIn::Query,
            "Hash of a block that the chain must hold, so that a read in pages stays on one chain; 409 with the \
             common ancestor if it was reorganised away. Only for the gateway's own store.",
            GENESIS,
        ));
    }
    let copies = "Entity tags of the client's copies, separated by commas; 304 if one is current.";
    parameters.push(("if-none-match", ParameterIn::Header, copies, ETAG));
    let parameters = parameters.into_iter().map(|(name, place, description, example)| {
        // An example of the schema rather than of the parameter: Swagger UI would send the latter unasked.
        let schema = ObjectBuilder::new().schema_type(Type::String).examples([example]);
        let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(Required::False);
        parameter.description(Some(description)).schema(Some(schema)).build().into()
    });
    operation.parameters.get_or_insert_default().extend(parameters);
    let not_modified = ResponseBuilder::new().description("The client's copy is current").build();
    operation.responses.responses.insert("304".into(), RefOr::T(not_modified));
    for status in ["200", "304"] {
        add_headers(operation, status, &READ);
    }
    let Some(RefOr::T(good)) = operation.responses.responses.get_mut("200") else { return };
    if is_list {
        let lines = ObjectBuilder::new().schema_type(Type::String).description(Some("One block a line"));
        good.content.insert("application/x-ndjson".into(), Content::new(Some(lines)).into());
    }
}

fn add_headers(operation: &mut Operation, status: &str, components: &[&str]) {
    let Some(RefOr::T(response)) = operation.responses.responses.get_mut(status) else { return };
    for (component, name, ..) in HEADERS.iter().filter(|(component, ..)| components.contains(component)) {
        let reference = Ref::new(format!("#/components/headers/{component}"));
        response.headers.insert((*name).into(), RefOr::Ref(reference));
    }
}

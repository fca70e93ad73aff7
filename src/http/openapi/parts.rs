//! Parts of operations: headers, and parameters that many have.

use serde_json::{Value, json};

use crate::http::numbers::{self, Numbers};

pub(super) const GENESIS: &str = "63dc2d1c29cfed7824b8696e63e2105d6929aff382e7e03c738989d170087e60";

/// The tip of the chain of the examples.
const TIP: &str = "1:0030b29d284c73be09fef31e0d5b564f25fdd8381d8759b771a2f459e7e1b859";

pub(super) const ETAG: &str = "\"c1d4ce3cd4bd2ab7e4e8f3f1a4ae0a3f\"";

/// Headers: the component's name, the header's name, description, example.
pub(super) const HEADERS: [(&str, &str, &str, &str); 14] = [
    ("source", "x-modal-source", "The source of the answer: `local` or `peer:<id>`.", "local"),
    (
        "tip",
        "x-modal-tip",
        "Tip of the gateway's store: `<index>:<hash>`. Absent for an empty chain, for `/ping`, and from answers that any cache may keep.",
        TIP,
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
pub(super) const READ: [&str; 8] = ["source", "tip", "tip_age", "sync", "verification", "etag", "cached", "vary"];
/// Headers of errors and of answers about the gateway itself.
pub(super) const UNCACHED: [&str; 4] = ["source", "tip_age", "sync", "uncached"];
/// Headers of all answers.
pub(super) const EVERY: [&str; 2] = ["request_id", "timing"];
/// Headers of all that counts against the rate limit.
pub(super) const LIMITED: [&str; 2] = ["ratelimit", "policy"];

/// The request headers of a read: its conditions, and the tip that the client has seen.
pub(super) fn request_headers(is_get: bool) -> [Value; 3] {
    let copies = match is_get {
        true => "Entity tags of the client's copies, separated by commas; 304 if one is current.",
        false => "Entity tags of the client's copies, separated by commas; 412 if one is current.",
    };
    let current = "Entity tags of which one must be current, separated by commas; else 412.";
    let conditions = [("if-none-match", copies), ("if-match", current)];
    let [copies, current] = conditions.map(|(name, text)| optional_text(name, "header", text, ETAG));
    let seen = "The `x-modal-tip` of an earlier answer, also of another gateway on the same database: the answer is \
                from a chain that has that block, or had it before a reorganisation; 400 if it is malformed, 503 if that \
                can't be known now. A block that the database does not have changes nothing. Ignored with `peer`.";
    let mut seen = optional_text("x-modal-tip", "header", seen, TIP);
    // Somewhat narrower than what is taken: without verification a hash may be nearly any text.
    seen["schema"]["pattern"] = "^[0-9]{1,19}:[!-~]+$".into();
    [copies, current, seen]
}

pub(super) fn optional_text(name: &str, place: &str, description: &str, example: &str) -> Value {
    // An example of the schema rather than of the parameter: Swagger UI would send the latter unasked.
    let schema = json!({"type": "string", "examples": [example]});
    json!({"name": name, "in": place, "required": false, "description": description, "schema": schema})
}

/// The parameter that says how miner numbers are written. One document holds one form of them, so that they have one
/// type.
pub(super) fn describe_numbers(numbers: Numbers) -> Value {
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

pub(super) fn add_headers(response: &mut Value, components: &[&str]) {
    for (component, name, ..) in HEADERS.iter().filter(|(component, ..)| components.contains(component)) {
        response["headers"][name] = json!({"$ref": format!("#/components/headers/{component}")});
    }
}

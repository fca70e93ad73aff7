//! The OpenAPI document, derived from the handlers, and Swagger UI, which fetches nothing from elsewhere.
//!
//! * `parts`: headers, and parameters that many operations have
//! * `views`: parameters and errors of the routes under `/chain`
//! * `common`: what operations have in common: parameters, headers, errors
//! * `queries`: parameters, request bodies and examples of the protocol's paths

use std::fmt::Write as _;

use axum::{
    Router,
    body::Bytes,
    http::{HeaderValue, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Map, Value, json};
use utoipa::{OpenApi, openapi};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{
    envelope::{self, Rejection},
    extract,
    numbers::{self, Numbers},
};
use crate::{
    protocol::{
        Code, Failure,
        query::{self, CheckPoint, Kind},
        schema::ErrorEnvelope,
    },
    source::{ExtendedEvent, PeerEvent, PeersEvent, ReorganisedEvent, ResetEvent, SyncEvent},
};

mod common;
mod parts;
mod queries;
mod views;

#[derive(OpenApi)]
#[openapi(
    info(title = "modal-gateway"),
    servers((url = ".", description = "This gateway")),
    tags(
        (name = "protocol", description = "The paths of the sync protocol"),
        (name = "chain", description = "Epochs, validators, nominees, the network's figures, reorganisations"),
        (name = "gateway", description = "The gateway itself")
    ),
    components(schemas(
        ErrorEnvelope, CheckPoint, ExtendedEvent, ReorganisedEvent, ResetEvent, SyncEvent, PeersEvent, PeerEvent
    ))
)]
struct Document;

const DESCRIPTION: &str = "\
The Modality network's miner blocks over HTTP: every path of the libp2p sync protocol, answered from a local verified \
store or by a peer, always in the same envelope, `{\"ok\", \"data\", \"errors\"}`.

Indexes, epochs and counts are integers from 0 that no chain takes beyond 2^53. Miner numbers may be any up to 2^64-1: \
read them with a JSON parser that keeps such numbers exact, or ask with `numbers=string`. \
`/openapi.json?numbers=string` is the document of the API with that parameter, for generated clients of any language. \
Nonces and difficulties go to 2^128-1 and further, and are texts. The examples are of a chain of two blocks.

Answers are compressed with zstd, br or gzip for clients that send `accept-encoding`.

`errors.code` is stable. Any other path is `unknown_path`, any other method `method_not_allowed`.

<details><summary>All error codes</summary>

| status | `errors.code` | `errors.error` |
| --- | --- | --- |
";

/// The document without operations.
pub(super) fn document() -> openapi::OpenApi {
    let mut document = Document::openapi();
    let mut description = DESCRIPTION.to_owned();
    for code in Code::ALL {
        let status = envelope::status(*code).as_u16();
        // Writing to a String can't fail.
        let _ = writeln!(description, "| {status} | `{}` | {} |", code.as_str(), code.text());
    }
    description += "\n</details>\n";
    document.info.description = Some(description);
    document
}

/// The document as it is checked in: pretty-printed JSON with a newline at the end.
pub(super) fn text(document: &openapi::OpenApi, numbers: Numbers) -> String {
    format!("{:#}\n", complete(document, numbers))
}

/// `/openapi.json`, and Swagger UI at `/docs`.
pub(super) fn pages<S: Clone + Send + Sync + 'static>(document: &openapi::OpenApi) -> Router<S> {
    let documents = Numbers::ALL.map(|numbers| (numbers, Bytes::from(complete(document, numbers).to_string())));
    let serve = |uri: Uri| async move {
        let parameters = extract::parameters("/openapi.json", &[query::optional(numbers::NAME, Kind::Text)], &uri)?;
        let wanted = Numbers::asked(parameters[numbers::NAME].as_str())?;
        let text = documents.into_iter().find_map(|(numbers, text)| (numbers == wanted).then_some(text));
        Ok::<_, Rejection>(([(header::CONTENT_TYPE, "application/json")], text.unwrap_or_default()))
    };
    let pages: Router<S> = SwaggerUi::new("/docs").config(Config::from("../openapi.json")).into();
    // Their own errors have another format, and their one redirect, from `/docs` to `/docs/`, would leave a path prefix
    // of a proxy.
    let pages = pages.layer(middleware::map_response(|mut response: Response| async {
        if let Some(location) = response.headers_mut().get_mut(header::LOCATION) {
            *location = HeaderValue::from_static("docs/");
        }
        match response.status() {
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => {
                Rejection::from(Failure::new(Code::UnknownPath)).into_response()
            }
            _ => response,
        }
    }));
    pages.route("/openapi.json", get(serve))
}

/// The document as JSON, with what is not derived from the handlers, and corrected: derived schemas allow null in
/// headers.
fn complete(document: &openapi::OpenApi, numbers: Numbers) -> Value {
    fn correct(value: &mut Value) {
        match value {
            Value::Object(members) => {
                if members.contains_key("in")
                    && let Some(Value::Array(kinds)) =
                        members.get_mut("schema").and_then(|schema| schema.get_mut("type"))
                {
                    kinds.retain(|kind| kind != "null");
                }
                members.values_mut().for_each(correct);
            }
            Value::Array(items) => items.iter_mut().for_each(correct),
            _ => {}
        }
    }
    // A document has nothing that JSON can't say; a test reads it.
    let mut json = serde_json::to_value(document).unwrap_or_default();
    if let Some(schemas) = json["components"]["schemas"].as_object_mut() {
        ease_generation(schemas);
    }
    queries::add_parameters(&mut json);
    common::describe(&mut json, numbers);
    queries::add_examples(&mut json, numbers);
    queries::add_event_examples(&mut json, numbers);
    correct(&mut json);
    json
}

/// Gives schemas the form that generators of clients make one good type of, with the same meaning.
fn ease_generation(schemas: &mut Map<String, Value>) {
    // Derived envelopes repeat the schema of `data`, which becomes a second type.
    let names: Vec<String> = schemas.keys().cloned().collect();
    for name in names {
        if let Some(envelope) = schemas.get_mut(&format!("Envelope_{name}")) {
            envelope["properties"]["data"] = json!({"$ref": format!("#/components/schemas/{name}")});
        }
    }
    // In Go the words of all named enumerations share one scope, and `Mode` has `headers` too.
    if let (Some(phase), Some(progress)) = (schemas.remove("Phase"), schemas.get_mut("Progress")) {
        progress["properties"]["phase"] = phase;
    }
}

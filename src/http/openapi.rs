//! The OpenAPI document, derived from the handlers, and Swagger UI, which fetches nothing from elsewhere.
//!
//! * `common`: what operations have in common: parameters, headers, errors
//! * `queries`: parameters, request bodies and examples of the protocol's paths

use std::fmt::Write as _;

use axum::{
    Router,
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
};
use serde_json::Value;
use utoipa::{OpenApi, openapi};
use utoipa_swagger_ui::SwaggerUi;

use super::envelope;
use crate::protocol::{Code, query::CheckPoint, schema::ErrorEnvelope};

mod common;
mod queries;

#[derive(OpenApi)]
#[openapi(
    info(title = "modal-gateway"),
    servers((url = "/", description = "This gateway")),
    tags(
        (name = "protocol", description = "The paths of the sync protocol"),
        (name = "gateway", description = "The gateway itself")
    ),
    components(schemas(ErrorEnvelope, CheckPoint))
)]
struct Document;

const DESCRIPTION: &str = "\
The Modality network's miner blocks over HTTP: every path of the libp2p sync protocol, answered from a local verified \
store or by a peer, always in the same envelope, `{\"ok\", \"data\", \"errors\"}`.

Indexes, epochs and miner numbers are whole numbers up to 2^64-1: read them with a JSON parser that keeps such numbers \
exact. Nonces and difficulties go to 2^128-1 and further, and are texts. The examples are of a chain of two blocks.

`errors.code` is stable. Any other path is `unknown_path`, any other method `method_not_allowed`.

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
    document.info.description = Some(description);
    document
}

/// The document as it is checked in: pretty-printed JSON with a newline at the end.
pub(super) fn text(document: &openapi::OpenApi) -> String {
    format!("{:#}\n", complete(document))
}

/// `/openapi.json`, and Swagger UI at `/docs`.
pub(super) fn pages<S: Clone + Send + Sync + 'static>(document: &openapi::OpenApi) -> Router<S> {
    let pages: Router<S> = SwaggerUi::new("/docs").external_url_unchecked("/openapi.json", complete(document)).into();
    // Their own errors have another format.
    pages.layer(middleware::map_response(|response: Response| async {
        match response.status() {
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => envelope::unknown_path().await.into_response(),
            _ => response,
        }
    }))
}

/// The document as JSON, with what is not derived from the handlers, and corrected: derived schemas call a u64 an
/// `int64` of at least 0, and allow null in headers.
fn complete(document: &openapi::OpenApi) -> Value {
    fn correct(value: &mut Value) {
        match value {
            Value::Object(members) => {
                if members.contains_key("in")
                    && let Some(Value::Array(kinds)) =
                        members.get_mut("schema").and_then(|schema| schema.get_mut("type"))
                {
                    kinds.retain(|kind| kind != "null");
                }
                if members.get("format").is_some_and(|format| format == "int64") && members.contains_key("minimum") {
                    members.insert("format".into(), "uint64".into());
                    members.insert("maximum".into(), u64::MAX.into());
                }
                members.values_mut().for_each(correct);
            }
            Value::Array(items) => items.iter_mut().for_each(correct),
            _ => {}
        }
    }
    // A document has nothing that JSON can't say; a test reads it.
    let mut json = serde_json::to_value(document).unwrap_or_default();
    queries::add_parameters(&mut json);
    common::describe(&mut json);
    queries::add_examples(&mut json);
    correct(&mut json);
    json
}

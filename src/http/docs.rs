//! The OpenAPI document, made of the routes themselves, and the page that shows it. Nothing is fetched from outside.

use axum::Router;
use utoipa::{
    OpenApi,
    openapi::{
        self, Content, Header, HttpMethod, ObjectBuilder, RefOr, Required, ResponseBuilder, Type,
        header::HeaderBuilder,
        path::{Operation, ParameterBuilder, ParameterIn},
    },
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use super::{Gateway, error, miner_block, status};
use crate::protocol::{Code, Failure, schema::ErrorEnvelope};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "modal-gateway",
        description = "The Modality network's miner blocks over HTTP: every path of the libp2p sync protocol, \
            answered from a local verified store or by a peer, in the same envelope."
    ),
    servers((url = "/", description = "This gateway")),
    tags(
        (name = "protocol", description = "The paths of the sync protocol"),
        (name = "gateway", description = "What the gateway tells of itself")
    ),
    components(schemas(ErrorEnvelope))
)]
struct Document;

/// The public routes, documented.
pub fn documented_routes() -> OpenApiRouter<Gateway> {
    let mut routes =
        OpenApiRouter::with_openapi(Document::openapi()).merge(miner_block::routes()).merge(status::routes());
    complete(routes.get_openapi_mut());
    routes
}

/// The OpenAPI document as it is checked in: pretty-printed JSON with a newline at the end.
pub fn openapi_json() -> String {
    let document = documented_routes().into_openapi();
    document.to_pretty_json().map(|json| json + "\n").unwrap_or_default()
}

/// `/openapi.json`, and Swagger UI at `/docs`.
pub fn pages(document: openapi::OpenApi) -> Router<Gateway> {
    SwaggerUi::new("/docs").url("/openapi.json", document).into()
}

/// Adds what every operation has in common: who may be asked, provenance, errors.
fn complete(document: &mut openapi::OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let mirrored = crate::protocol::query::path(path).is_ok();
        let is_list = ["canonical", "epoch", "range"].iter().any(|name| path.ends_with(name));
        let operations = [(HttpMethod::Get, &mut item.get), (HttpMethod::Post, &mut item.post)];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            if mirrored {
                describe_read(operation, is_list);
            }
            for code in Code::ALL {
                if concerns(*code, mirrored, is_list, method == HttpMethod::Post, path) {
                    describe_error(operation, *code);
                }
            }
        }
    }
}

/// Whether an operation can fail so.
fn concerns(code: Code, mirrored: bool, is_list: bool, is_post: bool, path: &str) -> bool {
    match code {
        Code::StoreUnavailable | Code::Internal => !path.ends_with("live") && path != "/peers",
        Code::BlockNotFound => path.ends_with("/get"),
        Code::InvalidRange => path.ends_with("/range"),
        Code::InvalidCheckPoint => path.ends_with("/find_ancestor"),
        Code::AnchorNotCanonical => is_list,
        Code::MalformedBody | Code::RequestTooLarge | Code::UnsupportedMediaType => is_post,
        // Another path or method is another operation.
        Code::UnknownPath | Code::MethodNotAllowed => false,
        Code::AnswerTooLarge => is_list,
        _ => mirrored,
    }
}

fn describe_error(operation: &mut Operation, code: Code) {
    let status = error::status(code).as_u16().to_string();
    let line = format!("`{}`: {}", code.as_str(), code.text());
    let entry = operation.responses.responses.entry(status);
    match entry.or_insert_with(|| RefOr::T(error_response(code))) {
        RefOr::T(response) if response.description.is_empty() => response.description = line,
        RefOr::T(response) => response.description += &format!("; {line}"),
        RefOr::Ref(_) => {}
    }
}

fn error_response(code: Code) -> openapi::Response {
    let example = serde_json::from_slice(&Failure::new(code).encode()).unwrap_or_default();
    let mut content = Content::new(Some(openapi::Ref::from_schema_name("ErrorEnvelope")));
    content.example = Some(example);
    let mut response = ResponseBuilder::new().content("application/json", content).build();
    response.headers.insert("x-modal-source".into(), text_header("Who reported the error: `local` or `peer:<id>`."));
    if error::status(code).as_u16() == 503 {
        response.headers.insert("retry-after".into(), text_header("Seconds after which to try again."));
    }
    response
}

fn describe_read(operation: &mut Operation, is_list: bool) {
    let mut parameters = vec![(
        "peer",
        ParameterIn::Query,
        "Who answers: a peer id or configured alias; `any`, the best peer; `auto`, the gateway's store and, where it \
         lacks the answer, the best peer. Absent: the store.",
    )];
    if is_list {
        parameters.push((
            "anchor",
            ParameterIn::Query,
            "Hash of a block that the chain must hold, so that a read in pages stays on one chain; 409 with the \
             common ancestor if it was reorganised away. Only for the gateway's own store.",
        ));
    }
    parameters.push(("if-none-match", ParameterIn::Header, "Entity tags of copies that the client has."));
    let parameters = parameters.into_iter().map(|(name, place, description)| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .build()
            .into()
    });
    operation.parameters.get_or_insert_default().extend(parameters);
    let Some(RefOr::T(good)) = operation.responses.responses.get_mut("200") else { return };
    for (name, description) in [
        ("x-modal-source", "Who answered: `local` or `peer:<id>`."),
        ("x-modal-tip", "Tip of the gateway's store: `<index>:<hash>`. Absent for an empty chain."),
        ("x-modal-verification", "The weakest verification among the blocks: `pow`, `linked` or `none`."),
        ("etag", "Changes when the answer does."),
        ("cache-control", "`public` once every block that the answer can hold is below the finality depth."),
    ] {
        good.headers.insert(name.into(), text_header(description));
    }
    if is_list {
        let lines = ObjectBuilder::new().schema_type(Type::String).description(Some("One block a line"));
        good.content.insert("application/x-ndjson".into(), Content::new(Some(lines)).into());
    }
    let not_modified = ResponseBuilder::new().description("The client's copy is current").build();
    operation.responses.responses.insert("304".into(), RefOr::T(not_modified));
}

fn text_header(description: &str) -> RefOr<Header> {
    let schema = ObjectBuilder::new().schema_type(Type::String);
    RefOr::T(HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build())
}

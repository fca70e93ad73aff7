//! Traces: exports the spans of HTTP requests to an OpenTelemetry collector, over OTLP/HTTP.
//!
//! OpenTelemetry's own environment variables are the settings. A thread of its own exports in batches, from a queue
//! that drops what is too much, so that a request never waits for the collector.

use std::{
    env,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::{Uri, uri::Scheme};
use opentelemetry::{
    Key, KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{Status, TraceContextExt, TracerProvider},
};
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use super::TelemetryError;

/// Where the URL of the collector is looked for: the first one counts.
const ENDPOINTS: [&str; 2] = [OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT];

/// Where the protocol is looked for.
const PROTOCOLS: [&str; 2] = [OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL];

/// Longest time that the end of the program waits for the last spans to be exported.
const FLUSH: Duration = Duration::from_secs(5);

/// Name of the program in traces, unless the environment has another.
const SERVICE: &str = "modal-gateway";

/// Target of the spans that are exported.
const TARGET: &str = "modal_gateway::request";

/// What a filter of the log needs besides so that it lets these spans through, whatever it says of the log.
pub(super) const DIRECTIVE: &str = ",modal_gateway::request=info";

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Exports from now on, if the environment names a collector. To be called before [`init`](super::init).
///
/// # Errors
/// [`TelemetryError::Variable`] if the URL, the protocol or the compression is none that this exporter has.
pub fn start() -> Result<(), TelemetryError> {
    let Some((variable, endpoint)) = first(ENDPOINTS)? else { return Ok(()) };
    if matches!(first(["OTEL_SDK_DISABLED"])?, Some((_, disabled)) if disabled.eq_ignore_ascii_case("true")) {
        return Ok(());
    }
    let expected = |variable, what: &str| TelemetryError::Variable { variable, problem: format!("expected {what}") };
    let is_http = |url: &Uri| url.scheme() == Some(&Scheme::HTTP) && url.host().is_some();
    if !endpoint.parse().is_ok_and(|url| is_http(&url)) {
        return Err(expected(variable, "http://HOST:PORT of a collector; TLS is not supported"));
    }
    if let Some((variable, protocol)) = first(PROTOCOLS)?
        && !protocol.eq_ignore_ascii_case("http/protobuf")
    {
        return Err(expected(variable, "http/protobuf, the only protocol that is supported"));
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build();
    let exporter = exporter.map_err(|error| TelemetryError::Variable { variable, problem: error.to_string() })?;
    let exporter = LoggedExporter { exporter, fails: AtomicBool::new(false) };
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build();
    let _ = PROVIDER.set(provider);
    Ok(())
}

/// The first of these variables that is set to something, and its value.
fn first<const N: usize>(variables: [&'static str; N]) -> Result<Option<(&'static str, String)>, TelemetryError> {
    for variable in variables {
        match env::var(variable) {
            Ok(value) if value.is_empty() => {}
            Ok(value) => return Ok(Some((variable, value))),
            Err(env::VarError::NotPresent) => {}
            Err(env::VarError::NotUnicode(_)) => {
                return Err(TelemetryError::Variable { variable, problem: "the value is not UTF-8".into() });
            }
        }
    }
    Ok(None)
}

/// The program's name and version, unless the environment has others.
fn resource() -> Resource {
    let found = Resource::builder().build();
    let name = found.get(&Key::new("service.name")).filter(|name| !name.as_str().starts_with("unknown_service"));
    let version = found.get(&Key::new("service.version"));
    Resource::builder()
        .with_attribute(KeyValue::new("service.name", name.unwrap_or(SERVICE.into())))
        .with_attribute(KeyValue::new("service.version", version.unwrap_or(env!("CARGO_PKG_VERSION").into())))
        .build()
}

/// Whether spans are exported.
pub fn exports() -> bool {
    PROVIDER.get().is_some()
}

/// Exports what is left, for at most 5 s. Later spans are dropped.
pub fn flush() {
    let Some(provider) = PROVIDER.get() else { return };
    if provider.shutdown_with_timeout(FLUSH).is_err() {
        tracing::warn!(seconds = FLUSH.as_secs(), "the last traces could not be exported in time");
    }
}

/// What passes the spans of requests on to the exporter, and what is logged in them as their events; `None` without an
/// exporter.
pub(super) fn layer<S>() -> Option<impl Layer<S>>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let tracer = PROVIDER.get()?.tracer(SERVICE);
    let layer = tracing_opentelemetry::layer().with_tracer(tracer);
    // Nothing here asks OpenTelemetry for the current span, and a request has no thread or line of its own.
    let layer = layer.with_context_activation(false).with_tracked_inactivity(false);
    let layer = layer.with_location(false).with_threads(false).with_target(false);
    let filter = filter_fn(|metadata| match metadata.is_span() {
        true => metadata.target() == TARGET,
        false => metadata.target().starts_with("modal_gateway"),
    });
    Some(layer.with_filter(filter))
}

/// The headers of W3C's trace context.
struct TraceContext<'a> {
    parent: &'a str,
    state: Option<&'a str>,
}

impl Extractor for TraceContext<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.parent),
            "tracestate" => self.state,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// The span of a request, as part of the client's trace where `parent` is a valid `traceparent`.
pub fn request_span(id: &str, trace: Option<&str>, parent: Option<&str>, state: Option<&str>) -> Span {
    let span = tracing::info_span!(target: TARGET, "request", id, trace, otel.kind = "server");
    if let Some(parent) = parent {
        let parent = TraceContextPropagator::new().extract(&TraceContext { parent, state });
        // Fails where the span is not exported.
        let _ = span.set_parent(parent);
    }
    span
}

/// Describes the request of an exported span and its answer, by OpenTelemetry's conventions for HTTP
/// (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>). `route` is the pattern of the route.
pub fn describe(span: &Span, method: &str, route: Option<&str>, status: u16) {
    if !exports() || span.is_none() {
        return;
    }
    let context = span.context();
    let exported = context.span();
    if !exported.is_recording() {
        return;
    }
    // A method that a client makes up must not become a name of its own.
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"].contains(&method);
    let (name, method) = if known { (method, method) } else { ("HTTP", "_OTHER") };
    exported.update_name(route.map_or_else(|| name.to_owned(), |route| format!("{name} {route}")));
    exported.set_attribute(KeyValue::new("http.request.method", method.to_owned()));
    exported.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
    if let Some(route) = route {
        exported.set_attribute(KeyValue::new("http.route", route.to_owned()));
    }
    if status >= 500 {
        exported.set_status(Status::error(""));
    }
}

/// An exporter that logs when it begins to fail and when it works again, rather than each batch that fails.
#[derive(Debug)]
struct LoggedExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    fails: AtomicBool,
}

impl SpanExporter for LoggedExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        let failed_before = self.fails.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failed_before => tracing::warn!(%error, "traces can't be exported, and are dropped"),
            Ok(()) if failed_before => tracing::info!("traces are exported again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

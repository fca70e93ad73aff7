//! The access log: one line for each answered request.

use std::{
    borrow::Cow,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    http::{Method, StatusCode, Uri},
    response::Response,
};
use hyper::body::{Body as _, Frame, SizeHint};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::time::Instant;

use super::request_id::RequestId;
use crate::http::{counters::Route, limits::client::Client};

/// The target of the lines.
const TARGET: &str = "modal_gateway::access";

/// Most bytes of a path, and of a method, in a line.
const MAX_PATH_BYTES: usize = 512;
const MAX_METHOD_BYTES: usize = 32;

/// What a path in a line has percent-encoded besides all that is not ASCII.
const NOT_IN_A_PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'\\');

/// What a line says of the request; of the answer, once it is there.
pub(super) struct AccessLine {
    /// Whether the operator asks for the line: at level info, else debug.
    wanted: bool,
    id: RequestId,
    client: Option<Client>,
    method: Method,
    uri: Uri,
    started: Instant,
    route: Route,
    status: StatusCode,
    source: &'static str,
}

impl AccessLine {
    /// A line about a request, if one will be logged.
    pub fn of(
        wanted: bool,
        id: &RequestId,
        client: Option<Client>,
        method: &Method,
        uri: &Uri,
        started: Instant,
    ) -> Option<Self> {
        let logged = match wanted {
            true => tracing::enabled!(target: TARGET, tracing::Level::INFO),
            false => tracing::enabled!(target: TARGET, tracing::Level::DEBUG),
        };
        logged.then(|| Self {
            wanted,
            id: id.clone(),
            client,
            method: method.clone(),
            uri: uri.clone(),
            started,
            route: Route::default(),
            status: StatusCode::OK,
            source: "none",
        })
    }

    /// Logs the line: now, or at the end of a body whose size is not known before.
    pub fn log(self, route: Route, source: &'static str, response: Response) -> Response {
        let line = Self { route, source, status: response.status(), ..self };
        match response.body().size_hint().exact() {
            Some(bytes) => {
                line.write(bytes);
                response
            }
            None => response.map(|body| Body::new(LoggedBody { body, bytes: 0, line })),
        }
    }

    fn write(&self, bytes: u64) {
        let (id, trace, client) = (self.id.as_str(), self.id.trace(), self.client.map(|client| client.key));
        let method = shortened(self.method.as_str(), MAX_METHOD_BYTES);
        let path = plain(self.uri.path());
        let duration_ms = self.started.elapsed().as_micros() as f64 / 1000.0;
        let (route, status, source) = (self.route.as_str(), self.status.as_u16(), self.source);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: TARGET, id, trace, client = client.map(tracing::field::display), method, route, path = &*path,
                    status, source, bytes, duration_ms, "answered"
                )
            };
        }
        match self.wanted {
            true => line!(info),
            false => line!(debug),
        }
    }
}

/// The first bytes of a text of ASCII.
fn shortened(text: &str, bytes: usize) -> &str {
    text.get(..bytes).unwrap_or(text)
}

/// A path as it goes into a line: of visible ASCII characters, whatever the client sent, and not too long.
fn plain(path: &str) -> Cow<'_, str> {
    let plain: Cow<'_, str> = utf8_percent_encode(path, NOT_IN_A_PATH).into();
    match plain.get(..MAX_PATH_BYTES) {
        Some(start) if plain.len() > MAX_PATH_BYTES => format!("{start}...").into(),
        _ => plain,
    }
}

/// A body of unknown size, which logs the line when it has ended or is given up.
struct LoggedBody {
    body: Body,
    bytes: u64,
    line: AccessLine,
}

impl hyper::body::Body for LoggedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for LoggedBody {
    fn drop(&mut self) {
        self.line.write(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_line_is_of_visible_ascii_and_bounded() {
        assert!(matches!(plain("/data/miner_block/get"), Cow::Borrowed("/data/miner_block/get")));
        assert_eq!(plain("/a%0Ab|{}"), "/a%0Ab|{}");
        assert_eq!(plain("/\u{9b}31m\u{2028}\u{202e}\n\"\\ "), "/%C2%9B31m%E2%80%A8%E2%80%AE%0A%22%5C%20");
        let long = plain(&"/ä".repeat(1000)).into_owned();
        assert!(long.len() == MAX_PATH_BYTES + 3 && long.ends_with("..."), "{long}");
        assert_eq!(shortened("GET", MAX_METHOD_BYTES), "GET");
        assert_eq!(shortened(&"X".repeat(100), MAX_METHOD_BYTES).len(), MAX_METHOD_BYTES);
    }
}

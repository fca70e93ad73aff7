//! `request`: one request over libp2p, from a node that lives only for it.

use std::{io::IsTerminal, sync::Arc, time::Duration};

use bytes::Bytes;
use libp2p::Multiaddr;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    common::print_line,
    error::CliError,
    lines::without_line,
    peer::{self, resolve},
};
use crate::{
    config::Config,
    p2p::{self, P2pConfig, P2pError},
    protocol::Request,
};

/// How much of an answer that can't be read is shown.
const MAX_SHOWN_CHARS: usize = 200;

/// Why there is no answer to print.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("{peer}")]
    P2p { peer: String, source: P2pError },
    #[error("{peer}: no answer within {} s", limit.as_secs())]
    Timeout { peer: String, limit: Duration },
    #[error("{peer}: the answer is no envelope ({reason}): {shown}")]
    Envelope { peer: String, reason: String, shown: String },
    #[error("the request can't be written as JSON")]
    Encode(#[from] serde_json::Error),
}

/// JSON text from the command line, kept as it was typed.
#[derive(Debug, Clone)]
pub(super) struct Json(pub(super) Box<RawValue>);

/// Parses the command line's JSON.
pub(super) fn parse_json(text: &str) -> Result<Json, String> {
    let parsed = serde_json::from_str::<Box<RawValue>>(text).map(Json);
    parsed.map_err(|error| format!("not JSON: {} (text needs its quotes: '\"hello\"')", without_line(&error)))
}

#[derive(Deserialize)]
struct Envelope {
    ok: bool,
}

/// Sends the request and prints the answer.
pub(super) async fn run(
    config: &Config,
    peer: &str,
    path: &str,
    data: Option<Json>,
    limit: Duration,
    shutdown: &CancellationToken,
) -> Result<(), CliError> {
    let address = resolve(&config.peers(), peer)?;
    let request = Request { path: path.into(), data: data.as_ref().map(|Json(data)| &**data) };
    let request = serde_json::to_vec(&request).map_err(RequestError::Encode)?;
    let answer = match ask(address, request.into(), limit, shutdown).await {
        Some(Ok(answer)) => answer,
        Some(Err(P2pError::Timeout | P2pError::Busy)) => {
            return Err(RequestError::Timeout { peer: peer.into(), limit }.into());
        }
        Some(Err(source)) => return Err(RequestError::P2p { peer: peer.into(), source }.into()),
        None => return Err(CliError::Interrupted),
    };
    let envelope = std::str::from_utf8(&answer)
        .map_err(|_| "not UTF-8".to_owned())
        .and_then(|text| serde_json::from_str::<Envelope>(text).map(|e| (text, e)).map_err(|e| without_line(&e)));
    match envelope {
        Ok((text, Envelope { ok })) => {
            let text = text.trim();
            if std::io::stdout().is_terminal() {
                print_line(&indented(text))?
            } else {
                print_line(text)?
            }
            if ok { Ok(()) } else { Err(CliError::NotOk) }
        }
        Err(reason) => {
            let shown = String::from_utf8_lossy(&answer).chars().take(MAX_SHOWN_CHARS).collect::<String>();
            Err(RequestError::Envelope { peer: peer.into(), reason, shown: format!("{shown:?}") }.into())
        }
    }
}

/// Connects with an identity made for the occasion, asks, and leaves; `None` if `shutdown` came first. A request that
/// was sent is waited for, 10 s more at most, even if nobody wants its answer: the peer may not bear its connection to
/// close.
async fn ask(
    address: Multiaddr,
    request: Bytes,
    limit: Duration,
    shutdown: &CancellationToken,
) -> Option<Result<Bytes, P2pError>> {
    let deadline = Instant::now() + limit;
    let stop = CancellationToken::new();
    let config = P2pConfig { request_timeout: limit, ..peer::config() };
    let (client, task) = match p2p::start(config, Arc::new(peer::NoPaths), stop.clone()).await {
        Ok(started) => started,
        Err(error) => return Some(Err(error)),
    };
    let asked = async {
        let peer = timeout_at(deadline, client.dial(address)).await.unwrap_or(Err(P2pError::Timeout))?;
        client.request(peer, request, deadline.saturating_duration_since(Instant::now())).await
    };
    let answer = shutdown.run_until_cancelled(asked).await;
    stop.cancel();
    // A task that panicked has nothing to add to the answer.
    let _ = task.await;
    answer
}

/// Valid JSON text with line breaks and indentation. Unlike a parser it keeps every key and number as it came.
fn indented(json: &str) -> String {
    let (mut out, mut depth, mut in_text, mut escaped) = (String::new(), 0_usize, false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    let mut chars = json.chars().filter(|c| !c.is_control()).peekable();
    while let Some(c) = chars.next() {
        if in_text {
            out.push(c);
            in_text = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            ' ' => (),
            '{' | '[' => {
                out.push(c);
                while chars.next_if_eq(&' ').is_some() {}
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(close) => out.push(close),
                    None => {
                        depth += 1;
                        line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => {
                in_text = c == '"';
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indentation_changes_nothing_but_white_space() {
        let text = r#"{"b":[1,{"x":"a, {\"\\"} , "y"],"a":340282366920938463463374607431768211455,"e":{ }}"#;
        let lines = [
            r#"{"#,
            r#"  "b": ["#,
            r#"    1,"#,
            r#"    {"#,
            r#"      "x": "a, {\"\\""#,
            r#"    },"#,
            r#"    "y""#,
            r#"  ],"#,
            r#"  "a": 340282366920938463463374607431768211455,"#,
            r#"  "e": {}"#,
            r#"}"#,
        ];
        assert_eq!(indented(text), lines.join("\n"));
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
    }
}

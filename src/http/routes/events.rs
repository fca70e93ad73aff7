//! `/events`: the chain's events, as server-sent events.
//!
//! A stream reads one batch of events after the other from the store, and only when its client has taken the last one:
//! a slow reader costs one batch, and gets a `reset` when it falls too far behind.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, Uri},
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{
    StreamExt,
    stream::{self, Stream},
};
use tokio_util::sync::CancellationToken;

use crate::{
    http::{
        envelope::{OWN, Rejection, UNBUFFERED},
        extract,
        gateway::Gateway,
        limits::{Permit, client::Client},
    },
    protocol::{
        Code, Failure,
        query::{Kind, Parameter, optional},
    },
    source::{ChainEvent, Cursor, Source},
};

/// How often a stream polls for events. All streams share what the source has read.
const POLL_EVERY: Duration = Duration::from_millis(200);
/// How often it polls while the store fails.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Longest silence of a stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

const AFTER: &str = "after";
const PARAMETERS: &[Parameter] = &[optional(AFTER, Kind::Text)];
/// The header that browsers send when they reconnect.
const LAST_EVENT_ID: &str = "last-event-id";

/// The chain's events
///
/// Server-sent events, without end. `extended`: blocks were appended. `reorganised`: blocks left the chain, and others may
/// have come. `reset`: events before this one are missing, or events sent before are void, so read the chain anew. Each event
/// has a JSON object as `data`, with the `tip` after it, and an `id` to resume after, which stands for that tip too. Without
/// an id the stream begins with the next event.
#[utoipa::path(get, path = "/events", tag = "gateway",
    params(
        ("after" = Option<String>, Query, pattern = "^[0-9]{1,19}(-[0-9a-f]{16})?$",
            description = "Id of the last event received; 0: from the first event on"),
        ("last-event-id" = Option<String>, Header, pattern = "^[0-9]{1,19}(-[0-9a-f]{16})?$",
            example = "1-1a31748356cf9498",
            description = "The same, as browsers send it when they reconnect; takes precedence over `after`")
    ),
    responses((status = 200, description = "The events", body = String, content_type = "text/event-stream")))]
pub(super) async fn follow_chain(
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<Client>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Rejection> {
    let parameters = extract::parameters("/events", PARAMETERS, &uri)?;
    let malformed = |error| Failure::with_detail(Code::InvalidParameter, format!("{AFTER}: {error}"));
    let after = parameters[AFTER].as_str().map(str::parse::<Cursor>).transpose().map_err(malformed)?;
    // A browser would never come back from an error about an id that it has kept: it gets a `reset`.
    let last =
        headers.get(LAST_EVENT_ID).map(|id| id.to_str().ok().and_then(|id| id.parse().ok()).unwrap_or(Cursor::UNKNOWN));
    let permit = gateway.limits.streams.take(client, 1).map_err(|exceeded| gateway.refuse(exceeded))?;
    let after = match last.or(after) {
        Some(after) => Some(after),
        None => gateway.source.state().await.ok().map(|state| Cursor::from(&*state)),
    };
    let follower = Follower {
        source: gateway.source.clone(),
        closing: gateway.closing.clone(),
        after,
        batch: None,
        _permit: permit,
    };
    let stream = Sse::new(follower.stream()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"));
    Ok((OWN, UNBUFFERED, stream))
}

/// A client that follows the chain.
struct Follower {
    source: Arc<Source>,
    closing: CancellationToken,
    /// The last event sent, or where to begin; `None` until the store can be read.
    after: Option<Cursor>,
    /// The batch that was read last, and how many of its events were sent.
    batch: Option<(Arc<[ChainEvent]>, usize)>,
    _permit: Permit,
}

impl Follower {
    /// The events, between a comment with the id to start from, and a last comment when the gateway stops.
    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        let first = match &self.after {
            Some(after) => Event::default().id(after.to_string()).comment("following"),
            None => Event::default().comment("the store is unavailable"),
        };
        let events = stream::unfold(Some(self), |follower: Option<Self>| async {
            let mut follower = follower?;
            Some(match follower.next().await {
                Some(event) => (event, Some(follower)),
                None => (Event::default().comment("the gateway is shutting down"), None),
            })
        });
        stream::iter([first]).chain(events).map(Ok)
    }

    /// The events after the last one; while there is none, those after the chain as it is now.
    async fn read(&mut self) -> Result<Arc<[ChainEvent]>, Failure> {
        let after = match self.after {
            Some(after) => after,
            None => *self.after.insert(Cursor::from(&*self.source.state().await?)),
        };
        self.source.chain_events(after).await
    }

    /// The next event, once there is one; `None` when the gateway stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((events, sent)) = &mut self.batch
                && let Some(ChainEvent { id, name, data }) = events.get(*sent)
            {
                *sent += 1;
                self.after = Some(*id);
                return Some(Event::default().id(id.to_string()).event(name).data(data));
            }
            self.batch = None;
            let pause = match self.read().await {
                Ok(events) if !events.is_empty() => {
                    self.batch = Some((events, 0));
                    Duration::ZERO
                }
                Ok(_) => POLL_EVERY,
                // The stream goes on: the client would not come back from an error by itself.
                Err(_) => RETRY_EVERY,
            };
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

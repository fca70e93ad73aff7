//! `/events`: what becomes of the chain, as server-sent events.
//!
//! A stream reads from the store what its client lacks, one batch after the other, and only when the client has taken
//! the last one: a slow reader costs one batch, and when it falls too far behind it is told so.

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
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Gateway,
    client::Client,
    error::Rejection,
    extract,
    room::{Part, Taken},
    status::OWN,
};
use crate::{
    protocol::{
        Code, Failure,
        query::{Kind, Parameter, optional},
    },
    source::{ChainEvent, Cursor, Source},
};

/// How often a stream looks for news. All of them share what the source has read.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The same after the store failed.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long a stream may be silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

const AFTER: &str = "after";
const PARAMETERS: &[Parameter] = &[optional(AFTER, Kind::Text)];
/// What browsers send when they connect again.
const LAST_EVENT_ID: &str = "last-event-id";

/// The route.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(follow_chain))
}

/// What becomes of the chain
///
/// Server-sent events, without end. `extended`: blocks were appended. `reorganised`: blocks left the chain, and others may
/// have come. `reset`: events are missing before this one, or some that were told are lost, so read the chain anew. Each
/// has a JSON object as `data`, with the `tip` after it, and an `id` to go on after, which stands for that tip too. Without
/// an id only what happens from now on is told.
#[utoipa::path(get, path = "/events", tag = "gateway",
    params(
        ("after" = Option<String>, Query, pattern = "^[0-9]{1,19}(-[0-9a-f]{16})?$",
            description = "Id of the last event that is known; 0: from the first one on"),
        ("last-event-id" = Option<String>, Header, pattern = "^[0-9]{1,19}(-[0-9a-f]{16})?$",
            example = "1-1a31748356cf9498",
            description = "The same, as browsers send it when they connect again; it wins")
    ),
    responses((status = 200, description = "The events", body = String, content_type = "text/event-stream")))]
async fn follow_chain(
    State(gateway): State<Gateway>,
    Extension(client): Extension<Client>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Rejection> {
    let parameters = extract::parameters("/events", PARAMETERS, &uri)?;
    let after = parameters[AFTER].as_str().map(|id| cursor(AFTER, id)).transpose()?;
    let last = headers.get(LAST_EVENT_ID).map(|id| cursor(LAST_EVENT_ID, id.to_str().unwrap_or("?"))).transpose()?;
    let place = gateway.room.streams.take(client, 1).map_err(Taken::failure)?;
    let state = gateway.source.state().await?;
    let follower = Follower {
        source: gateway.source,
        closing: gateway.closing,
        after: last.or(after).unwrap_or_else(|| Cursor::from(&*state)),
        batch: None,
        _place: place,
    };
    Ok((OWN, Sse::new(follower.stream()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"))))
}

/// The id of an event, from the part of the request that has this name.
fn cursor(name: &str, id: &str) -> Result<Cursor, Failure> {
    id.parse::<Cursor>().map_err(|error| Failure::with_detail(Code::InvalidParameter, format!("{name}: {error}")))
}

/// One who follows the chain.
struct Follower {
    source: Arc<Source>,
    closing: CancellationToken,
    /// The last event told.
    after: Cursor,
    /// What the source has told, and how much of it was passed on.
    batch: Option<(Arc<[ChainEvent]>, usize)>,
    _place: Part,
}

impl Follower {
    /// The events, between a first one that only says where they begin, and a last one that only says that they end.
    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        let first = Event::default().id(self.after.to_string()).comment("following");
        let events = stream::unfold(Some(self), |follower: Option<Self>| async {
            let mut follower = follower?;
            Some(match follower.next().await {
                Some(event) => (event, Some(follower)),
                None => (Event::default().comment("the gateway is shutting down"), None),
            })
        });
        stream::iter([first]).chain(events).map(Ok)
    }

    /// The next event, once there is one; `None` when the gateway stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((news, told)) = &mut self.batch
                && let Some(ChainEvent { id, name, data }) = news.get(*told)
            {
                *told += 1;
                self.after = *id;
                return Some(Event::default().id(id.to_string()).event(name).data(data));
            }
            self.batch = None;
            let pause = match self.source.chain_events(self.after).await {
                Ok(news) if !news.is_empty() => {
                    self.batch = Some((news, 0));
                    Duration::ZERO
                }
                Ok(_) => LOOK_EVERY,
                // The client keeps its place: it would not come back from an error by itself.
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

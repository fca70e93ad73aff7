//! `/events`: the chain's events, and those of the sync and the peers, as server-sent events.
//!
//! A stream takes one batch of events after the other, and only when its client has taken the last one. All streams
//! share what is read: a change costs the same whatever their number. A slow reader costs a share of one batch, and
//! gets a `reset` when it falls too far behind.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Uri, header},
    response::IntoResponse,
};
use futures::{
    StreamExt,
    future::pending,
    stream::{self, Stream},
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    chain::words,
    http::{
        envelope::{OWN, Rejection, UNBUFFERED},
        gateway::Gateway,
        limits::{Permit, client::Client},
        numbers::{self, Numbers},
    },
    protocol::{
        Code, Failure,
        query::{self, Kind, Parameter, optional, pairs},
    },
    source::{Cursor, Followed, MalformedCursor, Update},
    store::ChainState,
};

/// Pause after a failed read.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Longest silence of a stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Longest wait for the store before the first bytes of a stream.
const FIRST_WAIT: Duration = Duration::from_millis(500);

const AFTER: &str = "after";
const INCLUDE: &str = "include";
const TOPICS: &str = "topics";
const PARAMETERS: &[Parameter] = &[
    optional(AFTER, Kind::Text),
    optional(TOPICS, Kind::Text),
    optional(INCLUDE, Kind::Text),
    optional(numbers::NAME, Kind::Text),
];
/// The header that browsers send when they reconnect.
const LAST_EVENT_ID: &str = "last-event-id";

/// What a stream can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    Chain,
    Sync,
    Peers,
}

words!(Topic { Chain = "chain", Sync = "sync", Peers = "peers" });

/// What a request asks for.
struct Asked {
    after: Option<Cursor>,
    /// Whether each topic is followed.
    topics: [bool; Topic::ALL.len()],
    blocks: bool,
    numbers: Numbers,
}

/// The chain's events
///
/// Server-sent events, without end; each has a JSON object as `data`. Of the topic `chain`: `extended`, blocks were
/// appended; `reorganised`, blocks left the chain, and others may have come, for which no `extended` follows; `reset`,
/// events before this one are missing, or events sent before are void, so read the chain anew. These have an `id` to
/// resume after, which stands for the tip too. Without an id the stream begins with the next event. Of the topic
/// `sync`: `sync`. Of the topic `peers`: `peers`, then `peer` for each change. Both begin with the current state and
/// have no `id`. The schemas are `ExtendedEvent`, `ReorganisedEvent`, `ResetEvent`, `SyncEvent`, `PeersEvent` and
/// `PeerEvent`.
#[utoipa::path(get, path = "/events", tag = "gateway",
    params(
        ("after" = Option<String>, Query, pattern = "^[0-9]{1,19}(-[0-9a-f]{16})?$",
            description = "Id of the last event received; 0: from the first event on"),
        ("topics" = Option<String>, Query, pattern = "^(chain|sync|peers)(,(chain|sync|peers))*$", example = "chain",
            description = "What to follow: `chain`, the default, `sync` and `peers`, separated by commas or in several parameters"),
        ("include" = Option<String>, Query, pattern = "^blocks$", example = "blocks",
            description = "`blocks`: events of the chain have their blocks, those that left too, unless these are too many"),
        ("last-event-id" = Option<String>, Header, pattern = "^[0-9]{1,19}(-[0-9a-f]{16})?$",
            example = "1-1a31748356cf9498",
            description = "The same as `after`, as browsers send it when they reconnect; takes precedence over it")
    ),
    responses((status = 200, description = "The events", body = String, content_type = "text/event-stream")))]
pub(super) async fn follow_chain(
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<Client>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Rejection> {
    let asked = asked(&uri)?;
    // A browser would never come back from an error about an id that it has kept: it gets a `reset`.
    let last =
        headers.get(LAST_EVENT_ID).map(|id| id.to_str().ok().and_then(|id| id.parse().ok()).unwrap_or(Cursor::UNKNOWN));
    let permit = gateway.limits.streams.take(client, 1).map_err(|exceeded| gateway.refuse(exceeded))?;
    let (source, feeds) = (&gateway.source, gateway.source.feeds());
    let follows = |topic: Topic| asked.topics[topic as usize];
    let chain = if follows(Topic::Chain) {
        let now = async || Some(Cursor::from(&*timeout(FIRST_WAIT, source.state()).await.ok()?.ok()?));
        let after = match last.or(asked.after) {
            None => now().await,
            after => after,
        };
        Some(ChainFollower { states: feeds.follow_chain(), after, blocks: asked.blocks, numbers: asked.numbers })
    } else {
        None
    };
    let topics = [
        follows(Topic::Sync).then(|| TopicFollower::new(feeds.follow_sync())),
        follows(Topic::Peers).then(|| TopicFollower::new(feeds.follow_peers(source.p2p()))),
    ];
    let closing = gateway.closing.clone();
    let follower = Follower { gateway: gateway.clone(), closing, chain, topics, _permit: permit };
    let content_type = [(header::CONTENT_TYPE, "text/event-stream")];
    Ok((OWN, UNBUFFERED, content_type, Body::from_stream(follower.stream())))
}

/// Reads the query string.
fn asked(uri: &Uri) -> Result<Asked, Failure> {
    let invalid = |name: &str, error: String| Failure::with_detail(Code::InvalidParameter, format!("{name}: {error}"));
    let (mut topics, mut others) = ([false; Topic::ALL.len()], Vec::new());
    let pairs = pairs(uri.query().unwrap_or_default())?;
    for (name, value) in &pairs {
        if name != TOPICS {
            others.push((&**name, &**value));
            continue;
        }
        for word in value.split(',') {
            let unknown = |error| {
                let shown: String = word.chars().take(64).collect();
                invalid(TOPICS, format!("{shown:?} is no topic: {error}"))
            };
            topics[word.parse::<Topic>().map_err(unknown)? as usize] = true;
        }
    }
    if !topics.contains(&true) {
        topics[Topic::Chain as usize] = true;
    }
    let parameters = query::data_from_text("/events", Some(PARAMETERS), others.into_iter())?;
    let text = |name: &str| parameters[name].as_str();
    let after = text(AFTER)
        .map(|after| after.parse::<Cursor>().map_err(|error: MalformedCursor| invalid(AFTER, error.to_string())));
    let blocks = match text(INCLUDE) {
        None => false,
        Some("blocks") => true,
        Some(_) => return Err(invalid(INCLUDE, "expected blocks".into())),
    };
    Ok(Asked { after: after.transpose()?, topics, blocks, numbers: Numbers::asked(text(numbers::NAME))? })
}

/// A client that follows.
struct Follower {
    gateway: Arc<Gateway>,
    closing: CancellationToken,
    chain: Option<ChainFollower>,
    topics: [Option<TopicFollower>; 2],
    _permit: Permit,
}

impl Follower {
    /// The events, between a comment with the id to start from, and a last comment when the gateway stops.
    fn stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        let first = match &self.chain {
            Some(ChainFollower { after: Some(after), .. }) => following(*after),
            Some(_) => ": the store is unavailable\n\n".into(),
            None => ": following\n\n".into(),
        };
        let events = stream::unfold(Some(self), |follower: Option<Self>| async {
            let mut follower = follower?;
            let closing = follower.closing.clone();
            Some(tokio::select! {
                biased;
                () = closing.cancelled() => (Bytes::from_static(b": the gateway is shutting down\n\n"), None),
                text = follower.next() => (text, Some(follower)),
            })
        });
        stream::iter([first.into()]).chain(events).map(Ok)
    }

    /// The next events once there are some, or a comment after a long silence.
    async fn next(&mut self) -> Bytes {
        let mut silence = std::pin::pin!(sleep(KEEP_ALIVE));
        loop {
            if let Some(text) = self.topics.iter_mut().flatten().find_map(TopicFollower::next) {
                return text;
            }
            let mut failed = false;
            if let Some(chain) = &mut self.chain {
                match chain.next(&self.gateway).await {
                    Ok(Some(text)) => return text,
                    Ok(None) => {}
                    // The stream goes on: the client would not come back from an error by itself.
                    Err(_) => failed = true,
                }
            }
            let [sync, peers] = &mut self.topics;
            tokio::select! {
                () = changed(self.chain.as_mut().map(|chain| &mut chain.states)) => {}
                () = changed(sync.as_mut().map(|topic| &mut topic.updates)) => {}
                () = changed(peers.as_mut().map(|topic| &mut topic.updates)) => {}
                () = sleep(RETRY_EVERY), if failed => {}
                () = &mut silence => return Bytes::from_static(b": keep-alive\n\n"),
            }
        }
    }
}

/// The first lines of a stream: the id that the client starts from.
fn following(after: Cursor) -> String {
    format!("id: {after}\n: following\n\n")
}

/// Waits for a change of what is followed, if it is.
async fn changed<T: Clone>(followed: Option<&mut Followed<T>>) {
    match followed {
        Some(followed) => followed.changed().await,
        None => pending().await,
    }
}

/// Follows the chain.
struct ChainFollower {
    states: Followed<Arc<ChainState>>,
    /// The last event sent, or where to begin; `None` until the store can be read.
    after: Option<Cursor>,
    blocks: bool,
    numbers: Numbers,
}

impl ChainFollower {
    /// The events after the last one, or first the id to start from; `None` if there are none.
    async fn next(&mut self, gateway: &Gateway) -> Result<Option<Bytes>, Failure> {
        let Some(state) = self.states.latest() else { return Ok(None) };
        let Some(after) = self.after else {
            // Without an id the client would miss what happens before the first event, if it reconnects by then.
            let after = Cursor::from(&*state);
            self.after = Some(after);
            return Ok(Some(following(after).into()));
        };
        let Some(batch) = gateway.source.chain_events(after, &state, self.blocks).await? else { return Ok(None) };
        if let Some(reason) = batch.reset {
            gateway.counters.count_reset(reason);
        }
        self.after = Some(batch.last);
        Ok(Some(match self.numbers {
            Numbers::String if self.blocks => batch.rewritten(Numbers::quoted),
            _ => batch.text.clone(),
        }))
    }
}

/// Follows the sync or the peers.
struct TopicFollower {
    updates: Followed<Arc<Update>>,
    /// Number of the last update sent.
    last: Option<u64>,
}

impl TopicFollower {
    fn new(updates: Followed<Arc<Update>>) -> Self {
        Self { updates, last: None }
    }

    /// The latest change, or the state where changes were missed; `None` if there is nothing new.
    fn next(&mut self) -> Option<Bytes> {
        let update = self.updates.latest().filter(|update| self.last != Some(update.number))?;
        let follows = self.last.is_some_and(|last| last + 1 == update.number);
        self.last = Some(update.number);
        Some(if follows { update.change.clone() } else { update.state.clone() })
    }
}

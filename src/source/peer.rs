//! Answers from a peer of any release: checked, and encoded again as our own.

use std::time::Duration;

use bytes::Bytes;
use libp2p::PeerId;
use tokio::time::Instant;

use crate::{
    p2p::{P2pClient, P2pError},
    protocol::{
        self, Answer, BlockList, Code, Failure, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, Query, answer, peers_words,
    },
};

/// Longest answer that is parsed on the calling task, in bytes.
const MAX_INLINE_BYTES: usize = 32 << 10;

/// Runs `parse`, on a blocking thread if the text is longer than 32 KiB. `None` if it panicked, or the program ends.
pub async fn parse_blocking<T: Send + 'static>(bytes: usize, parse: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match bytes > MAX_INLINE_BYTES {
        true => {
            let parsed = tokio::task::spawn_blocking(parse).await;
            parsed.inspect_err(|error| tracing::error!(%error, "an answer could not be parsed")).ok()
        }
        false => Some(parse()),
    }
}

/// Sends `query` to one peer, in as many requests as it takes, all within `timeout`.
pub(super) async fn ask(p2p: &P2pClient, peer: PeerId, query: &Query, timeout: Duration) -> Result<Answer, Failure> {
    let request_to = PeerRequest { p2p, peer, deadline: Instant::now() + timeout };
    match query {
        Query::Range { from_index, to_index, chunk_size } => {
            request_to.range(*from_index, *to_index, *chunk_size).await
        }
        query => request_to.once(query).await,
    }
}

/// Whether a failure is particular to the peer, so that another one may answer.
pub(super) fn is_worth_another_peer(code: Code) -> bool {
    matches!(
        code,
        Code::Busy
            | Code::UnknownPeer
            | Code::UnknownPath
            | Code::PeerUnreachable
            | Code::PeerTimeout
            | Code::PeerBrokeProtocol
            | Code::PeerError
    )
}

/// Whether an answer holds blocks, and so has a verification level.
pub(super) fn holds_blocks(answer: &Answer) -> bool {
    match answer {
        Answer::Get(_) | Answer::Canonical(_) | Answer::Epoch { .. } | Answer::Range { .. } => true,
        Answer::ChainInfo { blocks, .. } => blocks.is_some(),
        Answer::Ping(_) | Answer::Inspect(_) | Answer::Headers(_) | Answer::FindAncestor(_) | Answer::DebugIndex(_) => {
            false
        }
    }
}

struct PeerRequest<'a> {
    p2p: &'a P2pClient,
    peer: PeerId,
    deadline: Instant,
}

impl PeerRequest<'_> {
    async fn once(&self, query: &Query) -> Result<Answer, Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let (request, most_bytes) = (protocol::encode_request(query), query.most_bytes());
        // Longer than the body that it came in: around it there is an envelope, and numbers may be written out.
        if request.len() > MAX_REQUEST_BYTES {
            let detail = format!("a question to a peer has at most {MAX_REQUEST_BYTES} bytes");
            return Err(Failure::with_detail(Code::RequestTooLarge, detail));
        }
        let answer = self.p2p.request_within(self.peer, request, most_bytes, left).await;
        let (query, (bytes, _)) = (query.clone(), answer.map_err(p2p_failure)?);
        let answer = parse_blocking(bytes.len(), move || read_answer(&query, &bytes)).await;
        answer.unwrap_or_else(|| Err(Failure::new(Code::Internal)))
    }

    /// A range, collected from a peer that may answer in smaller chunks than requested (today's nodes: 50), or ignore
    /// chunk sizes (the first release).
    async fn range(&self, from_index: u64, requested_to: u64, chunk_size: u64) -> Result<Answer, Failure> {
        let end = answer::clamped_end(from_index, requested_to, chunk_size);
        let mut all = BlockList::default();
        let mut next = from_index;
        let reached = loop {
            let query = Query::Range { from_index: next, to_index: end, chunk_size: end - next + 1 };
            let Answer::Range { blocks, to_index, has_more, .. } = self.once(&query).await? else { break false };
            // Most likely its chain ends here. More requests for the rest of a wide range would load it in vain.
            if blocks.count == 0 {
                break false;
            }
            if !all.json.is_empty() {
                all.json.push(',');
            }
            all.json.push_str(&blocks.json);
            all.count += blocks.count;
            if all.json.len() > MAX_RESPONSE_BYTES {
                return Err(Failure::new(Code::AnswerTooLarge));
            }
            // The indexes tell how far the answer goes: an index may have several blocks, or none. The decoder checked
            // that `to_index` is at least `next` and at most `end`.
            if to_index == end || !has_more {
                break to_index == end;
            }
            next = to_index + 1;
        };
        // A peer's `has_more` is no proof: nodes set it past their tips. Only the next block is.
        let has_more = reached && requested_to > end && self.has_block(end + 1).await?;
        Ok(Answer::Range { from_index, to_index: end, requested_to, chunk_size, has_more, blocks: all })
    }

    async fn has_block(&self, index: u64) -> Result<bool, Failure> {
        let query = Query::Range { from_index: index, to_index: index, chunk_size: 1 };
        Ok(matches!(self.once(&query).await?, Answer::Range { blocks, .. } if blocks.count > 0))
    }
}

fn read_answer(query: &Query, bytes: &Bytes) -> Result<Answer, Failure> {
    let broken = |why: String| Failure::with_detail(Code::PeerBrokeProtocol, peers_words(&why));
    let data = protocol::open_envelope(bytes).map_err(|error| broken(error.to_string()))??;
    Answer::decode(query, data).map_err(broken)
}

/// The failure that a client gets for a failed request to a peer. The reason may name addresses, so it is only logged.
pub(super) fn p2p_failure(error: P2pError) -> Failure {
    tracing::debug!(%error, "a peer could not be asked");
    match error {
        P2pError::UnknownPeer => Failure::new(Code::UnknownPeer),
        P2pError::Timeout => Failure::new(Code::PeerTimeout),
        P2pError::TooLarge => {
            Failure::with_detail(Code::PeerBrokeProtocol, "an answer longer than any to this question")
        }
        P2pError::BadAnswer(_) => Failure::with_detail(Code::PeerBrokeProtocol, "the answer broke off"),
        P2pError::Unsupported => Failure::with_detail(Code::PeerBrokeProtocol, "it does not speak the sync protocol"),
        P2pError::Busy => Failure::new(Code::Busy),
        P2pError::Unreachable(_)
        | P2pError::Stopped
        | P2pError::Listen { .. }
        | P2pError::DuplicateAlias(_)
        | P2pError::Identity(_)
        | P2pError::Setup { .. } => Failure::new(Code::PeerUnreachable),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn long_answers_are_parsed_on_another_thread() {
        let parse = || thread::current().id();
        assert_eq!(parse_blocking(MAX_INLINE_BYTES, parse).await, Some(parse()));
        assert_ne!(parse_blocking(MAX_INLINE_BYTES + 1, parse).await.unwrap(), parse());
    }

    #[test]
    fn a_peers_text_is_not_quoted_at_length() {
        let answer = format!(r#"{{"ok":true,"data":{{"epoch":"\u001b[2J{}"}},"errors":null}}"#, "x".repeat(5000));
        let failure = read_answer(&Query::Epoch { epoch: 0 }, &answer.into()).unwrap_err();
        let detail = failure.detail.unwrap();
        assert!(detail.chars().count() <= 200 && !detail.contains('\u{1b}'), "{detail}");
    }
}

//! The representations of an answer (RFC 9110, section 3.2): formats and content codings of the same data.
//!
//! An answer of the source is JSON. Any other representation is made from it once and cached under its entity tag. The
//! tag follows from the JSON's bytes, so the representation stays valid while the chain grows, and all answers with the
//! same bytes share it.

use std::sync::Arc;

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, Method},
};
use moka::future::Cache;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{
    counters::Counter,
    negotiation::{Coding, Codings, Conditions, Format},
    numbers::Numbers,
};
use crate::{
    chain::MinerBlock,
    protocol::{Code, Failure},
    source::EncodedAnswer,
};

/// Largest body that is kept, in bytes.
const MAX_KEPT_BYTES: usize = 1 << 20;
/// Estimated memory of an entry beside its body and its tag.
const ENTRY_OVERHEAD: usize = 256;
/// Longest JSON whose representations are made on the runtime's threads, in bytes: it takes less than a millisecond.
const SHORT_JSON: usize = 16 << 10;

/// The form in which an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Representation {
    pub(super) format: Format,
    pub(super) numbers: Numbers,
    pub(super) coding: Option<Coding>,
}

/// What a client prefers, and the conditions of its request.
#[derive(Debug)]
pub struct Preferences {
    format: Format,
    numbers: Numbers,
    codings: Codings,
    /// The conditions.
    pub(super) conditions: Conditions,
}

impl Preferences {
    /// Those of a request; `is_list`: for a list of blocks, which has more formats.
    ///
    /// # Errors
    /// [`Code::NotAcceptable`].
    pub(super) fn of(method: &Method, headers: &HeaderMap, is_list: bool, numbers: Numbers) -> Result<Self, Failure> {
        let format = Format::of(headers, is_list)?;
        // In CSV every number is exact already.
        let numbers = if format == Format::Csv { Numbers::default() } else { numbers };
        Ok(Self { format, numbers, codings: Codings::of(headers)?, conditions: Conditions::of(method, headers) })
    }

    /// The representation of an answer whose JSON has so many bytes, `None` if that is unknown. The tag of an answer
    /// must follow from the request and the JSON alone, so the length of the format itself does not matter.
    pub(super) fn representation(&self, json_bytes: Option<usize>) -> Representation {
        Representation { format: self.format, numbers: self.numbers, coding: self.codings.choose(json_bytes) }
    }
}

/// The body of a representation.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    pub(super) body: Bytes,
    /// Bytes before the compression.
    pub(super) uncompressed: u64,
}

impl Representation {
    /// The entity tag, where `tag` is that of the JSON, in quotes: strong, since each form has one of its own.
    pub(super) fn etag(self, tag: &Bytes) -> HeaderValue {
        let empty = HeaderValue::from_static("\"\"");
        if self == Self::default() {
            return HeaderValue::from_maybe_shared(tag.clone()).unwrap_or(empty);
        }
        let tag = tag.strip_suffix(b"\"").and_then(|tag| str::from_utf8(tag).ok()).unwrap_or_default();
        let format = match self.format {
            Format::Json => "",
            Format::Ndjson => "-lines",
            Format::Csv => "-csv",
        };
        let numbers = if self.numbers == Numbers::String { "-strings" } else { "" };
        let coding = self.coding.map(|coding| format!("-{coding}")).unwrap_or_default();
        HeaderValue::try_from(format!("{tag}{format}{numbers}{coding}\"")).unwrap_or(empty)
    }

    /// Makes the body.
    fn encode(self, answer: &EncodedAnswer) -> Result<Encoded, Failure> {
        let plain = match self.format {
            Format::Json => self.with_numbers(answer.body.clone())?,
            Format::Ndjson => self.with_numbers(joined(&listed(answer)?).into())?,
            Format::Csv => {
                let blocks = listed(answer)?;
                let blocks = blocks.iter().map(|block| serde_json::from_str(block.get()).map_err(unreadable));
                let blocks = blocks.collect::<Result<Vec<MinerBlock>, Failure>>()?;
                (MinerBlock::csv_header() + &MinerBlock::csv_lines(&blocks)).into()
            }
        };
        let uncompressed = plain.len() as u64;
        let body = match self.coding {
            None => plain,
            Some(coding) => coding.compress(&plain).map_err(unreadable)?.into(),
        };
        Ok(Encoded { body, uncompressed })
    }

    /// Blocks, or an answer with blocks, with their miner numbers as the client wants them.
    fn with_numbers(self, json: Bytes) -> Result<Bytes, Failure> {
        match self.numbers {
            Numbers::Number => Ok(json),
            Numbers::String => Ok(Numbers::quoted(std::str::from_utf8(&json).map_err(unreadable)?).into()),
        }
    }
}

/// Makes representations and keeps them, those that were used most.
pub(super) struct Representations {
    cache: Cache<String, Encoded>,
    /// A permit for each core: making one takes nothing but processor time.
    workers: Arc<Semaphore>,
    /// Representations that were made.
    pub(super) made: Counter,
}

impl Representations {
    /// Keeps at most so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let weight = |tag: &String, encoded: &Encoded| {
            u32::try_from(tag.len() + encoded.body.len() + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cache: Cache::builder().max_capacity(bytes).weigher(weight).build(),
            workers: Arc::new(Semaphore::new(cores)),
            made: Counter::default(),
        }
    }

    /// The body of an answer in this representation, whose entity tag is `etag`. Concurrent callers share the work.
    pub(super) async fn get(
        &self,
        answer: &Arc<EncodedAnswer>,
        representation: Representation,
        etag: &HeaderValue,
    ) -> Result<Encoded, Failure> {
        if representation == Representation::default() {
            return Ok(Encoded { body: answer.body.clone(), uncompressed: answer.body.len() as u64 });
        }
        let key = etag.to_str().map_err(unreadable)?.to_owned();
        // One that is too large to be kept is returned as an error.
        let make = async {
            match self.make(answer.clone(), representation).await {
                Ok(encoded) if encoded.body.len() <= MAX_KEPT_BYTES => Ok(encoded),
                other => Err(other),
            }
        };
        Box::pin(self.cache.try_get_with(key, make)).await.or_else(Arc::unwrap_or_clone)
    }

    async fn make(&self, answer: Arc<EncodedAnswer>, representation: Representation) -> Result<Encoded, Failure> {
        self.made.add();
        if answer.body.len() <= SHORT_JSON {
            return representation.encode(&answer);
        }
        let permit = self.workers.clone().acquire_owned().await.map_err(unreadable)?;
        let encode = move || {
            let _permit = permit;
            representation.encode(&answer)
        };
        spawn_blocking(encode).await.map_err(unreadable)?
    }

    /// Representations and bytes that are kept.
    pub(super) async fn kept(&self) -> (u64, u64) {
        self.cache.run_pending_tasks().await;
        (self.cache.entry_count(), self.cache.weighted_size())
    }
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    blocks: Vec<&'a RawValue>,
}

/// The blocks of an answer that is a list.
fn listed(answer: &EncodedAnswer) -> Result<Vec<&RawValue>, Failure> {
    let Listed { blocks } = serde_json::from_slice(answer.data()).map_err(unreadable)?;
    Ok(blocks)
}

/// Blocks that are joined by commas, one a line.
pub(super) fn lines(json: &str) -> Result<String, Failure> {
    let list = format!("[{json}]");
    let blocks: Vec<&RawValue> = serde_json::from_str(&list).map_err(unreadable)?;
    Ok(joined(&blocks))
}

fn joined(blocks: &[&RawValue]) -> String {
    let mut out = String::with_capacity(blocks.iter().map(|block| block.get().len() + 1).sum());
    for block in blocks {
        out.push_str(block.get());
        out.push('\n');
    }
    out
}

/// The failure for an answer of ours that we can't read, or work that was cut off.
pub(super) fn unreadable<E>(_: E) -> Failure {
    Failure::new(Code::Internal)
}

//! The routes under `/chain`: their parameters, and how a request becomes a view. Handlers and the OpenAPI document
//! both use the table.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, MatchedPath, RawPathParams, Request, rejection::RawPathParamsRejection},
    http::request::Parts,
};
use serde_json::Value;

use super::{
    envelope::Rejection,
    extract,
    gateway::Gateway,
    numbers::{self, Numbers},
    representations::Preferences,
};
use crate::{
    protocol::{
        Code, Failure,
        query::{Kind, Parameter, optional},
    },
    source::view::{BlockId, MAX_EPOCHS, MAX_PAGE, MAX_RANKED_EPOCHS, ViewQuery},
};

const ANCHOR: &str = "anchor";
const BEFORE: &str = "before";
const LIMIT: &str = "limit";
const EPOCHS: &str = "epochs";
const TEXT: &str = "q";

/// Items of a page where the client does not say how many.
const DEFAULT_PAGE: u64 = 20;
/// Epochs of a page, or of a ranking, where the client does not say how many.
const DEFAULT_EPOCHS: u64 = 10;
/// Longest text that is looked for, in bytes: nothing that is found has a longer name.
pub(super) const MAX_TEXT: usize = 1024;

/// A route.
pub(super) struct View {
    /// The path, as the router has it.
    pub path: &'static str,
    /// The query parameters.
    pub parameters: &'static [Parameter],
    /// The most that `limit` or `epochs` may be, and their value where they are absent.
    pub most: u64,
    pub default: u64,
    /// Whether the answer holds whole blocks.
    pub has_blocks: bool,
    parse: fn(&Given<'_>) -> Result<ViewQuery, Failure>,
}

const NUMBERS: Parameter = optional(numbers::NAME, Kind::Text);
const BLOCKS: &[Parameter] =
    &[optional(BEFORE, Kind::Integer), optional(LIMIT, Kind::Integer), optional(ANCHOR, Kind::Text), NUMBERS];
const PAGE: &[Parameter] = &[optional(BEFORE, Kind::Integer), optional(LIMIT, Kind::Integer)];
const ANCHORED_PAGE: &[Parameter] =
    &[optional(BEFORE, Kind::Integer), optional(LIMIT, Kind::Integer), optional(ANCHOR, Kind::Text)];

/// Every route under `/chain`.
pub(super) static VIEWS: [View; 10] = [
    View {
        parameters: BLOCKS,
        has_blocks: true,
        ..view("/chain/blocks", |given| Ok(ViewQuery::Blocks { before: given.integer(BEFORE), limit: given.limit()? }))
    },
    View {
        parameters: &[NUMBERS],
        has_blocks: true,
        ..view("/chain/blocks/{id}", |given| Ok(ViewQuery::Block(BlockId::from(given.segment))))
    },
    View {
        parameters: &[optional(BEFORE, Kind::Text), optional(LIMIT, Kind::Integer), NUMBERS],
        has_blocks: true,
        ..view("/chain/orphans", |given| {
            Ok(ViewQuery::Orphans { before: given.text(BEFORE).map(position).transpose()?, limit: given.limit()? })
        })
    },
    View {
        parameters: ANCHORED_PAGE,
        most: MAX_EPOCHS,
        default: DEFAULT_EPOCHS,
        ..view("/chain/epochs", |given| Ok(ViewQuery::Epochs { before: given.integer(BEFORE), limit: given.limit()? }))
    },
    view("/chain/epochs/{epoch}", |given| Ok(ViewQuery::Epoch(extract::integer("epoch", given.segment)?))),
    View {
        parameters: &[optional(EPOCHS, Kind::Integer)],
        most: MAX_RANKED_EPOCHS,
        default: DEFAULT_EPOCHS,
        ..view("/chain/nominees", |given| Ok(ViewQuery::Nominees { epochs: given.count(EPOCHS)? }))
    },
    View {
        parameters: BLOCKS,
        has_blocks: true,
        ..view("/chain/nominees/{peer}", |given| {
            let peer = given.segment.to_owned();
            Ok(ViewQuery::Nominee { peer, before: given.integer(BEFORE), limit: given.limit()? })
        })
    },
    view("/chain/network", |_| Ok(ViewQuery::Network)),
    View {
        parameters: PAGE,
        ..view("/chain/reorganisations", |given| {
            Ok(ViewQuery::Reorganisations { before: given.integer(BEFORE), limit: given.limit()? })
        })
    },
    View {
        parameters: &[Parameter { name: TEXT, kind: Kind::Text, required: true }],
        ..view("/chain/search", |given| {
            let missing = || Failure::with_detail(Code::MissingParameter, "q: the text to look for");
            let text = given.text(TEXT).ok_or_else(missing)?;
            if text.len() > MAX_TEXT {
                return Err(Failure::with_detail(Code::InvalidParameter, format!("q: at most {MAX_TEXT} bytes")));
            }
            Ok(ViewQuery::Search(text.to_owned()))
        })
    },
];

/// A view without parameters, or with the usual bounds of a page.
const fn view(path: &'static str, parse: fn(&Given<'_>) -> Result<ViewQuery, Failure>) -> View {
    View { path, parameters: &[], most: MAX_PAGE, default: DEFAULT_PAGE, has_blocks: false, parse }
}

/// What a request gives.
struct Given<'a> {
    view: &'a View,
    /// The variable part of the path.
    segment: &'a str,
    /// The query parameters.
    data: &'a Value,
}

impl Given<'_> {
    fn integer(&self, name: &str) -> Option<u64> {
        self.data[name].as_u64()
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.data[name].as_str()
    }

    fn limit(&self) -> Result<u64, Failure> {
        self.count(LIMIT)
    }

    /// A number of items from 1 to the most of the view.
    fn count(&self, name: &str) -> Result<u64, Failure> {
        let count = self.integer(name).unwrap_or(self.view.default);
        match (1..=self.view.most).contains(&count) {
            true => Ok(count),
            false => {
                let detail = format!("{name}: expected a number from 1 to {}", self.view.most);
                Err(Failure::with_detail(Code::InvalidParameter, detail))
            }
        }
    }
}

/// Index and hash of an orphan, `<index>:<hash>`, as `next_before` has them; an index alone stands for all below it.
fn position(text: &str) -> Result<(u64, String), Failure> {
    match text.split_once(':') {
        Some((index, hash)) => Ok((extract::integer(BEFORE, index)?, hash.to_owned())),
        // No index is below genesis': nothing comes before it.
        None => match extract::integer(BEFORE, text)?.checked_sub(1) {
            Some(below) => Ok((below, String::new())),
            None => Ok((0, char::MAX.to_string())),
        },
    }
}

/// A view that is asked for.
#[derive(Debug)]
pub struct ViewRead {
    /// What to view.
    pub query: ViewQuery,
    /// The block that a paged read is pinned to: `?anchor=`.
    pub anchor: Option<String>,
    /// What the client prefers, and the conditions of the request.
    pub preferences: Preferences,
}

impl FromRequest<Arc<Gateway>> for ViewRead {
    type Rejection = Rejection;

    async fn from_request(request: Request, gateway: &Arc<Gateway>) -> Result<Self, Rejection> {
        let (mut parts, _) = request.into_parts();
        let path = parts.extensions.get::<MatchedPath>().cloned();
        let view = VIEWS.iter().find(|view| path.as_ref().is_some_and(|path| path.as_str() == view.path));
        let view = view.ok_or_else(|| Failure::new(Code::UnknownPath))?;
        let segment = segment(&mut parts, gateway).await?;
        let data = extract::parameters(view.path, view.parameters, &parts.uri)?;
        let numbers = Numbers::asked(data[numbers::NAME].as_str())?;
        Ok(Self {
            query: (view.parse)(&Given { view, segment: &segment, data: &data })?,
            anchor: data[ANCHOR].as_str().map(str::to_owned),
            preferences: Preferences::of(&parts.method, &parts.headers, false, numbers)?,
        })
    }
}

/// The variable part of the path, decoded.
async fn segment(parts: &mut Parts, gateway: &Arc<Gateway>) -> Result<String, Failure> {
    use axum::extract::FromRequestParts;
    let malformed = |_: RawPathParamsRejection| {
        Failure::with_detail(Code::InvalidParameter, "the path is not UTF-8 after percent-decoding")
    };
    let parameters = RawPathParams::from_request_parts(parts, gateway).await.map_err(malformed)?;
    Ok(parameters.iter().next().map(|(_, value)| value.to_owned()).unwrap_or_default())
}

/// The meaning of a parameter of a view, for the OpenAPI document.
pub(super) fn description(path: &str, name: &str) -> &'static str {
    match (path, name) {
        ("/chain/blocks/{id}", "id") => "Hash of the block, or its index: then the canonical block",
        (_, "epoch") => "Number of the epoch",
        (_, "peer") => "The nominated peer",
        ("/chain/orphans", BEFORE) => "`next_before` of the page before; an index: only blocks below it",
        ("/chain/epochs", BEFORE) => "Only epochs below this one: `next_before` of the page before",
        ("/chain/reorganisations", BEFORE) => "Only those with a lower `id`: `next_before` of the page before",
        (_, BEFORE) => "Only blocks below this index: `next_before` of the page before",
        (_, LIMIT) => "Most items of the page",
        (_, EPOCHS) => "Number of epochs that count, the newest",
        (_, ANCHOR) => {
            "Hash of a block that the chain must hold, so that a read in pages stays on one chain; 409 with the common \
             ancestor if it was reorganised away"
        }
        (_, TEXT) => "An index, the number of an epoch, a hash or at least 8 digits of its beginning, or a nominee",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("5:ab", Ok((5, "ab")))]
    #[case("5:", Ok((5, "")))]
    #[case("5:a:b", Ok((5, "a:b")))]
    #[case("5", Ok((4, "")))]
    #[case("0", Ok((0, "\u{10ffff}")))]
    #[case("x", Err(()))]
    #[case(":ab", Err(()))]
    fn the_place_of_an_orphan(#[case] text: &str, #[case] expected: Result<(u64, &str), ()>) {
        let found = position(text);
        assert_eq!(found.as_ref().map(|(index, hash)| (*index, hash.as_str())).map_err(|_| ()), expected);
    }
}
